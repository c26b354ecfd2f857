import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.protocol import mcp


def test_the_tables_name_only_methods_that_a_client_may_send():
    assert mcp.TARGETS.keys() <= mcp.CLIENT_REQUESTS
    assert mcp.LISTS.keys() <= mcp.CLIENT_REQUESTS
    assert mcp.MIRRORED_MEMBERS.keys() <= mcp.CLIENT_REQUESTS
    assert mcp.CLIENT_METHODS == mcp.CLIENT_REQUESTS | mcp.CLIENT_NOTIFICATIONS
    assert not mcp.CLIENT_REQUESTS & mcp.CLIENT_NOTIFICATIONS


def test_notifications_and_requests_are_told_apart_by_their_prefix():
    assert all(name.startswith("notifications/") for name in mcp.CLIENT_NOTIFICATIONS)
    assert not any(name.startswith("notifications/") for name in mcp.CLIENT_REQUESTS)


def methods_of(*types):
    """The method names in a union of the reference SDK's message models."""
    found = set()
    for kind in types:
        literal = kind.model_fields["method"].annotation
        found.add(literal.__args__[0])
    return found


def test_every_method_of_the_reference_sdk_is_in_the_tables():
    types = pytest.importorskip("mcp_types")
    members = {
        name: set(vars(types)[name].__args__)
        if hasattr(vars(types)[name], "__args__")
        else set(vars(types)[name].model_fields["root"].annotation.__args__)
        for name in ("ClientRequest", "ClientNotification", "ServerRequest", "ServerNotification")
    }
    assert methods_of(*members["ClientRequest"]) <= mcp.CLIENT_REQUESTS
    assert methods_of(*members["ClientNotification"]) <= mcp.CLIENT_NOTIFICATIONS
    assert (
        methods_of(*members["ServerRequest"], *members["ServerNotification"]) <= mcp.SERVER_METHODS
    )


@pytest.mark.parametrize(
    ("header", "meta", "modern"),
    [
        (None, None, False),
        *[(version.encode(), None, False) for version in mcp.LEGACY_VERSIONS],
        (b"2026-07-28", None, True),
        (b"2099-01-01", None, True),
        (b"", None, True),
        (b"nonsense", None, True),
        (None, "2026-07-28", True),
        (b"2025-11-25", "2026-07-28", True),
        (b"2026-07-28", "2026-07-28", True),
        (None, "2025-11-25", True),
    ],
)
def test_the_era_is_read_from_the_header_or_the_envelope(header, meta, modern):
    assert mcp.is_modern(header, meta) is modern


def test_an_error_body_is_compact_and_keeps_the_raw_id():
    assert mcp.error_body(b"123456789012345678901234567890", -32600, "no") == (
        b'{"jsonrpc":"2.0","id":123456789012345678901234567890,'
        b'"error":{"code":-32600,"message":"no"}}'
    )
    assert json.loads(mcp.error_body(b'"a"', -32022, "no", {"supported": ["x"]})) == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {"code": -32022, "message": "no", "data": {"supported": ["x"]}},
    }


def test_an_error_without_an_id_says_null():
    assert json.loads(mcp.error_body(None, -32700, "no"))["id"] is None


def test_empty_data_is_written():
    assert json.loads(mcp.error_body(None, 1, "", {}))["error"]["data"] == {}


@given(st.text(st.characters(codec="utf-8")))
def test_any_message_comes_back_from_the_error_body(message):
    assert json.loads(mcp.error_body(b"1", 1, message))["error"]["message"] == message


def test_a_lone_surrogate_in_a_message_is_replaced():
    assert json.loads(mcp.error_body(b"1", 1, "a\ud800b"))["error"]["message"] == "a?b"
