"""What the orchestrator itself has to say in ``events.parquet``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgebed.trace.schema import EventRecord, Record
from edgebed.trace.segments import SegmentWriter, outside_path, read_segment

_log = logging.getLogger(__name__)

OUTSIDE = 0


class Journal:
    """Events of the orchestrator, in a segment of its own.

    Args:
        run_folder: the run's.
        name: what the orchestrator is called.
        run_clock: the run clock now.
    """

    def __init__(self, run_folder: Path, name: str, run_clock: Callable[[], float]) -> None:
        self._name = name
        self._run_clock = run_clock
        self._path = outside_path(run_folder, name)
        self._sequence = max((record.sequence for record in read_segment(self._path)), default=0)
        self._writer = SegmentWriter(self._path)
        self._encode = msgspec.msgpack.Encoder().encode

    def note(self, kind: str, **detail: object) -> None:
        """Something has happened."""
        self.note_of(self._name, kind, detail)

    def note_of(self, host: str, kind: str, detail: dict[str, object], *, t_s: float | None = None) -> None:
        """Something has happened to a host.

        Args:
            host: its name.
            kind: what.
            detail: what there is to know of it.
            t_s: when, on the run clock; None for now.
        """
        text = json.dumps(detail)
        _log.info("%s %s", kind, text)
        row = EventRecord(t_s=self._run_clock() if t_s is None else t_s, host=host, kind=kind, detail=text)
        self._sequence += 1
        self._writer.append([Record(self._sequence, OUTSIDE, "event", self._encode(row))])

    def details(self, kind: str) -> list[dict[str, object]]:
        """What was noted of this kind, by earlier sessions too."""
        self._writer.sync()
        rows = [msgspec.msgpack.decode(record.row, type=EventRecord) for record in read_segment(self._path)]
        return [json.loads(row.detail) for row in rows if row.kind == kind]

    def close(self) -> None:
        """Sync and close the segment."""
        self._writer.sync()
        self._writer.close()
