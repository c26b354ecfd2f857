"""Where audit lines go: a descriptor, or a file that is rotated.

What it is: blocking code for one worker thread. What it must never do: write half a
line and forget about it, write a line twice, split a line over two files, or wait
without end for a reader that takes nothing.

A write may be cut anywhere: by a full disk, by a pipe without room, by a signal. The
line that was cut is kept here with the count of its bytes that are out, and the next
call goes on behind them; to its caller that line counts as taken. Only where the file
itself has changed in between is it written anew, whole, into the new one.

Into a pipe or a terminal go pieces of at most ``PIPE_BUF`` bytes, each made of whole
lines where lines are that short: POSIX writes such a piece at once or not at all, so
that lines of several writers don't mix. Each piece waits for room for ``stall_s`` at
the most, and one call lasts ``budget_s`` at the most, so that a stopping gateway is not
held by whoever reads its output.

A file is opened for appending, without following a symbolic link in its last component,
for its owner alone. At each call the path is compared with the open file: one that was
moved or removed is opened anew. The rotation moves ``path`` to ``path.1``, that to
``path.2`` and so on, under a lock, so that two writers don't rotate one file twice.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from mcpx.config.model import AuditConfig

__all__ = ["DescriptorSink", "FileSink", "Sink", "Written", "sink_for"]

FILE_PIECE_BYTES: Final = 1024 * 1024
PIPE_PIECE_BYTES: Final = max(512, getattr(select, "PIPE_BUF", 512))


class Written(NamedTuple):
    """How many lines, counted from the first, need not be given again; and what failed."""

    lines: int
    error: OSError | None


class Sink(Protocol):
    """Something that takes lines. Every call may block; no two run at one time."""

    def open(self) -> None:
        """Open it. Raises OSError where it can't be written to."""
        ...

    def write(self, lines: Sequence[bytes]) -> Written:
        """Write lines, each with its newline. Fewer without an error: try again at once."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    @property
    def torn(self) -> bool:
        """Whether a line was cut and its rest is still to be written."""
        ...


def sink_for(config: AuditConfig) -> Sink:
    """The sink that a configuration asks for; nothing is opened yet.

    Raises ValueError for a file without a path.
    """
    if config.output == "file":
        if not config.path:
            raise ValueError("audit.path is missing: `output: file` needs to know which file")
        return FileSink(config.path, max_bytes=config.max_bytes, keep=config.keep)
    return DescriptorSink(2 if config.output == "stderr" else 1)


class _Lines:
    """Whole lines to a descriptor, whatever becomes of each write."""

    __slots__ = ("_cut", "_out", "_stall_s")

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._cut = b""
        self._out = 0

    @property
    def torn(self) -> bool:
        """Whether a line was cut and its rest is still to come."""
        return bool(self._cut)

    def start_over(self) -> None:
        """The descriptor is another one now: a line that was cut is written whole."""
        self._out = 0

    def finish(self, fd: int, *, regular: bool, until: float) -> Written:
        """Write the rest of the line that was cut, if one was; 1 line if none is cut now."""
        if self._cut:
            rest = memoryview(self._cut)[self._out :]
            done, error = self._push(fd, rest, regular=regular, until=until)
            self._out += done
            if done < len(rest):
                return Written(0, error)
            self._cut = b""
        return Written(1, None)

    def send(self, fd: int, lines: Sequence[bytes], *, regular: bool, until: float) -> Written:
        """Write lines until ``until`` (monotonic) has passed."""
        largest = FILE_PIECE_BYTES if regular else PIPE_PIECE_BYTES
        taken = 0
        while taken < len(lines):
            if taken and time.monotonic() >= until:
                break
            end = taken + max(1, _within(lines, taken, largest))
            piece = b"".join(lines[taken:end])
            done, error = self._push(fd, memoryview(piece), regular=regular, until=until)
            if done < len(piece):
                return Written(taken + self._keep_cut(lines[taken:end], done), error)
            taken = end
        return Written(taken, None)

    def _keep_cut(self, lines: Sequence[bytes], done: int) -> int:
        """Remember the line that ``done`` bytes end within; how many lines are dealt with."""
        count = 0
        for line in lines:
            if done < len(line):
                if done:
                    self._cut, self._out = line, done
                    count += 1
                break
            done -= len(line)
            count += 1
        return count

    def _push(
        self, fd: int, data: memoryview, *, regular: bool, until: float
    ) -> tuple[int, OSError | None]:
        """Write ``data``; how much of it is out, and what failed. Neither: no time left."""
        done = 0
        while done < len(data):
            try:
                if not regular:
                    self._await_room(fd)
                count = os.write(fd, data[done:] if regular else data[done:][:PIPE_PIECE_BYTES])
                if count == 0:
                    return done, OSError(errno.EIO, "nothing was written")
            except BlockingIOError:
                # Somebody else filled the room that there was.
                count = 0
            except OSError as exc:
                return done, exc
            done += count
            if time.monotonic() >= until:
                break
        return done, None

    def _await_room(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(self._stall_s * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "nobody reads the output")


class DescriptorSink:
    """Standard output or standard error. The descriptor is not closed: it is not ours."""

    def __init__(self, fd: int, *, stall_s: float = 1.0, budget_s: float = 2.0) -> None:
        self._fd = fd
        self._budget_s = budget_s
        self._lines = _Lines(stall_s)

    def open(self) -> None:
        """Look whether there is such a descriptor."""
        os.fstat(self._fd)

    def write(self, lines: Sequence[bytes]) -> Written:
        """See ``Sink``."""
        try:
            regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError as exc:
            return Written(0, exc)
        until = time.monotonic() + self._budget_s
        rest = self._lines.finish(self._fd, regular=regular, until=until)
        if not rest.lines:
            return rest
        return self._lines.send(self._fd, lines, regular=regular, until=until)

    def close(self) -> None:
        """See ``Sink``."""

    @property
    def torn(self) -> bool:
        """See ``Sink``."""
        return self._lines.torn


class FileSink:
    """A file of whole lines, rotated at ``max_bytes`` (0: never), ``keep`` old ones kept.

    ``keep`` of 0 keeps none: the file begins anew. A line longer than ``max_bytes`` gets
    a file of its own. Something at ``path`` that is no regular file (a FIFO, a device) is
    written to and not rotated.

    A rotation that fails does not stop the record: lines go on into the file as it is,
    and the failure is told with each call.
    """

    def __init__(
        self,
        path: str,
        *,
        max_bytes: int,
        keep: int,
        stall_s: float = 1.0,
        budget_s: float = 2.0,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._budget_s = budget_s
        self._lines = _Lines(stall_s)
        self._fd: int | None = None
        self._regular = False
        self._size = 0

    def open(self) -> None:
        """Open the file, making it and its folders where they are missing."""
        if self._fd is None:
            self._open()

    def close(self) -> None:
        """See ``Sink``."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def torn(self) -> bool:
        """See ``Sink``."""
        return self._lines.torn

    def write(self, lines: Sequence[bytes]) -> Written:
        """See ``Sink``."""
        until = time.monotonic() + self._budget_s
        trouble: OSError | None = None
        taken = 0
        try:
            fd = self._current()
            rest = self._lines.finish(fd, regular=self._regular, until=until)
            if not rest.lines:
                return rest
            self._size = os.fstat(fd).st_size
            while taken < len(lines):
                count = len(lines) - taken if trouble else self._fitting(lines, taken)
                if count == 0:
                    try:
                        rotated = self._rotate()
                    except OSError as exc:
                        trouble, rotated = exc, False
                    if not rotated:
                        count = len(lines) - taken
                fd = self._current_fd()
                part = lines[taken : taken + count]
                written = self._lines.send(fd, part, regular=self._regular, until=until)
                taken += written.lines
                self._size += sum(map(len, part[: written.lines]))
                if written.error is not None or written.lines < count:
                    return Written(taken, written.error or trouble)
        except OSError as exc:
            return Written(taken, trouble or exc)
        return Written(taken, trouble)

    def _fitting(self, lines: Sequence[bytes], first: int) -> int:
        """How many lines still go into this file; 0 if it must be rotated before the next."""
        if not self._max_bytes or not self._regular:
            return len(lines) - first
        count = _within(lines, first, self._max_bytes - self._size)
        # A line too long for any file.
        return count if count or self._size else 1

    def _current_fd(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, "the file could not be opened again", self._path)
        return self._fd

    def _current(self) -> int:
        """The descriptor of what is at ``path`` now."""
        if self._fd is not None and not self._is_at_path(self._fd):
            self.close()
        if self._fd is None:
            self._open()
        return self._current_fd()

    def _is_at_path(self, fd: int) -> bool:
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _open(self) -> None:
        _make_folders(Path(self._path).parent)
        # O_NONBLOCK so that a FIFO without a reader is an error and not an endless wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
        try:
            fd = os.open(self._path, flags, 0o600)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                text = "it is a symbolic link, which is not followed"
                raise OSError(errno.ELOOP, text, self._path) from exc
            raise
        try:
            found = os.fstat(fd)
            self._regular = stat.S_ISREG(found.st_mode)
            if self._regular and found.st_size and not self._ends_whole(found.st_size):
                # A process that died while it wrote left half a line behind.
                os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._lines.start_over()

    def _ends_whole(self, size: int) -> bool:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return True
        try:
            return os.pread(fd, 1, size - 1) in (b"\n", b"")
        finally:
            os.close(fd)

    def _rotate(self) -> bool:
        """Begin a new file; False if somebody else is just doing that."""
        fd = self._current_fd()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not self._is_at_path(fd):
            self._current()
            return True
        try:
            if self._keep == 0:
                os.ftruncate(fd, 0)
            else:
                for number in range(self._keep - 1, 0, -1):
                    _move(self._numbered(number), self._numbered(number + 1))
                _move(self._path, self._numbered(1))
            self._drop_further()
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
        self._current()
        self._size = os.fstat(self._current_fd()).st_size
        return True

    def _drop_further(self) -> None:
        """Remove what is numbered above ``keep``: there was a time when more was kept.

        Only an unbroken row is removed, so that a file which merely ends in a number (a
        date, say) stays.
        """
        number = self._keep + 1
        while True:
            try:
                Path(self._numbered(number)).unlink()
            except FileNotFoundError:
                return
            number += 1

    def _numbered(self, number: int) -> str:
        return f"{self._path}.{number}"


def _within(lines: Sequence[bytes], first: int, room: int) -> int:
    """How many lines, from the ``first`` on, have ``room`` bytes at the most together."""
    if not first and sum(map(len, lines)) <= room:
        return len(lines)
    end = first
    while end < len(lines) and len(lines[end]) <= room:
        room -= len(lines[end])
        end += 1
    return end - first


def _move(source: str, target: str) -> None:
    try:
        Path(source).replace(target)
    except FileNotFoundError:
        return


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it, each for its owner alone."""
    missing: list[Path] = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
