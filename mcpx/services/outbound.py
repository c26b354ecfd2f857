"""Requests of the gateway's own: to authorization servers, for keys and for tokens.

What it is: the only module that imports httpx, which it does when it is prepared. GET and POST with every bound there is: on the answer's size, on the time for all of
it, on nothing but this one address. What it must never do: follow a redirect, take a
proxy or a trust store from the environment, skip the verifying of a certificate, put a
request's body or a query into an error.

**Guarded** requests go to addresses that somebody else wrote, such as what a metadata
document names. Whoever writes that document must not be able to make the gateway ask
its own network. So the name is resolved here, every address that it has must be a public
one, and the connection is made to the very address that was checked: the URL that httpx
gets has the address in place of the name, while ``Host`` and TLS keep the name. Asking a
second time could give another answer (DNS rebinding). Only https is spoken.

An address is public if the registry of special addresses (as ``ipaddress`` has it) says
that it is global, and if it is no form that carries another address inside: mapped,
compatible, 6to4, Teredo, NAT64. Those are refused whatever they carry. For IPv6 it must
also be of 2000::/3, the only block that is given out.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import trio

from mcpx.errors import McpxError

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "EgressRefused", "Outbound", "OutboundError", "is_public", "place"]

_GIVEN_OUT: Final = ipaddress.IPv6Network("2000::/3")
# What some versions of ``ipaddress`` hold for global, and no public server is at.
_NOT_SERVERS: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's own agent, seen from its machines
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata among them
            "192.88.99.0/24",  # 6to4 relays (RFC 7526)
            "2001::/23",  # protocol assignments, Teredo among them
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
#: Addresses of one name that are tried, one after the other.
_TRIED: Final = 4
_LONGEST_URL: Final = 2048
_LONGEST_SHOWN: Final = 200

Headers = Sequence[tuple[str, str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class OutboundError(McpxError):
    """There is no usable answer. The message is for the log: it names the place."""


class EgressRefused(OutboundError):
    """The address is one that must not be asked. Nothing was sent."""


class Answer(NamedTuple):
    """An answer, whole."""

    status: int
    body: bytes


class _Asked(NamedTuple):
    method: str
    url: str
    headers: Headers
    form: Mapping[str, str] | None


class Outbound:
    """Makes the requests. Holds no connection between them: there are few.

    Args:
        timeout_s: for one request with everything: name lookup, TLS, the whole body.
        limit_bytes: of an answer's body.
        allow_private: guarded requests may go to private addresses too, and in plain
            http to loopback ones. For authorization servers in one's own network.
        tls: how to speak TLS; by default as the system trusts.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 5.0,
        limit_bytes: int = 512 * 1024,
        allow_private: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.limit_bytes = limit_bytes
        self.allow_private = allow_private
        self._tls = tls

    def prepare(self) -> None:
        """Load what requests need, which takes a quarter of a second: before serving."""
        import httpx  # noqa: F401

        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2

    async def fetch(self, url: str, *, guarded: bool = False) -> bytes:
        """The body of a document, which must be there (status 200).

        Raises OutboundError.
        """
        answer = await self.get(url, guarded=guarded)
        if answer.status != 200:
            raise OutboundError(f"{place(url)} answered with status {answer.status}")
        return answer.body

    async def get(self, url: str, *, headers: Headers = (), guarded: bool = False) -> Answer:
        """The answer to a GET, whatever its status. Raises OutboundError."""
        return await self._request(_Asked("GET", url, headers, None), guarded=guarded)

    async def post(
        self, url: str, form: Mapping[str, str], *, headers: Headers = (), guarded: bool = False
    ) -> Answer:
        """The answer to a form, whatever its status. Raises OutboundError."""
        return await self._request(_Asked("POST", url, headers, form), guarded=guarded)

    async def _request(self, asked: _Asked, *, guarded: bool) -> Answer:
        import httpx

        url, shown = asked.url, place(asked.url)
        try:
            target = _parsed(url, shown)
            with trio.fail_after(self.timeout_s):
                targets = await self._checked(target, shown) if guarded else [target]
                async with self._client() as client:
                    return await self._first(client, targets, target, asked)
        except trio.TooSlowError:
            raise OutboundError(f"{shown} did not answer within {self.timeout_s:g} s") from None
        except httpx.HTTPError as exc:
            # httpx's own words may quote a part of the URL or of the answer.
            raise OutboundError(f"{shown} can't be asked: {_cause(exc)}") from None

    def _client(self) -> httpx.AsyncClient:
        import httpx

        self.prepare()
        assert self._tls is not None
        return httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113  the time for everything is bounded around it
            headers={"user-agent": "mcpx", "accept-encoding": "identity"},
        )

    async def _first(
        self, client: httpx.AsyncClient, targets: list[httpx.URL], named: httpx.URL, asked: _Asked
    ) -> Answer:
        """The answer of the first address that a connection can be made to."""
        import httpx

        for target in targets[:-1]:
            try:
                return await self._once(client, target, named, asked)
            except httpx.ConnectError:
                continue
        return await self._once(client, targets[-1], named, asked)

    async def _once(
        self, client: httpx.AsyncClient, target: httpx.URL, named: httpx.URL, asked: _Asked
    ) -> Answer:
        host = named.netloc.decode("ascii")
        request = client.build_request(
            asked.method,
            target,
            headers=[("host", host), ("accept", "application/json"), *asked.headers],
            data=asked.form,
            extensions={"sni_hostname": named.raw_host.decode("ascii")},
        )
        answer = await client.send(request, stream=True)
        try:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise OutboundError(f"{place(asked.url)} answered in an encoding nobody asked for")
            body = bytearray()
            # Leaving the loop would leave httpx's generators unfinished; cancelling what
            # they wait for ends them from within.
            with trio.CancelScope() as reading:
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > self.limit_bytes:
                        reading.cancel()
            if len(body) > self.limit_bytes:
                raise OutboundError(
                    f"{place(asked.url)} answered with more than {self.limit_bytes} bytes"
                )
            return Answer(answer.status_code, bytes(body))
        finally:
            await answer.aclose()

    async def _checked(self, target: httpx.URL, shown: str) -> list[httpx.URL]:
        """The target with each address of its name in the name's place, all of them checked."""
        if target.scheme != "https" and not self.allow_private:
            raise EgressRefused(f"{shown} is not https, and was not written in the configuration")
        port = target.port or (443 if target.scheme == "https" else 80)
        try:
            found = await trio.socket.getaddrinfo(
                target.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise OutboundError(f"the name in {shown} can't be resolved") from None
        targets: list[httpx.URL] = []
        for text in dict.fromkeys(str(entry[4][0]) for entry in found):
            address = _address(text)
            if address is None or not self._may_ask(address, target.scheme):
                raise EgressRefused(
                    f"{shown} is at an address that is not public, and was not written in the"
                    " configuration; allow_private permits it"
                )
            targets.append(target.copy_with(host=str(address)))
        if not targets:
            raise OutboundError(f"the name in {shown} has no address")
        return targets[:_TRIED]

    def _may_ask(self, address: Address, scheme: str) -> bool:
        if scheme == "https":
            return self.allow_private or is_public(address)
        return self.allow_private and address.is_loopback


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet, and says so of itself alone."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if any(address in network for network in _NOT_SERVERS):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return (
        address in _GIVEN_OUT
        and address.scope_id is None
        and address.ipv4_mapped is None
        and address.sixtofour is None
        and address.teredo is None
    )


def place(url: str) -> str:
    """A URL as it may be shown: without user, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:_LONGEST_SHOWN]


def _parsed(url: str, shown: str) -> httpx.URL:
    import httpx

    try:
        # What is measured, resolved and shown must be what httpx connects to.
        target = httpx.URL(url) if len(url) <= _LONGEST_URL else None
    except (httpx.InvalidURL, ValueError):
        target = None
    if (
        target is None
        or target.scheme not in ("https", "http")
        or not target.raw_host
        or target.userinfo
        or target.fragment
    ):
        raise OutboundError(f"{shown} is no address that can be asked: write https://host/path")
    return target


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    """What went wrong, in words that are the system's own."""
    found: BaseException | None = error
    for _ in range(8):
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({found.verify_message})"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        if found is None:
            break
        found = found.__cause__ or found.__context__
    return type(error).__name__
