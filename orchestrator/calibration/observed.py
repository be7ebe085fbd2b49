"""What hosts knew of themselves, as epochs and samples have it: speeds before the first task, round trips, idle CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgebed.types import ObservationSpec
from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.fitting import stored_quantiles
from orchestrator.calibration.traces import Trace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_EPOCHS = 20_000
LEAST_SHOWN = 20
"""Observations that a distribution of what a host shows needs."""
SHOWN_POINTS = 21

_OBSERVATIONS = f"""
SELECT cell_id, epoch, device_id, observation FROM epochs WHERE observation IS NOT NULL
ORDER BY epoch, cell_id, device_id LIMIT {MOST_EPOCHS}
"""  # noqa: S608  (constants)

_BUSY = """
WITH cell AS (
    SELECT cell_id, min(arrived_s) AS begin_s, max(arrived_s + coalesce(latency_s, 0)) AS end_s
    FROM tasks WHERE outcome = 'done' GROUP BY cell_id
)
SELECT host, avg(cpu) AS cpu, (SELECT sum(end_s - begin_s) FROM cell) AS duration_s
FROM cell JOIN samples ON t_s BETWEEN begin_s AND end_s WHERE cpu IS NOT NULL GROUP BY host
"""

_WORK = """
SELECT host, sum(cpu_s) FROM (
    SELECT device_id AS host, device_cpu_s AS cpu_s FROM tasks
    UNION ALL SELECT server AS host, server_cpu_s AS cpu_s FROM tasks
) WHERE host IS NOT NULL AND cpu_s IS NOT NULL GROUP BY host
"""


@dataclass(slots=True)
class Observed:
    """By host; a host that did not tell is not there.

    Attributes:
        first_speed_hz: cycles a second that it believed in before the first task, one a cell.
        round_trip_s: as devices measured them.
        cpu: mean busy share of its processors while cells ran, with the seconds that they ran.
        task_cpu_s: CPU seconds of tasks on it meanwhile.
        shown_cpu: busy share of its processors in observations, by whether it had a task to compute.
    """

    first_speed_hz: dict[str, list[float]] = field(default_factory=dict)
    round_trip_s: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    task_cpu_s: dict[str, float] = field(default_factory=dict)
    shown_cpu: dict[tuple[str, bool], list[float]] = field(default_factory=dict)

    def show(self, host: str, cpu: float, queued: float) -> None:
        """Take what a host showed: its busy share, and how much it had to compute, in whatever unit."""
        self.shown_cpu.setdefault((host, queued > 0), []).append(float(cpu))

    def typical_round_trip_s(self, device: str) -> float:
        """Median; 0 when it is not known."""
        known = [value for value in self.round_trip_s.get(device, []) if value > 0]
        return float(np.median(known)) if known else 0.0

    def first_s_per_frame(self, host: str, cycles_per_frame: float) -> float | None:
        """Seconds a frame that it believed in before the first task; None when that is not known."""
        known = [value for value in self.first_speed_hz.get(host, []) if value > 0]
        return cycles_per_frame / float(np.median(known)) if known else None

    def shown_share(self, host: str, *, is_working: bool) -> list[float] | None:
        """Quantiles of the busy share that a host shows; None when too little is known of it.

        Args:
            host: whose.
            is_working: while it has a task to compute; where that was hardly ever so, whatever it showed is taken.
        """
        own = self.shown_cpu.get((host, is_working), [])
        values = own if len(own) >= LEAST_SHOWN else own + self.shown_cpu.get((host, not is_working), [])
        return stored_quantiles(np.clip(values, 0.0, 1.0), SHOWN_POINTS) if len(values) >= LEAST_SHOWN else None

    def idle_share(self, host: str, sharing: Sequence[str], cores: float) -> float:
        """Busy share of a host's processors that no task accounts for; 0 when it is not known.

        Args:
            host: whose.
            sharing: all hosts on the same processors, this one included.
            cores: of the processors.
        """
        seen = self.cpu.get(host)
        if not seen:
            return 0.0
        duration_s = sum(seconds for _, seconds in seen)
        busy = sum(cpu * seconds for cpu, seconds in seen) / duration_s
        tasks_s = sum(self.task_cpu_s.get(each, 0.0) for each in sharing)
        return float(np.clip(busy - tasks_s / (duration_s * cores), 0.0, 1.0))


def observe(traces: Sequence[Trace]) -> Observed:
    """Read epochs and samples of runs."""
    found = Observed()
    for trace in traces:
        with trace.counted() as connection:
            _read_epochs(connection, trace, found)
            _read_samples(connection, found)
    return found


def _read_epochs(connection: DuckDBPyConnection, trace: Trace, found: Observed) -> None:
    channels = {cell.cell_id: cell.setting.channels.count for cell in trace.plan.cells}
    devices = tuple(host.name for host in trace.plan.devices)
    servers = tuple(host.name for host in trace.plan.edge_servers)
    for cell_id, epoch, device, observation in connection.execute(_OBSERVATIONS).fetchall():
        spec = ObservationSpec(devices, servers, channels.get(cell_id, 1))
        slots = devices if not device else (device,)
        width = len(spec.device_features)
        numbers = np.asarray(observation, np.float64)
        if len(numbers) != len(slots) * width + len(servers) * spec.server_width:
            continue
        values = numbers[: len(slots) * width].reshape(len(slots), width)
        _take(found, spec, slots, values, numbers[len(slots) * width :], is_first=epoch == 0)


def _take(
    found: Observed,
    spec: ObservationSpec,
    slots: Sequence[str],
    values: FloatArray,
    server: FloatArray,
    *,
    is_first: bool,
) -> None:
    trip, speed = spec.device_index("round_trip_s"), spec.device_index("device_speed_hz")
    cpu, delay = spec.device_index("device_cpu"), spec.device_index("device_queue_delay_s")
    for slot, name in enumerate(slots):
        if values[slot, trip] > 0:
            found.round_trip_s.setdefault(name, []).append(float(values[slot, trip]))
        if values[slot, speed] > 0:  # else nothing was heard of it
            found.show(name, values[slot, cpu], values[slot, delay])
            if is_first:
                found.first_speed_hz.setdefault(name, []).append(float(values[slot, speed]))
    for index, name in enumerate(spec.servers):
        worker_hz = server[spec.server_index("worker_speed_hz", index)]
        if worker_hz > 0:
            held = server[spec.server_index("queue_tasks", index)]
            found.show(name, server[spec.server_index("server_cpu", index)], held)
            if is_first:
                found.first_speed_hz.setdefault(name, []).append(float(worker_hz))


def _read_samples(connection: DuckDBPyConnection, found: Observed) -> None:
    for host, cpu, duration_s in connection.execute(_BUSY).fetchall():
        found.cpu.setdefault(host, []).append((cpu, duration_s))
    for host, cpu_s in connection.execute(_WORK).fetchall():
        found.task_cpu_s[host] = found.task_cpu_s.get(host, 0.0) + cpu_s
