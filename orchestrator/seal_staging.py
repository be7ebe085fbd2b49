"""Raw segments to lines of JSON, one row at a time, so that sealing needs no more memory for a longer trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec
from edgebed.trace.cost import task_cost
from edgebed.trace.schema import FINAL_ORDER, RECORD_TYPES, EpochRecord, Record, TaskRecord
from edgebed.trace.segments import SUFFIX, attempt_folder, latest_attempt, outside_path, read_segment

PLANNED_RANK = 0
"""Precedence of a planned row; every report comes before it (see `edgebed.trace.schema.FINAL_ORDER`)."""

KINDS = tuple(RECORD_TYPES)

_encode_json = msgspec.json.Encoder().encode
_decoders = {kind: msgspec.msgpack.Decoder(record_type) for kind, record_type in RECORD_TYPES.items()}


class Stage:
    """Four files of JSON lines, one a kind, each row with four more fields: ``_cell _rank _host _sequence``.

    Attributes:
        problems: sentences about what could not be used.
        planned: planned rows staged.
    """

    def __init__(self, folder: Path, cells: Sequence[CellSpec]) -> None:
        self._folder = folder
        self._cells = {cell.cell_id: (position, cell) for position, cell in enumerate(cells)}
        self._files: dict[str, BinaryIO] = {kind: self.path(kind).open("wb") for kind in KINDS}
        self._left_out: Counter[str] = Counter()
        self._unreadable: list[str] = []
        self.planned = 0

    def path(self, kind: str) -> Path:
        """The file of a kind of row."""
        return self._folder / f"{kind}.ndjson"

    @property
    def problems(self) -> tuple[str, ...]:
        """What was damaged or left out, a sentence each."""
        left_out = (f"{count} records left out: {why}" for why, count in sorted(self._left_out.items()))
        return (*self._unreadable, *left_out)

    def add_planned(self, planned: Iterable[TaskRecord]) -> None:
        """Stage the planned rows, outcome and reason as the caller set them.

        Raises:
            BadInput: a row is of a cell that is not in the plan.
        """
        for row in planned:
            if row.cell_id not in self._cells:
                raise BadInput(f"planned task {row.task_id} is of cell '{row.cell_id}', which the plan does not have")
            self._write_task(row, PLANNED_RANK, "", 0)
            self.planned += 1

    def add_segments(self, run_folder: Path) -> None:
        """Stage what was reported in each cell's latest attempt, and outside the cells."""
        for cell_id in self._cells:
            attempt = latest_attempt(run_folder, cell_id)
            for path in sorted(attempt_folder(run_folder, cell_id, attempt).glob(f"*{SUFFIX}")):
                self._add_segment(path, cell_id, attempt)
        for path in sorted(outside_path(run_folder, "x").parent.glob(f"*{SUFFIX}")):
            self._add_segment(path, "", 0)

    def _add_segment(self, path: Path, cell_id: str, attempt: int) -> None:
        segment = read_segment(path)
        host = path.name.removesuffix(SUFFIX)
        for record in segment:
            problem = self._add_record(record, host, cell_id, attempt)
            if problem:
                self._left_out[f"{path.name} of {cell_id or 'no cell'}: {problem}"] += 1
        if segment.problem:
            self._unreadable.append(segment.problem)

    def _add_record(self, record: Record, host: str, cell_id: str, attempt: int) -> str | None:
        """Stage one record; what is wrong with it, or None."""
        decoder = _decoders.get(record.kind)
        if decoder is None:
            return f"unknown kind '{record.kind}'"
        try:
            row = decoder.decode(record.row)
        except msgspec.MsgspecError as error:
            return f"not a row of kind {record.kind}: {error}"
        if isinstance(row, TaskRecord):
            if (row.cell_id, row.attempt) != (cell_id, attempt):
                return f"a task of cell '{row.cell_id}', attempt {row.attempt}"
            if row.outcome not in FINAL_ORDER:
                return f"a task with the outcome '{row.outcome}'"
            self._write_task(row, FINAL_ORDER[row.outcome], host, record.sequence)
            return None
        if isinstance(row, EpochRecord) and row.cell_id != cell_id:
            return f"an epoch of cell '{row.cell_id}'"
        self._write(record.kind, row, self._position(cell_id), 0, host, record.sequence)
        return None

    def _position(self, cell_id: str) -> int:
        return self._cells[cell_id][0] if cell_id else -1

    def _write_task(self, row: TaskRecord, rank: int, host: str, sequence: int) -> None:
        position, cell = self._cells[row.cell_id]
        if row.cost is None:
            row.cost = task_cost(row, cell.reward, cell.timeouts.task_s)
        self._write("task", row, position, rank, host, sequence)

    def _write(self, kind: str, row: msgspec.Struct, position: int, rank: int, host: str, sequence: int) -> None:
        # JSON writes NaN and infinity as null, so that unknown is NULL whatever came.
        key = _encode_json({"_cell": position, "_rank": rank, "_host": host, "_sequence": sequence})
        body = _encode_json(row)
        self._files[kind].write(key[:-1] + b"," + body[1:] + b"\n" if len(body) > 2 else key + b"\n")

    def close(self) -> None:
        """Close the files; they stay."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
