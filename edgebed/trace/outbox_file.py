"""The SQLite file of an outbox: what is asked of it, in SQL. One connection writes, another one reads."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgebed.errors import BadInput, RunConflict, WorkFailed
from edgebed.trace.schema import Record

_TABLES = """
CREATE TABLE IF NOT EXISTS records (sequence INTEGER PRIMARY KEY, serial INTEGER, kind TEXT, row BLOB);
CREATE TABLE IF NOT EXISTS terminal (task_id TEXT PRIMARY KEY, serial INTEGER, outcome TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""

_LIFE_STRIDE = 1_000_000_000
"""Sequence numbers of the n-th program to open the file begin at n times this.

A power cut can take the last commits although their rows were reported already. Their numbers must not come again with
other rows; so every life counts from a new start, and that start is synced before the first row."""


@dataclass(slots=True)
class Batch:
    """What one commit writes.

    Attributes:
        terminal: task id, serial, outcome; one for each task that has ended, in order.
        state: JSON text by key.
        acknowledged: rows up to here are deleted; 0 = none.
    """

    records: list[Record] = field(default_factory=list)
    terminal: list[tuple[str, int, str]] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    acknowledged: int = 0

    def __bool__(self) -> bool:
        return bool(self.records or self.terminal or self.state or self.acknowledged)

    def clear(self) -> None:
        """Forget what has been written."""
        self.records, self.terminal, self.state, self.acknowledged = [], [], {}, 0

    def followed_by(self, later: Batch) -> Batch:
        """This batch and then ``later``, as one."""
        return Batch(
            self.records + later.records,
            self.terminal + later.terminal,
            self.state | later.state,
            max(self.acknowledged, later.acknowledged),
        )


class OutboxFile:
    """An outbox's file, locked for this program.

    ``commit``, ``checkpoint`` and ``close_writer`` belong to the writing thread; the rest may be called from any.

    Attributes:
        first_sequence: the first number that this program may use.
        damaged: where a file that SQLite could not read was moved to.

    Raises:
        RunConflict: another program has it open.
        WorkFailed: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Held until the program ends, however it ends. A stopped program that continues would otherwise write into
            # the file of the one that was started in its place.
            self._lock = path.with_name(path.name + ".lock").open("wb")
        except OSError as error:
            raise WorkFailed(f"{path}: the outbox cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunConflict(f"{path}: another program has this outbox open; stop it first") from None
        try:
            self.damaged = self._open()
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise WorkFailed(f"{path}: the outbox cannot be made: {error}") from error

    def _open(self) -> Path | None:
        damaged = None
        try:
            self._writer = self._connect_and_check()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            damaged = self._move_aside()
            self._writer = self._connect_and_check()
        self.first_sequence = self._begin_life(len(self._damaged_files()))
        self._reader = _connect(self.path)
        return damaged

    def _connect_and_check(self) -> sqlite3.Connection:
        connection = _connect(self.path)
        try:
            _prepare(connection)
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _damaged_files(self) -> list[Path]:
        return list(self.path.parent.glob(self.path.name + ".damaged-*[0-9]"))

    def _move_aside(self) -> Path:
        """Keep an unreadable file for whoever collects, instead of dying on it or deleting it."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{len(self._damaged_files()) + 1}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside

    def _begin_life(self, lost_files: int) -> int:
        connection = self._writer
        connection.execute("PRAGMA synchronous=FULL")
        found = connection.execute("SELECT value FROM state WHERE key = 'life'").fetchone()
        # The lives that a damaged file counted are not known; a thousand for each is more than they were.
        life = 1 + (int(found[0]) if found else 1000 * lost_files)
        connection.execute("INSERT OR REPLACE INTO state VALUES ('life', ?)", (str(life),))
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        connection.execute("PRAGMA synchronous=NORMAL")
        _sync_folder(self.path.parent)
        return life * _LIFE_STRIDE + 1

    # --- writing -----------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Write a batch, all of it or nothing.

        Raises:
            sqlite3.Error: the disk is full or does not work.
        """
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?)",
                ((record.sequence, record.serial, record.kind, record.row) for record in batch.records),
            )
            if batch.terminal:
                newest = batch.terminal[-1][1]
                connection.execute("DELETE FROM terminal WHERE serial < ?", (newest,))
                connection.executemany(
                    "INSERT OR REPLACE INTO terminal VALUES (?, ?, ?)",
                    (each for each in batch.terminal if each[1] == newest),
                )
            connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", batch.state.items())
            if batch.acknowledged:
                connection.execute("DELETE FROM records WHERE sequence <= ?", (batch.acknowledged,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def checkpoint(self) -> bool:
        """Sync the log to the disk and move it into the database; what was committed now survives a power cut.

        Returns:
            False when a reader was in the way and part of it is still to be done.
        """
        busy, log_frames, moved_frames = self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and bool(log_frames == moved_frames)

    def close_writer(self) -> None:
        """Close what writes, and let the next program in."""
        self._writer.close()
        self._lock.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def read_rows(self, after: int, limit: int) -> list[Record]:
        """Committed rows with a number above ``after``, in order."""
        with self._reading:
            rows = self._reader.execute(
                "SELECT sequence, serial, kind, row FROM records WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            ).fetchall()
        return [Record(*row) for row in rows]

    def count_rows(self, after: int, before: int = 2**62) -> int:
        """How many committed rows have a number between the two."""
        with self._reading:
            (count,) = self._reader.execute(
                "SELECT count(*) FROM records WHERE sequence > ? AND sequence < ?", (after, before)
            ).fetchone()
        return int(count)

    def load_state(self) -> dict[str, str]:
        """JSON text by key."""
        with self._reading:
            return dict(self._reader.execute("SELECT key, value FROM state").fetchall())

    def load_terminal(self) -> tuple[int, dict[str, str]]:
        """The newest attempt's serial, and outcome by task id."""
        with self._reading:
            rows = self._reader.execute("SELECT task_id, outcome, serial FROM terminal").fetchall()
        serial = max((row[2] for row in rows), default=0)
        return serial, {task_id: outcome for task_id, outcome, each in rows if each == serial}

    def close_reader(self) -> None:
        """Close what reads."""
        with self._reading:
            self._reader.close()


def read_outbox(path: Path) -> Iterator[Record]:
    """Every row in a copied outbox file, in order: what its host never saw acknowledged.

    The write-ahead log (``<path>-wal``) is to be copied along; what was committed last lies in it. Neither file is
    changed.

    Raises:
        BadInput: there is no such file.
        WorkFailed: the file is damaged; raised after the rows that can be read.
    """
    if not path.is_file():
        raise BadInput(f"{path}: there is no such outbox file")
    # SQLite needs to write a lock file beside what it reads, and merges the log into the database when it closes.
    with tempfile.TemporaryDirectory(prefix="edgebed-outbox-") as folder:
        copy = Path(folder) / "outbox"
        shutil.copyfile(path, copy)
        log = path.with_name(path.name + "-wal")
        if log.is_file():
            shutil.copyfile(log, copy.with_name("outbox-wal"))
        connection = _connect(copy)
        try:
            for row in connection.execute("SELECT sequence, serial, kind, row FROM records ORDER BY sequence"):
                yield Record(*row)
        except sqlite3.DatabaseError as error:
            raise WorkFailed(f"{path}: the outbox is damaged; what came before was read: {error}") from error
        finally:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.executescript(_TABLES)
