import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mcpx.core.trace_context import (
    MAX_TRACEPARENT_BYTES,
    Parent,
    chosen,
    from_headers,
    from_meta,
    in_sample,
    new_id,
    new_trace,
    parse_traceparent,
    parse_tracestate,
    threshold,
    write_traceparent,
)

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"
OTHER = b"4bf92f3577b34da6a3ce929d0e0e4736"


def joined(version=b"00", trace_id=TRACE, span_id=SPAN, flags=b"01", rest=b""):
    return b"-".join((version, trace_id, span_id, flags)) + rest


def read(headers):
    return from_headers(dict(headers), headers)


# -- traceparent ----------------------------------------------------------------


def test_what_is_read_is_what_was_written():
    for sampled in (True, False):
        value = write_traceparent(TRACE, SPAN, sampled=sampled)
        assert parse_traceparent(value) == Parent(TRACE, SPAN, sampled)
    assert value == b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.mark.parametrize(
    "value",
    [
        joined(),
        joined(flags=b"00"),
        joined(flags=b"ff"),
        joined(version=b"cc"),
        joined(version=b"cc", rest=b"-what-comes-one-day"),
        joined(version=b"01", rest=b"-"),
        joined(version=b"fe", flags=b"03"),
    ],
)
def test_a_context_that_the_recommendation_allows_is_taken(value):
    assert parse_traceparent(value)[:2] == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        joined(rest=b"."),
        joined(rest=b"-more"),
        joined(rest=b"-"),
        joined(version=b"cc", rest=b".more"),
        joined(version=b"cc", rest=b"0-more"),
        joined(version=b"ff"),
        joined(version=b"ff", rest=b"-more"),
        joined(version=b".0"),
        joined(version=b"0."),
        joined(version=b"000"),
        joined(version=b"0000"),
        joined(version=b"0"),
        joined(version=b""),
        joined(version=b"CC"),
        joined(trace_id=b"0" * 32),
        joined(trace_id=b"." + TRACE[1:]),
        joined(trace_id=TRACE[1:] + b"."),
        joined(trace_id=TRACE + b"0"),
        joined(trace_id=TRACE[1:]),
        joined(trace_id=TRACE.upper()),
        joined(span_id=b"0" * 16),
        joined(span_id=b"." + SPAN[1:]),
        joined(span_id=SPAN[1:] + b"."),
        joined(span_id=SPAN + b"0"),
        joined(span_id=SPAN[1:]),
        joined(span_id=SPAN.upper()),
        joined(flags=b".0"),
        joined(flags=b"0."),
        joined(flags=b"001"),
        joined(flags=b"1"),
        joined(flags=b""),
        joined(flags=b"0A"),
        joined().replace(b"-", b"_"),
        b" " + joined(),
        joined() + b"\n",
        joined(version=b"cc", rest=b"-" + b"x" * MAX_TRACEPARENT_BYTES),
    ],
)
def test_anything_else_is_no_context(value):
    assert parse_traceparent(value) is None


@pytest.mark.parametrize("flags", range(256))
def test_of_the_flags_only_the_lowest_bit_counts(flags):
    parent = parse_traceparent(joined(flags=b"%02x" % flags))
    assert parent.sampled is bool(flags & 1)
    assert write_traceparent(*parent[:2], sampled=parent.sampled)[-2:] == b"0%d" % (flags & 1)


def opentelemetry_reads(traceparent):
    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent.decode()})
    found = get_current_span(context).get_span_context()
    if not found.is_valid:
        return None
    return b"%032x" % found.trace_id, b"%016x" % found.span_id, found.trace_flags.sampled


hexes = "0123456789abcdef"
parts = st.one_of(
    st.text(hexes, max_size=34),
    st.sampled_from(["00", "cc", "ff", "01", "0" * 32, "0" * 16, "", TRACE.decode(), "G" * 16]),
)
likely = st.builds(
    "-".join,
    st.tuples(
        st.sampled_from(["00", "01", "cc", "ff", "0", "0F"]),
        st.one_of(st.text(hexes, min_size=32, max_size=32), parts),
        st.one_of(st.text(hexes, min_size=16, max_size=16), parts),
        st.one_of(st.text(hexes, min_size=2, max_size=2), st.sampled_from(["01-x", "01.x", "1"])),
    ),
)


@given(st.one_of(likely, st.lists(parts, max_size=6).map("-".join)))
def test_opentelemetry_takes_and_refuses_the_same(text):
    value = text.encode()
    ours = parse_traceparent(value)
    assert (ours and ours[:3]) == opentelemetry_reads(value)


# -- tracestate -----------------------------------------------------------------

ALL_KEY = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/"
ALL_VALUE = bytes(c for c in range(0x20, 0x7F) if c not in b",=")


@pytest.mark.parametrize(
    ("value", "passed"),
    [
        (b"foo=1", b"foo=1"),
        (b"foo=1,bar=2", b"foo=1,bar=2"),
        (b"foo=1 \t , \t bar=2, \t baz=3", b"foo=1,bar=2,baz=3"),
        (b" foo=1\t", b"foo=1"),
        (b"foo=1,", b"foo=1"),
        (b",\t,foo=1", b"foo=1"),
        (ALL_KEY + b"=" + ALL_VALUE, ALL_KEY + b"=" + ALL_VALUE),
        (b"1a@b=1", b"1a@b=1"),
        (b"z" * 256 + b"=1", b"z" * 256 + b"=1"),
        (b"t" * 241 + b"@" + b"v" * 14 + b"=1", b"t" * 241 + b"@" + b"v" * 14 + b"=1"),
        (b"a=" + b"v" * 256, b"a=" + b"v" * 256),
        (b",".join(b"k%d=1" % n for n in range(32)), b",".join(b"k%d=1" % n for n in range(32))),
    ],
)
def test_a_list_goes_on_member_for_member(value, passed):
    assert parse_tracestate(value) == passed


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ,\t",
        b"foo",
        b"foo=",
        b"=1",
        b"foo =1",
        b"FOO=1",
        b"foo.bar=1",
        b"foo@=1,bar=2",
        b"@foo=1,bar=2",
        b"foo@@bar=1,bar=2",
        b"foo@bar@baz=1,bar=2",
        b"1foo=1",
        b"foo=bar=baz",
        b"foo=,bar=3",
        b"foo=1,foo=1",
        b"foo=1,bar=2,foo=3",
        b"foo=1\x00",
        b"foo=\xe9",
        b"foo=1\n",
        b"z" * 257 + b"=1",
        b"t" * 242 + b"@v=1",
        b"t@" + b"v" * 15 + b"=1",
        b"a=" + b"v" * 257,
        b",".join(b"k%d=1" % n for n in range(33)),
        b"," * 20_000 + b"a=1",
    ],
)
def test_a_list_with_anything_wrong_is_dropped_whole(value):
    assert parse_tracestate(value) == b""


@given(
    st.lists(
        st.one_of(
            st.from_regex(r"\A[a-z][a-z0-9_]{0,3}=[a-z ]{0,3}[!-+.-<]\Z"),
            st.text("ab@=, \t_A", max_size=6),
        ),
        max_size=34,
    ).map(",".join)
)
def test_opentelemetry_reads_the_same_list(text):
    theirs = TraceState.from_header([text]).to_header()
    assert parse_tracestate(text.encode()).decode() == theirs


# -- where it stands ------------------------------------------------------------


def test_header_fields_give_the_caller_and_its_state():
    headers = [(b"host", b"x"), (b"traceparent", joined()), (b"tracestate", b"a=1")]
    assert read(headers) == Parent(TRACE, SPAN, True, b"a=1")


def test_several_states_are_one_list_in_their_order():
    headers = [
        (b"tracestate", b"foo=1,bar=2"),
        (b"traceparent", joined()),
        (b"tracestate", b""),
        (b"tracestate", b"baz=3"),
    ]
    assert read(headers).state == b"foo=1,bar=2,baz=3"
    assert read([*headers, (b"tracestate", b"foo=4")]) == Parent(TRACE, SPAN, True)


def test_two_parents_are_none():
    assert read([(b"traceparent", joined()), (b"traceparent", joined())]) is None


@pytest.mark.parametrize("value", [None, joined(version=b"ff")])
def test_a_state_without_a_parent_counts_for_nothing(value):
    headers = [(b"tracestate", b"a=1")]
    if value is not None:
        headers.append((b"traceparent", value))
    assert read(headers) is None


def test_a_message_names_its_parent_in_text():
    text = joined().decode()
    assert from_meta(text) == from_meta(joined()) == Parent(TRACE, SPAN, True)
    assert from_meta(text, "a=1").state == from_meta(text, b"a=1").state == b"a=1"
    assert from_meta(text, "A=1").state == b""


@pytest.mark.parametrize("value", [None, "", "x" * 100_000, "٠" * 55, "\ud800", b"\xff" * 55])
def test_a_message_that_names_none(value):
    assert from_meta(value) is None
    assert from_meta(joined().decode(), value).state == b""


def test_the_message_decides_whose_trace_it_is():
    header, meta = Parent(TRACE, SPAN, True), Parent(OTHER, SPAN, False)
    assert chosen(header, meta) == (meta, header)
    assert chosen(None, meta) == (meta, None)
    assert chosen(header, None) == (header, None)
    assert chosen(None, None) == (None, None)


def test_within_one_trace_the_header_is_nearer():
    header, meta = Parent(TRACE, SPAN, True), Parent(TRACE, b"1" * 16, True)
    assert chosen(header, meta) == (header, None)


# -- new ones -------------------------------------------------------------------


def scripted(*numbers):
    left = list(numbers)

    def getrandbits(bits):
        number = left.pop(0)
        assert number < 1 << bits
        return number

    return getrandbits, left


def test_a_new_trace_is_made_of_one_random_number():
    getrandbits, left = scripted((0xABC << 64) | 0xDEF)
    assert new_trace(getrandbits) == (b"%032x" % 0xABC, b"%016x" % 0xDEF)
    assert left == []


def test_ids_of_zeros_are_never_given():
    getrandbits, left = scripted(0, 0, 7, 0, 8)
    assert new_trace(getrandbits) == (b"%032x" % 7, b"%016x" % 8)
    assert left == []
    assert new_id(scripted(0, 9)[0]) == b"%016x" % 9


def test_new_ids_can_be_read_by_everybody():
    source = random.Random(1)
    for _ in range(1000):
        trace_id, span_id = new_trace(source.getrandbits)
        value = write_traceparent(trace_id, span_id, sampled=True)
        assert opentelemetry_reads(value) == (trace_id, span_id, True)


# -- the decision ---------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.001, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1.0])
def test_opentelemetry_would_record_the_same_traces(ratio):
    sampler, bound = TraceIdRatioBased(ratio), threshold(ratio)
    source = random.Random(7)
    recorded = 0
    for _ in range(10_000):
        trace_id, _ = new_trace(source.getrandbits)
        theirs = sampler.should_sample(None, int(trace_id, 16), "").decision
        assert in_sample(trace_id, bound) is (theirs is Decision.RECORD_AND_SAMPLE)
        recorded += in_sample(trace_id, bound)
    assert abs(recorded / 10_000 - ratio) < 0.02


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_the_border_is_where_opentelemetry_has_it(ratio):
    bound = threshold(ratio)
    for number in {max(bound - 1, 0), min(bound, (1 << 64) - 1), 0, (1 << 64) - 1}:
        theirs = TraceIdRatioBased(ratio).should_sample(None, number | 1 << 64, "").decision
        assert in_sample(b"%032x" % (number | 1 << 64), bound) is (
            theirs is Decision.RECORD_AND_SAMPLE
        )
