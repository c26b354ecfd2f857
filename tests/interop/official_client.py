"""The official Python client as the tests use it: bounded, observed, without its cache."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

__all__ = ["LEGACY", "MODERN", "PROBING", "connected", "plain"]

# The client's modes. "auto" probes with server/discover and falls back to initialize.
LEGACY = "legacy"
MODERN = "2026-07-28"
PROBING = "auto"

LIMIT_S = 40


@asynccontextmanager
async def connected(
    url: str,
    mode: str,
    *,
    headers: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
    **options: Any,
) -> AsyncIterator[Client]:
    """A connected client; all that is done with it must end within ``limit_s``.

    Args:
        url: The endpoint.
        mode: One of the modes above.
        headers: Sent with every request.
        options: Further arguments of the SDK's ``Client``, such as callbacks.
    """
    with trio.fail_after(limit_s), allowances():
        async with httpx2.AsyncClient(
            headers=dict(headers or {}), timeout=httpx2.Timeout(limit_s), trust_env=False
        ) as http:
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode=mode, cache=None, **options) as client:
                yield client


@contextmanager
def allowances() -> Iterator[None]:
    """Forgive what the client does for reasons of its own; elsewhere a warning is a failure."""
    with warnings.catch_warnings():
        # What the current revision deprecates has to work all the same.
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        # It leaves event streams half read when it has what it wanted of them.
        warnings.filterwarnings("ignore", r"Async generator 'http(x|core)2\.", ResourceWarning)
        try:
            yield
        finally:
            # Now, and not in the middle of some later test.
            gc.collect()


def plain(result: Any) -> Any:
    """A result as the JSON that it came from."""
    return result.model_dump(mode="json", by_alias=True, exclude_unset=True)
