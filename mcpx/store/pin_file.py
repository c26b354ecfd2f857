"""The file of pinned tool definitions, ``data_dir/pins.sqlite``.

What it is: blocking code, for the command line and for one worker thread of a gateway.

What it must never do: replace a pin because something else was listed (only ``approve``
and ``reset`` do, which a person calls), or open a file that can't be read, written and
trusted.

The command line works on the file while a gateway runs: SQLite's write-ahead log lets one
write and others read, ``busy_timeout_s`` bounds how long one waits for the other. A running
gateway sees what was approved or reset when it is told to (``reload``).

A row of ``pins`` is a tool. ``digest`` is that of the pinned definition; empty after a
reset of that tool, when the next one that is seen is pinned without a word; NULL for a tool
that was never approved. A definition too large to keep is an empty ``definition``. The
digests are checked against the definitions on reading: a file that was damaged or edited
by hand is refused, not trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Self

from mcpx.core.definitions import ANY, Definition
from mcpx.core.integrity import Baseline
from mcpx.errors import ConfigError, McpxError

__all__ = ["FILE_NAME", "Change", "PendingChanged", "PinFile", "StoredPin"]

FILE_NAME: Final = "pins.sqlite"
#: "mcpp", so that another program's database is not taken for ours.
APPLICATION_ID: Final = 0x6D637070
SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
MAX_PINS: Final = 200_000
#: Definitions past this much are read as their digests alone.
MAX_LOADED_BYTES: Final = 256 * 1024 * 1024

_SCHEMA: Final = (
    """CREATE TABLE pins (
        server TEXT NOT NULL,
        tool TEXT NOT NULL,
        digest BLOB,
        definition BLOB,
        pending_digest BLOB,
        pending_definition BLOB,
        first_seen REAL NOT NULL,
        pinned_at REAL,
        last_changed REAL,
        PRIMARY KEY (server, tool)
    )""",
    "CREATE TABLE servers (server TEXT PRIMARY KEY, established_at REAL NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_PIN: Final = """
    INSERT INTO pins (server, tool, digest, definition, first_seen, pinned_at)
    VALUES (:server, :tool, :digest, :definition, :at, :at)
    ON CONFLICT (server, tool) DO UPDATE SET
        digest = excluded.digest, definition = excluded.definition, pinned_at = excluded.pinned_at,
        pending_digest = NULL, pending_definition = NULL
    WHERE digest IS NULL OR digest = x''"""
_PENDING: Final = """
    INSERT INTO pins (server, tool, pending_digest, pending_definition, first_seen, last_changed)
    VALUES (:server, :tool, :digest, :definition, :at, :at)
    ON CONFLICT (server, tool) DO UPDATE SET
        pending_digest = excluded.pending_digest, pending_definition = excluded.pending_definition,
        last_changed = excluded.last_changed
    WHERE pending_digest IS NOT excluded.pending_digest"""
_SETTLED: Final = """
    UPDATE pins SET pending_digest = NULL, pending_definition = NULL
    WHERE server = :server AND tool = :tool AND digest IS NOT NULL"""
_COLUMNS: Final = (
    "server, tool, digest, definition, pending_digest, pending_definition, "
    "first_seen, pinned_at, last_changed"
)

#: The low byte of SQLite's result codes, as sqlite3 numbers them.
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
#: A table or column that is not there is 1, a text that is no UTF-8 has no code.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, 1, 0})


class PendingChanged(McpxError):
    """What waits for approval is not what the approval was given to."""


class StoredPin(NamedTuple):
    """A tool in the file. Times are epoch seconds.

    ``pinned`` is ``None`` where nothing is (a tool that waits for its first approval, or
    that was reset), ``pending`` where nothing waits.
    """

    server: str
    tool: str
    pinned: Definition | None
    pending: Definition | None
    first_seen: float
    pinned_at: float | None
    last_changed: float | None


class Change:
    """What is to be written of one tool: a pin first, then what waits or has settled."""

    __slots__ = ("at", "pending", "pinned", "settled")

    def __init__(self, at: float) -> None:
        self.at = at
        self.pinned: Definition | None = None
        self.pending: Definition | None = None
        self.settled = False

    def then(self, later: Change) -> None:
        """Take over what happened after this."""
        self.at = later.at
        if self.pinned is None:
            self.pinned = later.pinned
        if later.pending is not None:
            self.pending, self.settled = later.pending, False
        elif later.settled:
            self.pending, self.settled = None, True


Changes = Mapping[tuple[str, str], Change]


def _columns(definition: Definition) -> dict[str, object]:
    return {"digest": definition.digest, "definition": definition.canonical}


class PinFile:
    """The file, open. No two threads may call it at one time.

    Raises:
        ConfigError: it can't be used: not made or not written to, damaged, locked for
            ``busy_timeout_s``, another program's, or written by a newer version. The
            message says what to do.
    """

    def __init__(
        self,
        data_dir: str,
        *,
        create: bool = True,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        max_pins: int = MAX_PINS,
        max_loaded_bytes: int = MAX_LOADED_BYTES,
    ) -> None:
        self.path = os.path.join(os.path.abspath(data_dir), FILE_NAME)
        #: Tools that were not written because the file holds ``max_pins``.
        self.left_out = 0
        self._busy_timeout_s = busy_timeout_s
        self._max_pins = max_pins
        self._max_loaded_bytes = max_loaded_bytes
        self._db: sqlite3.Connection | None = None
        self._opened: tuple[int, int] = (0, 0)
        with self._explained():
            self._open(create=create)

    def close(self) -> None:
        """Let go of the file. May be called again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- reading ----------------------------------------------------------------

    def list(self, server: str | None = None) -> list[StoredPin]:
        """All tools, or those of ``server``, in the order of their names."""
        with self._explained():
            return sorted(self._rows(server), key=lambda pin: (pin.server, pin.tool))

    def load(self) -> dict[str, Baseline]:
        """What is pinned, by server."""
        with self._explained():
            db = self._connected()
            pins: dict[str, dict[str, Definition]] = {}
            since: dict[str, dict[str, float]] = {}
            pending: dict[str, dict[str, bytes]] = {}
            db.execute("BEGIN")
            try:
                established = {name for (name,) in db.execute("SELECT server FROM servers")}
                for pin in self._rows(None):
                    since.setdefault(pin.server, {})[pin.tool] = pin.first_seen
                    if pin.pinned is not None:
                        pins.setdefault(pin.server, {})[pin.tool] = pin.pinned
                    elif pin.pinned_at is not None:
                        pins.setdefault(pin.server, {})[pin.tool] = ANY
                    if pin.pending is not None:
                        pending.setdefault(pin.server, {})[pin.tool] = pin.pending.digest
            finally:
                db.execute("COMMIT")
        return {
            name: Baseline(
                pins.get(name, {}),
                since.get(name, {}),
                established=name in established,
                pending=pending.get(name, {}),
            )
            for name in sorted(established | since.keys())
        }

    def _rows(self, server: str | None) -> Iterator[StoredPin]:
        where, values = ("", []) if server is None else (" WHERE server = ?", [server])
        found = self._connected().execute(
            f"SELECT {_COLUMNS} FROM pins{where} ORDER BY first_seen, rowid",  # noqa: S608
            values,
        )
        loaded = 0
        for count, row in enumerate(found, 1):
            if count > self._max_pins:
                raise self._error(f"holds more than {self._max_pins} pins; reset some of them")
            name, tool, digest, text, pending_digest, pending_text, *times = row
            if not isinstance(name, str) or not isinstance(tool, str):
                raise self._damaged()
            if not all(isinstance(at, float | None) for at in times):
                raise self._damaged()
            loaded += len(text or b"") + len(pending_text or b"")
            keep = loaded <= self._max_loaded_bytes
            yield StoredPin(
                name,
                tool,
                self._definition(digest, text, keep=keep),
                self._definition(pending_digest, pending_text, keep=keep),
                *times,
            )

    def _definition(self, digest: object, text: object, *, keep: bool) -> Definition | None:
        if digest is None or digest == b"":
            return None
        if not isinstance(digest, bytes) or not isinstance(text, bytes) or len(digest) != 32:
            raise self._damaged()
        if text and hashlib.sha256(text).digest() != digest:
            raise self._damaged()
        return Definition(digest, text if keep else b"")

    # -- writing ----------------------------------------------------------------

    def write(self, changes: Changes, established: Mapping[str, float]) -> None:
        """Write what listings brought, all or nothing. Writing it again changes nothing.

        ``established`` says since when a server's baseline is complete.

        Raises:
            sqlite3.Error, OSError, ConfigError: nothing was written; try again.
        """
        try:
            with self._transaction() as db:
                (count,) = db.execute("SELECT count(*) FROM pins").fetchone()
                for (server, tool), change in changes.items():
                    where = {"server": server, "tool": tool, "at": change.at}
                    new = change.pinned or change.pending
                    if new is not None and not self._has(db, where):
                        if count >= self._max_pins:
                            self.left_out += 1
                            continue
                        count += 1
                    if change.pinned is not None:
                        db.execute(_PIN, where | _columns(change.pinned))
                    if change.pending is not None:
                        db.execute(_PENDING, where | _columns(change.pending))
                    if change.settled:
                        db.execute(_SETTLED, where)
                db.executemany("INSERT OR IGNORE INTO servers VALUES (?, ?)", established.items())
        except (sqlite3.Error, OSError):
            # The next attempt begins with the file as it is then.
            self.close()
            raise

    def approve(self, server: str, tool: str, now: float, *, digest: bytes | None = None) -> bool:
        """Pin the definition that waits; ``False`` if none does.

        ``digest`` is that of the definition that was looked at, so that none is approved
        which came after it.

        Raises:
            PendingChanged: another definition waits by now.
        """
        with self._explained(), self._transaction() as db:
            found = db.execute(
                "SELECT pending_digest FROM pins"
                " WHERE server = ? AND tool = ? AND pending_digest IS NOT NULL",
                (server, tool),
            ).fetchone()
            if found is None:
                return False
            if digest is not None and found[0] != digest:
                raise PendingChanged(
                    f"{server}/{tool} has changed again since it was looked at; look once more"
                )
            db.execute(
                "UPDATE pins SET digest = pending_digest, definition = pending_definition,"
                " pinned_at = ?, pending_digest = NULL, pending_definition = NULL"
                " WHERE server = ? AND tool = ?",
                (now, server, tool),
            )
            return True

    def reset(self, server: str | None = None, tool: str | None = None) -> int:
        """Forget pins: of a tool, of a server, or all. Gives how many there were.

        What is seen next is pinned without a word.
        """
        if server is None and tool is not None:
            raise ValueError("a tool is reset together with its server's name")
        with self._explained(), self._transaction() as db:
            if server is None:
                db.execute("DELETE FROM servers")
                return db.execute("DELETE FROM pins").rowcount
            if tool is None:
                db.execute("DELETE FROM servers WHERE server = ?", (server,))
                return db.execute("DELETE FROM pins WHERE server = ?", (server,)).rowcount
            return db.execute(
                "UPDATE pins SET digest = x'', definition = x'', pending_digest = NULL,"
                " pending_definition = NULL, pinned_at = first_seen"
                " WHERE server = ? AND tool = ?",
                (server, tool),
            ).rowcount

    @staticmethod
    def _has(db: sqlite3.Connection, where: Mapping[str, object]) -> bool:
        row = db.execute("SELECT 1 FROM pins WHERE server = :server AND tool = :tool", where)
        return row.fetchone() is not None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connected()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    # -- opening ----------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        """The connection, made anew if the file is another one by now."""
        if self._db is not None:
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                found = None
            if found is None or (found.st_dev, found.st_ino) != self._opened:
                self.close()
        if self._db is None:
            self._open(create=True)
        assert self._db is not None
        return self._db

    def _open(self, *, create: bool) -> None:
        self._prepare(create=create)
        db = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.execute("PRAGMA trusted_schema = OFF")
            self._check(db)
        except BaseException:
            db.close()
            raise
        found = os.stat(self.path)
        self._opened = (found.st_dev, found.st_ino)
        self._db = db

    def _prepare(self, *, create: bool) -> None:
        folder = os.path.dirname(self.path)
        if create:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # Not opened if it is there: closing it would drop this process's locks on it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        elif not os.path.lexists(self.path):
            raise ConfigError([f"{self.path}: no pins are kept here yet"])
        if os.stat(folder).st_mode & stat.S_IWOTH:
            raise ConfigError(
                [
                    f"{folder}: everyone may write here, and so change pins; name a data_dir of your own"
                ]
            )
        found = os.lstat(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise self._error("is no regular file; move it aside")
        if found.st_mode & 0o077:
            os.chmod(self.path, 0o600)

    def _check(self, db: sqlite3.Connection) -> None:
        """See that it is ours, whole and writable; make its tables if it is new."""
        # At one moment: another process may be making the tables just now.
        db.execute("BEGIN")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        db.execute("COMMIT")
        if owner != APPLICATION_ID and (tables or owner or version):
            raise self._error("is another program's database; name another data_dir")
        if version > SCHEMA_VERSION:
            raise self._error(
                "was written by a newer version of mcpx; use that, or another data_dir"
            )
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise self._damaged()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have made the tables in between.
            if db.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in _SCHEMA:
                    db.execute(statement)
            else:
                db.execute(f"PRAGMA user_version = {version}")
            db.execute(f"SELECT {_COLUMNS} FROM pins LIMIT 0")  # noqa: S608
            db.execute("SELECT server, established_at FROM servers LIMIT 0")
        finally:
            if db.in_transaction:
                db.execute("COMMIT")

    # -- errors -----------------------------------------------------------------

    def _error(self, text: str) -> ConfigError:
        return ConfigError([f"{self.path}: {text}"])

    def _damaged(self) -> ConfigError:
        return self._error(
            "is damaged; restore it, or move it aside: all tools are then pinned as they are now"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the system says into what its reader can do."""
        try:
            yield
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            if code in _BUSY:
                raise self._error(
                    f"is locked by another process for more than {self._busy_timeout_s:g} s; "
                    "end that, or name another data_dir"
                ) from exc
            if code in _DAMAGED:
                raise self._damaged() from exc
            raise self._error(f"can't be written to: {exc}; see its permissions and disk") from exc
        except OSError as exc:
            text = exc.strerror or type(exc).__name__
            raise self._error(f"can't be made or read: {text}; name another data_dir") from exc
