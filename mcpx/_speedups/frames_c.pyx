# cython: language_level=3
# cython: boundscheck=False
# cython: wraparound=False
# cython: initializedcheck=False
# cython: cdivision=True
# cython: freethreading_compatible=True
"""The strict front door's scan, compiled. ``frames_py`` says what it does and why.

What it is: the twin of ``frames_py``, with the same names, the same frames and the same
refusals, to the byte. What it must never do: differ from it, or read outside the text. It
is one long file because what is compiled together becomes one loop.

What is rare is left to the specification itself, so that it can't differ: the words of a
refusal, strings with escapes, the folding of letters beyond ASCII.

The algorithm: first the text is held against the table of well-formed UTF-8, eight bytes
at a time where they are ASCII. Then one loop over tokens, as in the specification, with a
stack of open containers (``Level``) that never grows past ``max_depth`` and never uses C's
own. Every pointer is compared with ``end`` before it is read; the byte after a text is
never looked at, though Python puts a NUL there.

A key twice: the keys of the open objects lie one after the other in one list, as pointers
into the text. A key is compared with the few before it in its object; an object with more
than ``FEW_KEYS`` keys, or with an escape in a key, has a set of decoded keys instead, whose
hashes no sender can foresee. So each byte costs a bounded number of steps.

Nothing here changes after the import but what belongs to one call.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

from mcpx._speedups.frames_py import (
    _ENVELOPE,
    _ENVELOPE_FOLDED,
    _LONGEST,
    _META,
    _META_FOLDED,
    _NAMED,
    _PARAMS,
    _PARAMS_FOLDED,
    MAX_ID_BYTES,
    MAX_METHOD_CHARS,
    _decoded,
    _fold,
    _no_variants,
    _refuse,
    _shown,
)
from mcpx.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, FrameError

__all__ = ["Frame", "elements", "members", "scan", "string"]

cdef extern from *:
    """
    /* Eight bytes of a text as one number, the first of them lowest. */
    static CYTHON_INLINE uint64_t mcpx_word(const unsigned char *at) {
        uint64_t word;
        memcpy(&word, at, 8);
    #if PY_BIG_ENDIAN
        word = ((word & 0x00FF00FF00FF00FFu) << 8) | ((word >> 8) & 0x00FF00FF00FF00FFu);
        word = ((word & 0x0000FFFF0000FFFFu) << 16) | ((word >> 16) & 0x0000FFFF0000FFFFu);
        word = (word << 32) | (word >> 32);
    #endif
        return word;
    }
    /* How many bytes come before the first whose highest bit is set; one is. */
    static CYTHON_INLINE int mcpx_before(uint64_t marks) {
    #if defined(__GNUC__)
        return __builtin_ctzll(marks) >> 3;
    #else
        int count = 0;
        while (!(marks & 0x80u)) {
            marks >>= 8;
            count++;
        }
        return count;
    #endif
    }
    """
    uint64_t mcpx_word(const unsigned char *at) noexcept nogil
    int mcpx_before(uint64_t marks) noexcept nogil

cdef extern from "Python.h":
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *too_great) except? -1

ctypedef const unsigned char *Text

cdef enum:
    FEW_KEYS = 16  # beyond it a set is quicker than looking at each
    OWN_LEVELS = 64  # what needs no memory from the heap
    OWN_KEYS = 128
    MOST_NAMES = 32  # room for the known names of one object
    MOST_LETTERS = 64  # room for the lengths of known names

    # What a string was seen to hold.
    ESCAPE = 1
    HALF_PAIR = 2

    # Which object a key stands in: one whose members the envelope needs, or another.
    ELSEWHERE = 0
    TOP = 1
    PARAMS = 2
    META = 3
    PARTS = 4

    # Where the span of a member goes.
    JSONRPC_AT = 0
    ID_AT = 1
    METHOD_AT = 2
    PARAMS_AT = 3
    RESULT_AT = 4
    ERROR_AT = 5
    NAME_AT = 6
    URI_AT = 7
    ARGUMENTS_AT = 8
    REF_AT = 9
    NOTIFICATIONS_AT = 10
    META_AT = 11
    TOKEN_AT = 12
    VERSION_AT = 13
    SLOTS = 14
    NOT_KEPT = -1  # a known name whose place nobody asks for, or a value in an array
    UNKNOWN = -2
    VARIANT = -3


cdef struct Span:
    Py_ssize_t start  # -1: there is none
    Py_ssize_t end


cdef struct Key:
    Text text  # without its quotes
    Py_ssize_t size


cdef struct Level:  # an open container
    Py_ssize_t start  # of the value that is being read, if this is an object
    Py_ssize_t keys_before  # how many keys in the list belong to the objects around it
    int slot  # of the value that is being read
    unsigned char part
    unsigned char is_object
    unsigned char has_set  # its keys are in the last set, not in the list


cdef struct Walk:  # one scan
    Text text
    Text end
    Level *levels
    Py_ssize_t levels_room
    Key *keys
    Py_ssize_t keys_used
    Py_ssize_t keys_room
    PyObject *sets  # a list of the sets of open objects, the innermost last; or NULL
    Span spans[SLOTS]
    Span variants[PARTS]  # the first key of each part that can be taken for another
    Py_ssize_t variant_values[PARTS]  # and where its value begins
    Level own_levels[OWN_LEVELS]
    Key own_keys[OWN_KEYS]


cdef struct Name:
    Text text
    Py_ssize_t size
    int slot


# The known names of each part, the short ones first; those of n letters are
# `names[part][by_size[part][n]]` to `names[part][by_size[part][n + 1] - 1]`.
cdef Name names[PARTS][MOST_NAMES]
cdef unsigned char by_size[PARTS][MOST_LETTERS + 2]
# Methods that act on something named, and where its name stands.
cdef Name needing[MOST_NAMES]
cdef int needing_count = 0

cdef tuple KNOWN = (frozenset(), _ENVELOPE, _PARAMS, _META)
cdef tuple FOLDED = ({}, _ENVELOPE_FOLDED, _PARAMS_FOLDED, _META_FOLDED)
cdef tuple SLOT_OF = (
    {},
    {
        "jsonrpc": JSONRPC_AT,
        "id": ID_AT,
        "method": METHOD_AT,
        "params": PARAMS_AT,
        "result": RESULT_AT,
        "error": ERROR_AT,
    },
    {
        "name": NAME_AT,
        "uri": URI_AT,
        "arguments": ARGUMENTS_AT,
        "ref": REF_AT,
        "notifications": NOTIFICATIONS_AT,
        "_meta": META_AT,
    },
    {"progressToken": TOKEN_AT, "io.modelcontextprotocol/protocolVersion": VERSION_AT},
)
cdef dict NAMED = _NAMED
cdef Py_ssize_t LONGEST = _LONGEST
cdef Py_ssize_t MOST_ID_BYTES = MAX_ID_BYTES
cdef Py_ssize_t MOST_METHOD_CHARS = MAX_METHOD_CHARS

# The tables above point into these.
cdef list _texts = []
cdef list _methods = []


cdef int _fill_tables() except -1:
    global needing_count
    cdef int part, index
    cdef Py_ssize_t size
    cdef bytes text
    for part in range(1, PARTS):
        known = sorted(KNOWN[part], key=len)
        if len(known) > MOST_NAMES or len(FOLDED[part]) != len(known):
            raise AssertionError("too many known names, or two that fold alike")
        if set(SLOT_OF[part]) - set(known):
            raise AssertionError("a slot for no known name")
        for index in range(len(known)):
            text = known[index].encode("ascii")
            if len(text) > MOST_LETTERS or _fold(known[index]) != known[index].lower():
                raise AssertionError("a known name that is too long")
            _texts.append(text)
            names[part][index].text = <Text>PyBytes_AS_STRING(text)
            names[part][index].size = len(text)
            names[part][index].slot = SLOT_OF[part].get(known[index], NOT_KEPT)
            for size in range(len(text) + 1, MOST_LETTERS + 2):
                by_size[part][size] = <unsigned char>(index + 1)
    if len(NAMED) > MOST_NAMES:
        raise AssertionError("too many methods")
    for method, name in NAMED.items():
        text = method.encode("ascii")
        _texts.append(text)
        _methods.append(method)
        needing[needing_count].text = <Text>PyBytes_AS_STRING(text)
        needing[needing_count].size = len(text)
        needing[needing_count].slot = SLOT_OF[PARAMS][name]
        needing_count += 1
    return 0


_fill_tables()


@cython.final
@cython.freelist(16)
cdef class Frame:
    """A JSON-RPC message that was understood; see ``frames_py.Frame``.

    Its attributes can't be set. Spans are made when they are asked for.
    """

    cdef readonly str kind
    cdef readonly bytes id
    cdef readonly str method
    cdef readonly str name
    cdef readonly str uri
    cdef readonly str protocol_version
    cdef Span _id, _params, _name, _uri, _arguments, _meta, _token, _ref, _notifications
    cdef Span _result, _error

    def __cinit__(self):
        self.kind = "request"
        self._id = self._params = self._name = self._uri = self._arguments = NOWHERE
        self._meta = self._token = self._ref = self._notifications = NOWHERE
        self._result = self._error = NOWHERE

    @property
    def id_span(self):
        return _pair(self._id)

    @property
    def params(self):
        return _pair(self._params)

    @property
    def name_span(self):
        return _pair(self._name)

    @property
    def uri_span(self):
        return _pair(self._uri)

    @property
    def arguments(self):
        return _pair(self._arguments)

    @property
    def meta(self):
        return _pair(self._meta)

    @property
    def progress_token(self):
        return _pair(self._token)

    @property
    def ref(self):
        return _pair(self._ref)

    @property
    def notifications(self):
        return _pair(self._notifications)

    @property
    def result(self):
        return _pair(self._result)

    @property
    def error(self):
        return _pair(self._error)


cdef Span NOWHERE
NOWHERE.start = NOWHERE.end = -1


cdef inline object _pair(Span span):
    return (span.start, span.end) if span.start >= 0 else None


def scan(body, max_depth=64, *, of_server=False):
    """The message in ``body``; see ``frames_py.scan``.

    Raises:
        FrameError: the text is refused; nothing may be forwarded.
    """
    cdef bytes text = _bytes(body)
    cdef bint unjudged = of_server
    cdef Walk walk
    cdef Text wrong
    walk.text = <Text>PyBytes_AS_STRING(text)
    walk.end = walk.text + PyBytes_GET_SIZE(text)
    wrong = _not_utf8(walk.text, walk.end)
    if wrong is not NULL:
        raise FrameError("the message is not UTF-8", PARSE_ERROR, wrong - walk.text)
    if walk.end - walk.text >= 3 and memcmp(walk.text, b"\xef\xbb\xbf", 3) == 0:
        raise FrameError("the message starts with a byte order mark", PARSE_ERROR, 0)
    cdef int index
    for index in range(SLOTS):
        walk.spans[index].start = -1
    for index in range(PARTS):
        walk.variants[index].start = -1
    walk.levels = walk.own_levels
    walk.levels_room = OWN_LEVELS
    walk.keys = walk.own_keys
    walk.keys_used = 0
    walk.keys_room = OWN_KEYS
    walk.sets = NULL
    try:
        _read(&walk, text, max_depth)
    finally:
        if walk.levels is not walk.own_levels:
            PyMem_Free(walk.levels)
        if walk.keys is not walk.own_keys:
            PyMem_Free(walk.keys)
        Py_XDECREF(walk.sets)
    cdef Text first = _past_spaces(walk.text, walk.end)
    if first[0] != c"{":
        if first[0] == c"[":
            raise FrameError(
                "batches are not accepted: send one message at a time", INVALID_REQUEST
            )
        raise FrameError("a JSON-RPC message is an object", INVALID_REQUEST)
    return _envelope(&walk, text, unjudged)


cdef inline bytes _bytes(object body):
    if type(body) is bytes:
        return <bytes>body
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    # In the words in which the specification meets what is no text.
    raise AttributeError(f"'{type(body).__name__}' object has no attribute 'decode'")


# --- Bytes ---------------------------------------------------------------------------------


cdef Text _not_utf8(Text at, Text end) noexcept nogil:
    """The first byte that begins nothing well formed (Unicode 15, table 3-7); or NULL."""
    cdef unsigned char first, low, high
    cdef Py_ssize_t more, index
    while True:
        while end - at >= 32 and not (
            (mcpx_word(at) | mcpx_word(at + 8) | mcpx_word(at + 16) | mcpx_word(at + 24))
            & <uint64_t>0x8080808080808080
        ):
            at += 32
        while end - at >= 8 and not (mcpx_word(at) & <uint64_t>0x8080808080808080):
            at += 8
        while at < end and at[0] < 0x80:
            at += 1
        # Letters beyond ASCII seldom come alone.
        while at < end and at[0] >= 0x80:
            first = at[0]
            low = 0x80
            high = 0xBF
            if first < 0xC2:
                return at
            elif first < 0xE0:
                more = 1
            elif first < 0xF0:
                more = 2
                if first == 0xE0:
                    low = 0xA0
                elif first == 0xED:
                    high = 0x9F
            elif first < 0xF5:
                more = 3
                if first == 0xF0:
                    low = 0x90
                elif first == 0xF4:
                    high = 0x8F
            else:
                return at
            if end - at <= more or at[1] < low or at[1] > high:
                return at
            for index in range(2, more + 1):
                if at[index] & 0xC0 != 0x80:
                    return at
            at += more + 1
        if at >= end:
            return NULL


cdef inline Text _past_spaces(Text at, Text end) noexcept nogil:
    while at < end and at[0] <= 0x20 and (
        at[0] == c" " or at[0] == c"\n" or at[0] == c"\r" or at[0] == c"\t"
    ):
        at += 1
    return at


cdef inline Text _past_string(Text at, Text end, int *held) noexcept nogil:
    """Past the string whose opening quote is at ``at``; NULL where it is none."""
    cdef uint64_t word, quotes, strokes, marks
    cdef unsigned char letter
    cdef int unit, other
    held[0] = 0
    at += 1
    while True:
        # Up to what is no plain letter. In each of the three sums the lowest mark is
        # right, whatever a borrow puts above it.
        while end - at >= 8:
            word = mcpx_word(at)
            quotes = word ^ <uint64_t>0x2222222222222222
            strokes = word ^ <uint64_t>0x5C5C5C5C5C5C5C5C
            marks = (
                ((quotes - <uint64_t>0x0101010101010101) & ~quotes)
                | ((strokes - <uint64_t>0x0101010101010101) & ~strokes)
                | ((word - <uint64_t>0x2020202020202020) & ~word)
            ) & <uint64_t>0x8080808080808080
            if marks:
                at += mcpx_before(marks)
                break
            at += 8
        else:
            while at < end and at[0] >= 0x20 and at[0] != c'"' and at[0] != c"\\":
                at += 1
            if at >= end:
                return NULL
        letter = at[0]
        if letter == c'"':
            return at + 1
        if letter != c"\\" or end - at < 2:
            return NULL
        held[0] |= ESCAPE
        letter = at[1]
        if letter == c"u":
            unit = _four_digits(at + 2, end)
            if unit < 0:
                return NULL
            at += 6
            if unit & 0xF800 == 0xD800:
                other = -1
                if unit < 0xDC00 and end - at >= 2 and at[0] == c"\\" and at[1] == c"u":
                    other = _four_digits(at + 2, end)
                if other >= 0xDC00 and other < 0xE000:
                    at += 6
                else:
                    held[0] |= HALF_PAIR
        elif (
            letter == c'"' or letter == c"\\" or letter == c"/" or letter == c"b"
            or letter == c"f" or letter == c"n" or letter == c"r" or letter == c"t"
        ):
            at += 2
        else:
            return NULL


cdef int _four_digits(Text at, Text end) noexcept nogil:
    """What four hexadecimal digits say; -1 where they are not that."""
    cdef int unit = 0
    cdef int index
    cdef unsigned char letter
    if end - at < 4:
        return -1
    for index in range(4):
        letter = at[index]
        if c"0" <= letter <= c"9":
            unit = unit * 16 + letter - c"0"
        elif c"a" <= letter | 0x20 <= c"f":
            unit = unit * 16 + (letter | 0x20) - c"a" + 10
        else:
            return -1
    return unit


cdef inline bint _is_digit(unsigned char letter) noexcept nogil:
    return c"0" <= letter <= c"9"


cdef inline Text _past_digits(Text at, Text end) noexcept nogil:
    while at < end and _is_digit(at[0]):
        at += 1
    return at


cdef inline Text _past_number(Text at, Text end) noexcept nogil:
    """Past the longest number at ``at``, which is before ``end``; NULL where there is none."""
    cdef Text power
    if at[0] == c"-":
        at += 1
    if at >= end or not _is_digit(at[0]):
        return NULL
    at = at + 1 if at[0] == c"0" else _past_digits(at, end)
    if end - at >= 2 and at[0] == c"." and _is_digit(at[1]):
        at = _past_digits(at + 1, end)
    if end - at >= 2 and at[0] | 0x20 == c"e":
        power = at + 2 if at[1] == c"+" or at[1] == c"-" else at + 1
        if power < end and _is_digit(power[0]):
            at = _past_digits(power, end)
    return at


cdef inline Text _past_scalar(Text at, Text end, int *held) noexcept nogil:
    """Past the string, number or word at ``at``, which is before ``end``; or NULL."""
    cdef unsigned char first = at[0]
    held[0] = 0
    if first == c'"':
        return _past_string(at, end, held)
    if first == c"-" or _is_digit(first):
        return _past_number(at, end)
    if first == c"t":
        return at + 4 if end - at >= 4 and memcmp(at, b"true", 4) == 0 else NULL
    if first == c"n":
        return at + 4 if end - at >= 4 and memcmp(at, b"null", 4) == 0 else NULL
    if first == c"f":
        return at + 5 if end - at >= 5 and memcmp(at, b"false", 5) == 0 else NULL
    return NULL


# --- The walk ------------------------------------------------------------------------------


cdef int _read(Walk *walk, bytes body, object max_depth) except -1:
    """Check the whole text; keep the spans that the envelope needs."""
    cdef Text at = walk.text
    cdef Text end = walk.end
    cdef Text past
    cdef Level *here = NULL
    cdef Level *around
    cdef Py_ssize_t depth = 0
    cdef Py_ssize_t most = PyNumber_AsSsize_t(max_depth, NULL)  # clipped, if it is huge
    cdef bint is_object
    cdef int held = 0
    while True:
        # A value begins at `at`.
        at = _past_spaces(at, end)
        if at >= end:
            _no_json(body, at - walk.text, "a value")
        if at[0] != c"{" and at[0] != c"[":
            past = _past_scalar(at, end, &held)
            if past is NULL:
                _no_json(body, at - walk.text, "a value")
            if held & HALF_PAIR:
                _half_pair(at - walk.text)
            at = past
        else:
            is_object = at[0] == c"{"
            if depth >= most:
                raise FrameError(f"nesting is deeper than {max_depth}", PARSE_ERROR, at - walk.text)
            if depth >= walk.levels_room:
                _more_levels(walk)
            around = &walk.levels[depth - 1] if depth else NULL
            here = &walk.levels[depth]
            depth += 1
            here.keys_before = walk.keys_used
            here.slot = NOT_KEPT
            here.is_object = is_object
            here.has_set = False
            here.part = ELSEWHERE
            if is_object:
                if around is NULL:
                    here.part = TOP
                elif around.part == TOP and around.slot == PARAMS_AT:
                    here.part = PARAMS
                elif around.part == PARAMS and around.slot == META_AT:
                    here.part = META
            at += 1
            past = _past_spaces(at, end)
            if past >= end or (past[0] != c"}" and past[0] != c"]"):
                if is_object:
                    at = _past_key(walk, body, here, at)
                continue
            if (past[0] == c"}") != is_object:
                _no_json(body, past - walk.text, "a value")
            at = past + 1
            depth -= 1
            here = around
        # A value ended at `at`: give it to its container, then close what closes here.
        while True:
            if here is NULL:
                if _past_spaces(at, end) != end:
                    raise FrameError("text follows the message", PARSE_ERROR, at - walk.text)
                return 0
            if here.slot >= 0:
                walk.spans[here.slot].start = here.start
                walk.spans[here.slot].end = at - walk.text
            past = _past_spaces(at, end)
            if past < end and past[0] == c",":
                at = past + 1
                if here.is_object:
                    at = _past_key(walk, body, here, at)
                break
            if past >= end or (past[0] != c"}" and past[0] != c"]"):
                _no_json(body, at - walk.text, "`,` or the container's end")
            if (past[0] == c"}") != here.is_object:
                _no_json(body, past - walk.text, "the other bracket")
            at = past + 1
            walk.keys_used = here.keys_before
            if here.has_set:
                (<list>walk.sets).pop()
            depth -= 1
            here = &walk.levels[depth - 1] if depth else NULL


cdef inline Text _past_key(Walk *walk, bytes body, Level *here, Text at) except NULL:
    """Past the key at ``at``, its colon and the white space before its value."""
    cdef Text end = walk.end
    cdef Text key, past, value, other
    cdef Py_ssize_t size, index
    cdef int held = 0
    cdef int slot
    cdef str decoded = None
    key = _past_spaces(at, end)
    if key >= end or key[0] != c'"':
        _no_json(body, key - walk.text, "a key and `:`")
    past = _past_string(key, end, &held)
    if past is NULL:
        _no_json(body, key - walk.text, "a key and `:`")
    value = _past_spaces(past, end)
    if value >= end or value[0] != c":":
        _no_json(body, key - walk.text, "a key and `:`")
    value = _past_spaces(value + 1, end)
    size = past - key - 2
    if held == 0 and not here.has_set and walk.keys_used - here.keys_before < FEW_KEYS:
        for index in range(here.keys_before, walk.keys_used):
            if walk.keys[index].size == size:
                other = walk.keys[index].text
                if size == 0 or (other[0] == key[1] and memcmp(other, key + 1, size) == 0):
                    _twice(_text(body, key - walk.text, past - walk.text), key - walk.text)
        if walk.keys_used >= walk.keys_room:
            _more_keys(walk)
        walk.keys[walk.keys_used].text = key + 1
        walk.keys[walk.keys_used].size = size
        walk.keys_used += 1
    else:
        # Of half a surrogate pair the specification complains itself, in decoding it.
        decoded = _text(body, key - walk.text, past - walk.text)
        _into_set(walk, here, decoded, key - walk.text)
    here.start = value - walk.text
    if here.part != ELSEWHERE:
        slot = UNKNOWN if held else _known(here.part, key + 1, size)
        if slot == UNKNOWN and (held or not _is_ascii(key + 1, size)):
            if decoded is None:
                decoded = _text(body, key - walk.text, past - walk.text)
            slot = _known_decoded(here.part, decoded)
        if slot == VARIANT and walk.variants[here.part].start < 0:
            walk.variants[here.part].start = key - walk.text
            walk.variants[here.part].end = past - walk.text
            walk.variant_values[here.part] = here.start
        here.slot = slot
    return value


cdef int _more_levels(Walk *walk) except -1:
    cdef Py_ssize_t room = walk.levels_room * 2
    cdef Level *levels
    if walk.levels is walk.own_levels:
        levels = <Level *>PyMem_Malloc(room * sizeof(Level))
        if levels is not NULL:
            memcpy(levels, walk.own_levels, sizeof(walk.own_levels))
    else:
        levels = <Level *>PyMem_Realloc(walk.levels, room * sizeof(Level))
    if levels is NULL:
        raise MemoryError
    walk.levels = levels
    walk.levels_room = room
    return 0


cdef int _more_keys(Walk *walk) except -1:
    cdef Py_ssize_t room = walk.keys_room * 2
    cdef Key *keys
    if walk.keys is walk.own_keys:
        keys = <Key *>PyMem_Malloc(room * sizeof(Key))
        if keys is not NULL:
            memcpy(keys, walk.own_keys, sizeof(walk.own_keys))
    else:
        keys = <Key *>PyMem_Realloc(walk.keys, room * sizeof(Key))
    if keys is NULL:
        raise MemoryError
    walk.keys = keys
    walk.keys_room = room
    return 0


cdef int _into_set(Walk *walk, Level *here, str key, Py_ssize_t start) except -1:
    """Note a key of an object that has many, or one with an escape."""
    cdef set keys
    cdef list sets
    cdef Py_ssize_t index, before
    if here.has_set:
        sets = <list>walk.sets
        keys = <set>sets[len(sets) - 1]
    else:
        keys = set()
        for index in range(here.keys_before, walk.keys_used):
            keys.add(
                PyUnicode_DecodeUTF8(
                    <const char *>walk.keys[index].text, walk.keys[index].size, NULL
                )
            )
        if walk.sets is NULL:
            sets = []
            Py_INCREF(sets)
            walk.sets = <PyObject *>sets
        (<list>walk.sets).append(keys)
        here.has_set = True
        walk.keys_used = here.keys_before
    before = len(keys)
    keys.add(key)
    if len(keys) == before:
        _twice(key, start)
    return 0


cdef inline int _known(int part, Text key, Py_ssize_t size) noexcept nogil:
    """The slot of a key without escapes; ``VARIANT`` where only the case differs."""
    cdef int index, first, last
    cdef Py_ssize_t letter
    cdef Text name
    if size > MOST_LETTERS:
        return UNKNOWN
    first = by_size[part][size]
    last = by_size[part][size + 1]
    for index in range(first, last):
        if memcmp(names[part][index].text, key, size) == 0:
            return names[part][index].slot
    for index in range(first, last):
        name = names[part][index].text
        for letter in range(size):
            if _lower(name[letter]) != _lower(key[letter]):
                break
        else:
            return VARIANT
    return UNKNOWN


cdef int _known_decoded(int part, str key) except? -1:
    if key in KNOWN[part]:
        return SLOT_OF[part].get(key, NOT_KEPT)
    if len(key.partition("\0")[0]) > LONGEST:
        return UNKNOWN
    return VARIANT if _fold(key) in FOLDED[part] else UNKNOWN


cdef inline unsigned char _lower(unsigned char letter) noexcept nogil:
    return letter | 0x20 if c"A" <= letter <= c"Z" else letter


cdef inline bint _is_ascii(Text at, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t index
    for index in range(size):
        if at[index] >= 0x80:
            return False
    return True


cdef int _no_json(bytes body, Py_ssize_t at, str wanted) except -1:
    _refuse(body, at, wanted)
    raise AssertionError  # never read on, whatever the specification does


cdef object _half_pair(Py_ssize_t start):
    raise FrameError("a string holds half a surrogate pair", PARSE_ERROR, start)


cdef object _twice(str key, Py_ssize_t start):
    raise FrameError(f"the key {_shown(key)} stands twice in one object", PARSE_ERROR, start)


cdef inline str _text(bytes body, Py_ssize_t start, Py_ssize_t end):
    """The string at (start, end) of ``body``, which hold its quotes."""
    cdef const char *first = PyBytes_AS_STRING(body) + start + 1
    cdef Py_ssize_t size = end - start - 2
    if size > 0 and memchr(first, c"\\", size) is not NULL:
        return _decoded(body, start, end)
    return PyUnicode_DecodeUTF8(first, size, NULL)


# --- The envelope --------------------------------------------------------------------------


cdef int _no_variant(Walk *walk, bytes body, int part, Frame frame, object code) except -1:
    cdef Span key = walk.variants[part]
    if key.start >= 0:
        member = (_text(body, key.start, key.end), walk.variant_values[part], 0)
        _no_variants([member], KNOWN[part], FOLDED[part], frame, code)
    return 0


cdef object _refuse_message(str message, Py_ssize_t at, Frame frame):
    raise FrameError(message, INVALID_REQUEST, at, frame.id)


cdef object _refuse_params(str message, Py_ssize_t at, Frame frame):
    raise FrameError(message, INVALID_PARAMS, at, frame.id)


cdef inline bint _has(Walk *walk, int slot) noexcept nogil:
    return walk.spans[slot].start >= 0


cdef Frame _envelope(Walk *walk, bytes body, bint of_server):
    cdef Frame frame = Frame.__new__(Frame)
    cdef Span *spans = walk.spans
    cdef Text text = walk.text
    cdef Span at = spans[ID_AT]
    cdef Py_ssize_t size = at.end - at.start
    cdef int needed = NOT_KEPT
    if at.start >= 0:
        if not (
            text[at.start] == c'"'
            or _is_whole(text + at.start, text + at.end)
            or (
                text[at.start] == c"n" and _has(walk, ERROR_AT) and not _has(walk, METHOD_AT)
            )
        ):
            _refuse_message("an id is a string or a whole number", at.start, frame)
        if size > MOST_ID_BYTES:
            _refuse_message(f"an id has at most {MAX_ID_BYTES} bytes", at.start, frame)
        frame.id = PyBytes_FromStringAndSize(<const char *>text + at.start, size)
        frame._id = at
    _no_variant(walk, body, TOP, frame, INVALID_REQUEST)

    at = spans[JSONRPC_AT]
    if at.start < 0 or at.end - at.start != 5 or memcmp(text + at.start, b'"2.0"', 5) != 0:
        _refuse_message('"jsonrpc" must be "2.0"', 0, frame)
    if not _has(walk, METHOD_AT):
        if _has(walk, RESULT_AT) == _has(walk, ERROR_AT) or frame.id is None:
            _refuse_message(
                'a message has "method", or "id" and one of "result" and "error"', 0, frame
            )
        if _has(walk, PARAMS_AT):
            _refuse_message('"params" without "method"', 0, frame)
        frame.kind = "response"
        if _has(walk, RESULT_AT):
            frame._result = spans[RESULT_AT]
        else:
            frame._error = spans[ERROR_AT]
        return frame
    if _has(walk, RESULT_AT) or _has(walk, ERROR_AT):
        _refuse_message('a message has "method" or a result, not both', 0, frame)
    if frame.id is None:
        frame.kind = "notification"
    at = spans[METHOD_AT]
    if not _is_name(text, at):
        _refuse_message('"method" must be a string that is not empty', at.start, frame)
    frame.method = _method(body, at, &needed)
    if len(frame.method) > MOST_METHOD_CHARS:
        _refuse_message(
            f'"method" has at most {MAX_METHOD_CHARS} characters', at.start, frame
        )
    if not of_server:
        _judge_params(walk, body, frame, needed)
    return frame


cdef int _judge_params(Walk *walk, bytes body, Frame frame, int needed) except -1:
    cdef Span *spans = walk.spans
    cdef Text text = walk.text
    cdef Span at = spans[PARAMS_AT]
    if at.start >= 0:
        if text[at.start] != c"{":
            _refuse_params('"params" must be an object', at.start, frame)
        frame._params = at
        _no_variant(walk, body, PARAMS, frame, INVALID_PARAMS)
    if needed != NOT_KEPT and not _has(walk, needed):
        _refuse_params(
            f'"params.{NAMED[frame.method]}" is missing: {frame.method} needs it',
            at.start if at.start >= 0 else 0,
            frame,
        )
    at = spans[NAME_AT]
    if at.start >= 0:
        if text[at.start] == c'"':
            frame.name = _text(body, at.start, at.end)
            frame._name = at
        if needed == NAME_AT and not _is_name(text, at):
            _refuse_params('"params.name" must be a string that is not empty', at.start, frame)
    at = spans[URI_AT]
    if at.start >= 0:
        if text[at.start] == c'"':
            frame.uri = _text(body, at.start, at.end)
            frame._uri = at
        if needed == URI_AT and not _is_name(text, at):
            _refuse_params('"params.uri" must be a string that is not empty', at.start, frame)
    frame._arguments = _an_object(walk, ARGUMENTS_AT, "arguments", frame)
    frame._ref = _an_object(walk, REF_AT, "ref", frame)
    frame._notifications = _an_object(walk, NOTIFICATIONS_AT, "notifications", frame)
    frame._meta = _an_object(walk, META_AT, "_meta", frame)
    if frame._meta.start >= 0:
        _no_variant(walk, body, META, frame, INVALID_PARAMS)
        if _has(walk, TOKEN_AT):
            frame._token = spans[TOKEN_AT]
        at = spans[VERSION_AT]
        if at.start >= 0:
            if not _is_name(text, at):
                _refuse_params(
                    '"_meta.io.modelcontextprotocol/protocolVersion" must be a string that is'
                    " not empty",
                    at.start,
                    frame,
                )
            frame.protocol_version = _text(body, at.start, at.end)
    return 0


cdef inline Span _an_object(Walk *walk, int slot, str key, Frame frame) except *:
    cdef Span span = walk.spans[slot]
    if span.start < 0:
        return NOWHERE
    if walk.text[span.start] != c"{":
        _refuse_params(f'"params.{key}" must be an object', span.start, frame)
    return span


cdef inline bint _is_name(Text text, Span span) noexcept nogil:
    """Whether the value at ``span`` is a string that is not empty."""
    return text[span.start] == c'"' and span.end - span.start > 2


cdef inline bint _is_whole(Text at, Text end) noexcept nogil:
    """Whether a value of an accepted text is a number without fraction and exponent."""
    if at[0] == c"-":
        at += 1
    return at < end and _past_digits(at, end) == end


cdef inline str _method(bytes body, Span span, int *needed):
    """The method's name; ``needed`` is set where it acts on something named."""
    cdef Text name = <Text>PyBytes_AS_STRING(body) + span.start + 1
    cdef Py_ssize_t size = span.end - span.start - 2
    cdef int index
    cdef str method
    for index in range(needing_count):
        if needing[index].size == size and memcmp(needing[index].text, name, size) == 0:
            needed[0] = needing[index].slot
            return <str>_methods[index]
    method = _text(body, span.start, span.end)
    if len(method) != size and method in NAMED:  # it was written with escapes
        needed[0] = SLOT_OF[PARAMS][NAMED[method]]
    return method


# --- Parts of an accepted text -------------------------------------------------------------


def string(body, span):
    """The string at ``span`` of an accepted text; ``None`` where another value stands."""
    cdef bytes text = _bytes(body)
    cdef Py_ssize_t start = span[0]
    cdef Py_ssize_t end = span[1]
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    if start < 0 or start >= size:
        raise IndexError("index out of range")
    if PyBytes_AS_STRING(text)[start] != c'"':
        return None
    if end - start < 2 or end > size:
        return _decoded(text, start, end)
    return _text(text, start, end)


def members(body, Py_ssize_t start):
    """The members (key, start, end of the value) of the object at ``start``.

    ``body`` must be a text that ``scan`` accepted; other values have no members.
    """
    cdef bytes whole = _bytes(body)
    cdef Text text = <Text>PyBytes_AS_STRING(whole)
    cdef Text end = text + PyBytes_GET_SIZE(whole)
    cdef Text at, key, past, value
    cdef int held = 0
    cdef list found = []
    if start < 0 or start >= end - text:
        raise IndexError("index out of range")
    if text[start] != c"{":
        return found
    at = text + start + 1
    while True:
        key = _past_spaces(at, end)
        if key >= end or key[0] != c'"':
            break
        past = _past_string(key, end, &held)
        if past is NULL:
            break
        value = _past_spaces(past, end)
        if value >= end or value[0] != c":":
            break
        value = _past_spaces(value + 1, end)
        at = _past_value(value, end)
        if at is NULL:
            raise AssertionError
        name = _text(whole, key - text, past - text)
        found.append((name, value - text, at - text))
        at = _past_spaces(at, end)
        if at >= end or at[0] != c",":
            break
        at += 1
    return found


def elements(body, Py_ssize_t start):
    """The elements' spans of the array at ``start`` of an accepted text."""
    cdef bytes whole = _bytes(body)
    cdef Text text = <Text>PyBytes_AS_STRING(whole)
    cdef Text end = text + PyBytes_GET_SIZE(whole)
    cdef Text at, value
    cdef list found = []
    if start < 0 or start >= end - text:
        raise IndexError("index out of range")
    if text[start] != c"[":
        return found
    at = text + start + 1
    while True:
        value = _past_spaces(at, end)
        if value >= end:
            break
        at = _past_value(value, end)
        if at is NULL:
            if value[0] == c"{" or value[0] == c"[":
                raise AssertionError
            break
        found.append((value - text, at - text))
        at = _past_spaces(at, end)
        if at >= end or at[0] != c",":
            break
        at += 1
    return found


cdef Text _past_value(Text at, Text end) noexcept nogil:
    """Past the value that begins at ``at``. Brackets are only counted: they were checked."""
    cdef Py_ssize_t depth = 1
    cdef int held = 0
    if at >= end:
        return NULL
    if at[0] != c"{" and at[0] != c"[":
        return _past_scalar(at, end, &held)
    at += 1
    while at < end:
        if at[0] == c'"':
            at = _past_string(at, end, &held)
            if at is NULL:
                return NULL
            continue
        if at[0] == c"{" or at[0] == c"[":
            depth += 1
        elif at[0] == c"}" or at[0] == c"]":
            depth -= 1
        at += 1
        if depth == 0:
            return at
    return NULL
