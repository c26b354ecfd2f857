"""The client's address behind trusted proxies."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.core.addresses import client_address, parse_networks

TRUSTED = parse_networks(["10.0.0.0/8", "fd00::/8", "192.0.2.1"])


def test_without_trusted_networks_the_peer_is_returned_as_it_is():
    assert client_address("::ffff:10.0.0.1", b"1.2.3.4", ()) == "::ffff:10.0.0.1"
    assert client_address("", b"1.2.3.4", ()) == ""


def test_a_peer_that_is_not_trusted_is_not_believed():
    assert client_address("203.0.113.9", b"1.2.3.4", TRUSTED) == "203.0.113.9"


def test_a_peer_behind_a_unix_socket_is_believed_where_any_proxy_is():
    assert client_address("unix", b"1.2.3.4", TRUSTED) == "1.2.3.4"
    assert client_address("unix", b"6.6.6.6, 1.2.3.4, 10.0.0.1", TRUSTED) == "1.2.3.4"
    assert client_address("unix", b"1.2.3.4", ()) == "unix"
    assert client_address("unix", None, TRUSTED) == "unix"
    assert client_address("unix", b"nonsense", TRUSTED) == "unix"


def test_the_rightmost_entry_that_is_not_trusted_is_the_client():
    spoofed = b"6.6.6.6, 198.51.100.7, 10.1.1.1,192.0.2.1"
    assert client_address("10.0.0.1", spoofed, TRUSTED) == "198.51.100.7"


def test_without_the_header_a_trusted_peer_is_the_client():
    assert client_address("10.0.0.1", None, TRUSTED) == "10.0.0.1"


def test_where_all_are_trusted_the_first_of_them_is_the_client():
    assert client_address("10.0.0.1", b"10.0.0.3, 10.0.0.2", TRUSTED) == "10.0.0.3"


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b" ",
        b"unknown",
        b"_hidden",
        b"10.0.0.256",
        b"1.2.3.4:port",
        b"1.2.3.4:99999",
        b"1.2.3.4:",
        b"[1.2.3.4]",
        b"[::1",
        b"[::1]x",
        b"fe80::1%eth0",
        b'"1.2.3.4"',
        b"for=1.2.3.4",
        b"\xff\xfe",
        b"1" * 100_000,
    ],
)
def test_an_entry_that_is_no_address_ends_the_walk_on_the_hop_that_passed_it_on(junk):
    header = b"1.2.3.4, " + junk + b", 10.9.9.9"
    assert client_address("10.0.0.1", header, TRUSTED) == "10.9.9.9"


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        (b"1.2.3.4", "1.2.3.4"),
        (b"\t1.2.3.4:5678 ", "1.2.3.4"),
        (b"2001:DB8:0::1", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[2001:db8::1]:443", "2001:db8::1"),
        (b"::ffff:1.2.3.4", "1.2.3.4"),
        (b"[::ffff:1.2.3.4]:9", "1.2.3.4"),
    ],
)
def test_addresses_come_out_in_their_one_spelling(entry, address):
    assert client_address("10.0.0.1", entry, TRUSTED) == address


def test_an_ipv4_peer_in_ipv6_clothing_is_the_same_peer():
    assert client_address("::ffff:10.0.0.1", b"1.2.3.4", TRUSTED) == "1.2.3.4"
    assert client_address("::ffff:8.8.8.8", b"1.2.3.4", TRUSTED) == "8.8.8.8"
    mapped = parse_networks(["::ffff:10.0.0.0/104"])
    assert client_address("10.0.0.1", b"1.2.3.4", mapped) == "1.2.3.4"


def test_a_walk_is_bounded():
    endless = b",".join([b"1.2.3.4", *[b"10.0.0.2"] * 100_000])
    assert client_address("10.0.0.1", endless, TRUSTED) == "10.0.0.2"


def test_networks_may_be_single_addresses():
    assert [str(network) for network in parse_networks(["192.0.2.1", " ::1 "])] == [
        "192.0.2.1/32",
        "::1/128",
    ]


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example", ""])
def test_a_text_that_is_no_network_is_refused_by_name(text):
    with pytest.raises(ValueError, match="trusted proxy") as caught:
        parse_networks(["10.0.0.0/8", text])
    assert repr(text) in str(caught.value)


@given(header=st.binary(max_size=60) | st.from_regex(rb"\A[0-9a-f:., \[\]]{0,60}\Z"))
def test_no_header_breaks_the_walk_and_the_outcome_is_always_an_address(header):
    assert ip_address(client_address("10.0.0.1", header, TRUSTED))
