"""Task rows of runs as columns, with what fitting needs besides: when stages began, and who computed at the same time.

Used are tasks that count (no warm-up, nothing that never ran) and that no flag makes doubtful; the others are read too,
because they kept hosts busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.disturbed import is_disturbed, windows_of
from orchestrator.calibration.traces import MOST_ROWS, Columns, Trace, bounded, read_columns
from orchestrator.measures import COUNTED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BoolArray = NDArray[np.bool_]

DOUBTFUL = ("throttled", "under_voltage", "overloaded", "wifi_power_save", "clock_suspect")
"""Flags of tasks that are not fitted to: the host was not itself. (Validation counts them, as every report does.)"""

ROUNDING_S = 1e-6
"""What instants that are sums of stages may be off by."""

_STAGES = (
    "decision_s, decision_compute_s, latency_s, device_queue_s, device_compute_s, uplink_queue_s, uplink_s, "
    "server_queue_s, server_compute_s, downlink_s"
)
_ROWS = f"""
SELECT cell_id, policy, coalesce(setting_of_cell.setting, 'base') AS setting, seed, device_id, task_id, content_id,
       arrived_s, payload_bytes, frames, cycles, link_rate_bps, site, server, edge_frames, decision_epoch, decided_by,
       {_STAGES}, outcome, reason, device_cpu_s, server_cpu_s, device_energy_j, server_energy_j, energy_source, correct,
       {COUNTED} AS counts, {COUNTED} AND NOT list_has_any(flags, {list(DOUBTFUL)}) AS usable
FROM tasks LEFT JOIN setting_of_cell USING (cell_id)
"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True)
class Rows:
    """Tasks of one or several runs.

    Attributes:
        columns: of the trace, and ``run`` (an index), ``counts``, ``usable``, ``disturbed`` (by a fault).
        runs: their names for themselves.
        total: tasks that count, those included for which there was no room.
    """

    columns: Columns
    runs: tuple[str, ...]
    total: int

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["run"])

    def only(self, kept: BoolArray | NDArray[np.intp]) -> Rows:
        """Some of them: those where a mask is True, or those at some positions, in their order."""
        return Rows({name: column[kept] for name, column in self.columns.items()}, self.runs, self.total)

    @property
    def is_usable(self) -> BoolArray:
        """Which are fitted to."""
        return self["usable"] > 0

    @property
    def is_done(self) -> BoolArray:
        """Which were answered."""
        return np.asarray(self["outcome"] == "done")

    @property
    def cells(self) -> list[str]:
        """The cells they are of, as ``run/cell``."""
        names = {f"{self.runs[int(run)]}/{cell}" for run, cell in zip(self["run"], self["cell_id"], strict=True)}
        return sorted(names)

    def by_cell(self) -> Iterator[NDArray[np.intp]]:
        """Positions of the tasks of each cell of each run."""
        keys = np.array([f"{int(run)}/{cell}" for run, cell in zip(self["run"], self["cell_id"], strict=True)], object)
        _, index = np.unique(keys.astype(str), return_inverse=True)
        order = np.argsort(index, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(index[order])) + 1) if len(order) else ()

    @property
    def device_start_s(self) -> FloatArray:
        """When each began to compute on its device, run clock."""
        start: FloatArray = self["arrived_s"] + self["decision_s"] + self["device_queue_s"]
        return start

    @property
    def upload_start_s(self) -> FloatArray:
        """When each upload began."""
        start: FloatArray = self["arrived_s"] + self["decision_s"] + self["uplink_queue_s"]
        return start

    @property
    def server_start_s(self) -> FloatArray:
        """When each began to compute at its server."""
        start: FloatArray = self.upload_start_s + self["uplink_s"] + self["server_queue_s"]
        return start


def read_rows(traces: Sequence[Trace], most_rows: int = MOST_ROWS) -> Rows:
    """The tasks of runs, no more than ``most_rows`` of each.

    Raises:
        BadInput: a run's tables are damaged.
    """
    parts, total = [], 0
    for index, trace in enumerate(traces):
        with trace.counted() as connection:
            columns, size = _of_run(connection, most_rows)
        columns["disturbed"] = is_disturbed(columns, windows_of(trace.run) if trace.has_faults else ())
        columns["usable"] = columns["usable"] * (1.0 - columns["disturbed"])
        columns["run"] = np.full(len(columns["frames"]), float(index))
        parts.append(columns)
        total += size
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Rows(joined, tuple(trace.run_id for trace in traces), total)


def _of_run(connection: DuckDBPyConnection, most_rows: int) -> tuple[Columns, int]:
    condition, size = bounded(connection, most_rows)
    return read_columns(connection, f"{_ROWS} WHERE {condition}"), size


def others_at_start(rows: Rows, group_of: dict[str, str]) -> tuple[FloatArray, FloatArray]:
    """How many other computations of its group went on when each began: on the device, and at the server.

    Args:
        rows: all tasks of the cells, also those that are not fitted to.
        group_of: the processors that a host shares, by its name; a host that shares none is left out.

    Returns:
        ``[n]`` each; NaN where the task did not compute there.
    """
    on_device, at_server = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for positions in rows.by_cell():
        _count_in_cell(rows.only(positions), positions, group_of, on_device, at_server)
    return on_device, at_server


def _count_in_cell(
    part: Rows, positions: NDArray[np.intp], group_of: dict[str, str], on_device: FloatArray, at_server: FloatArray
) -> None:
    here = part.is_done & (part["device_compute_s"] > 0)
    there = part.is_done & (part["server_compute_s"] > 0)
    device_group = np.array([group_of.get(name, "") for name in part["device_id"]])
    server_group = np.array([group_of.get(name, "") for name in part["server"]])
    for group in {*device_group[here], *server_group[there]}:
        local, remote = here & (device_group == group), there & (server_group == group)
        begin = np.concatenate([part.device_start_s[local], part.server_start_s[remote]])
        length = np.concatenate([part["device_compute_s"][local], part["server_compute_s"][remote]])
        others = _going_on(begin, begin + length) if group else np.zeros(len(begin))
        on_device[positions[local]] = others[: local.sum()]
        at_server[positions[remote]] = others[local.sum() :]


def _going_on(begin_s: FloatArray, end_s: FloatArray) -> FloatArray:
    """How many of the intervals had begun before, and not ended by, the begin of each."""
    begun = np.searchsorted(np.sort(begin_s), begin_s, side="left")
    # The predecessor on the same host has ended, whatever the last digits of a sum of stages say.
    ended = np.searchsorted(np.sort(end_s), begin_s + ROUNDING_S, side="right")
    others: FloatArray = np.maximum(begun - ended, 0).astype(np.float64)
    return others
