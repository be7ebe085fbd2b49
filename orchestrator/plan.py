"""Planning a run: its cells and their order, its tasks, what it will take, and the folder that it gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgebed import __version__
from edgebed.clock import utc_now
from edgebed.errors import BadInput, Problem
from edgebed.randomness import stream
from edgebed.trace.runs import PLAN_FILE
from edgebed.types import ObservationSpec, Placement
from orchestrator.dated_folder import new_folder, point_latest
from orchestrator.experiment import Experiment, PlannedPolicy, Setting, load_experiment
from orchestrator.experiment_file import policy_kind
from orchestrator.faults.planning import plan_faults
from orchestrator.inventory import Inventory, load_inventory
from orchestrator.placing import place_problems
from orchestrator.plan_file import (
    Cell,
    Estimate,
    Plan,
    PlannedCell,
    TaskList,
    checksum_of_columns,
    columns_of_setting,
    with_hash,
    with_hosts,
)
from orchestrator.sweep import BASE_SETTING
from orchestrator.validation import NAME_RULE, is_name, raise_problems
from workloads import load_workload
from workloads.arrivals import PlannedColumns

__all__ = ["Plan", "PlannedCell", "create_run_folder", "make_plan", "plan_of", "read_files"]

INLINE_TASKS = 20_000  # of a plan with more, plan.yaml only has how many there are, and their checksums
CELL_OVERHEAD_S = 2.0  # to prepare, drain and collect a cell; only used to estimate how long a run takes
SIMULATED, REPLAYED = "simulated", "replayed"

T = TypeVar("T")


def make_plan(experiment: Path | str, inventory: Path | str, overrides: Sequence[str] = ()) -> Plan:
    """Plan a run from its two files; touches nothing.

    Raises:
        BadInput: with everything that is wrong in both files.
    """
    return plan_of(*read_files(experiment, inventory, overrides))


def read_files(
    experiment: Path | str, inventory: Path | str, overrides: Sequence[str] = ()
) -> tuple[Experiment, Inventory]:
    """Read the two files of a run. The hosts also say how they are reached, which a plan does not.

    Args:
        experiment: the experiment file.
        inventory: the hosts file.
        overrides: ``a.b=c`` texts, for the experiment.

    Raises:
        BadInput: with everything that is wrong in both files.
    """
    problems: list[Problem] = []
    read_experiment = _gathered(problems, lambda: load_experiment(experiment, overrides))
    read_inventory = _gathered(problems, lambda: load_inventory(inventory))
    if read_experiment is None or read_inventory is None:
        raise BadInput(problems)
    return read_experiment, read_inventory


def plan_of(experiment: Experiment, inventory: Inventory) -> Plan:
    """Plan a run of an experiment on hosts.

    Raises:
        BadInput: the experiment cannot run on these hosts.
    """
    inventory = inventory.first(experiment.devices)
    cells = _cells(experiment)
    raise_problems(
        [
            *_cell_problems(experiment, cells),
            *_policy_problems(experiment, inventory),
            *_backend_problems(experiment, inventory),
            *place_problems(experiment.settings, experiment.file),
        ]
    )
    lists = _task_lists(experiment, [host.name for host in inventory.devices])
    if not any(found.count for found in lists):
        raise BadInput(
            Problem("no task arrives in any cell; raise epochs or the rate of arrivals", file=experiment.file)
        )
    plan = Plan(
        # A simulated run holds no wall-clock value, so that the same seed gives the same bytes.
        created="" if experiment.backend == SIMULATED else utc_now().isoformat(timespec="seconds"),
        edgebed=__version__,
        experiment=experiment.name,
        experiment_file=experiment.file,
        hosts_file=inventory.file,
        overrides=list(experiment.overrides),
        workload_sources=list(experiment.workload_sources),
        policy_sources=list(experiment.policy_sources),
        first_devices=experiment.devices,
        backend=experiment.backend,
        order=experiment.order,
        estimate=_estimate(experiment, lists),
        controller=inventory.controller,
        edge_servers=list(inventory.edge_servers),
        devices=list(inventory.devices),
        boards=inventory.boards,
        policies=list(experiment.policies),
        seeds=list(experiment.seeds),
        settings=list(experiment.settings),
        listed_cells=cells,
        task_lists=lists,
        fault_lists=plan_faults(experiment, inventory),
        profile=_profile_checksum(experiment),
        stop=experiment.stop,
    )
    return with_hash(with_hosts(plan, inventory))


def _gathered(problems: list[Problem], load: Callable[[], T]) -> T | None:
    try:
        return load()
    except BadInput as error:
        problems += error.problems
        return None


def _cells(experiment: Experiment) -> list[Cell]:
    """All cells in the order in which they run.

    Blocks of one seed and setting keep together: what is compared runs under the same conditions, minutes apart and
    not hours, and frames rendered for a seed are used again. Within a block the order of the policies is random, so
    that none of them always has the warm processor.
    """
    cells = []
    for seed in experiment.seeds:
        for setting in _shuffled(experiment, experiment.settings, seed, "settings"):
            for policy in _shuffled(experiment, experiment.policies, seed, "policies", setting.name):
                suffix = "" if setting.name == BASE_SETTING else f"-{setting.name}"
                name = f"{policy.label}-s{seed}{suffix}"
                cells.append(Cell(id=name, policy=policy.label, seed=seed, setting=setting.name))
    return cells


def _shuffled(experiment: Experiment, items: Sequence[T], seed: int, *names: str) -> list[T]:
    if experiment.order == "sequential":
        return list(items)
    return [items[index] for index in stream(seed, "order", *names).permutation(len(items))]


def _cell_problems(experiment: Experiment, cells: list[Cell]) -> Iterator[Problem]:
    assert len({cell.id for cell in cells}) == len(cells), "labels, seeds and settings differ, and so do their names"
    for cell in cells:
        if not is_name(cell.id):
            text = f"the cell's name would be {cell.id!r}; allowed: {NAME_RULE}; give the policy a shorter label"
            yield Problem(text, key="policies", file=experiment.file)


def _policy_problems(experiment: Experiment, inventory: Inventory) -> Iterator[Problem]:
    """Make every policy once, for observations as these hosts will give them."""
    slots = tuple(host.name for host in inventory.devices)
    servers = tuple(host.name for host in inventory.edge_servers)
    for setting in experiment.settings:
        spec = ObservationSpec(slots, servers, setting.channels.count)
        for each in experiment.policies:
            if _is_ours(each, setting):
                placement = each.placement or setting.placement
                yield from _problems_of(each.name, experiment.options_here(each), placement, spec, experiment.file)
        yield from _problems_of(setting.fallback_policy, {}, Placement.DEVICE, spec, experiment.file)


def _problems_of(
    name: str, options: dict[str, Any], placement: str, spec: ObservationSpec, file: str
) -> Iterator[Problem]:
    try:
        policy = policy_kind(name)(spec, options)
    except BadInput as error:
        yield Problem(str(error), key="policies", file=file)
        return
    # Of a policy that was made, as a learned one is told by its file what it has to see.
    allowed = [one.value for one in getattr(policy, "placements", policy.spec.placements)]
    if placement not in allowed:
        yield Problem(
            f"policy {name} {policy.version}: cannot decide at {placement!r}, where it does not see all devices; "
            f"allowed placement: {', '.join(allowed)}",
            key="policies",
            file=file,
        )


def _backend_problems(experiment: Experiment, inventory: Inventory) -> Iterator[Problem]:
    """What the backend cannot do of an experiment."""
    if experiment.backend == SIMULATED:
        from orchestrator.simulated_profile import problems_of_simulation  # here: a run on hosts needs none of it

        yield from problems_of_simulation(experiment, inventory)
    elif experiment.backend == REPLAYED:
        from orchestrator.replay.of_experiment import problems_of_replay

        yield from problems_of_replay(experiment)


def _profile_checksum(experiment: Experiment) -> str:
    if not experiment.profile or experiment.backend not in (SIMULATED, REPLAYED):
        return ""
    from edgebed.simulation.testbed.profile import read_profile
    from orchestrator.simulated_profile import checksum_of

    return checksum_of(read_profile(experiment.profile))


def _is_ours(policy: PlannedPolicy, setting: Setting) -> bool:
    return (policy.placement or setting.placement) != "external"


def _task_lists(experiment: Experiment, devices: Sequence[str]) -> list[TaskList]:
    """The tasks of every seed and device; settings that change nothing about them share a list."""
    lists: list[TaskList] = []
    listed = 0
    for seed in experiment.seeds:
        planned = [columns_of_setting(setting, seed, devices) for setting in experiment.settings]
        for device, *columns in zip(devices, *planned, strict=True):
            found: dict[str, TaskList] = {}
            for setting, tasks in zip(experiment.settings, columns, strict=True):
                name = checksum_of_columns(tasks, setting.workload, seed, device)
                if name not in found:
                    listed += len(tasks)
                    found[name] = _task_list(tasks, name, seed, device, is_listed=listed <= INLINE_TASKS)
                found[name].settings.append(setting.name)
            lists += found.values()
    return lists if listed <= INLINE_TASKS else [msgspec.structs.replace(each, tasks=None) for each in lists]


def _task_list(tasks: PlannedColumns, sha256: str, seed: int, device: str, *, is_listed: bool) -> TaskList:
    columns = (tasks.offset_s.tolist(), tasks.frames.tolist(), tasks.deadline_s.tolist())
    return TaskList(
        seed=seed,
        device=device,
        settings=[],
        count=len(tasks),
        frames=int(tasks.frames.sum()),
        sha256=sha256,
        tasks=list(zip(*columns, strict=True)) if is_listed else None,
    )


def _estimate(experiment: Experiment, lists: list[TaskList]) -> Estimate:
    policies = len(experiment.policies)
    blocks = [
        setting.horizon_s + setting.arrival_settings.deadline_s + CELL_OVERHEAD_S for setting in experiment.settings
    ]
    frame_bytes = _frame_bytes(experiment.settings)
    payload_bytes: dict[str, int] = defaultdict(int)
    for found in lists:
        payload_bytes[found.device] += (
            round(found.frames * sum(frame_bytes[name] for name in found.settings)) * policies
        )
    return Estimate(
        hours=round(sum(blocks) * len(experiment.seeds) * policies / 3600, 4),
        tasks=sum(found.count * len(found.settings) for found in lists) * policies,
        payload_bytes=dict(payload_bytes),
    )


def _frame_bytes(settings: Sequence[Setting]) -> dict[str, float]:
    """Size of a frame under each setting; a workload is made once, however many settings have it."""
    known: dict[str, float] = {}
    for setting in settings:
        key = repr((setting.workload, setting.workload_options))
        if key not in known:
            known[key] = load_workload(setting.workload, setting.workload_options).demand.bytes_per_frame
    return {each.name: known[repr((each.workload, each.workload_options))] for each in settings}


def create_run_folder(plan: Plan, runs_dir: Path | str, now: datetime | None = None) -> Path:
    """Make ``<runs>/<experiment>/<UTC time>/`` with the plan in it, and point ``latest`` to it.

    The plan in the folder has the run's name in ``run_id``. A folder that exists is never used again: a second run in
    the same second gets ``-2`` behind its time.

    Args:
        plan: what will run.
        runs_dir: made where it is missing.
        now: what time it is, UTC.

    Raises:
        BadInput: the folder cannot be made.
        RunConflict: ``latest`` is something else than a link.
    """
    parent = Path(runs_dir) / plan.experiment
    try:
        folder = new_folder(parent, now)
    except OSError as error:
        raise BadInput(Problem(f"no run folder can be made here: {error.strerror}", file=str(parent))) from None
    planned = msgspec.structs.replace(plan, run_id=_run_id(plan, folder))
    (folder / PLAN_FILE).write_text(planned.to_yaml(), encoding="utf-8")
    point_latest(folder, "run")
    return folder


def _run_id(plan: Plan, folder: Path) -> str:
    """A run's name: its time, or, where no time counts, what it is made of (its seeds are in the hash)."""
    suffix = f"{SIMULATED}-{plan.plan_hash[:12]}" if plan.backend == SIMULATED else folder.name
    return f"{plan.experiment}-{suffix}"
