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
        text = json.dumps(detail)
        _log.info("%s %s", kind, text)
        row = EventRecord(t_s=self._run_clock(), host=self._name, kind=kind, detail=text)
        self._sequence += 1
        self._writer.append([Record(self._sequence, OUTSIDE, "event", self._encode(row))])

    def close(self) -> None:
        """Sync and close the segment."""
        self._writer.sync()
        self._writer.close()
