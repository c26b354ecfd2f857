import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.protocol import headers as h


def up(*names, extra=frozenset()):
    return [name for name, _ in h.forwarded_request_headers([(n, b"v") for n in names], extra)]


def down(*names):
    return [name for name, _ in h.forwarded_response_headers([(n, b"v") for n in names])]


def test_what_a_server_needs_goes_up_in_order():
    names = [
        b"user-agent",
        b"accept",
        b"content-type",
        b"accept-language",
        b"last-event-id",
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
        b"mcp-param-region",
        b"mcp-anything-new",
    ]
    assert up(*names) == names


NEVER_UP = [
    *sorted(h.NEVER_FORWARDED),
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-anything",
]


@pytest.mark.parametrize("name", NEVER_UP)
def test_credentials_and_fields_of_the_connection_never_go_up(name):
    assert up(name) == []
    assert up(name, extra=frozenset({name})) == []


def test_unknown_fields_go_up_only_where_the_configuration_says_so():
    assert up(b"x-tenant", b"mcpx", b"x-mcp-name") == []
    assert up(b"x-tenant", extra=frozenset({b"x-tenant"})) == [b"x-tenant"]


def test_a_repeated_field_goes_up_as_often_as_it_came():
    pairs = [(b"accept", b"a/b"), (b"accept", b"c/d")]
    assert h.forwarded_request_headers(pairs) == pairs


@pytest.mark.parametrize("forward", [h.forwarded_request_headers, h.forwarded_response_headers])
def test_fields_that_connection_names_stay_here(forward):
    pairs = [
        (b"mcp-name", b"x"),
        (b"connection", b"keep-alive, Mcp-Name"),
        (b"content-type", b"a/b"),
        (b"connection", b"close,content-TYPE"),
        (b"mcp-method", b"y"),
    ]
    assert forward(pairs) == [(b"mcp-method", b"y")]


def test_only_what_a_client_needs_comes_down():
    names = [
        b"content-type",
        b"cache-control",
        b"retry-after",
        b"allow",
        b"x-accel-buffering",
        b"content-language",
        b"traceresponse",
        b"mcp-new",
    ]
    assert down(*names) == names
    assert (
        down(
            b"set-cookie",
            b"server",
            b"date",
            b"location",
            b"www-authenticate",
            b"access-control-allow-origin",
            b"content-encoding",
            b"content-length",
            b"transfer-encoding",
            b"connection",
            b"keep-alive",
            b"trailer",
            b"mcp-session-id",
            b"vary",
            b"etag",
            b"strict-transport-security",
        )
        == []
    )


def test_the_first_repeated_single_field_is_named():
    pairs = [(b"accept", b""), (b"host", b""), (b"accept", b""), (b"host", b"")]
    assert h.repeated(pairs, h.SINGLE_IN_REQUESTS) == b"host"
    assert h.repeated(pairs[:3], h.SINGLE_IN_REQUESTS) is None
    assert h.repeated([(b"mcp-x", b"")] * 2, h.SINGLE_IN_REQUESTS) == b"mcp-x"
    assert h.repeated([(b"content-type", b"")] * 2, h.SINGLE_IN_RESPONSES) == b"content-type"


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_from_the_sentinel(text):
    wrapped = b"=?base64?" + base64.b64encode(text.encode()) + b"?="
    assert h.decode_value(wrapped) == text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_itself(text):
    if not text.startswith("=?base64?"):
        assert h.decode_value(text.encode()) == text


@pytest.mark.parametrize(
    "value",
    [b"", b"a b", b"=?BASE64?YQ==?=", b"=?base64?YQ==", b"x=?base64?YQ==?=", b"=?base64?YQ==?= "],
)
def test_what_only_looks_like_the_sentinel_is_plain(value):
    assert h.decode_value(value) == value.decode()


@pytest.mark.parametrize(
    "value",
    [
        b"=?base64?YQ?=",
        b"=?base64?YQ=?=",
        b"=?base64?YR==?=",
        b"=?base64?Y Q==?=",
        b"=?base64?YQ==\n?=",
        b"=?base64?Y-_=?=",
        b"=?base64?YQ==YQ==?=",
        b"=?base64?/w==?=",
        b"=?base64?7aCA?=",
        b"=?base64?a?b?=",
        b"caf\xc3\xa9",
        b"a\nb",
        b"a\0",
        b"\x7f",
    ],
)
def test_a_value_that_two_readers_could_take_differently_is_refused(value):
    with pytest.raises(ValueError):
        h.decode_value(value)


@pytest.mark.parametrize(
    ("value", "is_json"),
    [
        (b"application/json", True),
        (b"Application/JSON", True),
        (b"application/json;charset=utf-8", True),
        (b'application/json ; Charset="UTF-8"', True),
        (b"application/json; charset=utf-16", False),
        (b"application/json; charset=utf-8; charset=utf-16", False),
        (b"application/json;", False),
        (b"application/json; x=y", False),
        (b"application/json, text/plain", False),
        (b"application/jsonx", False),
        (b"text/json", False),
        (b"application/json\n", False),
        (b"", False),
    ],
)
def test_json_is_told_by_its_type_and_utf_8(value, is_json):
    assert h.is_json_content_type(value) is is_json


@pytest.mark.parametrize(
    ("value", "is_stream"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/event-stream;charset=utf-8", True),
        (b"text/event-streams", False),
        (b"text/plain; text/event-stream", False),
        (b"", False),
    ],
)
def test_an_event_stream_is_told_by_its_type(value, is_stream):
    assert h.is_event_stream(value) is is_stream
