"""Episodes from a run's epochs: what was seen, done and earned, joint and device by device.

Observations have the columns of `edgebed.simulation.hosts_layout`, as environments over hosts show them, so that what
is learned from a trace decides on hosts. Two of them are not in the trace: ``present`` is 1 where a slot has any number
that is not 0 (an absent slot is recorded as zeros, a present device has at least a battery), and ``age_s`` is 0.

An epoch that is missing from the trace, or one for which a device was absent, ends an episode: it is truncated there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.trace.runs import Run
from edgebed.types import Float32Array, ObservationSpec, Site
from orchestrator.plan_file import Plan, PlannedCell

FloatArray = NDArray[np.float64]
DECISION = 6
"""Numbers of a slot's decision in the trace: site, server, channel, edge, CPU and power fraction."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of consecutive decisions, and what was seen after the last one.

    Attributes:
        cell_id, policy, seed: whose it is.
        device: whose decisions they are; empty: of all devices together.
        first_epoch: of the first decision.
        observations: ``[n + 1, columns]``.
        decisions: ``[n, slots, 6]``, as recorded; one slot for a device's episode.
        rewards: ``[n]``; is_complete ``[n]``: every task of the decision has a cost.
        is_complete: see ``rewards``.
        decided_by: of each decision. versions: of the policy.
    """

    cell_id: str
    policy: str
    seed: int
    device: str
    first_epoch: int
    observations: Float32Array
    decisions: FloatArray
    rewards: FloatArray
    is_complete: NDArray[np.bool_]
    decided_by: tuple[str, ...]
    versions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of ``epochs``; ``decision`` is empty in a cell's last one."""

    epoch: int
    observation: Float32Array
    decision: FloatArray
    reward: float
    is_complete: bool
    decided_by: str
    version: str


def plan_of_run(run: Run) -> Plan:
    """A run's plan, typed.

    Raises:
        BadInput: it cannot be read.
    """
    return Plan.from_yaml(run.path / "plan.yaml")


def spec_of_cell(cell: PlannedCell) -> ObservationSpec:
    """What observations of a cell look like."""
    plan = cell.plan
    return ObservationSpec(
        tuple(host.name for host in plan.devices),
        tuple(host.name for host in plan.edge_servers),
        cell.setting.channels.count,
    )


def episodes_of(run: Run, cell: PlannedCell) -> Iterator[Episode]:
    """All episodes of a cell: joint ones where decisions were joint, and each device's.

    Raises:
        BadInput: the run has not been sealed.
        SchemaMismatch: an observation has another length than the plan's hosts give.
    """
    spec = spec_of_cell(cell)
    rows = _rows(run, cell.cell_id)
    rewards = _device_rewards(run, cell.cell_id)
    if "" in rows:
        yield from _joint(cell, spec, rows[""])
        for slot, device in enumerate(spec.slots):
            own = [_of_slot(row, slot, spec, rewards.get((device, row.epoch))) for row in rows[""]]
            yield from _episodes(cell, device, own, spec)
    for device in sorted(rows.keys() - {""}):
        own = [_of_device(row, spec, cell.cell_id) for row in rows[device]]
        yield from _episodes(cell, device, own, spec)


def actions_of(decisions: FloatArray, channels: int) -> NDArray[np.int64] | None:
    """Action indices ``[n, slots]`` of decisions; None when some are more than a choice of where to run."""
    site, server, channel = (decisions[..., column] for column in range(3))
    is_plain = (site == Site.DEVICE) | ((site == Site.EDGE) & (decisions[..., 3] == 1.0))
    if not (is_plain & (decisions[..., 4] == 1.0) & (decisions[..., 5] == 1.0)).all():
        return None
    return np.where(site == Site.DEVICE, 0, 1 + server * channels + channel).astype(np.int64)


def _rows(run: Run, cell_id: str) -> dict[str, list[_Row]]:
    """The rows of a cell by device, in order of epochs."""
    found = run.query(
        "SELECT device_id, epoch, observation, action, reward, reward_complete, decided_by, policy_version "
        "FROM epochs WHERE cell_id = ? AND observation IS NOT NULL ORDER BY device_id, epoch, len(action) = 0",
        (cell_id,),
    )
    rows: dict[str, list[_Row]] = {}
    for device, epoch, seen, action, reward, complete, by, version in found.rows:
        rows.setdefault(device, []).append(
            _Row(
                epoch,
                np.array(seen, np.float32),
                np.array(action or [], np.float64).reshape(-1, DECISION),
                float(reward or 0.0),
                bool(complete),
                by or "",
                version or "",
            )
        )
    return rows


def _device_rewards(run: Run, cell_id: str) -> Mapping[tuple[str, int], tuple[float, bool]]:
    """Reward, and whether it is complete, by device and epoch of the decision."""
    found = run.query(
        "SELECT device_id, decision_epoch, -sum(coalesce(cost, 0)), bool_and(cost IS NOT NULL) FROM tasks "
        "WHERE cell_id = ? AND decision_epoch IS NOT NULL GROUP BY ALL",
        (cell_id,),
    )
    return {(device, epoch): (reward, complete) for device, epoch, reward, complete in found.rows}


def _joint(cell: PlannedCell, spec: ObservationSpec, rows: Sequence[_Row]) -> Iterator[Episode]:
    features, slots = len(spec.device_features), len(spec.slots)
    shown = []
    for row in rows:
        _check_length(row, slots * features + len(spec.server_names), cell.cell_id, row.epoch)
        devices = row.observation[: slots * features].reshape(slots, features)
        block = _with_presence(devices)
        shown.append(_seen(row, np.concatenate([block.ravel(), row.observation[slots * features :]])))
    for stretch in _stretches(shown):
        yield _episode(cell, "", stretch)


def _episodes(cell: PlannedCell, device: str, rows: Sequence[_Row], spec: ObservationSpec) -> Iterator[Episode]:
    """Stretches of a device's rows in which it was present."""
    present = len(spec.device_features)
    for stretch in _stretches(rows, lambda row: bool(row.observation[present])):
        yield _episode(cell, device, stretch)


def _of_slot(row: _Row, slot: int, spec: ObservationSpec, reward: tuple[float, bool] | None) -> _Row:
    """One device's part of a joint row."""
    features = len(spec.device_features)
    own = row.observation[slot * features : (slot + 1) * features]
    servers = row.observation[len(spec.slots) * features :]
    total, complete = reward or (0.0, True)  # no task of its was decided
    seen = np.concatenate([_with_presence(own[None])[0], servers])
    return _Row(row.epoch, seen, row.decision[slot : slot + 1], total, complete, row.decided_by, row.version)


def _of_device(row: _Row, spec: ObservationSpec, cell_id: str) -> _Row:
    features = len(spec.device_features)
    _check_length(row, features + len(spec.server_names), cell_id, row.epoch)
    return _seen(row, np.concatenate([_with_presence(row.observation[None, :features])[0], row.observation[features:]]))


def _with_presence(devices: Float32Array) -> Float32Array:
    """``[slots, features]`` with ``present`` and ``age_s`` behind them; see the module."""
    present = (devices != 0).any(axis=1, keepdims=True).astype(np.float32)
    return np.concatenate([devices, present, np.zeros_like(present)], axis=1)


def _seen(row: _Row, observation: Float32Array) -> _Row:
    return _Row(row.epoch, observation, row.decision, row.reward, row.is_complete, row.decided_by, row.version)


def _stretches(rows: Sequence[_Row], is_there: Any = lambda row: True) -> Iterator[list[_Row]]:
    """Rows of consecutive epochs, all but the last of a stretch with a decision; at least two rows each."""
    stretch: list[_Row] = []
    for row in rows:
        if stretch and row.epoch != stretch[-1].epoch + 1:
            if len(stretch) > 1:
                yield stretch
            stretch = []
        stretch.append(row)
        # What is seen when the device is lost still ends the stretch; it decides nothing any more.
        if not len(row.decision) or not is_there(row):
            if len(stretch) > 1:
                yield stretch
            stretch = []
    if len(stretch) > 1:
        yield stretch


def _episode(cell: PlannedCell, device: str, rows: Sequence[_Row]) -> Episode:
    steps = rows[:-1]
    return Episode(
        cell_id=cell.cell_id,
        policy=cell.policy.label,
        seed=cell.seed,
        device=device,
        first_epoch=rows[0].epoch,
        observations=np.stack([row.observation for row in rows]),
        decisions=np.stack([row.decision for row in steps]),
        rewards=np.array([row.reward for row in steps]),
        is_complete=np.array([row.is_complete for row in steps]),
        decided_by=tuple(row.decided_by for row in steps),
        versions=tuple(row.version for row in steps),
    )


def _check_length(row: _Row, expected: int, cell_id: str, epoch: int) -> None:
    if len(row.observation) != expected:
        raise SchemaMismatch(
            f"cell {cell_id}, epoch {epoch}: the observation has {len(row.observation)} numbers, the hosts of the plan "
            f"give {expected}; the run was recorded by another edgebed: export it with that one"
        )


def check_has_epochs(run: Run) -> None:
    """Refuse a run without decisions.

    Raises:
        BadInput: there are none.
    """
    count = run.query("SELECT count(*) FROM epochs WHERE len(action) > 0").rows[0][0]
    if not count:
        raise BadInput(f"{run.path}: has no decisions in epochs.parquet, so there is nothing to learn from")
