"""Arrival settings as plain data: from an experiment file or the wire, and back; traces from CSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput, Problem
from workloads.arrivals import ArrivalSettings, TraceRow

TRACE_COLUMNS = ("offset_s", "frames", "deadline_s", "device_id", "seed")
MAX_TRACE_BYTES = 64 * 1024 * 1024

_NUMBERS = ("deadline_s", "period_s", "jitter_s", "phase_s", "rate_per_s")
_ALLOWED = (*_NUMBERS, "frames", "kind", "trace")


def settings_from_plain(data: Mapping[str, Any], folder: Path | None = None) -> ArrivalSettings:
    """Settings from an experiment's ``arrivals:`` or from a cell.

    Args:
        data: keys as in `ArrivalSettings`, but ``frames`` is an integer or ``{low, high}``, and ``trace`` is the name
            of a CSV file or a list, each item an offset in seconds, a list ``[offset_s, frames, deadline_s]`` or a
            mapping with the fields of `TraceRow`.
        folder: where relative names of files start; None forbids files, as for data that came over the wire.

    Raises:
        BadInput: with all that is wrong.
    """
    reading = _Reading()
    for key in sorted(set(data) - set(_ALLOWED)):
        reading.add(key, f"is not a setting; allowed: {', '.join(_ALLOWED)}")
    values: dict[str, Any] = {key: reading.number(key, data[key]) for key in _NUMBERS if data.get(key) is not None}
    if "deadline_s" not in values:
        reading.add("deadline_s", "is missing; a positive number is needed")
    values["kind"] = data.get("kind", "periodic")
    values["frames_low"], values["frames_high"] = reading.frames(data.get("frames", 1))
    if data.get("trace") is not None:
        values["trace"] = reading.trace(data["trace"], folder)
    if reading.problems:
        raise BadInput(reading.problems)
    settings = ArrivalSettings(**values)
    settings.validate()
    return settings


def settings_to_plain(settings: ArrivalSettings) -> dict[str, Any]:
    """Plain data that `settings_from_plain` reads back; a trace's rows are spelt out, so no file is needed."""
    plain: dict[str, Any] = {"kind": settings.kind}
    for key in _NUMBERS:
        value = getattr(settings, key)
        if value is not None and not (key == "jitter_s" and settings.kind != "periodic"):
            plain[key] = value
    plain["frames"] = {"low": settings.frames_low, "high": settings.frames_high}
    if settings.trace:
        plain["trace"] = [
            {field.name: value for field in fields(row) if (value := getattr(row, field.name)) is not None}
            for row in settings.trace
        ]
    return plain


def read_trace(path: Path) -> tuple[TraceRow, ...]:
    """Read a CSV file whose header has ``offset_s`` and may have ``frames``, ``deadline_s``, ``device_id``, ``seed``.

    An empty cell means: as the settings say. Rows without a device, or a seed, are for every one.

    Raises:
        BadInput: with all that is wrong in the file.
    """
    try:
        if path.stat().st_size > MAX_TRACE_BYTES:
            raise BadInput(f"{path}: a trace of more than {MAX_TRACE_BYTES} bytes is not read; split the experiment")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as a trace: {error}") from error
    if "offset_s" not in columns or not set(columns) <= set(TRACE_COLUMNS) or len(set(columns)) < len(columns):
        needed = f"offset_s is needed, {', '.join(TRACE_COLUMNS[1:])} are allowed, each once"
        raise BadInput(Problem(f"columns {', '.join(columns)}: {needed}", file=str(path), line=1))
    rows, problems = [], []
    for line, cells in lines:
        try:
            rows.append(_csv_row(columns, cells))
        except ValueError as error:
            problems.append(Problem(str(error), file=str(path), line=line))
    if problems:
        raise BadInput(problems)
    return tuple(rows)


def _csv_row(columns: list[str], cells: list[str]) -> TraceRow:
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells; {len(columns)} columns ({', '.join(columns)}) are expected")
    given = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}
    if "offset_s" not in given:
        raise ValueError("offset_s is empty")
    return TraceRow(
        offset_s=float(given["offset_s"]),
        frames=int(given["frames"]) if "frames" in given else None,
        deadline_s=float(given["deadline_s"]) if "deadline_s" in given else None,
        device_id=given.get("device_id"),
        seed=int(given["seed"]) if "seed" in given else None,
    )


class _Reading:
    """Reads values of unknown types and gathers what is wrong; what it returns then is never used."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, key: str, message: str) -> None:
        self.problems.append(Problem(message, f"arrivals.{key}"))

    def number(self, key: str, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        self.add(key, f"{value!r} must be a number")
        return 0.0

    def whole(self, key: str, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self.add(key, f"{value!r} must be a whole number")
        return 0

    def frames(self, value: object) -> tuple[int, int]:
        if not isinstance(value, Mapping):
            count = self.whole("frames", value)
            return count, count
        if set(value) != {"low", "high"}:
            self.add("frames", f"{dict(value)} must be a whole number or have exactly low and high")
            return 0, 0
        return self.whole("frames.low", value["low"]), self.whole("frames.high", value["high"])

    def trace(self, value: object, folder: Path | None) -> tuple[TraceRow, ...]:
        if isinstance(value, str) and folder is not None:
            try:
                return read_trace(folder / value)
            except BadInput as error:
                self.problems.extend(error.problems)
        elif isinstance(value, list | tuple):
            return tuple(self.row(f"trace[{number}]", item) for number, item in enumerate(value))
        else:
            allowed = "a list of arrivals" if folder is None else "a list of arrivals or the name of a CSV file"
            self.add("trace", f"{value!r} must be {allowed}")
        return ()

    def row(self, key: str, item: object) -> TraceRow:
        if isinstance(item, list | tuple):
            item = dict(zip(TRACE_COLUMNS, item, strict=False)) if len(item) <= len(TRACE_COLUMNS) else None
        elif not isinstance(item, Mapping):
            item = {"offset_s": item}
        if not isinstance(item, Mapping) or "offset_s" not in item or not set(item) <= set(TRACE_COLUMNS):
            self.add(key, f"must be an offset, a list or a mapping of {', '.join(TRACE_COLUMNS)}")
            return TraceRow(0.0)
        frames, deadline_s, device_id = item.get("frames"), item.get("deadline_s"), item.get("device_id")
        if device_id is not None and not isinstance(device_id, str):
            self.add(key, f"device_id {device_id!r} must be a name")
        return TraceRow(
            offset_s=self.number(key, item["offset_s"]),
            frames=None if frames is None else self.whole(key, frames),
            deadline_s=None if deadline_s is None else self.number(key, deadline_s),
            device_id=device_id,
            seed=None if item.get("seed") is None else self.whole(key, item["seed"]),
        )
