"""Rerun and open-loop: a recorded run on hosts again, or simulated, by the ordinary runners.

``rerun`` sends the recorded decisions: paired with the source it shows how far the testbed repeats itself.
``open-loop`` repeats the recorded arrivals, and the rates that uplinks were paced to, while a policy decides anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edgebed.errors import BadInput, Problem, RunConflict
from edgebed.policies.files import pack_files
from edgebed.simulation.testbed.profile import Profile, read_profile
from edgebed.trace.manifest import read_manifest, write_manifest
from edgebed.trace.runs import PLAN_FILE, QUIET, Run, import_duckdb, sql_file, sql_text
from orchestrator.experiment import PlannedPolicy, PolicySource, Setting
from orchestrator.inventory import Host, Inventory, load_inventory
from orchestrator.plan import create_run_folder
from orchestrator.plan_file import Cell, Plan, PlannedCell, TaskList, checksum, tasks_of_setting, with_hash, with_hosts
from orchestrator.replay.comparison import compare, repeatability
from orchestrator.replay.decisions import recorded_decisions
from orchestrator.replay.planning import Target, check_policies, planned
from orchestrator.replay.source import Day, Source
from orchestrator.run_facts import gather_facts
from orchestrator.runner import RunOutcome
from orchestrator.sealing import REPORT_FILE
from orchestrator.simulated_profile import checksum_of
from orchestrator.verdict import judge

RERUN, OPEN_LOOP = "rerun", "open-loop"
HOSTS, SIMULATED = "hosts", "simulated"
SAME_S = 1e-6


@dataclass(frozen=True, slots=True)
class Again:
    """What is to be run again, and where.

    Attributes:
        targets: who decides; of a rerun the record.
        hosts: the hosts file.
        backend: ``hosts`` or ``simulated``.
        profile: of the simulated backend.
        runs: the folder that the replay's folder is made in.
    """

    mode: str
    source: Source
    targets: tuple[Target, ...]
    hosts: Path
    backend: str
    profile: Path | None
    runs: Path
    command: str


def replay_on_hosts(asked: Again) -> RunOutcome:
    """Run it again, compare with the source, and say so in manifest and report.

    Raises:
        BadInput: hosts, policies or backend do not fit the run; nothing was started.
        WorkFailed: hosts cannot be reached.
    """
    if asked.backend not in (HOSTS, SIMULATED):
        raise BadInput(f"--backend: there is no {asked.backend!r}; available for {asked.mode}: {HOSTS}, {SIMULATED}")
    if asked.mode == RERUN and asked.targets[0].policy is not None:
        raise BadInput(
            "--mode rerun sends the recorded decisions, so there is no --policy; open-loop lets a policy decide anew"
        )
    if asked.mode == OPEN_LOOP and asked.targets[0].policy is None:
        raise BadInput("--mode open-loop lets a policy decide anew; --mode rerun sends the recorded decisions")
    if asked.mode == RERUN:
        asked.source.check_decided()
    inventory = load_inventory(asked.hosts)
    _check_hosts(asked.source, inventory)
    profile = None if asked.profile is None else read_profile(asked.profile)
    if profile is not None and asked.backend == HOSTS:
        raise BadInput("--profile is for --backend simulated; hosts are as they are")
    plan = _plan(asked, inventory, profile)
    return _run(asked, plan, inventory, profile)


def _run(asked: Again, plan: Plan, inventory: Inventory, profile: Profile | None) -> RunOutcome:
    from orchestrator.cli.finish import runner_for, simulated_runner_for
    from orchestrator.ways import Ways

    ways = Ways(inventory)
    if asked.backend == HOSTS:
        ways.check(plan.hosts)  # better known before a folder is made
    folder = create_run_folder(plan, asked.runs)
    plan = Plan.from_yaml(folder / PLAN_FILE)
    if asked.mode == RERUN:
        plan = _with_decisions(asked.source, plan, folder)
    if asked.backend == SIMULATED:
        outcome = simulated_runner_for(folder, plan, asked.command).run(profile)
    else:
        outcome = runner_for(folder, plan, ways, asked.command).run()
    _tell(asked, folder, outcome)
    return outcome


def _tell(asked: Again, folder: Path, outcome: RunOutcome) -> None:
    """Compare with the source; into the manifest, and so into the report."""
    from orchestrator.report.html import write_report

    run = asked.source.trace.run
    facts: dict[str, Any] = {
        "mode": asked.mode,
        "source": asked.source.facts,
        "policies": [target.label for target in asked.targets],
    }
    if outcome.summary is not None:
        facts["comparison"] = compare(run.path, folder, only_same=asked.mode == RERUN)
        if asked.mode == RERUN:
            facts["repeatability"] = repeatability(run.path, folder)
    outcome.manifest.replay = facts
    written = read_manifest(folder)
    written.replay = facts
    write_manifest(folder, written)
    if outcome.summary is not None:
        verdict = judge(gather_facts(Run(folder), written.counts["planned"], written.problems))
        for each in (outcome.manifest, written):
            each.verdict, each.reasons = verdict.verdict.value, list(verdict.reasons)
        write_manifest(folder, written)
        write_report([folder], folder / REPORT_FILE)


# -- hosts -------------------------------------------------------------------------------------------------------------


def _check_hosts(source: Source, inventory: Inventory) -> None:
    plan = source.trace.plan
    problems = []
    for what, recorded, given in (
        ("devices", plan.devices, inventory.devices),
        ("edge_servers", plan.edge_servers, inventory.edge_servers),
    ):
        theirs, ours = [host.name for host in recorded], [host.name for host in given]
        if theirs != ours:
            text = f"the run had the {what} {', '.join(theirs)}; this file has {', '.join(ours) or 'none'}"
            problems.append(Problem(f"{text}; name the hosts file of the run with --hosts", file=inventory.file))
    if problems:
        raise BadInput(problems)


def _with_recorded_links(plan: Plan, inventory: Inventory) -> Inventory:
    """The hosts with their uplinks paced as on the recorded day."""
    recorded = {host.name: host.link_rate_bps for host in plan.devices}

    def paced(host: Host) -> Host:
        return replace(host, link_rate_bps=recorded[host.name])

    return replace(inventory, devices=tuple(paced(host) for host in inventory.devices))


# -- plans -------------------------------------------------------------------------------------------------------------


def _plan(asked: Again, inventory: Inventory, profile: Profile | None) -> Plan:
    source = asked.source
    changes: dict[str, Any] = {"settings": [_inside(setting) for setting in source.trace.plan.settings]}
    if profile is not None:
        changes["profile"] = checksum_of(profile)
    plan = planned(source, asked.targets, asked.backend, **changes)
    if asked.mode == RERUN:
        plan = _as_recorded(source, plan)
    plan = _with_recorded_arrivals(source, plan)
    hosts = _with_recorded_links(source.trace.plan, inventory)
    plan = with_hash(with_hosts(msgspec.structs.replace(plan, hosts_file=inventory.file), hosts))
    if asked.mode == OPEN_LOOP:
        check_policies(plan)
    return plan


def _inside(setting: Setting) -> Setting:
    """A setting whose policies nobody outside has to decide; faults are none of what was recorded."""
    placement = "controller" if setting.placement == "external" else setting.placement
    return msgspec.structs.replace(setting, placement=placement, faults=[])


def _with_recorded_arrivals(source: Source, plan: Plan) -> Plan:
    """The plan as it is where it makes the recorded arrivals; else with them as a trace, a setting for each day."""
    if all(_is_planned(source, day) for day in source.days):
        return msgspec.structs.replace(plan, fault_lists=[])
    settings: list[Setting] = []
    names: dict[tuple[int, str], str] = {}
    for day in source.days:
        setting = next(each for each in plan.settings if each.name == day.setting)
        name = setting.name if len(source.days) == 1 else f"{day.setting}-day{day.seed}"
        names[day.seed, day.setting] = name
        arrivals = {**setting.arrivals, "kind": "trace", "trace": list(_trace(source, day))}
        for unused in ("rate_per_s", "period_s", "jitter_s", "phase_s"):
            arrivals.pop(unused, None)
        settings.append(msgspec.structs.replace(setting, name=name, arrivals=arrivals))
    cells = [msgspec.structs.replace(cell, setting=names[cell.seed, cell.setting]) for cell in plan.listed_cells]
    lists = [
        _task_list(setting, seed, host.name)
        for (seed, _), setting in zip(names, settings, strict=True)
        for host in plan.devices
    ]
    return msgspec.structs.replace(plan, settings=settings, listed_cells=cells, task_lists=lists, fault_lists=[])


def _task_list(setting: Setting, seed: int, device: str) -> TaskList:
    tasks = tasks_of_setting(setting, seed, device)
    return TaskList(
        seed=seed,
        device=device,
        settings=[setting.name],
        count=len(tasks),
        frames=sum(task.frames for task in tasks),
        sha256=checksum(tasks),
        tasks=[(task.offset_s, task.frames, task.deadline_s) for task in tasks],
    )


_ARRIVALS = """
SELECT device_id, arrived_s, frames, deadline_s, epoch FROM read_parquet({file})
WHERE cell_id = {cell} AND arrived_s IS NOT NULL AND NOT list_contains(flags, 'unplanned')
ORDER BY device_id, arrived_s, try_cast(split_part(task_id, '/', -1) AS BIGINT)
"""


def _arrivals(source: Source, cell: PlannedCell) -> list[tuple[str, float, int, float, int]]:
    statement = _ARRIVALS.format(file=sql_file(source.tasks_file), cell=sql_text(cell.cell_id))
    with import_duckdb("replaying a run").connect() as connection:
        connection.execute(QUIET)
        return [tuple(row) for row in connection.execute(statement).fetchall()]


def _is_planned(source: Source, day: Day) -> bool:
    """Does this edgebed plan the arrivals that were recorded?"""
    cell = day.cells[0]
    recorded: dict[str, list[tuple[float, int, float]]] = {host.name: [] for host in source.trace.plan.devices}
    for device, arrived_s, frames, deadline_s, _ in _arrivals(source, cell):
        recorded[device].append((arrived_s, frames, deadline_s))
    start_s = None
    for device, found in recorded.items():
        try:
            tasks = cell.planned_tasks(device)
        except (RunConflict, BadInput):
            return False
        if len(tasks) != len(found):
            return False
        for task, (arrived_s, frames, deadline_s) in zip(tasks, found, strict=True):
            start_s = arrived_s - task.offset_s if start_s is None else start_s
            same = abs(arrived_s - task.offset_s - start_s) < SAME_S
            if not same or (task.frames, task.deadline_s) != (frames, deadline_s):
                return False
    return True


def _trace(source: Source, day: Day) -> Iterator[dict[str, Any]]:
    """The recorded arrivals as rows of a trace, offsets from the begin of the epochs."""
    cell = day.cells[0]
    rows = _arrivals(source, cell)
    start_s = min(arrived_s - epoch * cell.setting.epoch_s for _, arrived_s, _, _, epoch in rows)
    for device, arrived_s, frames, deadline_s, _ in rows:
        yield {
            "offset_s": max(0.0, arrived_s - start_s),
            "frames": int(frames),
            "deadline_s": float(deadline_s),
            "device_id": device,
        }


# -- recorded decisions ------------------------------------------------------------------------------------------------


def _cells_of(source: Source, label: str, setting: str) -> Sequence[PlannedCell]:
    return [cell for cell in source.cells if cell.policy.label == label and cell.setting.name == setting]


def _labels(source: Source) -> dict[tuple[str, str], str]:
    """What a policy under a setting is called in a rerun: as recorded, with its setting where there are several."""
    pairs = dict.fromkeys((cell.policy.label, cell.setting.name) for cell in source.cells)
    several = len({setting for _, setting in pairs}) > 1
    return {(label, setting): f"{label}-{setting}" if several else label for label, setting in pairs}


def _decisions_name(label: str) -> str:
    return f"decisions-{label}.npz"


def _as_recorded(source: Source, plan: Plan) -> Plan:
    """The plan with the policy ``recorded`` in the place of each of the run's."""
    labels, policies = _labels(source), []
    with tempfile.TemporaryDirectory(prefix="edgebed-decisions-") as scratch:
        for (label, setting), name in labels.items():
            file = Path(scratch) / _decisions_name(name)
            file.write_bytes(recorded_decisions(source, _cells_of(source, label, setting)))
            packed = pack_files("recorded", {"decisions": file.name}, Path(scratch))
            assert packed is not None, "decisions are a file"
            old = source.trace.plan.policy(label)
            placement = "controller" if old.placement == "external" else old.placement
            policies.append(PlannedPolicy(label=name, name="recorded", placement=placement, options=packed.options))
    cells = [
        Cell(id=cell.id, policy=labels[cell.policy, cell.setting], seed=cell.seed, setting=cell.setting)
        for cell in plan.listed_cells
    ]
    return msgspec.structs.replace(plan, policies=policies, policy_sources=[], listed_cells=cells)


def _with_decisions(source: Source, plan: Plan, folder: Path) -> Plan:
    """The plan with its decisions beside it, where a resumed run finds them too."""
    sources = []
    for (label, setting), name in _labels(source).items():
        file = folder / _decisions_name(name)
        file.write_bytes(recorded_decisions(source, _cells_of(source, label, setting)))
        sources.append(
            PolicySource(label=name, name="recorded", options={"decisions": file.name}, folder=str(folder.absolute()))
        )
    plan = msgspec.structs.replace(plan, policy_sources=sources)
    (folder / PLAN_FILE).write_text(plan.to_yaml(), encoding="utf-8")
    return plan
