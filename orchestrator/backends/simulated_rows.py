"""From a simulated cell to the rows of its tables: the columns, rules and units of the programs on hosts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.energy import joined_sources
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.chance import correct_frames, device_keys
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, FAILED, NOWHERE, OUTCOMES, REASONS, FloatArray, IndexArray
from edgebed.simulation.testbed.profile import Host
from edgebed.trace.schema import NOT_NEEDED, NOT_RUN, STAGES, EpochRecord, EventRecord, TaskRecord
from edgebed.types import BoolArray, DecidedBy, Outcome, Site
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_record import DECIDERS, OPEN, EpochRow, Record
from orchestrator.columnar import ColumnWriter, Names, Table, Written, where_known

BACKEND = "simulated"
SIMULATED = "simulated"
SITES = tuple(site.label for site in Site)
STOPPED = "stopped"

_BATCH = 65536
"""Tasks whose chances are drawn again at a time, so that these take no memory to speak of."""


@dataclass(frozen=True, slots=True)
class Used:
    """What tasks used, ``[n]``; NaN where it is not known."""

    device_cpu_s: FloatArray
    server_cpu_s: FloatArray
    device_energy_j: FloatArray
    server_energy_j: FloatArray
    error_j: FloatArray


class _Costing:
    """Numbers of a kind of host, an array each."""

    def __init__(self, profiles: list[Any]) -> None:
        hosts: list[Host] = profiles

        def each(value: Any) -> FloatArray:
            return np.array([np.nan if host.power is None else value(host.power, host) for host in hosts])

        self.cpu_share = np.array([host.compute.cpu_share for host in hosts])
        span = each(lambda power, host: (power.max_w - power.idle_w) / power.cores * power.compute_ratio)
        self.joules_per_s = span * np.array([host.compute.busy_share for host in hosts])
        self.compute_error = each(lambda power, host: power.compute_error_fraction)
        self.transmit_w = each(lambda power, host: power.transmit_w)
        self.transmit_error = each(lambda power, host: power.transmit_error_fraction)


def used_of(testbed: Testbed, record: Record, slot: IndexArray) -> Used:
    """CPU seconds and joules, by the rule of `edgebed.metering.energy`; of parts that are done."""
    here, there = _Costing(testbed.device_profiles), _Costing(testbed.server_profiles)
    server = np.maximum(record.server, 0)
    busy_s = np.where(record.has_resources, record.device_busy_s, np.nan)
    served_s = np.where(record.has_resources, record.server_busy_s, np.nan)
    is_served = served_s > 0
    compute_j, air_j = here.joules_per_s[slot] * busy_s, here.transmit_w[slot] * record.air_s
    server_j = np.where(is_served, there.joules_per_s[server] * served_s, np.where(np.isnan(served_s), np.nan, 0.0))
    server_error_j = np.where(is_served, there.compute_error[server] * server_j, 0.0)
    return Used(
        device_cpu_s=here.cpu_share[slot] * busy_s,
        server_cpu_s=np.where(is_served, there.cpu_share[server] * served_s, served_s),
        device_energy_j=compute_j + air_j,
        server_energy_j=server_j,
        error_j=here.compute_error[slot] * compute_j + here.transmit_error[slot] * air_j + server_error_j,
    )


def cost_of(cell: CellSpec, record: Record, used: Used, deadline_s: FloatArray) -> FloatArray:
    """As `edgebed.trace.cost.task_cost` has it, ``[n]``; NaN where it is not known."""
    reward = cell.reward
    energy_j = used.device_energy_j + used.server_energy_j
    # In the order of additions that `task_cost` has, so that both come to the same bits.
    done: FloatArray = reward.latency * record.latency_s
    failed: FloatArray | float = reward.latency * cell.timeouts.task_s
    if reward.energy > 0:
        done = done + reward.energy * energy_j
        failed = failed + reward.energy * np.nan_to_num(energy_j)
    failed = failed + reward.miss_penalty
    done = done + np.where(record.latency_s > deadline_s, reward.miss_penalty, 0.0)
    return np.where(record.outcome == DONE, done, np.where(record.outcome == FAILED, failed, np.nan))


def close_open(simulated: SimulatedCell, stopped_s: float, not_run: str = NOT_RUN) -> NDArray[np.int64]:
    """Give what has no outcome the one that can be told; returns the reasons' codes in `reasons`.

    Args:
        simulated: the cell.
        stopped_s: how far it came; what arrived later was not run.
        not_run: the reason of that.
    """
    record = simulated.record
    is_open = record.outcome == OPEN
    was_decided = record.decided_by != NOWHERE
    reason = record.reason.copy()
    reason[is_open] = np.where(simulated.tasks.offset_s[is_open] > stopped_s, _CODES[not_run], _CODES[STOPPED])
    # Whoever waited for a decision was not started; what has one may be under way.
    record.outcome[is_open] = np.where(was_decided[is_open], OUTCOMES.index(Outcome.UNKNOWN), FAILED)
    return reason


_ALL_REASONS = (*REASONS, STOPPED, NOT_RUN, NOT_NEEDED)
_CODES = {name: code for code, name in enumerate(_ALL_REASONS)}


def task_table(simulated: SimulatedCell, stopped_s: float, not_run: str = NOT_RUN) -> Table:
    """The rows of all planned tasks of a cell, in their sealed order; arguments as in `close_open`."""
    cell, tasks, record, testbed = simulated.cell, simulated.tasks, simulated.record, simulated.testbed
    rows = len(tasks)
    reason = close_open(simulated, stopped_s, not_run)
    used = used_of(testbed, record, tasks.slot)
    is_done, is_decided = record.outcome == DONE, record.decided_by != NOWHERE
    is_sent = is_decided & (record.edge_frames > 0)
    is_placed = is_decided & (record.site != NOWHERE)
    frames_at_edge = np.maximum(record.edge_frames, 0)
    asked_edge = record.requested_site > Site.DEVICE
    table = Table(rows=rows)
    table.arrays = {"slot name": Names(tasks.slot, tasks.devices).values(), "task number": tasks.index}
    table.values = {
        **_identity(cell, tasks.epoch),
        "device_id": Written('"slot name"'),
        "task_id": Written(f'concat({_quoted(cell.cell_id + "/")}, "slot name", \'/\', "task number")'),
        "content_id": Written(f'concat({_quoted(f"{cell.workload}/{cell.seed}/")}, "slot name", \'/\', "task number")'),
        "arrived_s": simulated.start_s + tasks.offset_s,
        "payload_bytes": _clip_bytes(simulated, tasks.frames).astype(np.int64),
        "frames": tasks.frames,
        "cycles": tasks.frames * testbed.profile.cycles_per_frame,
        "deadline_s": tasks.deadline_s,
        **_link_columns(simulated, is_sent & is_done),
        "requested_site": Names(record.requested_site, SITES),
        "requested_server": Names(np.where(asked_edge, record.requested_server, NOWHERE), tuple(cell.servers)),
        "requested_channel": where_known(record.requested_channel, asked_edge),
        "site": Names(np.where(is_placed, record.site, NOWHERE), SITES),
        "server": Names(np.where(is_sent, record.server, NOWHERE), tuple(cell.servers)),
        "channel": where_known(record.requested_channel, is_sent),
        "edge_fraction": where_known(frames_at_edge / tasks.frames, is_decided),
        "edge_frames": where_known(frames_at_edge, is_decided),
        "cpu_fraction": where_known(np.ones(rows), is_decided),
        "power_fraction": where_known(np.ones(rows), is_decided),
        "decision_epoch": where_known(record.decision_epoch, is_decided),
        "policy_version": Names(np.where(is_decided, record.version, NOWHERE), tuple(record.versions)),
        "decided_by": Names(record.decided_by, tuple(each.value for each in DECIDERS)),
        "decision_s": record.ready_s - tasks.offset_s,
        "decision_compute_s": record.decision_compute_s,
        "outcome": Names(record.outcome, tuple(each.value for each in OUTCOMES)),
        "reason": Names(np.where(reason > 0, reason, NOWHERE), _ALL_REASONS),
        "latency_s": record.latency_s,
        **{name: where_known(record.stages[:, number], is_done) for number, name in enumerate(STAGES)},
        "clock_error_s": where_known(np.zeros(rows), is_done & is_sent),
        "deadline_met": where_known(
            is_done & (record.latency_s <= tasks.deadline_s), record.outcome != OUTCOMES.index(Outcome.UNKNOWN)
        ),
        "cost": cost_of(cell, record, used, tasks.deadline_s),
        "device_cpu_s": used.device_cpu_s,
        "server_cpu_s": used.server_cpu_s,
        "device_energy_j": used.device_energy_j,
        "server_energy_j": used.server_energy_j,
        "energy_source": _energy_sources(testbed, record, tasks.slot),
        "energy_error_j": used.error_j,
        "correct": _correct(simulated, is_done),
    }
    table.flags = {SIMULATED: True, "decision_late": record.is_late, "warm_up": tasks.epoch < cell.warm_up_epochs}
    return table


def _identity(cell: CellSpec, epoch: IndexArray) -> dict[str, Any]:
    return {
        "run_id": cell.run_id,
        "cell_id": cell.cell_id,
        "policy": cell.policy,
        "seed": cell.seed,
        "epoch": epoch,
        "backend": BACKEND,
        "attempt": cell.attempt,
    }


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _link_columns(simulated: SimulatedCell, is_sent: BoolArray) -> dict[str, Any]:
    record, tasks = simulated.record, simulated.tasks
    paced_bps = simulated.testbed.link_rate_bps[tasks.slot]
    rate_bps = np.where(np.isnan(record.granted_bps), np.where(paced_bps > 0, paced_bps, np.nan), record.granted_bps)
    bits = 8.0 * _clip_bytes(simulated, np.maximum(record.edge_frames, 0))
    is_timed = is_sent & (record.air_s > 0)
    measured_bps = np.divide(bits, record.air_s, out=np.full(len(bits), np.nan), where=is_timed)
    return {"link_rate_bps": rate_bps, "link_rate_measured_bps": measured_bps}


def _clip_bytes(simulated: SimulatedCell, frames: IndexArray) -> FloatArray:
    """Size of so many frames of each task, ``[n]``; a batch at a time, as a task's chances take more room than it."""
    parts = [np.zeros(0)]
    for start in range(0, len(frames), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(frames)))
        parts.append(simulated.work(rows).bytes_of(frames[rows]))
    return np.concatenate(parts)


def _energy_sources(testbed: Testbed, record: Record, slot: IndexArray) -> Names:
    """Where the joules come from: every pair of a device's and a server's source that occurs, named once."""
    here = [f"estimated:{each.power.source}" if each.power else "" for each in testbed.device_profiles]
    there = [f"estimated:{each.power.source}" if each.power else "" for each in testbed.server_profiles]
    kinds = sorted(set(here))
    kind = np.array([kinds.index(each) for each in here])[slot]
    server = np.where(record.server_busy_s > 0, record.server, NOWHERE)
    width = len(there) + 1
    names = [joined_sources((each, *other)) for each in kinds for other in ((), *((source,) for source in there))]
    codes = np.where(record.has_resources, kind * width + server + 1, NOWHERE)
    is_named = np.array([bool(name) for name in names])
    return Names(np.where((codes >= 0) & is_named[np.maximum(codes, 0)], codes, NOWHERE), tuple(names))


def _correct(simulated: SimulatedCell, is_done: BoolArray) -> NDArray[Any]:
    """Frames found correctly, by each site's accuracy; the same content at the same site always comes out the same."""
    cell, tasks, record = simulated.cell, simulated.tasks, simulated.record
    here = _accuracies(simulated.testbed.device_profiles)[tasks.slot]
    there = _accuracies(simulated.testbed.server_profiles)[np.maximum(record.server, 0)]
    edge_frames = np.maximum(record.edge_frames, 0)
    keys = device_keys(cell.seed, cell.devices, "frame")[tasks.slot]
    found = np.zeros(len(tasks), np.int64)
    position = np.arange(int(tasks.frames.max(initial=1)))
    for start in range(0, len(tasks), _BATCH):
        part = slice(start, start + _BATCH)
        stays = position < (tasks.frames[part] - edge_frames[part])[:, None]
        accuracy = np.where(stays, here[part, None], there[part, None])
        found[part] = correct_frames(keys[part], tasks.index[part], tasks.frames[part], accuracy)
    is_known = (np.isfinite(here) | (edge_frames == tasks.frames)) & (np.isfinite(there) | (edge_frames == 0))
    return where_known(found, is_done & is_known)


def _accuracies(profiles: list[Any]) -> FloatArray:
    return np.array([np.nan if each.accuracy is None else each.accuracy for each in profiles], np.float64)


def epoch_table(cell: CellSpec, rows: list[EpochRow]) -> Table:
    """The decisions of a cell, in their sealed order; of several for one device and epoch the last counts."""
    kept = {(row.device, row.epoch, len(row.action) == 0): row for row in rows}
    ordered = [kept[key] for key in sorted(kept)]
    observations, actions = np.empty(len(ordered), object), np.empty(len(ordered), object)
    for number, row in enumerate(ordered):
        observations[number], actions[number] = row.observation, row.action
    is_decided = np.array([bool(row.decided_by) for row in ordered], np.bool_)
    versions = sorted({row.version for row in ordered})
    deciders = [each.value for each in DecidedBy]
    codes = np.array([deciders.index(row.decided_by) if row.decided_by else NOWHERE for row in ordered], np.int64)
    devices = sorted({row.device for row in ordered})
    of_device = {name: number for number, name in enumerate(devices)}
    return Table(
        rows=len(ordered),
        values={
            "run_id": cell.run_id,
            "cell_id": cell.cell_id,
            "epoch": np.array([row.epoch for row in ordered], np.int64),
            "device_id": Names(np.array([of_device[row.device] for row in ordered], np.int64), tuple(devices)),
            "observation": observations,
            "action": actions,
            "policy_version": Names(
                np.where(is_decided, [versions.index(row.version) for row in ordered], NOWHERE), tuple(versions)
            ),
            "decided_by": Names(codes, tuple(deciders)),
            "decision_compute_s": np.array([row.compute_s for row in ordered], np.float64),
        },
    )


def write_cell(writer: ColumnWriter, folder: Path, simulated: SimulatedCell, stopped_s: float) -> None:
    """Write all that is known of a cell into the folder of its attempt; the tasks last, so that they mean all is there.

    Args:
        writer: writes the tables.
        folder: of the attempt.
        simulated: the cell, at its end or stopped.
        stopped_s: how far it came, from its start.
    """
    if simulated.events:
        writer.write_rows(folder / "events.parquet", simulated.events, EventRecord)
    writer.write(folder / "epochs.parquet", EpochRecord, epoch_table(simulated.cell, simulated.epoch_rows))
    writer.write(folder / "tasks.parquet", TaskRecord, task_table(simulated, stopped_s))
