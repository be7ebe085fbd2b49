"""The rows of a day as numbers: the record's tasks, each with what some cell of that day recorded of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.testbed.ingredients import OUTCOMES
from edgebed.trace.runs import sql_text
from edgebed.types import Site
from orchestrator.replay.ahead import side_by_side
from orchestrator.replay.source import is_timed_sql, timed_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NO_ROW = -1

_READ_TASKS = 65_536
"""Tasks that are read at a time, about; whole devices."""

PLAIN = {
    **dict.fromkeys(("row", "slot", "number", "epoch", "frames", "site", "server", "channel", "outcome"), "i8"),
    **dict.fromkeys(("arrived_s", "deadline_s", "fraction", "decision_s", "compute_s", "latency_s", "device_s"), "f8"),
    "is_timed": "?",
}
"""Columns that a `orchestrator.replay.day.Batch` has as they are."""

_AT_SERVER = {
    "up": ("uplink_s", "f8"),
    "srv": ("server_compute_s", "f8"),
    "down": ("downlink_s", "f8"),
    "rate": ("link_rate_bps", "f8"),
    "er": ("row", "i8"),
}
"""What a task has for each server, by the beginning of the column's name; the server's number follows."""

_DEVICE = -2
"""As a place where tasks are executed; servers have their numbers."""

_TYPES = {"i8": ("BIGINT", str(NO_ROW)), "f8": ("DOUBLE", "'nan'"), "?": ("BOOLEAN", "false")}
"""What a column is in SQL, and what stands where nothing is known."""


def fields_of(servers: int) -> dict[str, str]:
    """The columns of a task and their numpy types."""
    fields = PLAIN | {"payload_bytes": "f8", "dr": "i8"}
    for index in range(servers):
        fields |= {f"{short}{index}": kind for short, (_, kind) in _AT_SERVER.items()}
    return fields


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a day.

    Args:
        connection: to a database with the view ``src`` of the recorded table, its rows in ``row``, its tasks in
            ``key``; and the table ``device`` of ``slot`` and ``name``.
        file: the recorded table, and
        seed: of the day, for errors.
        is_own: condition on a row that it is one to be read.
        others: the other cells of the day, in the order in which they are asked for what the record has not.
        servers: their names.
    """

    connection: DuckDBPyConnection
    file: Path
    seed: int
    is_own: str
    others: Sequence[str]
    servers: Sequence[str]

    def columns(self) -> Iterator[dict[str, NDArray[Any]]]:
        """The tasks of some devices, then of some more.

        Raises:
            BadInput: the table has a task twice.
        """
        expressions = self._expressions()
        parts = []
        for name, kind in fields_of(len(self.servers)).items():
            sql_type, unknown = _TYPES[kind]
            parts.append(f"coalesce(CAST({expressions[name]} AS {sql_type}), {unknown}) AS {name}")
        for found in side_by_side(partial(self._read, ", ".join(parts)), self._some_devices()):
            self._check_once(found["row"])
            yield found

    def _read(self, chosen: str, some: str) -> dict[str, NDArray[Any]]:
        with self.connection.cursor() as connection:  # a connection is of one thread
            found: dict[str, NDArray[Any]] = connection.execute(
                f"SELECT {chosen} FROM ({self._with_place} WHERE {self.is_own} AND {some}) AS src "  # noqa: S608
                f"JOIN device ON device.name = src.device_id {self._joins(some)}"
            ).fetchnumpy()
        return found

    def _check_once(self, row: NDArray[np.int64]) -> None:
        if (row[1:] > row[:-1]).all() or len(np.unique(row)) == len(row):
            return
        raise BadInput(
            f"{self.file}: has a task twice in a cell with seed {self.seed}, so nobody knows which row is meant; "
            "task_id must be unique: import the trace again"
        )

    def _some_devices(self) -> list[str]:
        """Conditions on devices, each for as many as are read at a time."""
        counted = self.connection.execute(
            f"SELECT device_id, count(*) FROM src WHERE {self.is_own} GROUP BY device_id ORDER BY device_id"  # noqa: S608
        ).fetchall()
        bounds: list[tuple[str, str]] = []
        tasks = _READ_TASKS
        for name, count in counted:
            tasks += count
            if tasks > _READ_TASKS:
                bounds.append((name, name))
                tasks = count
            bounds[-1] = (bounds[-1][0], name)
        return [f"device_id BETWEEN {sql_text(first)} AND {sql_text(last)}" for first, last in bounds]

    def _expressions(self) -> dict[str, str]:
        """What each column is.

        Ingredients are those of the first cell that recorded the task at that site: the record's own, then the others.
        """
        tables = ["src", *(f"c{number}" for number in range(len(self.others)))]
        here = [f"{table}.was_at = {_DEVICE}" for table in tables]
        found = {name: f"src.{name}" for name in ("row", "epoch", "frames", "arrived_s", "deadline_s", "decision_s")}
        found |= {
            "slot": "device.slot",
            "number": "coalesce(TRY_CAST(split_part(src.key, '/', -1) AS BIGINT), 0)",
            "site": _code("src.requested_site", [site.label for site in Site]),
            "server": _code("src.requested_server", self.servers),
            "channel": "coalesce(src.requested_channel, 0)",
            "fraction": "src.edge_fraction",
            "compute_s": "src.decision_compute_s",
            "outcome": _code("src.outcome", [each.value for each in OUTCOMES]),
            "latency_s": "src.latency_s",
            "is_timed": f"(src.outcome <> 'done' OR {is_timed_sql('src.')})",
            "payload_bytes": "src.payload_bytes",
            "device_s": _first(here, [f"{table}.device_compute_s" for table in tables]),
            "dr": _first(here, [f"{table}.row" for table in tables]),
        }
        for index in range(len(self.servers)):
            there = [f"{table}.was_at = {index}" for table in tables]
            for short, (column, _) in _AT_SERVER.items():
                found[f"{short}{index}"] = _first(there, [f"{table}.{column}" for table in tables])
        return found

    @property
    def _with_place(self) -> str:
        """The rows, and in ``was_at`` the site that recorded all that its task took there: `_DEVICE` or a server."""
        here, there = (f"site = '{site}' AND {timed_sql(site)}" for site in ("device", "edge"))
        where = f"CASE WHEN {here} THEN {_DEVICE} WHEN {there} THEN {_code('server', self.servers)} END"
        return f"SELECT *, CASE WHEN outcome = 'done' THEN {where} END AS was_at FROM src"  # noqa: S608

    def _joins(self, some: str) -> str:
        return " ".join(
            f"LEFT JOIN ({self._with_place} WHERE cell_id = {sql_text(other)} AND outcome = 'done' AND {some}) "
            f"AS c{number} ON c{number}.key = src.key"
            for number, other in enumerate(self.others)
        )


def _first(conditions: Sequence[str], values: Sequence[str]) -> str:
    cases = (f"WHEN {condition} THEN {value}" for condition, value in zip(conditions, values, strict=True))
    return f"CASE {' '.join(cases)} END"


def _code(column: str, names: Sequence[str]) -> str:
    cases = " ".join(f"WHEN {sql_text(name)} THEN {index}" for index, name in enumerate(names))
    return f"CASE {column} {cases} ELSE {NO_ROW} END" if names else str(NO_ROW)
