# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Server-sent events: where one ends, and what its fields say (compiled).

What it is: the compiled twin of ``sse_py``, which is the specification and says what an
event is, and why. What it must never do: cut at another place, read a field otherwise, or
hold more than its twin.

The algorithm is the specification's. Line ends are looked for with ``memchr``, one search
for CR and one for LF, each of which is made anew only when it has been passed: so every
byte is looked at a bounded number of times, also in a stream that uses one of the two
alone. A piece that comes while nothing is held is read where it lies; only what is left of
it is copied.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from mcpx.errors import RemoteProtocolError

__all__ = ["Event", "EventParser"]

cdef enum:
    _CR = 13
    _LF = 10
    #: More room than this is given back when nothing is held.
    _KEPT_ROOM = 4096
    #: More room than this is given back when less than a quarter of it is used.
    _LARGE_ROOM = 65536

cdef const uint8_t *_BOM = b"\xef\xbb\xbf"

cdef struct Lines:
    #: A text that is cut into lines, and where the next CR and LF are known to be.
    const uint8_t *text
    Py_ssize_t size
    Py_ssize_t next_cr
    Py_ssize_t next_lf

cdef struct Value:
    #: A field's value; no bytes at all (NULL) if the field is absent.
    const uint8_t *at
    Py_ssize_t size


cdef class Event:
    """One event, with its bytes.

    ``raw`` holds its lines and the blank line that ends it. ``data`` is the text of the
    data lines joined by LF, None if there is none: a client gets no message from such an
    event. ``event`` and ``id`` are the last value of the field, None if absent. ``start``
    is how many bytes at the head of ``raw`` are not part of its lines: the byte order
    mark of the stream, or the LF of a line end whose CR closed the event before.
    """

    cdef public bytes raw
    cdef public bytes data
    cdef public bytes event
    cdef public bytes id
    cdef public Py_ssize_t start

    def __init__(self, bytes raw, bytes data, bytes event, bytes id, Py_ssize_t start=0):
        self.raw = raw
        self.data = data
        self.event = event
        self.id = id
        self.start = start

    def __repr__(self):
        return f"Event({self.raw!r})"


cdef class EventParser:
    """Cuts one stream into events.

    ``limit_bytes`` bounds the raw bytes of one event. A stream that exceeds it is at its
    end: events that were whole before are still handed out, and then every call raises
    ``RemoteProtocolError`` (status 502).
    """

    cdef Py_ssize_t _limit
    #: The event that is not yet whole.
    cdef uint8_t *_tail
    cdef Py_ssize_t _held
    cdef Py_ssize_t _room
    #: How many bytes of it have no blank line's beginning in them.
    cdef Py_ssize_t _scanned
    cdef bint _first
    cdef bint _after_cr
    cdef bint _broken

    def __cinit__(self, Py_ssize_t limit_bytes):
        self._limit = limit_bytes
        self._first = True

    def __dealloc__(self):
        free(self._tail)

    @cython.critical_section
    def feed(self, data):
        """Take what has arrived; the events that it makes whole, in order."""
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
        """How many bytes have come of the event that is not yet whole."""
        return self._held

    @cython.critical_section
    def rest(self):
        """The bytes after the last whole event. A client drops them at the stream's end.

        Raises:
            RemoteProtocolError: the stream held an event over the limit.
        """
        if self._broken:
            raise self._too_long()
        return PyBytes_FromStringAndSize(<const char *>self._tail, self._held)

    cdef list _fed(self, const uint8_t *data, Py_ssize_t size):
        cdef Lines lines
        cdef Py_ssize_t begin = 0, start, end
        cdef bint kept = self._held > 0
        cdef list events = []
        if kept:
            self._keep(data, size)
            data = self._tail
            size = self._held
        lines.text = data
        lines.size = size
        lines.next_cr = lines.next_lf = -1
        while begin < size:
            start = self._skipped(data, begin, size)
            if start < 0:
                break
            end = self._end(&lines, begin, start)
            if end < 0:
                break
            if end - begin > self._limit:
                self._broken = True
                break
            events.append(_event(data + begin, start - begin, end - begin))
            self._first = False
            self._after_cr = data[end - 1] == _CR
            self._scanned = 0
            begin = end
        if not kept:
            self._keep(data + begin, size - begin)
        elif begin:
            self._held = size - begin
            memmove(self._tail, self._tail + begin, self._held)
            self._give_back()
        if self._held > self._limit:
            self._broken = True
        if self._broken and not events:
            raise self._too_long()
        return events

    cdef int _keep(self, const uint8_t *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t room = self._held + size
        cdef void *moved
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
        cdef void *moved
        if self._held == 0:
            if self._room > _KEPT_ROOM:
                free(self._tail)
                self._tail = NULL
                self._room = 0
        elif self._room > _LARGE_ROOM and self._held < self._room // 4:
            moved = realloc(self._tail, self._held)
            if moved != NULL:
                self._tail = <uint8_t *>moved
                self._room = self._held

    cdef Py_ssize_t _skipped(self, const uint8_t *text, Py_ssize_t begin, Py_ssize_t size) noexcept:
        """Where the event's lines start; -1 if that can't be told yet."""
        if self._after_cr:
            return begin + 1 if text[begin] == _LF else begin
        if self._first and text[begin] == _BOM[0]:
            size = min(size - begin, 3)
            if memcmp(text + begin, _BOM, size) == 0:
                return begin + 3 if size == 3 else -1
        return begin

    cdef Py_ssize_t _end(self, Lines *lines, Py_ssize_t begin, Py_ssize_t start) noexcept:
        """Where the event ends whose lines start at ``start``; -1 if it is not whole."""
        cdef Py_ssize_t at = start
        if at == lines.size:
            return -1
        if lines.text[at] != _LF and lines.text[at] != _CR:
            at = _line_end(lines, max(start, self._scanned))
            while at < lines.size:
                at = _next_line(lines, at)
                if at == lines.size or lines.text[at] == _LF or lines.text[at] == _CR:
                    break
                at = _line_end(lines, at)
            if at == lines.size:
                # Only the tail that is kept is searched again, so count from its first byte.
                self._scanned = max(0, lines.size - begin - 2)
                return -1
        return _next_line(lines, at)

    cdef object _too_long(self):
        return RemoteProtocolError(f"an event is longer than {self._limit} bytes", 502)


cdef inline Py_ssize_t _found(Lines *lines, Py_ssize_t at, int char) noexcept:
    cdef const void *place = memchr(lines.text + at, char, lines.size - at)
    return lines.size if place == NULL else <const uint8_t *>place - lines.text


cdef inline Py_ssize_t _line_end(Lines *lines, Py_ssize_t at) noexcept:
    """The first CR or LF from ``at`` on; the text's size if there is none."""
    if lines.next_cr < at:
        lines.next_cr = _found(lines, at, _CR)
    if lines.next_lf < at:
        lines.next_lf = _found(lines, at, _LF)
    return min(lines.next_cr, lines.next_lf)


cdef inline Py_ssize_t _next_line(Lines *lines, Py_ssize_t end) noexcept:
    """Where the line begins that follows the line end at ``end``."""
    if lines.text[end] == _CR and end + 1 < lines.size and lines.text[end + 1] == _LF:
        return end + 2
    return end + 1


cdef inline bint _is_field(
    const uint8_t *line, Py_ssize_t size, const char *name, Py_ssize_t name_size, Value *value
) noexcept:
    """Whether the line is of the field ``name``; if so, ``value`` is its value."""
    if size < name_size or memcmp(line, name, name_size) != 0:
        return False
    if size == name_size:
        value.at = line + size
        value.size = 0
        return True
    if line[name_size] != c":":
        return False
    name_size += 1
    if name_size < size and line[name_size] == c" ":
        name_size += 1
    value.at = line + name_size
    value.size = size - name_size
    return True


cdef Event _event(const uint8_t *text, Py_ssize_t start, Py_ssize_t size):
    """Read the fields of one event (WHATWG HTML, "Interpreting an event stream")."""
    cdef Event event = Event.__new__(Event)
    cdef Lines lines
    cdef Value value, data, name, identity
    cdef Py_ssize_t at = start, end, total = 0
    cdef bint several = False
    cdef uint8_t *out
    lines.text = text
    lines.size = size
    lines.next_cr = lines.next_lf = -1
    data.at = name.at = identity.at = NULL
    data.size = name.size = identity.size = 0
    while at < size:
        end = _line_end(&lines, at)
        if _is_field(text + at, end - at, b"data", 4, &value):
            if data.at == NULL:
                data = value
                total = value.size
            else:
                several = True
                total += value.size + 1
        elif _is_field(text + at, end - at, b"event", 5, &value):
            name = value
        elif _is_field(text + at, end - at, b"id", 2, &value):
            if memchr(value.at, 0, value.size) == NULL:
                identity = value
        at = _next_line(&lines, end)
    event.start = start
    event.raw = PyBytes_FromStringAndSize(<const char *>text, size)
    if several:
        event.data = PyBytes_FromStringAndSize(NULL, total)
        out = <uint8_t *>PyBytes_AS_STRING(event.data)
        memcpy(out, data.at, data.size)
        out += data.size
        lines.next_cr = lines.next_lf = -1
        # The first data line is placed; its value may be empty, so its place is told apart
        # by its being the first.
        several = False
        at = start
        while at < size:
            end = _line_end(&lines, at)
            if _is_field(text + at, end - at, b"data", 4, &value):
                if several:
                    out[0] = _LF
                    memcpy(out + 1, value.at, value.size)
                    out += value.size + 1
                several = True
            at = _next_line(&lines, end)
    elif data.at != NULL:
        event.data = PyBytes_FromStringAndSize(<const char *>data.at, data.size)
    if name.at != NULL:
        event.event = PyBytes_FromStringAndSize(<const char *>name.at, name.size)
    if identity.at != NULL:
        event.id = PyBytes_FromStringAndSize(<const char *>identity.at, identity.size)
    return event
