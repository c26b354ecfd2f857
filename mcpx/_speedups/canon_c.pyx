# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""One text for every JSON value, whatever way it was written (compiled).

What it is: the compiled twin of ``canon_py``, which is the specification and says what
the form is, and why. What it must never do: give another text, another refusal or another
offset than its twin, read past the end, or leave memory behind.

The algorithm: one pass writes the canonical text in the order of the input, and notes
where each member of an open object stands. An object whose keys came in order is done when
it closes. Of another one the members are sorted and kept as spans, and when all is read, a
second pass copies the text with the members of those objects in their order. Nothing is
copied twice for being deep, and both passes keep their stacks on the heap.

Room: what is written for a token is at most as long as the token, but for some numbers. So
the output always has room for what is left of the input and ``_SLACK`` bytes more, and
only numbers ask for it.

Keys are compared as they were written, in UTF-8. That order is the one of UTF-16 code units
but for one thing: a character past U+FFFF comes before U+E000 to U+FFFF.

A key that stands twice is found when its object closes, which may be long after another
fault. So a fault, whatever it is, first has the open objects searched: the first fault of
the text is the one that is told.

It is long because it is one file: its functions share one state, and across files the
compiler could not put them into each other.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

from hashlib import sha256

from xxhash import xxh3_128_digest

from mcpx.errors import PARSE_ERROR, FrameError

__all__ = ["MAX_DEPTH", "canonical", "digest", "key"]

#: Deeper than anything that the scan lets through.
MAX_DEPTH = 512

cdef enum:
    #: Bytes of room past what is left to read. Copying eight at a time needs seven.
    _SLACK = 32
    #: Texts of this size are read without the interpreter's lock.
    _UNLOCKED_BYTES = 65536
    #: Runs that are sorted by insertion.
    _RUN = 8
    #: An exponent of at most so many digits is counted with; a longer one is edited as text.
    _COUNTED_DIGITS = 18
    #: The places of a first digit that are laid out without an exponent.
    _LEAST_PLACE = -6
    _LARGEST_PLACE = 20

cdef enum Fault:
    NONE
    NO_MEMORY
    TOO_DEEP
    TRAILING
    NO_VALUE
    NO_KEY
    NO_NEXT
    NO_BRACKET
    TWICE
    NOT_UTF8
    HALF_PAIR
    #: Within this module: no string stands there.
    NO_STRING

cdef struct Member:
    #: A member of an open object, as it stands in the output: from its key's quote ...
    size_t at
    #: ... to the end of its value.
    size_t end
    #: The bytes between the key's quotes, twice, and one more if one of them is escaped.
    size_t key_mark
    #: Its key's place in the input.
    size_t offset
    #: How many ``Move`` were there when it began.
    size_t first_move

cdef struct Open:
    size_t first_member
    size_t move
    bint is_object
    bint ordered

cdef struct Move:
    #: An object, as it stands in the output. Those within it follow it, up to ``after``.
    size_t at
    size_t end
    size_t after
    #: Its members in their order; no members if they need not be moved.
    size_t first_kept
    size_t count

cdef struct Kept:
    size_t at
    size_t end
    size_t first_move

cdef struct Frame:
    #: Where copying goes on behind an object's members, and which of them is next.
    size_t at
    size_t end
    size_t move
    size_t owner
    size_t next

cdef struct State:
    const uint8_t *text
    size_t pos
    size_t stop
    #: What the caller called the end; only an end past the text differs from ``stop``.
    Py_ssize_t end
    uint8_t *out
    size_t size
    size_t room
    Member *members
    size_t member_count
    size_t member_room
    Open *opens
    size_t depth
    size_t open_room
    Move *moves
    size_t move_count
    size_t move_room
    Kept *kept
    size_t kept_count
    size_t kept_room
    Frame *frames
    size_t frame_room
    Member *scratch
    size_t scratch_room
    #: Whether the string that was read last has escapes in its canonical text.
    bint escaped
    size_t fault_at

#: 1 for the bytes that end a plain run within a string.
cdef uint8_t _SPECIAL[256]
#: The letter of a control character's short escape, 0 if it has none.
cdef uint8_t _SHORT[32]
cdef const char *_HEX = b"0123456789abcdef"


cdef void _fill_tables():
    cdef int code
    for code in range(256):
        _SPECIAL[code] = code < 0x20 or code == 0x22 or code == 0x5C or code >= 0x80
    memset(_SHORT, 0, 32)
    _SHORT[8] = c"b"
    _SHORT[9] = c"t"
    _SHORT[10] = c"n"
    _SHORT[12] = c"f"
    _SHORT[13] = c"r"


_fill_tables()


def canonical(text, Py_ssize_t start=0, end=None, max_depth=MAX_DEPTH):
    """The canonical text of the JSON value at (start, end) of ``text``.

    Raises:
        FrameError: what stands there is not one JSON value (RFC 8259), has a key twice or
            half a surrogate pair, or nests deeper than ``max_depth``.
    """
    return _canonical(text, start, end, max_depth)


def digest(text, Py_ssize_t start=0, end=None):
    """The SHA-256 (32 bytes) of the canonical text. Raises as ``canonical`` does."""
    return sha256(_canonical(text, start, end, MAX_DEPTH)).digest()


def key(text, Py_ssize_t start=0, end=None):
    """The xxh3-128 (16 bytes, big-endian) of the canonical text.

    Collisions can be made on purpose: it finds an entry, it proves nothing. Raises as
    ``canonical`` does.
    """
    return xxh3_128_digest(_canonical(text, start, end, MAX_DEPTH))


cdef bytes _canonical(object text, Py_ssize_t start, object end, object max_depth):
    cdef State state
    cdef Fault fault
    cdef bytes body, result
    cdef uint8_t *target
    cdef Py_ssize_t size, stop, limit
    memset(&state, 0, sizeof(State))
    state.end = len(text) if end is None else end
    body = text if type(text) is bytes else bytes(memoryview(text))
    size = PyBytes_GET_SIZE(body)
    limit = PY_SSIZE_T_MAX if max_depth > PY_SSIZE_T_MAX else 0 if max_depth < 0 else max_depth
    stop = min(max(state.end, 0), size)
    if min(max(start, 0), size) > stop:
        raise FrameError("the value ends too early", PARSE_ERROR, start)
    state.text = <const uint8_t *>PyBytes_AS_STRING(body)
    state.pos = min(max(start, 0), size)
    state.stop = stop
    try:
        if state.stop - state.pos >= _UNLOCKED_BYTES:
            with nogil:
                fault = _read_all(&state, limit)
        else:
            fault = _read_all(&state, limit)
        if fault != NONE:
            _refuse(&state, fault, max_depth)
        result = PyBytes_FromStringAndSize(NULL, state.size)
        target = <uint8_t *>PyBytes_AS_STRING(result)
        if state.size >= _UNLOCKED_BYTES:
            with nogil:
                fault = _arrange(&state, target)
        else:
            fault = _arrange(&state, target)
        if fault != NONE:
            raise MemoryError
        return result
    finally:
        free(state.out)
        free(state.members)
        free(state.opens)
        free(state.moves)
        free(state.kept)
        free(state.frames)
        free(state.scratch)


cdef int _refuse(State *state, Fault fault, object max_depth) except -1:
    cdef Py_ssize_t at = state.fault_at
    if fault == NO_MEMORY:
        raise MemoryError
    if fault == TOO_DEEP:
        raise FrameError(f"nesting is deeper than {max_depth}", PARSE_ERROR, at)
    if fault == TRAILING:
        raise FrameError("text follows the value", PARSE_ERROR, at)
    if fault == TWICE:
        raise FrameError("a key stands twice in one object", PARSE_ERROR, at)
    if fault == NOT_UTF8:
        raise FrameError("a string is not UTF-8", PARSE_ERROR, at)
    if fault == HALF_PAIR:
        raise FrameError("a string holds half a surrogate pair", PARSE_ERROR, at)
    if at >= state.end:
        raise FrameError("the value ends too early", PARSE_ERROR, at)
    if fault == NO_KEY:
        wanted = "a key and `:`"
    elif fault == NO_NEXT:
        wanted = "`,` or the container's end"
    elif fault == NO_BRACKET:
        wanted = "the other bracket"
    else:
        wanted = "a value"
    raise FrameError(f"not JSON: {wanted} expected at byte {at}", PARSE_ERROR, at)


# ------------------------------------------------------------------ memory


cdef bint _grown(void **items, size_t *room, size_t item_size, size_t wanted) noexcept nogil:
    """Make room for ``wanted`` items, half as many again at least; false: no memory."""
    cdef size_t larger = room[0] + room[0] // 2
    cdef void *moved
    if larger < wanted:
        larger = wanted
    if larger < 32:
        larger = 32
    moved = realloc(items[0], larger * item_size)
    if moved == NULL:
        return False
    items[0] = moved
    room[0] = larger
    return True


cdef inline bint _reserve(State *state, size_t more) noexcept nogil:
    """Room for ``more`` bytes, what is left of the input and the slack."""
    cdef size_t wanted = state.size + more + (state.stop - state.pos) + _SLACK
    if wanted <= state.room:
        return True
    return _grown(<void **>&state.out, &state.room, 1, wanted)


# ------------------------------------------------------------------ reading


cdef inline size_t _blank(const uint8_t *text, size_t pos, size_t stop) noexcept nogil:
    while pos < stop and text[pos] <= 0x20 and (
        text[pos] == c" " or text[pos] == c"\n" or text[pos] == c"\r" or text[pos] == c"\t"
    ):
        pos += 1
    return pos


cdef Fault _read_all(State *state, size_t max_depth) noexcept nogil:
    """The first pass. The fault that it gives is the text's first."""
    cdef Fault fault
    cdef size_t twice
    if not _reserve(state, 0):
        return NO_MEMORY
    fault = _read(state, max_depth)
    if fault == NONE or fault == NO_MEMORY:
        return fault
    twice = state.stop
    if not _first_twice(state, &twice):
        return NO_MEMORY
    if twice < state.stop:
        state.fault_at = twice
        return TWICE
    return fault


cdef Fault _read(State *state, size_t max_depth) noexcept nogil:
    cdef const uint8_t *text = state.text
    cdef size_t stop = state.stop
    cdef size_t pos
    cdef uint8_t char
    cdef Open *opened
    cdef Fault fault
    while True:
        # A value begins here.
        pos = state.pos = state.fault_at = _blank(text, state.pos, stop)
        if pos >= stop:
            return NO_VALUE
        char = text[pos]
        if char == c'"':
            fault = _read_string(state)
            if fault != NONE:
                return NO_VALUE if fault == NO_STRING else fault
        elif char == c"{" or char == c"[":
            if state.depth >= max_depth:
                return TOO_DEEP
            fault = _open(state, char == c"{")
            if fault != NONE:
                return fault
            pos = state.pos = _blank(text, pos + 1, stop)
            if pos >= stop or (text[pos] != c"}" and text[pos] != c"]"):
                if char == c"{":
                    fault = _read_key(state)
                    if fault != NONE:
                        return fault
                continue
            if (text[pos] == c"}") != (char == c"{"):
                state.fault_at = pos
                return NO_VALUE
            state.pos = pos + 1
            fault = _close(state)
            if fault != NONE:
                return fault
        elif char == c"-" or c"0" <= char <= c"9":
            fault = _read_number(state)
            if fault != NONE:
                return fault
        elif not _read_word(state):
            return NO_VALUE
        # A value ended here: close what closes behind it.
        while True:
            pos = _blank(text, state.pos, stop)
            if state.depth == 0:
                if <Py_ssize_t>pos != state.end:
                    state.fault_at = state.pos
                    return TRAILING
                return NONE
            opened = &state.opens[state.depth - 1]
            if opened.is_object:
                state.members[state.member_count - 1].end = state.size
            state.pos = state.fault_at = pos
            if pos >= stop:
                return NO_NEXT
            char = text[pos]
            if char == c",":
                state.pos = pos + 1
                state.out[state.size] = c","
                state.size += 1
                if opened.is_object:
                    fault = _read_key(state)
                    if fault != NONE:
                        return fault
                break
            if char != c"}" and char != c"]":
                return NO_NEXT
            if (char == c"}") != opened.is_object:
                return NO_BRACKET
            state.pos = pos + 1
            fault = _close(state)
            if fault != NONE:
                return fault


cdef bint _read_word(State *state) noexcept nogil:
    cdef const uint8_t *at = state.text + state.pos
    cdef size_t left = state.stop - state.pos
    cdef size_t size = 4
    if left >= 4 and (memcmp(at, b"true", 4) == 0 or memcmp(at, b"null", 4) == 0):
        pass
    elif left >= 5 and memcmp(at, b"false", 5) == 0:
        size = 5
    else:
        return False
    memcpy(state.out + state.size, at, size)
    state.size += size
    state.pos += size
    return True


cdef Fault _open(State *state, bint is_object) noexcept nogil:
    cdef Open *opened
    if state.depth == state.open_room and not _grown(
        <void **>&state.opens, &state.open_room, sizeof(Open), state.depth + 1
    ):
        return NO_MEMORY
    opened = &state.opens[state.depth]
    opened.is_object = is_object
    opened.ordered = True
    opened.first_member = state.member_count
    opened.move = state.move_count
    if is_object:
        if state.move_count == state.move_room and not _grown(
            <void **>&state.moves, &state.move_room, sizeof(Move), state.move_count + 1
        ):
            return NO_MEMORY
        state.moves[state.move_count].at = state.size
        state.move_count += 1
    state.depth += 1
    state.out[state.size] = c"{" if is_object else c"["
    state.size += 1
    return NONE


cdef Fault _close(State *state) noexcept nogil:
    """The innermost container is complete, but for its bracket."""
    cdef Open *opened = &state.opens[state.depth - 1]
    cdef Move *move
    cdef Member *members
    cdef size_t count, index
    state.out[state.size] = c"}" if opened.is_object else c"]"
    state.size += 1
    if not opened.is_object:
        state.depth -= 1
        return NONE
    move = &state.moves[opened.move]
    if opened.ordered:
        if state.move_count == opened.move + 1:
            state.move_count -= 1
        move.count = 0
    else:
        members = state.members + opened.first_member
        count = state.member_count - opened.first_member
        if not _sort(state, members, count):
            return NO_MEMORY
        for index in range(1, count):
            if _compared(state, &members[index - 1], &members[index]) == 0:
                # The search of what is open tells where.
                return TWICE
        if state.kept_count + count > state.kept_room and not _grown(
            <void **>&state.kept, &state.kept_room, sizeof(Kept), state.kept_count + count
        ):
            return NO_MEMORY
        for index in range(count):
            state.kept[state.kept_count + index].at = members[index].at
            state.kept[state.kept_count + index].end = members[index].end
            state.kept[state.kept_count + index].first_move = members[index].first_move
        move.first_kept = state.kept_count
        move.count = count
        move.end = state.size
        move.after = state.move_count
        state.kept_count += count
    state.member_count = opened.first_member
    state.depth -= 1
    return NONE


cdef Fault _read_key(State *state) noexcept nogil:
    cdef size_t pos = _blank(state.text, state.pos, state.stop)
    cdef size_t at = state.size
    cdef Open *opened = &state.opens[state.depth - 1]
    cdef Member *member
    cdef Fault fault
    state.pos = state.fault_at = pos
    if pos >= state.stop or state.text[pos] != c'"':
        return NO_KEY
    if state.member_count == state.member_room and not _grown(
        <void **>&state.members, &state.member_room, sizeof(Member), state.member_count + 1
    ):
        return NO_MEMORY
    fault = _read_string(state)
    if fault == NO_STRING:
        return NO_KEY
    member = &state.members[state.member_count]
    member.at = at
    member.offset = pos
    member.key_mark = (state.size - at - 2) * 2 + state.escaped
    member.first_move = state.move_count
    pos = _blank(state.text, state.pos, state.stop)
    if pos >= state.stop or state.text[pos] != c":":
        return NO_KEY
    if fault != NONE:
        return fault
    state.out[state.size] = c":"
    state.size += 1
    state.pos = pos + 1
    if opened.ordered and state.member_count > opened.first_member:
        opened.ordered = _compared(state, member - 1, member) < 0
    state.member_count += 1
    return NONE


# ------------------------------------------------------------------ strings


cdef inline bint _is_plain(uint64_t word) noexcept nogil:
    """Whether no byte is below 0x20, above 0x7F, a quote or a backslash."""
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t quote = word ^ (ones * 0x22)
    cdef uint64_t slash = word ^ (ones * 0x5C)
    return (
        (word | (word - ones * 0x20) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash))
        & (ones * 0x80)
    ) == 0


cdef inline int _hex4(const uint8_t *at) noexcept nogil:
    """The number that four hexadecimal digits say; -1 if they are none."""
    cdef int value = 0
    cdef int index
    cdef uint8_t char
    for index in range(4):
        char = at[index]
        if c"0" <= char <= c"9":
            value = value * 16 + char - c"0"
        elif c"a" <= (char | 0x20) <= c"f":
            value = value * 16 + (char | 0x20) - c"a" + 10
        else:
            return -1
    return value


cdef inline int _utf8_size(const uint8_t *at, size_t left) noexcept nogil:
    """How long the character at ``at`` is (RFC 3629), which is not ASCII.

    0: it is none; -3: it is the three bytes that half a surrogate pair would have.
    """
    cdef uint8_t first = at[0]
    cdef uint8_t least = 0x80
    cdef uint8_t most = 0xBF
    if left < 2 or first < 0xC2 or first > 0xF4:
        return 0
    if first < 0xE0:
        return 2 if at[1] & 0xC0 == 0x80 else 0
    if left < 3 or at[2] & 0xC0 != 0x80:
        return 0
    if first < 0xF0:
        if first == 0xE0:
            least = 0xA0
        elif first == 0xED and 0xA0 <= at[1] <= 0xBF:
            return -3
        return 3 if least <= at[1] <= most else 0
    if first == 0xF0:
        least = 0x90
    elif first == 0xF4:
        most = 0x8F
    return 4 if left >= 4 and at[3] & 0xC0 == 0x80 and least <= at[1] <= most else 0


cdef Fault _read_string(State *state) noexcept nogil:
    """Write the canonical text of the string whose quote stands here.

    ``NO_STRING`` comes before everything else: whether the text ends and is written as
    RFC 8259 says. Half a pair written in UTF-8 counts as half a pair beside an escape, and
    as no UTF-8 otherwise, as the specification's decoders have it.
    """
    cdef const uint8_t *at = state.text + state.pos + 1
    cdef const uint8_t *stop = state.text + state.stop
    cdef uint8_t *out = state.out + state.size
    cdef bint escapes = False
    cdef bint broken = False
    cdef bint raw_half = False
    cdef bint half = False
    cdef uint64_t word = 0
    cdef uint8_t char
    cdef int size, code, second
    state.escaped = False
    out[0] = c'"'
    out += 1
    while True:
        while stop - at >= 8:
            memcpy(&word, at, 8)
            if not _is_plain(word):
                break
            memcpy(out, at, 8)
            at += 8
            out += 8
        while at < stop and not _SPECIAL[at[0]]:
            out[0] = at[0]
            at += 1
            out += 1
        if at >= stop:
            return NO_STRING
        char = at[0]
        if char == c'"':
            break
        if char < 0x20:
            return NO_STRING
        if char >= 0x80:
            size = _utf8_size(at, stop - at)
            if size <= 0:
                # Nothing of a string that is refused is read again.
                if size == 0:
                    broken = True
                    at += 1
                else:
                    raw_half = True
                    at += 3
                continue
            while size > 0:
                out[0] = at[0]
                at += 1
                out += 1
                size -= 1
            continue
        escapes = True
        if stop - at < 2:
            return NO_STRING
        char = at[1]
        if char == c"u":
            code = _hex4(at + 2) if stop - at >= 6 else -1
            if code < 0:
                return NO_STRING
            at += 6
            if 0xD800 <= code <= 0xDFFF:
                second = -1
                if code <= 0xDBFF and stop - at >= 6 and at[0] == c"\\" and at[1] == c"u":
                    second = _hex4(at + 2)
                if not 0xDC00 <= second <= 0xDFFF:
                    half = True
                    continue
                at += 6
                code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00)
            out = _written(state, out, code)
        else:
            at += 2
            if char == c"/":
                out[0] = c"/"
                out += 1
            elif (
                char == c'"' or char == c"\\" or char == c"b" or char == c"f"
                or char == c"n" or char == c"r" or char == c"t"
            ):
                state.escaped = True
                out[0] = c"\\"
                out[1] = char
                out += 2
            else:
                return NO_STRING
    out[0] = c'"'
    state.size = out + 1 - state.out
    state.pos = at + 1 - state.text
    if broken or (raw_half and not escapes):
        return NOT_UTF8
    if raw_half or half:
        return HALF_PAIR
    return NONE


cdef uint8_t *_written(State *state, uint8_t *out, int code) noexcept nogil:
    """Write a character that stood there as an escape; gives where the next one goes."""
    if code < 0x20 or code == 0x22 or code == 0x5C:
        state.escaped = True
        out[0] = c"\\"
        if code >= 0x20:
            out[1] = code
            return out + 2
        if _SHORT[code]:
            out[1] = _SHORT[code]
            return out + 2
        out[1] = c"u"
        out[2] = c"0"
        out[3] = c"0"
        out[4] = _HEX[code >> 4]
        out[5] = _HEX[code & 15]
        return out + 6
    if code < 0x80:
        out[0] = code
        return out + 1
    if code < 0x800:
        out[0] = 0xC0 | (code >> 6)
        out[1] = 0x80 | (code & 0x3F)
        return out + 2
    if code < 0x10000:
        out[0] = 0xE0 | (code >> 12)
        out[1] = 0x80 | ((code >> 6) & 0x3F)
        out[2] = 0x80 | (code & 0x3F)
        return out + 3
    out[0] = 0xF0 | (code >> 18)
    out[1] = 0x80 | ((code >> 12) & 0x3F)
    out[2] = 0x80 | ((code >> 6) & 0x3F)
    out[3] = 0x80 | (code & 0x3F)
    return out + 4


# ------------------------------------------------------------------ numbers


cdef inline bint _is_digit(uint8_t char) noexcept nogil:
    return c"0" <= char <= c"9"


cdef Fault _read_number(State *state) noexcept nogil:
    cdef const uint8_t *begin = state.text + state.pos
    cdef const uint8_t *stop = state.text + state.stop
    cdef const uint8_t *at = begin
    cdef const uint8_t *whole
    cdef const uint8_t *fraction = NULL
    cdef const uint8_t *exponent = NULL
    cdef const uint8_t *ahead
    cdef size_t whole_size, fraction_size = 0, exponent_size = 0
    cdef bint below = False
    if at[0] == c"-":
        at += 1
        if at >= stop or not _is_digit(at[0]):
            return NO_VALUE
    whole = at
    at += 1
    if whole[0] != c"0":
        while at < stop and _is_digit(at[0]):
            at += 1
    whole_size = at - whole
    if stop - at >= 2 and at[0] == c"." and _is_digit(at[1]):
        fraction = at + 1
        at += 2
        while at < stop and _is_digit(at[0]):
            at += 1
        fraction_size = at - fraction
    if stop - at >= 2 and (at[0] == c"e" or at[0] == c"E"):
        ahead = at + 1
        if ahead[0] == c"+" or ahead[0] == c"-":
            ahead += 1
        if ahead < stop and _is_digit(ahead[0]):
            below = at[1] == c"-"
            exponent = ahead
            at = ahead
            while at < stop and _is_digit(at[0]):
                at += 1
            exponent_size = at - exponent
    state.pos = at - state.text
    if fraction == NULL and exponent == NULL and whole_size <= _LARGEST_PLACE + 1:
        # A whole number is its own canonical text.
        if whole[0] == c"0":
            begin = whole
        while begin < at:
            state.out[state.size] = begin[0]
            state.size += 1
            begin += 1
        return NONE
    return _write_number(
        state, begin != whole, whole, whole_size, fraction, fraction_size,
        below, exponent, exponent_size,
    )


cdef Fault _write_number(
    State *state,
    bint negative,
    const uint8_t *whole,
    size_t whole_size,
    const uint8_t *fraction,
    size_t fraction_size,
    bint below,
    const uint8_t *exponent,
    size_t exponent_size,
) noexcept nogil:
    # Both parts' digits are counted through; the significant ones are first to last - 1.
    cdef size_t first = 0, last = whole_size + fraction_size, count
    cdef int64_t place, power = 0
    cdef size_t index
    cdef uint8_t *out
    while first < last and (
        whole[first] if first < whole_size else fraction[first - whole_size]
    ) == c"0":
        first += 1
    if first == last:
        state.out[state.size] = c"0"
        state.size += 1
        return NONE
    while (whole[last - 1] if last <= whole_size else fraction[last - 1 - whole_size]) == c"0":
        last -= 1
    count = last - first
    # The place of the first digit (0 for units, -1 for tenths), before the exponent.
    place = <int64_t>whole_size - 1 - <int64_t>first
    while exponent_size > 0 and exponent[0] == c"0":
        exponent += 1
        exponent_size -= 1
    if not _reserve(state, count + exponent_size + 2 * _SLACK):
        return NO_MEMORY
    out = state.out + state.size
    if negative:
        out[0] = c"-"
        out += 1
    if exponent_size > _COUNTED_DIGITS:
        out = _mantissa(out, whole, whole_size, fraction, first, last)
        out[0] = c"-" if below else c"+"
        out = _moved(out + 1, exponent, exponent_size, -place if below else place)
        state.size = out - state.out
        return NONE
    for index in range(exponent_size):
        power = power * 10 + exponent[index] - c"0"
    place += -power if below else power
    if place < _LEAST_PLACE or place > _LARGEST_PLACE:
        out = _mantissa(out, whole, whole_size, fraction, first, last)
        out[0] = c"-" if place < 0 else c"+"
        out = _decimal(out + 1, -place if place < 0 else place)
    elif place < 0:
        out[0] = c"0"
        out[1] = c"."
        memset(out + 2, c"0", -place - 1)
        out = _digits(out + 1 - place, whole, whole_size, fraction, first, last)
    elif count <= <size_t>place + 1:
        out = _digits(out, whole, whole_size, fraction, first, last)
        memset(out, c"0", place + 1 - count)
        out += place + 1 - count
    else:
        out = _digits(out, whole, whole_size, fraction, first, first + place + 1)
        out[0] = c"."
        out = _digits(out + 1, whole, whole_size, fraction, first + place + 1, last)
    state.size = out - state.out
    return NONE


cdef uint8_t *_digits(
    uint8_t *out,
    const uint8_t *whole,
    size_t whole_size,
    const uint8_t *fraction,
    size_t first,
    size_t last,
) noexcept nogil:
    """Write the digits first to last - 1 of both parts together."""
    cdef size_t size
    if first < whole_size:
        size = min(last, whole_size) - first
        memcpy(out, whole + first, size)
        out += size
        first = whole_size
    if first < last:
        memcpy(out, fraction + (first - whole_size), last - first)
        out += last - first
    return out


cdef uint8_t *_mantissa(
    uint8_t *out,
    const uint8_t *whole,
    size_t whole_size,
    const uint8_t *fraction,
    size_t first,
    size_t last,
) noexcept nogil:
    """Write ``d.ddde``."""
    out = _digits(out, whole, whole_size, fraction, first, first + 1)
    if last - first > 1:
        out[0] = c"."
        out = _digits(out + 1, whole, whole_size, fraction, first + 1, last)
    out[0] = c"e"
    return out + 1


cdef uint8_t *_decimal(uint8_t *out, int64_t number) noexcept nogil:
    cdef uint8_t digits[20]
    cdef int count = 0
    while True:
        digits[count] = c"0" + number % 10
        number //= 10
        count += 1
        if number == 0:
            break
    while count > 0:
        count -= 1
        out[0] = digits[count]
        out += 1
    return out


cdef uint8_t *_moved(
    uint8_t *out, const uint8_t *exponent, size_t size, int64_t by
) noexcept nogil:
    """Write the number ``exponent`` plus ``by``, which is far smaller in size."""
    cdef size_t index = size
    cdef size_t zeros = 0
    cdef int64_t sum, digit
    # One place in front takes what is carried past the first digit.
    out[0] = c"0"
    memcpy(out + 1, exponent, size)
    while by != 0:
        sum = out[index] - c"0" + by
        digit = sum % 10
        if digit < 0:
            digit += 10
        out[index] = c"0" + digit
        by = (sum - digit) // 10
        index -= 1
    while out[zeros] == c"0":
        zeros += 1
    size = size + 1 - zeros
    for index in range(size):
        out[index] = out[index + zeros]
    return out + size


# ------------------------------------------------------------------ order


cdef inline int _ordered_bytes(uint8_t one, uint8_t other) noexcept nogil:
    """The order of two keys that first differ in these bytes of their UTF-8."""
    if one >= 0xEE and other >= 0xEE and (one >= 0xF0) != (other >= 0xF0):
        return -1 if one >= 0xF0 else 1
    return -1 if one < other else 1


cdef int _compared(State *state, Member *one, Member *other) noexcept nogil:
    """-1, 0 or 1 as the key of ``one`` comes before, is, or comes after the other's."""
    cdef const uint8_t *left = state.out + one.at + 1
    cdef const uint8_t *right = state.out + other.at + 1
    cdef size_t left_size = one.key_mark >> 1
    cdef size_t right_size = other.key_mark >> 1
    cdef size_t size = min(left_size, right_size)
    cdef size_t index = 0
    cdef uint64_t words[2]
    if (one.key_mark | other.key_mark) & 1:
        return _compared_escaped(left, left_size, right, right_size)
    while size - index >= 8:
        memcpy(&words[0], left + index, 8)
        memcpy(&words[1], right + index, 8)
        if words[0] != words[1]:
            break
        index += 8
    while index < size:
        if left[index] != right[index]:
            return _ordered_bytes(left[index], right[index])
        index += 1
    return (left_size > right_size) - (left_size < right_size)


cdef int _compared_escaped(
    const uint8_t *left, size_t left_size, const uint8_t *right, size_t right_size
) noexcept nogil:
    cdef const uint8_t *left_end = left + left_size
    cdef const uint8_t *right_end = right + right_size
    cdef uint8_t one, other
    while left < left_end and right < right_end:
        one = _unescaped(&left)
        other = _unescaped(&right)
        if one != other:
            return _ordered_bytes(one, other)
    return (left < left_end) - (right < right_end)


cdef inline uint8_t _unescaped(const uint8_t **at) noexcept nogil:
    """The next byte of a canonical string's value; moves past what stands for it."""
    cdef uint8_t char = at[0][0]
    cdef int code
    if char != c"\\":
        at[0] += 1
        return char
    char = at[0][1]
    if char == c"u":
        code = _hex4(at[0] + 2)
        at[0] += 6
        return code
    at[0] += 2
    for code in range(32):
        if _SHORT[code] == char:
            return code
    return char


cdef bint _sort(State *state, Member *members, size_t count) noexcept nogil:
    """Sort by key; equal keys stay in their order. False: no memory.

    Short runs by insertion, then merged from the bottom: n log n whatever stands there.
    """
    cdef size_t begin, middle, stop, index, width, left, right, to
    cdef Member member
    cdef Member *scratch
    begin = 0
    while begin < count:
        stop = min(begin + _RUN, count)
        for index in range(begin + 1, stop):
            member = members[index]
            to = index
            while to > begin and _compared(state, &members[to - 1], &member) > 0:
                members[to] = members[to - 1]
                to -= 1
            members[to] = member
        begin = stop
    if count <= _RUN:
        return True
    # Only a left half is ever set aside.
    if state.scratch_room < count and not _grown(
        <void **>&state.scratch, &state.scratch_room, sizeof(Member), count
    ):
        return False
    scratch = state.scratch
    width = _RUN
    while width < count:
        begin = 0
        while begin + width < count:
            middle = begin + width
            stop = min(middle + width, count)
            if _compared(state, &members[middle - 1], &members[middle]) > 0:
                memcpy(scratch, members + begin, width * sizeof(Member))
                left = 0
                right = middle
                to = begin
                while left < width:
                    if right < stop and _compared(state, &scratch[left], &members[right]) > 0:
                        members[to] = members[right]
                        right += 1
                    else:
                        members[to] = scratch[left]
                        left += 1
                    to += 1
            begin = stop
        width *= 2
    return True


cdef bint _first_twice(State *state, size_t *found) noexcept nogil:
    """The place of the first key that an open object has twice, if it is before ``found``.

    False: no memory.
    """
    cdef size_t depth, index, end
    cdef Member *members
    cdef size_t count
    end = state.member_count
    for depth in range(state.depth, 0, -1):
        members = state.members + state.opens[depth - 1].first_member
        count = end - state.opens[depth - 1].first_member
        end = state.opens[depth - 1].first_member
        if state.opens[depth - 1].ordered:
            continue
        if not _sort(state, members, count):
            return False
        for index in range(1, count):
            if (
                members[index].offset < found[0]
                and _compared(state, &members[index - 1], &members[index]) == 0
            ):
                found[0] = members[index].offset
    return True


cdef Fault _arrange(State *state, uint8_t *target) noexcept nogil:
    """The second pass: copy the output to ``target``, every object in its order."""
    cdef size_t at = 0, end = state.size, move = 0, depth = 0
    cdef Move *owner
    cdef Frame *frame
    cdef Kept *kept
    while True:
        # Everything from at to end, in which the next object that is moved is ``move``.
        while move < state.move_count and state.moves[move].at < end:
            owner = &state.moves[move]
            if owner.count == 0:
                move += 1
                continue
            memcpy(target, state.out + at, owner.at + 1 - at)
            target += owner.at + 1 - at
            if depth == state.frame_room and not _grown(
                <void **>&state.frames, &state.frame_room, sizeof(Frame), depth + 1
            ):
                return NO_MEMORY
            frame = &state.frames[depth]
            depth += 1
            frame.at = owner.end - 1
            frame.end = end
            frame.move = owner.after
            frame.owner = move
            frame.next = 1
            kept = &state.kept[owner.first_kept]
            at = kept.at
            end = kept.end
            move = kept.first_move
        memcpy(target, state.out + at, end - at)
        target += end - at
        if depth == 0:
            return NONE
        frame = &state.frames[depth - 1]
        owner = &state.moves[frame.owner]
        if frame.next < owner.count:
            target[0] = c","
            target += 1
            kept = &state.kept[owner.first_kept + frame.next]
            frame.next += 1
            at = kept.at
            end = kept.end
            move = kept.first_move
        else:
            depth -= 1
            at = frame.at
            end = frame.end
            move = frame.move
