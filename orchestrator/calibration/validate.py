"""A profile against runs: the same plans simulated with it, compared policy by policy.

Runs that the profile was fitted to are *in-sample*: their errors say how well it was fitted, not how well it predicts.
They are told apart in every place where a number of them stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edgebed.simulation.testbed.profile import Profile
from orchestrator.calibration.comparison import METRICS, Compared, Error, Policy, Tasks, compare, joined
from orchestrator.calibration.ranking import RANKED, Pair, ordered_pairs
from orchestrator.calibration.sides import Group, RunTasks, name_of, read_tasks
from orchestrator.calibration.traces import Provenance, Trace, check_alike, compare_provenance, facts_of

REPLICAS = 8
"""How often each plan is simulated: the simulation's own chance is then small against that of the measurement."""

Simulate = Callable[[Trace, frozenset[str], int], RunTasks]
"""The tasks of some cells of a run's plan, simulated; the number tells repetitions apart."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What came of it.

    Attributes:
        in_sample: runs that the profile was fitted to, of ``runs``.
        errors: over all policies: the mean of their absolute errors, by metric.
        policies: one by one, errors signed.
        pairs: policies with a measured order, and whether it is kept.
        latencies_s: of done tasks, measured and simulated, by policy; for pictures.
        notices: what a reader must know before any number.
    """

    runs: tuple[str, ...]
    in_sample: tuple[str, ...]
    errors: dict[str, Error]
    policies: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    latencies_s: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    notices: tuple[str, ...]

    @property
    def ranking_kept(self) -> bool:
        """Is the measured order of policies kept wherever there is one?"""
        return all(pair.is_kept for pair in self.pairs)

    def to_plain(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "runs": list(self.runs),
            "in_sample": list(self.in_sample),
            "errors": {metric: _plain_error(error) for metric, error in self.errors.items()},
            "ranking_kept": self.ranking_kept,
            "ranking": {
                "pairs": len(self.pairs),
                "broken": [msgspec.to_builtins(pair) for pair in self.pairs if not pair.is_kept],
            },
            "policies": {policy.name: _plain_policy(policy) for policy in self.policies},
            "notices": list(self.notices),
        }


def _plain_error(error: Error) -> dict[str, Any]:
    return {
        "value": error.value,
        "low": error.low,
        "high": error.high,
        "repeat": error.repeat,
        "repeat_is_measured": error.repeat_is_measured,
    }


def _plain_policy(policy: Compared) -> dict[str, Any]:
    return {
        "errors": {metric: _plain_error(error) for metric, error in policy.errors.items()},
        "measured": policy.measured,
        "simulated": policy.simulated,
        "tasks": policy.measured_tasks,
        "simulated_tasks": policy.simulated_tasks,
        "wasserstein_s": policy.wasserstein_s,
        "ks": policy.ks,
    }


def check_profile_fits(profile: Profile, name: str, traces: Sequence[Trace]) -> None:
    """Is the profile one of the testbed of these runs?

    Raises:
        BadInput: no run was given.
        SchemaMismatch: workload, model or a board differs; both sides are named.
    """
    check_alike(traces)
    boards = {host: each.board for group in (profile.devices, profile.servers) for host, each in group.items()}
    theirs = Provenance((profile.workload,), profile.model_sha256, {k: v for k, v in boards.items() if v})
    for trace in traces:
        compare_provenance(name, theirs, str(trace.run.path), facts_of(trace))


def validate(profile: Profile, traces: Sequence[Trace], simulate: Simulate, replicas: int = REPLICAS) -> Validation:
    """Compare runs with what a profile makes of their plans.

    Args:
        profile: checked by `check_profile_fits`.
        traces: sealed runs.
        simulate: simulates the plan of one; asked once for each plan and replica, however many runs repeat it.
        replicas: how often.

    Raises:
        BadInput: the tables of a run are damaged.
    """
    measured = [_read(trace) for trace in traces]
    plans = [trace.conditions for trace in traces]
    simulated = {}
    for plan in dict.fromkeys(plans):
        cells = frozenset().union(*(side.cells for side, other in zip(measured, plans, strict=True) if other == plan))
        simulated[plan] = [simulate(traces[plans.index(plan)], cells, replica) for replica in range(replicas)]
    units = _units(measured)
    policies = [_policy(group, measured, plans, simulated, units) for group in _groups(measured)]
    compared, errors = compare(policies, max(1, units.count))
    pairs = ordered_pairs(
        _ranked([(run, each) for run, each in enumerate(measured)]),
        _ranked([(run, replica) for run, plan in enumerate(plans) for replica in simulated[plan]]),
    )
    in_sample = tuple(trace.run_id for trace in traces if trace.run_id in profile.source.runs)
    return Validation(
        runs=tuple(trace.run_id for trace in traces),
        in_sample=in_sample,
        errors=errors,
        policies=tuple(compared),
        pairs=tuple(pairs),
        latencies_s={policy.name: (policy.measured.done_s, joined(policy.replicas).done_s) for policy in policies},
        notices=tuple(_notices(traces, in_sample, units, pairs, compared)),
    )


def _read(trace: Trace) -> RunTasks:
    with trace.counted() as connection:
        return read_tasks(connection)


# -- units of the bootstrap -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Units:
    """What the bootstrap draws: the seeds of all runs, or the epochs where there is one seed only.

    Attributes:
        index: of each (run, seed), or of each (run, epoch).
    """

    index: Mapping[tuple[int, int], int]
    are_epochs: bool

    @property
    def count(self) -> int:
        return len(self.index)

    def tasks(self, run: int, side: RunTasks, group: Group) -> Tasks | None:
        found = (side.epochs if self.are_epochs else side.tasks).get(group)
        if found is None:
            return None
        known = np.array([(run, unit) in self.index for unit in found.unit], np.bool_)
        unit = np.array([self.index[run, unit] for unit in found.unit[known].tolist()], np.int64)
        return Tasks(unit, found.latency_s[known], found.missed[known], found.energy_j[known])


def _units(measured: Sequence[RunTasks]) -> _Units:
    for are_epochs in (False, True):
        keys = sorted(
            {
                (run, int(unit))
                for run, side in enumerate(measured)
                for tasks in (side.epochs if are_epochs else side.tasks).values()
                for unit in np.unique(tasks.unit)
            }
        )
        if len(keys) > 1 or are_epochs:
            break
    return _Units({key: place for place, key in enumerate(keys)}, are_epochs)


def _groups(measured: Sequence[RunTasks]) -> list[Group]:
    return sorted({group for side in measured for group in side.tasks})


def _policy(
    group: Group,
    measured: Sequence[RunTasks],
    plans: Sequence[str],
    simulated: Mapping[str, Sequence[RunTasks]],
    units: _Units,
) -> Policy:
    """Both sides of a policy, over all runs that have it."""
    own = [units.tasks(run, side, group) for run, side in enumerate(measured)]
    replicas = []
    for replica in range(min(map(len, simulated.values()))):
        parts = [units.tasks(run, simulated[plan][replica], group) for run, plan in enumerate(plans)]
        present = [part for part in parts if part is not None]
        replicas.append(joined(present) if present else _NO_TASKS)
    repeats = [
        [tasks for tasks, other in zip(own, plans, strict=True) if other == plan and tasks is not None]
        for plan in dict.fromkeys(plans)
    ]
    return Policy(name_of(group), joined([each for each in own if each is not None]), replicas, repeats)


_NO_TASKS = Tasks(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))


def _ranked(sides: Sequence[tuple[int, RunTasks]]) -> dict[str, dict[str, dict[int, float | None]]]:
    """Measures by policy, over the seeds of all runs; of several sides of one run, the mean."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for run, side in sides:
        for group, measures in side.by_seed.items():
            mine = values.setdefault(name_of(group), {name: {} for name in RANKED})
            for name, by_seed in measures.items():
                for seed, value in by_seed.items():
                    if value is not None:
                        mine[name].setdefault(_seed_of_run(run, seed), []).append(value)
    return {
        policy: {
            name: {unit: float(np.mean(found)) for unit, found in by_seed.items()} for name, by_seed in each.items()
        }
        for policy, each in values.items()
    }


def _seed_of_run(run: int, seed: int) -> int:
    """A number for a seed of a run; seeds are below 2^53."""
    return (run << 53) + seed


# -- what must be said ------------------------------------------------------------------------------------------------


def _notices(
    traces: Sequence[Trace],
    in_sample: Sequence[str],
    units: _Units,
    pairs: Sequence[Pair],
    compared: Sequence[Compared],
) -> list[str]:
    notices = []
    if in_sample:
        which = "all of these runs" if len(in_sample) == len(traces) else ", ".join(in_sample)
        notices.append(
            f"IN-SAMPLE: the profile was fitted to {which}. These errors say how well it was fitted, not how well it "
            "predicts; validate with runs of other seeds or policies."
        )
    if units.are_epochs:
        notices.append("One run with one seed: intervals are over its epochs, which share queues, and are too narrow.")
    if not pairs:
        notices.append("No two policies differ significantly in these runs: there is no ranking to be kept.")
    if not all(error.repeat_is_measured for policy in compared for error in policy.errors.values()):
        notices.append(
            "No run repeats another one's plan: the repeat difference is that of repeated simulations, which know only "
            "of the chance that is in the profile. Run the same experiment twice and give both."
        )
    notices += [
        f"{trace.run_id} is {trace.run.manifest.verdict}: {' '.join(trace.run.manifest.reasons)}"
        for trace in traces
        if trace.run.manifest.verdict in ("suspect", "invalid")
    ]
    notices += [
        f"{trace.run_id} is {trace.run.manifest.state}: what it did not run is simulated all the same."
        for trace in traces
        if trace.run.manifest.state != "complete"
    ]
    notices += [
        f"{trace.run_id} had planned faults; the simulation has the same, in virtual time."
        for trace in traces
        if trace.has_faults
    ]
    notices += [
        f"{trace.run_id}: {', '.join(learning)} learned meanwhile; so it does in the simulation, from simulated tasks."
        for trace in traces
        if (learning := [policy.label for policy in trace.plan.policies if policy.learn is not None])
    ]
    missing = [f"{policy.name}: {metric}" for policy in compared for metric in METRICS if metric not in policy.errors]
    if missing:
        notices.append(f"Without a value on one of the sides, and so without an error: {'; '.join(missing)}.")
    return notices
