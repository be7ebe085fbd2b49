"""The outbox of a host: rows are on disk before they are reported, and stay there until they are acknowledged.

A commit (SQLite, WAL, ``synchronous=NORMAL``) survives the death of the program; a synced checkpoint each second makes
it survive a power cut, of which at most the last ``checkpoint_s`` is lost. One thread writes; whoever appends only
queues, so that a slow disk never stalls an event loop.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from edgebed.clock import Clock
from edgebed.errors import WorkFailed
from edgebed.trace.outbox_file import Batch, OutboxFile, read_outbox
from edgebed.trace.schema import FINAL_ORDER, Record, TaskRecord

__all__ = ["Outbox", "read_outbox"]

_log = logging.getLogger(__name__)

MAX_PENDING = 100_000
"""Rows that may wait for a disk that refuses to write; beyond it `Outbox.append` raises."""

RETRY_S = 1.0
"""How long to wait before a write that failed is tried again."""


class Outbox:
    """Rows of the trace on their way from this host to the run folder. Safe to use from several threads.

    An outbox belongs to one run and is open in one program at a time. Sequence numbers rise over restarts and are never
    used twice, not even when a power cut took rows that had been reported.

    Args:
        path: the SQLite file; made when missing. One that SQLite cannot read is moved aside (see ``damaged``).
        clock: stamps ``alive_s`` and paces checkpoints.
        commit_interval_s: least time between two commits; the first row after a pause is committed at once.
        checkpoint_s: least time between two synced checkpoints.

    Attributes:
        on_commit: called from the writing thread after every commit, to wake an event loop.
        on_error: called from the writing thread when a disk that worked begins to refuse.
        error: why the last write failed; None once a write has worked again. Nothing is dropped: the rows wait.
        damaged: where an unreadable outbox file was moved to when this one was opened; None when there was none.
        predecessor_alive_s: what ``clock`` showed at the last commit of the program that had this outbox before; None
            when nobody had. The clock may have been set back by a reboot since.

    Raises:
        RunConflict: another program has this outbox open.
        WorkFailed: the file cannot be made.
    """

    def __init__(self, path: Path, clock: Clock, commit_interval_s: float = 0.05, checkpoint_s: float = 1.0) -> None:
        self.on_commit: Callable[[], None] | None = None
        self.on_error: Callable[[Exception], None] | None = None
        self.error: Exception | None = None
        self._clock = clock
        self._commit_interval_s = commit_interval_s
        self._checkpoint_s = checkpoint_s
        self._file = OutboxFile(path)
        self.damaged = self._file.damaged
        self._state = self._file.load_state()
        self.predecessor_alive_s: float | None = self.get_state("alive_s")
        self._terminal_serial, self._terminal = self._file.load_terminal()
        self._first = self._appended = self._file.first_sequence - 1
        self._acknowledged = 0
        self._old_rows = self._file.count_rows(after=0)
        # One lock, three queues: the idle writer, the writer that lets rows gather, those who wait for it. So a stream
        # of rows does not wake a writer that would not write yet.
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._hurry = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._batch = Batch()
        self._tickets = self._served = self._refused = 0
        self._closing = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._thread = threading.Thread(target=self._write_forever, name="outbox", daemon=True)
        self._thread.start()

    def append(self, kind: str, serial: int, row: msgspec.Struct) -> int:
        """Queue a row; it is encoded now, so ``row`` may be changed afterwards.

        Args:
            kind: ``task``, ``epoch``, ``sample`` or ``event``.
            serial: serial of the cell's attempt, 0 outside a cell.
            row: the Struct that belongs to the kind.

        Returns:
            Its sequence number.

        Raises:
            WorkFailed: the disk refuses to write and too many rows wait for it, or the outbox is closed.
        """
        packed = self._encode(row)
        with self._lock:
            if self._closing:
                raise WorkFailed(f"{self._file.path}: a row came after the outbox was closed")
            if self.error is not None and len(self._batch.records) >= MAX_PENDING:
                raise WorkFailed(f"{self._file.path}: {MAX_PENDING} rows wait for a disk that refuses: {self.error}")
            self._appended += 1
            self._batch.records.append(Record(self._appended, serial, kind, packed))
            if isinstance(row, TaskRecord):
                self._note_terminal(serial, row.task_id, row.outcome)
            self._work.notify()
            return self._appended

    def committed(self, after_sequence: int, limit: int) -> list[Record]:
        """Rows that are on disk and not acknowledged, in order: at most ``limit``, beyond ``after_sequence``."""
        return self._file.read_rows(max(after_sequence, self._acknowledged), limit)

    def acknowledge(self, last: int) -> None:
        """Forget all rows up to ``last``: the orchestrator has written them. Repeating it does no harm.

        What was acknowledged before a crash may be reported again after it; the receiver drops the copy.
        """
        with self._lock:
            # A row that was never handed out cannot have been acknowledged: it is not this outbox that is meant.
            last = min(last, self._appended - len(self._batch.records))
            if last <= self._acknowledged:
                return
            self._acknowledged = self._batch.acknowledged = last
            if self._old_rows:
                self._old_rows = self._file.count_rows(after=last, before=self._first + 1)
            self._work.notify()

    def unacknowledged(self) -> int:
        """Rows that nobody has acknowledged, those that are not yet on disk included."""
        with self._lock:
            return self._old_rows + self._appended - max(self._first, self._acknowledged)

    def set_state(self, key: str, value: Any) -> None:
        """Keep a JSON-able value for this program's successor; written with the next commit."""
        text = json.dumps(value)
        with self._lock:
            self._state[key] = self._batch.state[key] = text
            self._work.notify()

    def get_state(self, key: str) -> Any:
        """The value last set under ``key``, by this program or one before it; None when there is none."""
        text = self._state.get(key)
        return None if text is None else json.loads(text)

    def terminal_tasks(self, serial: int) -> dict[str, str]:
        """Outcome by task id of every task reported in the attempt ``serial``, acknowledged or not.

        Known for the newest attempt only; empty for any other.
        """
        with self._lock:
            return dict(self._terminal) if serial == self._terminal_serial else {}

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was appended is committed and synced to the disk.

        Returns:
            False when ``timeout_s`` went by or the disk refused (see ``error``); the rows are kept and tried again.
        """
        with self._lock:
            self._tickets += 1
            ticket = self._tickets
            self._wake_writer()
            self._progress.wait_for(lambda: max(self._served, self._refused) >= ticket, timeout_s)
            return self._served >= ticket

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued and close the file. Repeating it does no harm.

        Raises:
            WorkFailed: rows could not be written; the text says how many and why.
        """
        with self._lock:
            self._closing = True
            self._wake_writer()
        self._thread.join(timeout_s)
        self._file.close_reader()
        if self._thread.is_alive() or self._batch:
            why = self.error or f"the disk did not answer for {timeout_s} s"
            left = len(self._batch.records)
            raise WorkFailed(f"{self._file.path}: {left} rows could not be written before closing: {why}")

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _note_terminal(self, serial: int, task_id: str, outcome: str) -> None:
        if serial < self._terminal_serial:
            return
        if serial > self._terminal_serial:
            self._terminal_serial = serial
            self._terminal = {}
        if FINAL_ORDER.get(outcome, 0) >= FINAL_ORDER.get(self._terminal.get(task_id, ""), 0):
            self._terminal[task_id] = outcome
            self._batch.terminal.append((task_id, serial, outcome))

    def _wake_writer(self) -> None:
        self._work.notify()
        self._hurry.notify()

    # --- the writing thread ------------------------------------------------------------------------------------------

    def _write_forever(self) -> None:
        checkpoint_due_s = self._clock.now_s()
        unsynced = False
        while True:
            with self._lock:
                self._work.wait_for(self._has_work, self._checkpoint_s if unsynced else None)
                batch, self._batch = self._batch, Batch()
                ticket, closing = self._tickets, self._closing
            now_s = self._clock.now_s()
            try:
                if batch:
                    unsynced = True
                    self._commit(batch, now_s)
                if unsynced and (closing or ticket > self._served or now_s >= checkpoint_due_s):
                    # A reader's snapshot can hold a checkpoint up for a moment; then the next round ends it.
                    unsynced = not self._file.checkpoint()
                    checkpoint_due_s = now_s + self._checkpoint_s
            except Exception as error:  # whatever it was: a writer that died silently would lose rows
                self._refuse(batch, ticket, error)
                pause_s = RETRY_S
            else:
                self._serve(None if unsynced else ticket)
                pause_s = self._commit_interval_s
            if closing:
                break
            with self._lock:
                self._hurry.wait_for(lambda: self._closing or self._is_awaited(), pause_s)
        self._file.close_writer()

    def _has_work(self) -> bool:
        return bool(self._batch) or self._is_awaited() or self._closing

    def _is_awaited(self) -> bool:
        return self._tickets > max(self._served, self._refused)

    def _commit(self, batch: Batch, now_s: float) -> None:
        # Until when this program lived, for its successor. Only with other work: an idle host does not write.
        batch.state["alive_s"] = json.dumps(now_s)
        self._file.commit(batch)
        wake = self.on_commit if batch.records else None
        batch.clear()
        if wake is None:
            return
        try:
            wake()
        except Exception:
            _log.exception("on_commit of the outbox %s failed; rows go on being written", self._file.path)

    def _serve(self, ticket: int | None) -> None:
        with self._lock:
            self.error = None
            if ticket is not None:
                self._served = ticket
            self._progress.notify_all()

    def _refuse(self, batch: Batch, ticket: int, error: Exception) -> None:
        with self._lock:
            self._batch = batch.followed_by(self._batch)
            is_news = self.error is None
            self.error = error
            self._refused = ticket
            self._progress.notify_all()
        if is_news and self.on_error is not None:
            self.on_error(error)
