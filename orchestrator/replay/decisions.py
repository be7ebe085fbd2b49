"""The recorded decisions of a policy as a file that the policy ``recorded`` decides from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgebed.policies.recorded import decisions_file
from edgebed.randomness import stream
from edgebed.trace.runs import QUIET, import_duckdb, sql_file, sql_text
from edgebed.types import Site
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.planning import placement_of
from orchestrator.replay.source import Source

_DECIDED = """
SELECT device_id, coalesce(decision_epoch, epoch) AS epoch, requested_site, requested_server,
       coalesce(requested_channel, 0) AS channel, coalesce(edge_fraction, 0) AS fraction
FROM read_parquet({file}) WHERE cell_id = {cell} AND requested_site IS NOT NULL AND decision_s IS NOT NULL
ORDER BY device_id, epoch, arrived_s, task_id
"""


def recorded_decisions(source: Source, cells: Sequence[PlannedCell]) -> bytes:
    """The decisions of some cells, one of each seed.

    Where tasks that were decided together were told to do different things (a late decision, say), the first counts.
    """
    plan = source.trace.plan
    devices = tuple(host.name for host in plan.devices)
    servers = [host.name for host in plan.edge_servers]
    rows: list[tuple[int, int, int, int, int, int, int, float]] = []
    with import_duckdb("replaying a run").connect() as connection:
        connection.execute(QUIET)
        for cell in cells:
            statement = _DECIDED.format(file=sql_file(source.tasks_file), cell=sql_text(cell.cell_id))
            at_arrival = cell.setting.decide_at == "arrival"
            last, turn = (-1, -1), 0
            for device, epoch, site, server, channel, fraction in connection.execute(statement).fetchall():
                slot = devices.index(device)
                turn = turn + 1 if (slot, epoch) == last else 0
                last = (slot, epoch)
                if turn and not at_arrival:
                    continue
                code = Site.from_label(site)
                where = servers.index(server) if server in servers else 0
                share = 1.0 if code is Site.EDGE else float(fraction)
                rows.append((_seed(cell, device), epoch, slot, turn, int(code), where, channel, share))
    columns = np.array(rows, np.float64).reshape(len(rows), 8).T
    names = ("seed", "epoch", "device", "turn", "site", "server", "channel", "edge_fraction")
    found = dict(zip(names, columns, strict=True))
    found["seed"] = np.array([row[0] for row in rows], np.int64)  # all of its digits
    return decisions_file(devices, found)


def _seed(cell: PlannedCell, device: str) -> int:
    """What the policy will be reset with, see `device_agent.deciding.LocalPolicy`."""
    if placement_of(cell.policy, cell.setting) != "device":
        return cell.seed
    return int(stream(cell.seed, "policy", "policy", device).integers(2**53))
