"""The keys of an authorization server, fetched when they are needed and kept for a while.

What it is: one key set, and the rules by which it is fetched anew. What it must never do:
let whoever sends tokens decide how often the authorization server is asked, make every
request wait while that server is down, or lose good keys because a fetch failed.

    age of the keys        what a request gets
    none yet               waits for the first fetch
    below three quarters   the keys
    below max_age_s        the keys; a fetch begins beside it
    beyond max_age_s       waits for a fetch; the old keys if that fails
    beyond max_stale_s     as with none yet: 503 if the fetch fails

After a failure nothing is fetched for a second, then for twice as long with each further
failure, up to ``negative_ttl_s``; meanwhile requests get the old keys, or 503, at once.

A token that names an unknown key makes for one fetch in ``min_interval_s``. It is counted
apart from the fetches by age, so that the first token after a rotation is served at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import trio

from mcpx.core.jwt import KeyFault, KeySet, parse_keys
from mcpx.core.oauth import KeysUnavailable
from mcpx.services.errand import Errand, Errands, Pauses
from mcpx.services.log import event
from mcpx.services.outbound import OutboundError, place

__all__ = ["Fetch", "JwksKeys", "KeysUnavailable", "discover"]

log = logging.getLogger("mcpx.jwks")

_SOON: Final = 0.75
_LONGEST_METADATA: Final = 256 * 1024


class Fetch(Protocol):
    """The body of a document: ``Outbound.fetch``. Raises OutboundError."""

    async def __call__(self, url: str, *, guarded: bool = False) -> bytes:
        """Fetch it; ``guarded`` for what was not written in the configuration."""


class JwksKeys:
    """The key set at ``uri``, or at the one that ``issuer`` names in its metadata.

    Args:
        uri: written by the operator; None to discover it.
        fetch: gets a document's body.
        errands: where fetching runs.
        issuer: needed for discovery; what it names is fetched as a guarded address
            unless it has the issuer's own origin.
        max_age_s: how long keys are used without a fetch.
        max_stale_s: how long they are used if fetching fails.
        min_interval_s: between two fetches for unknown keys.
        negative_ttl_s: the longest pause after failures.
        wait_s: how long one request waits for a fetch.
        changed: told each new set, to forget what withdrawn keys have signed.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        uri: str | None,
        fetch: Fetch,
        errands: Errands,
        *,
        issuer: str | None = None,
        max_age_s: float = 3600.0,
        max_stale_s: float = 86_400.0,
        min_interval_s: float = 10.0,
        negative_ttl_s: float = 60.0,
        wait_s: float = 5.0,
        changed: Callable[[KeySet], None] | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        if uri is None and issuer is None:
            raise ValueError("without a uri there must be an issuer to discover it from")
        self._uri = uri
        self._issuer = issuer
        self._fetch = fetch
        self._max_age_s = max_age_s
        self._max_stale_s = max(max_stale_s, max_age_s)
        self._min_interval_s = min_interval_s
        self._wait_s = wait_s
        #: Told each new set of keys.
        self.changed = changed
        self._clock = clock
        self._errand = Errand(errands, self._refresh)
        self._pauses = Pauses(negative_ttl_s)
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._asked_at = float("-inf")  # for an unknown key, the last time
        self._fault = "they were not fetched yet"
        self.fetches = 0
        self.failures = 0

    async def current(self) -> KeySet:
        """The keys; fetched first if need be. Raises KeysUnavailable."""
        now = self._clock()
        keys, age_s = self._keys, now - self._fetched_at
        if keys is not None and age_s < self._max_age_s * _SOON:
            return keys
        if now >= self._pauses.until:
            if keys is not None and age_s < self._max_age_s:
                self._errand.begin()
                return keys
            await self._errand.finish(self._wait_s)
        return self._usable()

    async def newer(self, than: KeySet) -> KeySet | None:
        """The keys after a fetch on behalf of an unknown key; ``than`` were looked at.

        None when it is too early to fetch again: then the key stays unknown.

        Raises KeysUnavailable when a fetch fails or takes too long: then nobody knows.
        """
        if self._keys is not than:
            return self._keys  # somebody else's fetch has ended meanwhile
        now = self._clock()
        if not self._errand.under_way:
            if now < self._pauses.until:
                raise self._unavailable()
            if now < self._asked_at + self._min_interval_s:
                return None
            self._asked_at = now
        await self._errand.finish(self._wait_s)
        if self._keys is than:
            raise self._unavailable()
        return self._keys

    def _usable(self) -> KeySet:
        if self._keys is not None and self._clock() - self._fetched_at < self._max_stale_s:
            return self._keys
        raise self._unavailable()

    def _unavailable(self) -> KeysUnavailable:
        fault = self._fault
        if self._errand.under_way:
            fault = f"fetching them takes longer than {self._wait_s:g} s"
        return KeysUnavailable(fault, max(1.0, self._pauses.until - self._clock()))

    async def _refresh(self) -> None:
        """Fetch the keys, or note why that failed."""
        self.fetches += 1
        try:
            keys = await self._read()
        except (OutboundError, KeyFault) as exc:
            self.failures += 1
            self._fault = str(exc)
            self._pauses.failed(self._clock())
            kept = self._keys is not None
            event(log, logging.WARNING, "keys not fetched", reason=str(exc), old_keys_kept=kept)
            return
        self._pauses.succeeded()
        self._keys, self._fetched_at = keys, self._clock()
        event(log, logging.DEBUG, "keys fetched", keys=len(keys), ignored=keys.ignored)
        if self.changed is not None:
            self.changed(keys)

    async def _read(self) -> KeySet:
        if self._uri is not None:
            return parse_keys(await self._fetch(self._uri))
        assert self._issuer is not None
        metadata = await discover(self._issuer, self._fetch)
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str):
            raise OutboundError(f"the metadata of {place(self._issuer)} names no jwks_uri")
        guarded = _origin(uri) != _origin(self._issuer)
        return parse_keys(await self._fetch(uri, guarded=guarded))


async def discover(issuer: str, fetch: Fetch) -> dict[str, Any]:
    """The metadata of an authorization server.

    Tries RFC 8414 section 3.1, then OpenID Connect Discovery with the path inserted, then
    with it appended; the first document that names this very issuer is taken, and no other.

    Raises OutboundError.
    """
    faults: list[str] = []
    for url in _metadata_urls(issuer):
        try:
            document = _object(await fetch(url))
        except OutboundError as exc:
            faults.append(str(exc))
            continue
        if document is None:
            faults.append(f"{place(url)} is no JSON object")
        elif document.get("issuer") != issuer:
            faults.append(f"{place(url)} is of another issuer")
        else:
            return document
    raise OutboundError(f"{place(issuer)} has no usable metadata: {'; '.join(faults)}")


def _metadata_urls(issuer: str) -> tuple[str, ...]:
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    urls = (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )
    return tuple(dict.fromkeys(urls))


def _object(text: bytes) -> dict[str, Any] | None:
    if len(text) > _LONGEST_METADATA:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, parts.hostname, port
