# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Newline-delimited JSON: where a line ends (compiled).

What it is: the compiled twin of ``ndjson_py``, which is the specification and says what a
line is, and why. What it must never do: cut at another place, or hold more than its twin.

The algorithm is the specification's: one search for each LF, and a line that came in
pieces is joined when its LF has come.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy

from mcpx.errors import RemoteProtocolError

__all__ = ["LineParser"]

cdef enum:
    _CR = 13
    _LF = 10
    #: More room than this is given back when nothing is held.
    _KEPT_ROOM = 4096


cdef class LineParser:
    """Cuts one stream into lines.

    ``limit_bytes`` bounds what stands before a line's LF, a CR included. A stream that
    exceeds it is at its end: lines that were whole before are still handed out, and then
    every call raises ``RemoteProtocolError`` (status 502).
    """

    cdef Py_ssize_t _limit
    #: The line that is not yet whole.
    cdef uint8_t *_tail
    cdef Py_ssize_t _held
    cdef Py_ssize_t _room
    cdef bint _broken

    def __cinit__(self, Py_ssize_t limit_bytes):
        self._limit = limit_bytes

    def __dealloc__(self):
        free(self._tail)

    @cython.critical_section
    def feed(self, data):
        """Take what has arrived; the lines that it makes whole, in order.

        They come without their line ends. Empty lines are passed over.
        """
        cdef Py_buffer view
        if self._broken:
            raise self._too_long()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._fed(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    @property
    @cython.critical_section
    def held(self):
        """How many bytes have come of the line that is not yet whole."""
        return self._held

    @cython.critical_section
    def end(self):
        """What stands after the last LF: at the stream's end, a line that was cut off.

        Raises:
            RemoteProtocolError: the stream held a line over the limit.
        """
        if self._broken:
            raise self._too_long()
        return PyBytes_FromStringAndSize(<const char *>self._tail, self._held)

    cdef list _fed(self, const uint8_t *data, Py_ssize_t size):
        cdef const uint8_t *stop = data + size
        cdef const uint8_t *found
        cdef bytes line
        cdef list lines = []
        while data < stop:
            found = <const uint8_t *>memchr(data, _LF, stop - data)
            if found == NULL:
                break
            if self._held + (found - data) > self._limit:
                self._broken = True
                break
            line = self._line(data, found - data)
            if line is not None:
                lines.append(line)
            data = found + 1
        if not self._broken:
            self._keep(data, stop - data)
        if self._broken:
            self._held = 0
            self._give_back()
            if not lines:
                raise self._too_long()
        return lines

    cdef bytes _line(self, const uint8_t *data, Py_ssize_t size):
        """The line that is held and ``data``; ``None`` if it is empty."""
        cdef Py_ssize_t held = self._held
        cdef bytes line
        cdef uint8_t *out
        self._held = 0
        if size:
            if data[size - 1] == _CR:
                size -= 1
        elif held and self._tail[held - 1] == _CR:
            held -= 1
        if held == 0:
            return PyBytes_FromStringAndSize(<const char *>data, size) if size else None
        line = PyBytes_FromStringAndSize(NULL, held + size)
        out = <uint8_t *>PyBytes_AS_STRING(line)
        memcpy(out, self._tail, held)
        memcpy(out + held, data, size)
        self._give_back()
        return line

    cdef int _keep(self, const uint8_t *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t room = self._held + size
        cdef void *moved
        if room > self._limit:
            self._broken = True
            return 0
        if size == 0:
            return 0
        if room > self._room:
            room = max(room, self._room + self._room // 2)
            moved = realloc(self._tail, room)
            if moved == NULL:
                raise MemoryError
            self._tail = <uint8_t *>moved
            self._room = room
        memcpy(self._tail + self._held, data, size)
        self._held += size
        return 0

    cdef void _give_back(self) noexcept:
        if self._room > _KEPT_ROOM:
            free(self._tail)
            self._tail = NULL
            self._room = 0

    cdef object _too_long(self):
        return RemoteProtocolError(f"a line is longer than {self._limit} bytes", 502)
