"""Noticing that the configuration file has changed.

What it is: a task that reads the file every ``interval_s`` and compares its content.
What it must never do: act on half a file.

Only the content counts. An edit that keeps size and time is seen, and so is a symbolic
link that points elsewhere (which is how Kubernetes replaces a mounted file); a touch is
nothing. A file that is gone, can't be read, is no regular file, is too large or has
nothing in it is no change: it is told once, and the last good configuration stays.

A file that is being written in place can be valid at every moment and still lack its
end, for instance the list of what is denied. So a change counts once two reads that lie
``settle_s`` apart agree; until then the reads go on at that pace.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mcpx.services.log import event

__all__ = ["ConfigWatcher"]

log = logging.getLogger("mcpx.watch")

DEFAULT_INTERVAL_S: Final = 2.0
SETTLE_S: Final = 0.5
MAX_BYTES: Final = 16 * 1024 * 1024


class ConfigWatcher:
    """Calls ``on_change`` after the content of the file at ``path`` has become another.

    ``interval_s`` of 0 or less means two seconds. ``loaded`` is the content that is in
    force; without it, it is what the first read finds. ``on_change`` reads the file
    itself, and reports its faults itself; should it raise, the watch goes on, and the
    content is not tried again.
    """

    def __init__(
        self,
        path: str,
        interval_s: float,
        on_change: Callable[[], Awaitable[object]],
        *,
        loaded: bytes | None = None,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._path = path
        self._interval_s = interval_s if interval_s > 0 else DEFAULT_INTERVAL_S
        self._settle_s = min(settle_s, self._interval_s)
        self._on_change = on_change
        self._known = _digest(loaded) if loaded is not None else None
        self._trouble: str | None = None
        self._thread = trio.CapacityLimiter(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Started once the file was read for the first time."""
        if self._known is None:
            self._known = await self._read()
        task_status.started()
        seen: bytes | None = None
        while True:
            await trio.sleep(self._interval_s if seen is None else self._settle_s)
            found = await self._read()
            if found is None or found == self._known:
                seen = None
            elif found != seen:
                seen = found
            else:
                self._known, seen = found, None
                await self._act()

    async def _act(self) -> None:
        try:
            await self._on_change()
        except Exception:
            log.exception("the change of %s could not be acted on", self._path)

    async def _read(self) -> bytes | None:
        """The digest of the content, ``None`` if there is nothing to go by."""
        try:
            # Abandoned if cancelled: reading has no effect that anybody could miss.
            digest = await trio.to_thread.run_sync(
                _read_digest, self._path, abandon_on_cancel=True, limiter=self._thread
            )
        except OSError as exc:
            self._tell(exc.strerror or type(exc).__name__)
            return None
        self._tell(None)
        return digest

    def _tell(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._trouble:
            event(
                log,
                logging.WARNING,
                "the configuration file can't be read; the one in force stays",
                path=self._path,
                error=trouble,
            )
        elif trouble is None and self._trouble is not None:
            event(log, logging.INFO, "the configuration file can be read again", path=self._path)
        self._trouble = trouble


def _read_digest(path: str) -> bytes:
    """The SHA-256 of a file's content. Raises OSError for what can't be a configuration."""
    # O_NONBLOCK: a FIFO must not hold the thread.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "too large for a configuration")
    if not content.strip():
        raise OSError(errno.ENODATA, "empty: somebody may be writing it")
    return _digest(content)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
