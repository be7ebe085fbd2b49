"""A foreign trace as a run folder that `report`, `replay`, `calibrate` and `export` read like any other."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from edgebed import __version__
from edgebed.clock import utc_now
from edgebed.errors import BadInput, Problem
from edgebed.protocol.cells import ChannelSettings, RewardSettings, Timeouts
from edgebed.trace.cost import task_cost
from edgebed.trace.manifest import Manifest, write_manifest
from edgebed.trace.schema import EpochRecord, EventRecord, SampleRecord, TaskRecord
from edgebed.types import Outcome
from orchestrator import provenance
from orchestrator.columnar import ColumnWriter, Table
from orchestrator.experiment import PlannedPolicy, Setting
from orchestrator.importing.mapping_file import HostsOfMap, ImportMap
from orchestrator.importing.source import ForeignTask
from orchestrator.inventory import Host, known_boards
from orchestrator.plan import INLINE_TASKS, create_run_folder
from orchestrator.plan_file import Cell, Estimate, Plan, TaskList, checksum, tasks_of_setting, with_hash
from orchestrator.seal import SealedCounts
from orchestrator.sealing import conclude_run
from orchestrator.sweep import BASE_SETTING
from workloads.arrival_files import settings_to_plain
from workloads.arrivals import ArrivalSettings, TraceRow

IMPORTED = "imported"
"""The backend of imported runs, and the flag of their rows."""

NOT_RECORDED = "not_recorded"
"""The reason of tasks whose source tells neither a reason nor a latency."""

CLOSEST_S = 1e-5
"""The first arrival is at least so long after the cell's start: arrivals at the start are none."""

CellKey = tuple[str, int]


@dataclass(frozen=True)
class _ImportedCell:
    """A (policy, seed) of the source.

    Attributes:
        start_s: its cell's start on the run clock: at most an epoch before the first arrival.
        epochs: how many it takes until the last arrival.
    """

    key: CellKey
    tasks: Sequence[ForeignTask]
    start_s: float
    epochs: int

    @cached_property
    def arrivals(self) -> tuple[TraceRow, ...]:
        """The arrivals as settings have them, in order."""
        return tuple(
            TraceRow(
                offset_s=task.values["arrived_s"] - self.start_s,
                frames=task.values.get("frames", 1),
                deadline_s=task.values["deadline_s"],
                device_id=task.values["device_id"],
                seed=self.key[1],
            )
            for task in self.tasks
        )


def import_run(tasks: Sequence[ForeignTask], mapping: ImportMap, source: Path, runs_dir: Path, command: str) -> Path:
    """Write a run folder.

    Args:
        tasks: the source's, checked.
        mapping: how they were read.
        source: the file; its checksum is kept.
        runs_dir: where runs lie.
        command: the command line.

    Returns:
        The folder.

    Raises:
        BadInput: the tasks cannot be a run; the lines are named.
    """
    cells = _cells(tasks, mapping.epoch_s)
    _check_twice(tasks, source)
    plan = _plan(cells, mapping)
    folder = create_run_folder(plan, runs_dir)
    plan = Plan.from_yaml(folder / "plan.yaml")
    manifest = Manifest(
        run_id=plan.run_id,
        experiment=plan.experiment,
        plan_hash=plan.plan_hash,
        backend=IMPORTED,
        state="complete",
        started=plan.created,
        ended=plan.created,
        command=command,
        software=provenance.software(),
        hosts=provenance.hosts_of(plan, {}, {}),
    )
    write_manifest(folder, manifest)
    rows = _rows(plan, cells, mapping)
    _write(folder, rows, _event(source, mapping))
    by_outcome = Counter(row.outcome for row in rows)
    counts = SealedCounts(
        planned=len(rows),
        done=by_outcome[Outcome.DONE],
        failed=by_outcome[Outcome.FAILED],
        unknown=by_outcome[Outcome.UNKNOWN],
        unreported=0,
        unplanned=0,
        epochs=0,
        samples=0,
        events=1,
        problems=(),
    )
    conclude_run(folder, plan, manifest, counts)
    return folder


def _cells(tasks: Sequence[ForeignTask], epoch_s: float) -> list[_ImportedCell]:
    grouped: dict[CellKey, list[ForeignTask]] = {}
    for task in tasks:
        grouped.setdefault((task.policy, task.seed), []).append(task)
    cells = []
    for key, found in sorted(grouped.items()):
        found.sort(key=lambda task: (task.values["device_id"], task.values["arrived_s"], task.line))
        first_s = min(task.values["arrived_s"] for task in found)
        last_s = max(task.values["arrived_s"] for task in found)
        # What arrives in (t - 1, t] waits for tick t: the first arrival is after the start, never at it.
        start_s = (math.ceil(first_s / epoch_s) - 1) * epoch_s
        start_s -= epoch_s if start_s > first_s - CLOSEST_S else 0.0  # a quotient is not exact
        epochs = max(1, math.ceil((last_s - start_s) / epoch_s))
        cells.append(_ImportedCell(key, found, start_s, epochs))
    return cells


def _check_twice(tasks: Sequence[ForeignTask], source: Path) -> None:
    seen: dict[tuple[Any, ...], ForeignTask] = {}
    problems = []
    for task in tasks:
        key = (task.policy, task.seed, task.values["device_id"], task.values["arrived_s"])
        before = seen.setdefault(key, task)
        if before is not task and before.values == task.values:
            text = f"is the same as line {before.line}; delete one, or give `columns` what tells them apart"
            problems.append(Problem(text, file=str(source), line=task.line))
    if problems:
        raise BadInput(problems)


def _plan(cells: Sequence[_ImportedCell], mapping: ImportMap) -> Plan:
    devices = sorted({task.values["device_id"] for cell in cells for task in cell.tasks})
    servers = mapping.edge_servers.names
    clash = sorted(set(devices) & set(servers))
    if clash:
        raise BadInput(f"{', '.join(clash)}: both a device and an edge server; rename it in `edge_servers.names`")
    settings, setting_of = _settings(cells, mapping)
    lists = _task_lists(cells, settings, setting_of, devices)
    policies = sorted({cell.key[0] for cell in cells})
    boards = {name: known_boards()[name] for name in {mapping.devices.board, mapping.edge_servers.board}}
    listed = [
        Cell(id=_cell_id(cell.key), policy=cell.key[0], seed=cell.key[1], setting=setting_of[cell.key])
        for cell in cells
    ]
    return with_hash(
        Plan(
            created=utc_now().isoformat(timespec="seconds"),
            edgebed=__version__,
            experiment=mapping.name,
            experiment_file="",
            hosts_file="",
            overrides=[],
            backend=IMPORTED,
            order="sequential",
            estimate=Estimate(hours=0.0, tasks=sum(len(cell.tasks) for cell in cells), payload_bytes={}),
            controller=servers[0],
            edge_servers=[_host(name, "edge_server", mapping.edge_servers) for name in servers],
            devices=[_host(name, "device", mapping.devices) for name in devices],
            boards=boards,
            # Who decided is not here to be made: only what was decided was recorded.
            policies=[PlannedPolicy(label=label, name=label, placement="external") for label in policies],
            seeds=sorted({cell.key[1] for cell in cells}),
            settings=settings,
            listed_cells=listed,
            task_lists=lists,
        )
    )


def _cell_id(key: CellKey) -> str:
    return f"{key[0]}-s{key[1]}"


def _host(name: str, role: Any, given: HostsOfMap) -> Host:
    return Host(
        name=name,
        role=role,
        connection="local",
        address=name,
        board=given.board,
        link_rate_bps=given.link_rate_bps,
        workers=given.workers,
    )


def _settings(cells: Sequence[_ImportedCell], mapping: ImportMap) -> tuple[list[Setting], dict[CellKey, str]]:
    """As few settings as there can be: policies with the same arrivals under common seeds share one, and compare."""
    groups: list[dict[int, _ImportedCell]] = []  # a cell for each seed, whose arrivals are the setting's
    group_of: dict[str, int] = {}
    for policy in sorted({cell.key[0] for cell in cells}):
        own = {cell.key[1]: cell for cell in cells if cell.key[0] == policy}
        at = next((i for i, group in enumerate(groups) if _agree(group, own)), len(groups))
        if at == len(groups):
            groups.append({})
        groups[at] = own | groups[at]
        group_of[policy] = at
    names = [BASE_SETTING] if len(groups) == 1 else [f"arrivals-{index + 1}" for index in range(len(groups))]
    settings = [_setting(name, list(group.values()), mapping) for name, group in zip(names, groups, strict=True)]
    return settings, {cell.key: names[group_of[cell.key[0]]] for cell in cells}


def _agree(group: dict[int, _ImportedCell], own: dict[int, _ImportedCell]) -> bool:
    return all(group[seed].arrivals == cell.arrivals for seed, cell in own.items() if seed in group)


def _setting(name: str, cells: Sequence[_ImportedCell], mapping: ImportMap) -> Setting:
    trace = tuple(row for cell in cells for row in cell.arrivals)
    longest_s = max(row.deadline_s or 0.0 for row in trace)
    return Setting(
        name=name,
        changes={},
        workload=mapping.workload,
        workload_options={},
        arrivals=settings_to_plain(ArrivalSettings(deadline_s=longest_s, kind="trace", trace=trace)),
        placement="external",
        fallback_policy="all_local",
        decide_at="tick",
        epoch_s=mapping.epoch_s,
        epochs=max(cell.epochs for cell in cells),
        warm_up_epochs=0,
        channels=ChannelSettings(count=mapping.channels),
        reward=RewardSettings(**mapping.reward.model_dump()),
        on_refusal="fail",
        timeouts=Timeouts(task_s=mapping.task_timeout_s),
    )


def _task_lists(
    cells: Sequence[_ImportedCell], settings: Sequence[Setting], setting_of: dict[CellKey, str], devices: Sequence[str]
) -> list[TaskList]:
    by_name = {setting.name: setting for setting in settings}
    pairs = sorted({(cell.key[1], setting_of[cell.key]) for cell in cells})
    few = sum(len(cell.tasks) for cell in cells) <= INLINE_TASKS
    lists = []
    for seed, name in pairs:
        for device in devices:
            tasks = tasks_of_setting(by_name[name], seed, device)
            lists.append(
                TaskList(
                    seed=seed,
                    device=device,
                    settings=[name],
                    count=len(tasks),
                    frames=sum(task.frames for task in tasks),
                    sha256=checksum(tasks),
                    tasks=[(task.offset_s, task.frames, task.deadline_s) for task in tasks] if few else None,
                )
            )
    return lists


def _rows(plan: Plan, cells: Sequence[_ImportedCell], mapping: ImportMap) -> list[TaskRecord]:
    """The rows of ``tasks``, in their sealed order."""
    reward = RewardSettings(**mapping.reward.model_dump())
    rows: list[TaskRecord] = []
    for imported in cells:
        cell = plan.cell(_cell_id(imported.key))
        by_device: dict[str, list[ForeignTask]] = {}
        for task in imported.tasks:
            by_device.setdefault(task.values["device_id"], []).append(task)
        for device in plan.devices:
            own = by_device.get(device.name, [])
            planned = cell.planned_tasks(device.name)
            assert len(planned) == len(own), "every arrival lies inside the cell"
            for index, (task, expected) in enumerate(zip(own, planned, strict=True)):
                made = {
                    "run_id": plan.run_id,
                    "cell_id": cell.cell_id,
                    "policy": task.policy,
                    "seed": task.seed,
                    "task_id": cell.task_id(device.name, index),
                    "epoch": expected.epoch,
                    "backend": IMPORTED,
                    "attempt": 1,
                    "content_id": task.values.get("content_id", expected.content_id),
                    "flags": [IMPORTED],
                }
                rows.append(_completed(msgspec.convert({**task.values, **made}, TaskRecord), reward, mapping))
    return rows


def _completed(row: TaskRecord, reward: RewardSettings, mapping: ImportMap) -> TaskRecord:
    """What follows from the rest; the rest stays unknown."""
    if row.reason is None and row.outcome != Outcome.DONE:
        row.reason = NOT_RECORDED
    if row.deadline_met is None and row.outcome != Outcome.UNKNOWN:
        row.deadline_met = row.latency_s is not None and row.latency_s <= row.deadline_s
    if row.cost is None:
        row.cost = task_cost(row, reward, mapping.task_timeout_s)
    return row


def _event(source: Path, mapping: ImportMap) -> EventRecord:
    detail = {
        "file": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "mapping": yaml.safe_dump(mapping.model_dump(exclude_defaults=True), sort_keys=False),
    }
    return EventRecord(t_s=0.0, host="orchestrator", kind=IMPORTED, detail=json.dumps(detail))


def _write(folder: Path, rows: Sequence[TaskRecord], event: EventRecord) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="edgebed-"))
    try:
        with ColumnWriter(scratch) as writer:
            writer.write(folder / "tasks.parquet", TaskRecord, _table(rows))
            writer.write(folder / "epochs.parquet", EpochRecord, Table(rows=0))
            writer.write(folder / "samples.parquet", SampleRecord, Table(rows=0))
            writer.write_rows(folder / "events.parquet", [event], EventRecord)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _table(rows: Sequence[TaskRecord]) -> Table:
    values: dict[str, Any] = {}
    for name in TaskRecord.__struct_fields__:
        found = np.empty(len(rows), dtype=object)
        found[:] = [getattr(row, name) for row in rows]
        is_unknown = np.array([value is None for value in found])
        if name != "flags" and not is_unknown.all():
            values[name] = np.ma.masked_array(found, mask=is_unknown)
    return Table(rows=len(rows), values=values, flags={IMPORTED: True})
