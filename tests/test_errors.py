"""Every error has what a client and a program need to know, and nothing more."""

import pytest

from mcpx import errors
from mcpx.errors import ConfigError, FrameError, GatewayError, McpxError, RemoteProtocolError


def below(kind):
    return [kind, *(found for each in kind.__subclasses__() for found in below(each))]


# Those of the tree itself: what other modules hang below it depends on what is imported.
ANSWERS = [kind for kind in below(GatewayError) if kind.__module__ == errors.__name__]


def test_every_error_is_in_one_tree():
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, McpxError), name


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_every_answer_has_a_code_a_status_and_a_word_for_the_audit(kind):
    assert kind.code.isidentifier()
    assert 400 <= kind.status <= 599
    assert -32768 <= kind.rpc_code <= -32000
    assert kind.outcome.isidentifier()
    assert kind.__doc__


def test_codes_are_told_apart():
    # A kind below another tells the gateway something more, and the client the same.
    codes = [kind.code for kind in ANSWERS if GatewayError in kind.__bases__]
    assert len(set(codes)) == len(codes)


def test_what_the_audit_is_told_may_say_more_than_the_client_is_told():
    assert GatewayError("for all").reason == "for all"
    error = GatewayError("for the client", reason="for the audit")
    assert (error.message, error.reason, str(error)) == (
        "for the client",
        "for the audit",
        "for the client",
    )
    assert GatewayError("for all", reason="").reason == ""


def test_a_status_or_code_of_one_error_leaves_its_class_alone():
    changed = errors.BadRequest("x", status=405, rpc_code=-32602)
    assert (changed.status, changed.rpc_code) == (405, -32602)
    plain = errors.BadRequest("x")
    assert (plain.status, plain.rpc_code) == (400, -32600)


def test_a_configuration_error_holds_every_problem():
    error = ConfigError(["one", "two"])
    assert error.problems == ["one", "two"]
    assert str(error) == "one\ntwo"


def test_faults_of_messages_say_what_to_answer():
    assert RemoteProtocolError("x").status == 400
    assert RemoteProtocolError("x", 431).status == 431
    fault = FrameError("x", -32602, 7, b'"id"')
    assert (fault.rpc_code, fault.offset, fault.id) == (-32602, 7, b'"id"')
