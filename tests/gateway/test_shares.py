"""What one client holds is counted exactly, and forgotten when it holds nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.config.model import LimitsConfig
from mcpx.errors import Overloaded
from mcpx.gateway.shares import Shares

LIMITS = LimitsConfig(max_calls_per_client=2, max_streams_per_client=1)


def test_a_client_may_have_so_many_calls_under_way_and_no_more():
    shares = Shares()
    with shares.call("a", LIMITS), shares.call("a", LIMITS):
        with pytest.raises(Overloaded) as refused:
            shares.call("a", LIMITS)
        assert (b"retry-after", b"1") in refused.value.headers
        with shares.call("b", LIMITS):
            assert shares.calls == {"a": 2, "b": 1}
    assert shares.calls == {}
    with shares.call("a", LIMITS):
        pass


def test_a_call_that_becomes_a_stream_takes_no_place_of_calls():
    shares = Shares()
    with shares.call("a", LIMITS) as share:
        share.becomes_stream()
        assert (shares.calls, shares.streams) == ({}, {"a": 1})
        with shares.call("a", LIMITS), shares.call("a", LIMITS):
            pass
    assert shares.streams == {}


def test_one_stream_too_many_is_refused_and_stays_a_call_to_its_end():
    shares = Shares()
    with shares.call("a", LIMITS) as first:
        first.becomes_stream()
        with pytest.raises(Overloaded), shares.call("a", LIMITS) as second:
            second.becomes_stream()
        assert (shares.calls, shares.streams) == ({}, {"a": 1})
    assert (shares.calls, shares.streams) == ({}, {})


def test_a_call_that_fails_gives_its_place_back():
    shares = Shares()
    with pytest.raises(RuntimeError), shares.call("a", LIMITS):
        raise RuntimeError
    assert shares.calls == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=40))
def test_whatever_clients_do_nothing_is_left_at_the_end(steps):
    shares = Shares()
    limits = LimitsConfig(max_calls_per_client=3, max_streams_per_client=2)
    held = []
    for client, streams, ends in steps:
        if ends and held:
            held.pop(0).__exit__()
            continue
        try:
            share = shares.call(client, limits).__enter__()
        except Overloaded:
            assert shares.calls[client] == 3
            continue
        held.append(share)
        if streams:
            try:
                share.becomes_stream()
            except Overloaded:
                assert shares.streams[client] == 2
    for share in held:
        share.__exit__()
    assert (shares.calls, shares.streams) == ({}, {})
