"""What the report shows over time, reduced in SQL to as many points as a picture has room for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.measures import ask

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

QUANTILES = 200
EPOCH_BINS = 60
TIME_BINS = 240
LEAST_BIN_S = 1.0
EVENTS_SHOWN = 200

Group = tuple[str, str]
"""Policy and setting."""


@dataclass(frozen=True, slots=True)
class SiteShares:
    """Where tasks of a policy ran over the epochs.

    Attributes:
        epochs: first epoch of each bin. shares: by site, as long as ``epochs``; they add up to 1.
    """

    epochs: tuple[int, ...]
    shares: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class HostSeries:
    """A host over the run; None where it did not say. ``t_s`` is the run clock, in the middle of each bin."""

    host: str
    t_s: tuple[float, ...]
    cpu: tuple[float | None, ...]
    temperature_c: tuple[float | None, ...]
    power_w: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class CellEnergy:
    """Energy of a cell that no task is charged with.

    Attributes:
        duration_s: from the first arrival to the last result.
        devices_idle_j, servers_idle_j: idle power of the boards x duration; None where a board is not described.
        hosts_j: mean sampled power x duration, all hosts; None without samples of power.
        tasks_j: what the tasks added, as far as it is known.
    """

    cell_id: str
    policy: str
    seed: int
    duration_s: float
    devices_idle_j: float | None
    servers_idle_j: float | None
    hosts_j: float | None
    tasks_j: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """A row of ``events.parquet``."""

    t_s: float
    host: str
    kind: str
    detail: str

    def line(self) -> str:
        """As one line of text."""
        try:
            told = json.loads(self.detail) if self.detail else {}
        except ValueError:
            told = self.detail
        if isinstance(told, dict):
            told = ", ".join(f"{key} {value}" for key, value in told.items() if value not in ("", None, False))
        return f"{self.t_s:9.1f} s  {self.host}: {self.kind}" + (f" ({told})" if told else "")


@dataclass(frozen=True, slots=True)
class Series:
    """Everything of a run that is a list.

    Attributes:
        latency_s: quantiles of done tasks, evenly spaced from 0 to 1, by group; missing when none is done.
        power_sources: of ``power_w``.
        event_counts: kind, host, how many.
        events: the first `EVENTS_SHOWN`.
    """

    latency_s: dict[Group, tuple[float, ...]]
    decisions: dict[Group, SiteShares]
    hosts: tuple[HostSeries, ...]
    power_sources: tuple[str, ...]
    cells: tuple[CellEnergy, ...]
    event_counts: tuple[tuple[str, str, int], ...]
    events: tuple[Event, ...]


def read_series(connection: DuckDBPyConnection, hosts: dict[str, dict[str, Any]]) -> Series:
    """Read the lists of a run.

    Args:
        connection: of `orchestrator.measures.counted_tasks`.
        hosts: facts by host name, of the manifest; ``role`` and ``board`` give idle energy.
    """
    return Series(
        latency_s=_latencies(connection),
        decisions=_decisions(connection),
        hosts=_hosts(connection),
        power_sources=tuple(
            row[0]
            for row in ask(
                connection, "SELECT DISTINCT power_source FROM samples WHERE power_source IS NOT NULL ORDER BY 1"
            ).rows
        ),
        cells=_cells(connection, hosts),
        event_counts=tuple(
            ask(
                connection, "SELECT kind, host, count(*) FROM events GROUP BY ALL ORDER BY count(*) DESC, kind, host"
            ).rows
        ),
        events=tuple(
            Event(*row)
            for row in ask(
                connection,
                f"SELECT t_s, host, kind, coalesce(detail, '') FROM events LIMIT {EVENTS_SHOWN}",  # noqa: S608
            ).rows
        ),
    )


def _latencies(connection: DuckDBPyConnection) -> dict[Group, tuple[float, ...]]:
    levels = [index / QUANTILES for index in range(QUANTILES + 1)]
    rows = ask(
        connection,
        f"SELECT policy, setting, quantile_cont(latency_s, {levels}) FROM counted "  # noqa: S608  (numbers)
        "WHERE outcome = 'done' GROUP BY policy, setting",
    ).rows
    return {(policy, setting): tuple(values) for policy, setting, values in rows}


_DECISIONS = f"""
WITH width AS (SELECT greatest(1, ceil((1 + max(epoch)) / {EPOCH_BINS}))::BIGINT AS w FROM counted)
SELECT policy, setting, epoch // w * w AS bin, site, count(*) AS tasks
FROM counted, width WHERE site IS NOT NULL GROUP BY ALL ORDER BY ALL
"""  # noqa: S608  (a constant)


def _decisions(connection: DuckDBPyConnection) -> dict[Group, SiteShares]:
    counts: dict[Group, dict[int, dict[str, int]]] = {}
    for policy, setting, epoch, site, tasks in ask(connection, _DECISIONS).rows:
        counts.setdefault((policy, setting), {}).setdefault(epoch, {})[site] = tasks
    found = {}
    for group, bins in counts.items():
        sites = sorted({site for sites in bins.values() for site in sites})
        shares = {site: tuple(each.get(site, 0) / sum(each.values()) for each in bins.values()) for site in sites}
        found[group] = SiteShares(tuple(bins), shares)
    return found


_HOSTS = f"""
WITH span AS (
    SELECT min(t_s) AS begin_s, greatest((max(t_s) - min(t_s)) / {TIME_BINS}, {LEAST_BIN_S}) AS w FROM samples
)
SELECT host, begin_s + (floor((t_s - begin_s) / w) + 0.5) * w AS t_s,
       avg(cpu) AS cpu, avg(temperature_c) AS temperature_c, avg(power_w) AS power_w
FROM samples, span GROUP BY ALL ORDER BY host, t_s
"""  # noqa: S608  (a constant)


def _hosts(connection: DuckDBPyConnection) -> tuple[HostSeries, ...]:
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for host, *values in ask(connection, _HOSTS).rows:
        rows.setdefault(host, []).append(tuple(values))
    return tuple(HostSeries(host, *zip(*values, strict=True)) for host, values in rows.items())


_CELLS = """
WITH cell AS (
    SELECT cell_id, any_value(policy) AS policy, any_value(seed) AS seed, min(arrived_s) AS begin_s,
           max(arrived_s + coalesce(latency_s, 0)) AS end_s, sum(device_energy_j + server_energy_j) AS tasks_j,
           min(rowid_) AS place
    FROM (SELECT *, row_number() OVER () AS rowid_ FROM tasks) WHERE outcome = 'done' GROUP BY cell_id
), power AS (
    SELECT cell_id, sum(mean_w) AS mean_w
    FROM (SELECT cell_id, host, avg(power_w) AS mean_w FROM cell JOIN samples ON t_s BETWEEN begin_s AND end_s
          GROUP BY cell_id, host)
    GROUP BY cell_id
)
SELECT cell_id, policy, seed, end_s - begin_s AS duration_s, mean_w, tasks_j
FROM cell LEFT JOIN power USING (cell_id) ORDER BY place
"""


def _cells(connection: DuckDBPyConnection, hosts: dict[str, dict[str, Any]]) -> tuple[CellEnergy, ...]:
    devices_w, servers_w = idle_power_w(hosts, "device"), idle_power_w(hosts, "edge_server")
    return tuple(
        CellEnergy(
            cell_id,
            policy,
            seed,
            duration_s,
            None if devices_w is None else devices_w * duration_s,
            None if servers_w is None else servers_w * duration_s,
            None if mean_w is None else mean_w * duration_s,
            tasks_j,
        )
        for cell_id, policy, seed, duration_s, mean_w, tasks_j in ask(connection, _CELLS).rows
    )


def idle_power_w(hosts: dict[str, dict[str, Any]], role: str) -> float | None:
    """Idle power of all hosts of a role together, by their boards; None when one of them is not described."""
    boards = [facts.get("board") for facts in hosts.values() if facts.get("role") == role]
    known = [board["idle_w"] for board in boards if isinstance(board, dict) and "idle_w" in board]
    return float(sum(known)) if known and len(known) == len(boards) else None
