"""Whose address a request comes from, behind proxies that are trusted by name.

``X-Forwarded-For`` is written by whoever likes to. Only what a trusted proxy appended
is believed: the walk begins at the peer of the connection and goes through the list
from its right end as long as it stands on a trusted address. Where it ends is the
client. An entry that is no address ends it too, on the hop that passed it on.

Addresses come out in their one short spelling, IPv4 ones without the IPv6 clothing
(``::ffff:10.0.0.1``) that a dual-stack listener gives them: limits and audit must
not count one client as two.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

__all__ = ["Networks", "client_address", "parse_networks"]

Networks = tuple[IPv4Network | IPv6Network, ...]

# More proxies in a row than anybody has, and longer than any address with its port.
_MOST_HOPS = 32
_LONGEST_ENTRY = 64

_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_networks(texts: Iterable[str]) -> Networks:
    """Networks from ``10.0.0.0/8``, ``2001:db8::/32`` or single addresses.

    Raises ValueError that says which text is none, and why.
    """
    networks: list[IPv4Network | IPv6Network] = []
    for text in texts:
        try:
            network = ip_network(text.strip())
        except ValueError as error:
            raise ValueError(
                f"trusted proxy {text!r}: {error}; write a network such as 10.0.0.0/8"
            ) from None
        if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
            inner = int(network.network_address) & 0xFFFF_FFFF
            network = IPv4Network((inner, network.prefixlen - _MAPPED.prefixlen))
        networks.append(network)
    return tuple(networks)


def client_address(peer: str, forwarded_for: bytes | None, trusted: Networks) -> str:
    """The client's address.

    ``peer`` is the other end of the connection, ``forwarded_for`` the value of
    ``X-Forwarded-For`` (several such headers joined by commas, in their order).
    Without trusted networks it is the peer as it was given. A peer without an IP address
    came through a Unix socket, which only a proxy on this machine can: it is believed
    where any proxy is. Never raises.
    """
    if not trusted:
        return peer
    address = _parse(peer)
    if forwarded_for is not None and (address is None or _is_trusted(address, trusted)):
        entries = forwarded_for.rsplit(b",", _MOST_HOPS)[-_MOST_HOPS:]
        for entry in reversed(entries):
            hop = _parse_entry(entry)
            if hop is None:
                break
            address = hop
            if not _is_trusted(hop, trusted):
                break
    return peer if address is None else str(address)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Networks) -> bool:
    return any(address in network for network in trusted)


def _parse_entry(entry: bytes) -> IPv4Address | IPv6Address | None:
    """``1.2.3.4``, ``2001:db8::1`` or ``[2001:db8::1]``, the first and last with a port or not."""
    text = entry.strip(b" \t")
    if len(text) > _LONGEST_ENTRY or b"%" in text:
        return None
    if text.startswith(b"["):
        text, bracket, rest = text[1:].partition(b"]")
        if not bracket or b":" not in text or (rest and not _is_port(rest)):
            return None
    elif text.count(b":") == 1:
        colon = text.index(b":")
        if not _is_port(text[colon:]):
            return None
        text = text[:colon]
    return _parse(text.decode("latin-1"))


def _is_port(text: bytes) -> bool:
    """Whether ``text`` is a colon and a port."""
    digits = text[1:]
    return text[:1] == b":" and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
