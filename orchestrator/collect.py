"""Rows and logs on their way from the hosts to the run folder.

While a run goes on rows come over the control link: they are appended to raw segments, synced, and only then
acknowledged. What was not acknowledged lies in the outboxes of the hosts, and is fetched from there at the end. Both
ways may bring a row twice; sequence numbers tell.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from edgebed.errors import WorkFailed
from edgebed.protocol.messages import Acknowledge, Records
from edgebed.trace.outbox import read_outbox
from edgebed.trace.schema import Record, TaskRecord
from edgebed.trace.segments import SUFFIX, SegmentWriter, outside_path, read_segment, segment_path
from orchestrator.attempts import Attempts
from orchestrator.retrieve import Recovered, last_sign_of_life

_log = logging.getLogger(__name__)

SYNC_INTERVAL_S = 0.1
"""How long written rows may wait for their sync, so that many share one."""

FIRST_SEQUENCE = 1_000_000_001
"""Number of the first row that an outbox ever hands out, see `edgebed.trace.outbox_file`."""

_decode_batch = msgspec.msgpack.Decoder(list[Record]).decode
_decode_task = msgspec.msgpack.Decoder(TaskRecord).decode

TaskListener = Callable[[int, TaskRecord], None]
RecordListener = Callable[[int, Record], None]


class Collector:
    """Writes what members report to the run folder, each row once.

    Args:
        run_folder: the run's.
        attempts: say which attempt a serial belongs to.
        on_task: told of each new task row with its serial, after it was written.

    Attributes:
        problems: what could not be used, a sentence each.
        on_record: told of each new row with its serial, after it was written.
    """

    def __init__(self, run_folder: Path, attempts: Attempts, on_task: TaskListener = lambda serial, row: None) -> None:
        self.problems: list[str] = []
        self.on_task = on_task
        self.on_record: RecordListener = lambda serial, record: None
        self._run_folder = run_folder
        self._attempts = attempts
        self._written: dict[str, int] = {}
        self._doubtful: dict[str, int] = {}
        self._writers: dict[Path, SegmentWriter] = {}
        self._unsynced: set[Path] = set()
        self._acknowledge: dict[str, int] = {}
        self._sync_due_s = 0.0

    def remember(self) -> None:
        """Learn from the segments which rows are there already; for outboxes of an earlier session."""
        for path in self._run_folder.glob(f"**/*{SUFFIX}"):
            member = path.name.removesuffix(SUFFIX)
            for record in read_segment(path):
                self._written[member] = max(self._written.get(member, 0), record.sequence)

    def forget(self) -> None:
        """The outboxes are new ones: their numbers begin again."""
        self._written.clear()
        self._doubtful.clear()
        self._acknowledge.clear()

    # -- over the link ------------------------------------------------------------------------------------------------

    def receive(self, message: Records, payload: bytes) -> None:
        """Take a batch. What cannot be taken is not acknowledged, and so comes again.

        Raises:
            WorkFailed: the disk refuses.
        """
        try:
            records = _decode_batch(payload)
        except msgspec.MsgspecError as error:
            self.complain(f"{message.member}: a batch of rows that is none: {error}")
            return
        if len(records) != message.count or not records or records[-1].sequence != message.last:
            self.complain(f"{message.member}: a batch that has not what its header says")
            return
        if self._continues(message.member, records[0].sequence):
            self.write(message.member, records)
            self._acknowledge[message.member] = self._written[message.member]

    def _continues(self, member: str, first: int) -> bool:
        """Is there no row before ``first`` that we have not got?

        A restarted program's numbers jump, and so do numbers after a batch that was lost. What was not acknowledged
        comes again from its beginning: so a jump is one of numbers only if the same beginning comes a second time.
        """
        written = self._written.get(member, 0)
        doubtful = self._doubtful.get(member)
        if first <= written + 1 or (written == 0 and first == FIRST_SEQUENCE) or first == doubtful:
            self._doubtful.pop(member, None)
            return True
        self._doubtful[member] = first if doubtful is None else min(first, doubtful)
        return False

    def write(self, member: str, records: Sequence[Record]) -> int:
        """Append the rows that are new to their segments; returns how many those were.

        Raises:
            WorkFailed: the disk refuses.
        """
        written = self._written.get(member, 0)
        fresh = [record for record in records if record.sequence > written]
        for serial, group in groupby(fresh, key=lambda record: record.serial):
            rows = list(group)
            path = self._segment(member, serial)
            self._writer(path).append(rows)
            self._unsynced.add(path)
            for row in rows:
                self._tell(serial, row)
        self._written[member] = max([written, *(record.sequence for record in fresh)])
        return len(fresh)

    def acknowledgements(self, now_s: float, *, at_once: bool = False) -> list[Acknowledge]:
        """Sync what was written, when it is time, and say what may be acknowledged."""
        if not self._acknowledge or (now_s < self._sync_due_s and not at_once):
            return []
        self._sync_due_s = now_s + SYNC_INTERVAL_S
        self.sync()
        due = [Acknowledge(member, last) for member, last in self._acknowledge.items()]
        self._acknowledge.clear()
        return due

    def sync(self) -> None:
        """Make all that was written survive a power cut."""
        for path in self._unsynced:
            self._writers[path].sync()
        self._unsynced.clear()

    def close(self) -> None:
        """Sync and close every segment; the next row opens its own again."""
        self.sync()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _segment(self, member: str, serial: int) -> Path:
        attempt = self._attempts.with_serial(serial)
        if attempt is None:
            return outside_path(self._run_folder, member)
        return segment_path(self._run_folder, attempt.cell_id, attempt.attempt, member)

    def _writer(self, path: Path) -> SegmentWriter:
        if path not in self._writers:
            self._writers[path] = SegmentWriter(path)
            if self._writers[path].cut_bytes:
                _log.info("%s ended in a torn record, which is cut off", path)
            _sync_folder(path.parent)
        return self._writers[path]

    def _tell(self, serial: int, record: Record) -> None:
        self.on_record(serial, record)
        if record.kind != "task":
            return
        try:
            row = _decode_task(record.row)
        except msgspec.MsgspecError as error:
            self.complain(f"a task row that is none: {error}")
            return
        self.on_task(serial, row)

    def complain(self, problem: str) -> None:
        """Note what could not be used, once."""
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning(problem)

    # -- from the hosts' files ----------------------------------------------------------------------------------------

    def take_outbox(self, member: str, path: Path) -> Recovered:
        """Take what lies in the copy of a member's outbox."""
        rows: list[Record] = []
        try:
            for row in read_outbox(path):
                rows.append(row)  # noqa: PERF402  (what came before an error counts)
        except WorkFailed as error:
            self.complain(f"{member}: {error}")
        recovered = Recovered(self.write(member, rows), last_sign_of_life(path))
        self.sync()
        return recovered


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
