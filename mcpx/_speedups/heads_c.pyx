# cython: language_level=3
# cython: boundscheck=False
# cython: wraparound=False
# cython: initializedcheck=False
# cython: cdivision=True
# cython: freethreading_compatible=True
"""Heads of HTTP/1.1 messages (compiled). ``heads_py`` says what they are, and why.

What it is: the twin of ``heads_py``, with the same names, the same heads and the same
refusals, to the byte. What it must never do: write what its twin would refuse.

What is rare is left to the specification itself, so that it can't differ: every refusal,
and fields that are anything but pairs of bytes. So a fault here can make a head slow; only
a letter that passes one of the two tables below wrongly could make one bad.

The algorithm: the fields are walked twice. The first walk holds each letter against its
table and adds up the sizes; the second copies. Between the two nothing can change: it is
tuples and bytes that are walked, and a list is copied to a tuple first.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from mcpx._speedups import heads_py
from mcpx._speedups.heads_py import (
    _NO_NAMES,
    _PLAIN_CONNECTION,
    _STATUS_LINES,
    _TO_CLIENTS,
    _TO_SERVERS,
    NEVER_FORWARDED,
    TOKEN,
    VALUE,
    Headers,
)

__all__ = [
    "NEVER_FORWARDED",
    "TOKEN",
    "VALUE",
    "Headers",
    "after",
    "forwarded_request_headers",
    "forwarded_response_headers",
    "request_head",
    "response_head",
]

cdef extern from "Python.h":
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    bint PyBytes_CheckExact(PyObject *)
    bint PyTuple_CheckExact(PyObject *)
    bint PyUnicode_IS_ASCII(object)
    const uint8_t *PyUnicode_1BYTE_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)

cdef extern from *:
    """
    #define HEADS_TEXT(item) ((const uint8_t *)PyBytes_AS_STRING(item))
    #define HEADS_SIZE(item) PyBytes_GET_SIZE(item)
    #define HEADS_FIELDS(pair) PyTuple_GET_SIZE(pair)
    #define HEADS_PART(pair, at) PyTuple_GET_ITEM(pair, at)
    """
    const uint8_t *text_of "HEADS_TEXT"(PyObject *)
    Py_ssize_t size_of "HEADS_SIZE"(PyObject *)
    Py_ssize_t parts_of "HEADS_FIELDS"(PyObject *)
    PyObject *part_of "HEADS_PART"(PyObject *, Py_ssize_t)

cdef enum:
    #: What may follow the fields: "content-length: ", 19 digits, a line end,
    #: "connection: close" and two line ends. Each other ending is shorter.
    _ENDING = 64
    #: More than this is nothing that the gateway writes.
    _LONGEST = 1 << 28

cdef request_head_slowly = heads_py.request_head
cdef response_head_slowly = heads_py.response_head
cdef request_fields_slowly = heads_py.forwarded_request_headers
cdef response_fields_slowly = heads_py.forwarded_response_headers
cdef dict status_lines = _STATUS_LINES
cdef frozenset to_servers = _TO_SERVERS
cdef frozenset to_clients = _TO_CLIENTS
cdef frozenset never_forwarded = NEVER_FORWARDED
cdef frozenset no_names = _NO_NAMES
cdef frozenset plain_connection = _PLAIN_CONNECTION

#: The letters of a token. Filled at the import and never changed after it.
cdef uint8_t token_letter[256]


cdef void _fill() noexcept:
    cdef int letter
    for letter in range(256):
        token_letter[letter] = (
            c'0' <= letter <= c'9' or c'A' <= letter <= c'Z' or c'a' <= letter <= c'z'
        )
    for letter in b"!#$%&'*+-.^_`|~":
        token_letter[letter] = 1


_fill()


cdef inline bint _is_token(const uint8_t *text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at
    cdef uint8_t right = 1
    for at in range(size):
        right &= token_letter[text[at]]
    return right and size > 0


cdef inline bint _is_value(const uint8_t *text, Py_ssize_t size) noexcept nogil:
    """Without an early end, so that many letters are looked at in one step."""
    cdef Py_ssize_t at
    cdef uint8_t letter, wrong = 0
    for at in range(size):
        letter = text[at]
        wrong |= ((letter < 0x20) & (letter != 0x09)) | (letter == 0x7F)
    return not wrong


cdef inline bint _is_target(const uint8_t *text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at
    cdef uint8_t wrong = 0
    for at in range(size):
        wrong |= (text[at] < 0x21) | (text[at] > 0x7E)
    return size > 0 and text[0] == c'/' and not wrong


cdef inline bint _is_word(const uint8_t *token, const char *word, Py_ssize_t size) noexcept nogil:
    """Whether a token is ``word`` in any case; no other letter of a token becomes one of it."""
    cdef Py_ssize_t at
    for at in range(size):
        if (token[at] | 0x20) != <uint8_t>word[at]:
            return False
    return True


cdef inline bint _is_framing(const uint8_t *token, Py_ssize_t size) noexcept nogil:
    if size == 10:
        return _is_word(token, b"connection", 10)
    if size == 14:
        return _is_word(token, b"content-length", 14)
    return size == 17 and _is_word(token, b"transfer-encoding", 17)


cdef Py_ssize_t _measure(tuple fields) noexcept:
    """How many bytes the lines of ``fields`` take; -1 if the specification must have a look."""
    cdef Py_ssize_t at, size, whole = 0
    cdef PyObject *pair
    cdef PyObject *name
    cdef PyObject *value
    for at in range(PyTuple_GET_SIZE(fields)):
        pair = PyTuple_GET_ITEM(fields, at)
        if not PyTuple_CheckExact(pair) or parts_of(pair) != 2:
            return -1
        name = part_of(pair, 0)
        value = part_of(pair, 1)
        if not PyBytes_CheckExact(name) or not PyBytes_CheckExact(value):
            return -1
        size = size_of(name)
        if not _is_token(text_of(name), size) or _is_framing(text_of(name), size):
            return -1
        if not _is_value(text_of(value), size_of(value)):
            return -1
        whole += size + size_of(value) + 4
        if whole > _LONGEST:
            return -1
    return whole


cdef inline uint8_t *_put(uint8_t *out, const void *text, Py_ssize_t size) noexcept:
    memcpy(out, text, size)
    return out + size


cdef uint8_t *_put_fields(uint8_t *out, tuple fields) noexcept:
    cdef Py_ssize_t at
    cdef PyObject *pair
    cdef PyObject *part
    for at in range(PyTuple_GET_SIZE(fields)):
        pair = PyTuple_GET_ITEM(fields, at)
        part = part_of(pair, 0)
        out = _put(out, text_of(part), size_of(part))
        out[0] = c':'
        out[1] = c' '
        part = part_of(pair, 1)
        out = _put(out + 2, text_of(part), size_of(part))
        out[0] = c'\r'
        out[1] = c'\n'
        out += 2
    return out


cdef uint8_t *_put_length(uint8_t *out, long long length) noexcept:
    cdef uint8_t digits[20]
    cdef int count = 0
    while count == 0 or length:
        count += 1
        digits[20 - count] = <uint8_t>(c'0' + length % 10)
        length //= 10
    out = _put(out, <const char *>b"content-length: ", 16)
    out = _put(out, &digits[20 - count], count)
    return _put(out, <const char *>b"\r\n", 2)


cdef inline long long _counted(length) except? -9:
    """``length``; -1 where there is none, -2 if the specification must have a look."""
    cdef long long counted
    if length is None:
        return -1
    if type(length) is not int:
        return -2
    try:
        counted = length
    except OverflowError:
        return -2
    return counted if counted >= 0 else -2


def response_head(status, headers, *, length, chunked, close):
    """The head of an answer, with its empty line.

    ``length`` writes Content-Length, ``chunked`` Transfer-Encoding; with neither the body
    is empty (1xx, 204, 304, an answer to HEAD) or lasts until the connection's end.
    ``close`` writes ``connection: close``.

    Raises:
        LocalProtocolError: a name that is no token, a value that would not stay in its
            line, a field of framing among ``headers``, both or a wrong way of framing, or
            a status outside 100 to 599.
    """
    cdef tuple fields = headers if type(headers) is tuple else tuple(headers)
    cdef Py_ssize_t size = _measure(fields)
    cdef long long counted = _counted(length)
    cdef bint in_chunks = chunked
    cdef bint bodiless = False
    cdef bytes head, line = None
    cdef uint8_t ending[_ENDING]
    cdef uint8_t *out = ending
    cdef int number
    if type(status) is int:
        line = status_lines.get(status)
    if line is not None:
        number = status
        bodiless = number == 204 or number < 200
    if (
        size < 0
        or counted < -1
        or line is None
        or (in_chunks and (bodiless or counted >= 0))
        or (bodiless and counted > 0)
    ):
        return response_head_slowly(status, fields, length=length, chunked=chunked, close=close)
    if in_chunks:
        out = _put(out, <const char *>b"transfer-encoding: chunked\r\n", 28)
    elif counted >= 0 and not bodiless:
        out = _put_length(out, counted)
    if close:
        out = _put(out, <const char *>b"connection: close\r\n", 19)
    out = _put(out, <const char *>b"\r\n", 2)
    head = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(line) + size + (out - ending))
    size = out - ending
    out = <uint8_t *>PyBytes_AS_STRING(head)
    out = _put(out, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
    out = _put_fields(out, fields)
    _put(out, ending, size)
    return head


def request_head(method, target, headers, *, length):
    """The head of a request, with its empty line. ``headers`` holds ``host``.

    ``length`` writes Content-Length; None is for a request without a body.

    Raises:
        LocalProtocolError: as for ``response_head``, a method that is no token, or a
            target that is not a path of printable ASCII.
    """
    cdef tuple fields = headers if type(headers) is tuple else tuple(headers)
    cdef Py_ssize_t size = _measure(fields)
    cdef long long counted = _counted(length)
    cdef Py_ssize_t verb, path
    cdef bytes head
    cdef uint8_t ending[_ENDING]
    cdef uint8_t *out = ending
    if (
        size < 0
        or counted < -1
        or type(method) is not str
        or not PyUnicode_IS_ASCII(method)
        or not _is_token(PyUnicode_1BYTE_DATA(method), PyUnicode_GET_LENGTH(method))
        or type(target) is not bytes
        or not _is_target(<const uint8_t *>PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target))
    ):
        return request_head_slowly(method, target, fields, length=length)
    if counted >= 0:
        out = _put_length(out, counted)
    out = _put(out, <const char *>b"\r\n", 2)
    verb = PyUnicode_GET_LENGTH(method)
    path = PyBytes_GET_SIZE(target)
    head = PyBytes_FromStringAndSize(NULL, verb + 1 + path + 11 + size + (out - ending))
    size = out - ending
    out = <uint8_t *>PyBytes_AS_STRING(head)
    out = _put(out, PyUnicode_1BYTE_DATA(method), verb)
    out[0] = c' '
    out = _put(out + 1, PyBytes_AS_STRING(target), path)
    out = _put(out, <const char *>b" HTTP/1.1\r\n", 11)
    out = _put_fields(out, fields)
    _put(out, ending, size)
    return head


def forwarded_request_headers(headers, extra=no_names):
    """The fields of a client's request that go to the server, in their order.

    ``extra`` are further names in lower case that the configuration lets through; none
    of ``NEVER_FORWARDED``, of ``x-forwarded-*`` or of the names that the request's own
    ``Connection`` lists goes up, whatever it says.
    """
    cdef list kept = _forwarded(headers, to_servers, extra)
    return request_fields_slowly(headers, extra) if kept is None else kept


def forwarded_response_headers(headers):
    """The fields of a server's answer that go to the client, in their order."""
    cdef list kept = _forwarded(headers, to_clients, no_names)
    return response_fields_slowly(headers) if kept is None else kept


cdef list _forwarded(headers, frozenset always, extra):
    """The fields that are kept; None if the specification must have a look."""
    cdef list kept = []
    cdef bint more = bool(extra)
    cdef PyObject *field
    cdef const uint8_t *text
    cdef Py_ssize_t size
    if type(headers) is not list:
        return None
    for pair in <list>headers:
        if type(pair) is not tuple or PyTuple_GET_SIZE(pair) != 2:
            return None
        field = PyTuple_GET_ITEM(pair, 0)
        if not PyBytes_CheckExact(field):
            return None
        text = text_of(field)
        size = size_of(field)
        if size >= 4 and memcmp(text, <const char *>b"mcp-", 4) == 0:
            if size != 14 or memcmp(text, <const char *>b"mcp-session-id", 14) != 0:
                kept.append(pair)
        elif <object>field in always:
            kept.append(pair)
        elif size == 10 and memcmp(text, <const char *>b"connection", 10) == 0:
            # It may list names of fields.
            if (<tuple>pair)[1] not in plain_connection:
                return None
        elif (
            more
            and <object>field in extra
            and <object>field not in never_forwarded
            and (size < 12 or memcmp(text, <const char *>b"x-forwarded-", 12) != 0)
        ):
            kept.append(pair)
    return kept


def after(data, bytes head not None):
    """What follows ``head`` in ``data``; None if ``data`` does not begin with it, or it is empty."""
    cdef Py_buffer view
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
    if size == 0:
        return None
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len < size or memcmp(view.buf, PyBytes_AS_STRING(head), size) != 0:
            return None
        return PyBytes_FromStringAndSize(<const char *>view.buf + size, view.len - size)
    finally:
        PyBuffer_Release(&view)
