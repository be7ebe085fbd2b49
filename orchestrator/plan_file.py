"""``plan.yaml``: everything of a run that is decided before it starts, and the hash that guards resuming."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgebed import __version__
from edgebed.errors import BadInput, Problem, RunConflict
from edgebed.metering.board import Board
from edgebed.protocol.cells import CellSpec
from orchestrator.experiment import PlannedPolicy, PolicySource, Setting, WorkloadSource
from orchestrator.faults.schedule import FaultList, PlannedFault
from orchestrator.inventory import Host, Inventory
from orchestrator.placing import placed
from orchestrator.plan_text import plan_from_text, plan_to_text
from orchestrator.planned_once import PLANNED
from orchestrator.stop_rule import StopRule
from workloads.arrivals import PlannedColumns, PlannedTask, content_name, planned_tasks

PLAN_VERSION = 1

# What may change without changing results: times, names of runs and files, and how a host is reached.
_NOT_HASHED = frozenset(
    {
        *("plan_hash", "run_id", "created", "edgebed", "experiment_file", "hosts_file", "overrides", "estimate"),
        *("workload_sources", "policy_sources"),  # what is in the files is told by their checksums
    }
)
_NOT_HASHED_OF_HOSTS = frozenset({"address", "ssh_port", "user", "python", "port", "peer_address", "service", "clock"})


class TaskList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tasks of one device under one seed; the same for every policy.

    Attributes:
        settings: names of the settings that have this list.
        frames: of all its tasks together.
        sha256: checksum of the list, see `checksum`.
        tasks: ``[offset_s, frames, deadline_s]`` each; None when the plan has too many to list.
    """

    seed: int
    device: str
    settings: list[str]
    count: int
    frames: int
    sha256: str
    tasks: list[tuple[float, int, float]] | None = None


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One (policy, seed, setting), by name."""

    id: str
    policy: str
    seed: int
    setting: str


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run will take, about.

    Attributes:
        tasks: of all cells together.
        payload_bytes: what each device would send if it offloaded everything, all cells together.
    """

    hours: float
    tasks: int
    payload_bytes: dict[str, int]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything of a run that is decided before it starts; no secrets and no paths of keys.

    Attributes:
        plan_hash: of all that matters for results: not of times, names of runs and files, addresses, estimates.
        run_id: empty until `create_run_folder` has given the plan a folder.
        created: UTC, ISO 8601.
        edgebed: the version that made the plan.
        experiment: its name.
        experiment_file, hosts_file: as given. overrides: the ``--set`` texts.
        workload_sources, policy_sources: files that workloads and policies need, as they lie on this machine.
        first_devices: so many of the hosts file take part; None: all.
        controller: name of the edge server that the controller runs beside.
        boards: content of the board files, by name.
        profile: checksum of the profile that a simulated run was given; empty: what boards and workload state.
        stop: when the run ends before its last cell; None: it does not.
    """

    plan_version: int = PLAN_VERSION
    plan_hash: str = ""
    run_id: str = ""
    created: str
    edgebed: str
    experiment: str
    experiment_file: str
    hosts_file: str
    overrides: list[str]
    workload_sources: list[WorkloadSource] = []
    policy_sources: list[PolicySource] = []
    first_devices: int | None = None
    backend: str
    order: Literal["blocked_random", "sequential"]
    estimate: Estimate
    controller: str
    edge_servers: list[Host]
    devices: list[Host]
    boards: dict[str, Board]
    policies: list[PlannedPolicy]
    seeds: list[int]
    settings: list[Setting]
    listed_cells: list[Cell] = msgspec.field(name="cells")
    task_lists: list[TaskList] = msgspec.field(name="tasks")
    fault_lists: list[FaultList] = msgspec.field(name="faults", default_factory=list)
    profile: str = ""
    stop: StopRule | None = None

    @property
    def cells(self) -> list[PlannedCell]:
        """The cells, in the order in which they run."""
        return [PlannedCell(self, cell) for cell in self.listed_cells]

    @property
    def hosts(self) -> list[Host]:
        """All hosts, edge servers first."""
        return [*self.edge_servers, *self.devices]

    def policy(self, label: str) -> PlannedPolicy:
        """The policy that tables call ``label``.

        Raises:
            BadInput: there is none.
        """
        for policy in self.policies:
            if policy.label == label:
                return policy
        raise BadInput(f"the plan has no policy {label!r}; it has: {', '.join(each.label for each in self.policies)}")

    def cell(self, cell_id: str) -> PlannedCell:
        """The cell called ``cell_id``.

        Raises:
            BadInput: there is none.
        """
        for cell in self.cells:
            if cell.cell_id == cell_id:
                return cell
        raise BadInput(f"the plan has no cell {cell_id!r}")

    def tasks_of(self, seed: int, setting: str, device: str) -> TaskList:
        """The planned tasks of a device in every cell with this seed and setting.

        Raises:
            BadInput: the plan has none.
        """
        for found in self.task_lists:
            if found.seed == seed and found.device == device and setting in found.settings:
                return found
        raise BadInput(f"the plan has no tasks for seed {seed}, setting {setting!r}, device {device!r}")

    def faults_of(self, seed: int, setting: str) -> list[PlannedFault]:
        """The faults of every cell with this seed and setting, in the order of time."""
        found = (each.faults for each in self.fault_lists if each.seed == seed and setting in each.settings)
        return next(found, [])

    def check_hosts(self, inventory: Inventory) -> None:
        """Compare with hosts that were read again, as resuming does: they hold the paths of keys, the plan does not.

        Raises:
            RunConflict: something that matters for results has changed.
        """
        again = with_hash(with_hosts(self, inventory.first(self.first_devices)))
        then, now = _hashed_hosts(_plain(self)), _hashed_hosts(_plain(again))
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if changed:
            raise RunConflict(
                f"{inventory.file}: {', '.join(changed)} changed since the run was planned from {self.hosts_file}; "
                "undo the change, or start a new run with `edgebed run`"
            )

    def to_yaml(self) -> str:
        """The text of ``plan.yaml``; `from_yaml` gives back an equal plan."""
        return plan_to_text(_plain(self))

    @classmethod
    def from_yaml(cls, path: Path | str) -> Plan:
        """Read a ``plan.yaml``.

        Raises:
            BadInput: it cannot be read, is not a plan, or one of another version of edgebed.
            RunConflict: it was changed after it was written.
        """
        plain = plan_from_text(Path(path))
        if plain.get("plan_version") != PLAN_VERSION:
            versions = f"version {plain.get('plan_version')} of the format; this edgebed reads version {PLAN_VERSION}"
            raise BadInput(Problem(f"is not a plan of {versions}", file=str(path)))
        try:
            content = content_hash(plain)
        except (AttributeError, TypeError, ValueError) as error:  # of another shape altogether
            raise BadInput(Problem(f"is not a plan: {error}", file=str(path))) from None
        if plain.get("plan_hash") != content:
            raise RunConflict(
                f"{path}: was changed after it was written: it says that its hash is {plain.get('plan_hash')}, its "
                f"content gives {content}; put the original back, or start a new run with `edgebed run`"
            )
        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise BadInput(Problem(f"is not a plan: {error}", file=str(path))) from None


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell of a plan, with what its names stand for."""

    plan: Plan
    cell: Cell

    @property
    def cell_id(self) -> str:
        """Unique in the run; names its folder."""
        return self.cell.id

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.cell.seed

    @property
    def policy(self) -> PlannedPolicy:
        """Its policy."""
        return self.plan.policy(self.cell.policy)

    @property
    def setting(self) -> Setting:
        """All the rest of it."""
        return next(setting for setting in self.plan.settings if setting.name == self.cell.setting)

    def spec(self, serial: int, attempt: int) -> CellSpec:
        """What members are told.

        Args:
            serial: number of this attempt in the run, rising.
            attempt: number of this attempt of this cell, from 1.

        Raises:
            RunConflict: the plan has no run yet.
        """
        if not self.plan.run_id:
            raise RunConflict("the plan belongs to no run yet; create_run_folder gives it a folder and a name")
        setting, policy = self.setting, self.policy
        interfere = setting.channels.model == "sinr"
        return CellSpec(
            run_id=self.plan.run_id,
            plan_hash=self.plan.plan_hash,
            cell_id=self.cell_id,
            serial=serial,
            attempt=attempt,
            policy=policy.label,
            policy_name=policy.name,
            policy_options=policy.options,
            placement=policy.placement or setting.placement,
            fallback_policy=setting.fallback_policy,
            seed=self.seed,
            workload=setting.workload,
            workload_options=setting.workload_options,
            arrivals=setting.arrivals,
            decide_at=setting.decide_at,
            epoch_s=setting.epoch_s,
            epochs=setting.epochs,
            warm_up_epochs=setting.warm_up_epochs,
            channels=setting.channels,
            reward=setting.reward,
            on_refusal=setting.on_refusal,
            timeouts=setting.timeouts,
            devices=[host.name for host in self.plan.devices],
            servers=[host.name for host in self.plan.edge_servers],
            positions_m={host.name: host.position_m for host in self.plan.hosts} if interfere else msgspec.UNSET,
        )

    def planned_tasks(self, device: str) -> list[PlannedTask]:
        """The tasks of a device, in order of arrival.

        Raises:
            RunConflict: this edgebed plans other tasks than the one that made the plan.
        """
        tasks = tasks_of_setting(self.setting, self.seed, device)
        if checksum(tasks) != self.plan.tasks_of(self.seed, self.setting.name, device).sha256:
            raise RunConflict(
                f"cell {self.cell_id}: this edgebed ({__version__}) plans other tasks for {device} than the edgebed "
                f"({self.plan.edgebed}) that made the plan; use that one, or start a new run with `edgebed run`"
            )
        return tasks

    def task_id(self, device: str, index: int) -> str:
        """The name of a device's ``index``-th task, unique in the run."""
        return f"{self.cell_id}/{device}/{index}"


def checksum(tasks: Sequence[PlannedTask]) -> str:
    """SHA-256 of a list of planned tasks, every field of every task."""
    fields = [[task.index, task.content_id, task.offset_s, task.frames, task.deadline_s, task.epoch] for task in tasks]
    return hashlib.sha256(_canonical(fields)).hexdigest()


def checksum_of_columns(tasks: PlannedColumns, workload: str, seed: int, device: str) -> str:
    """The `checksum` of the same tasks as columns."""
    if not (np.isfinite(tasks.offset_s).all() and np.isfinite(tasks.deadline_s).all()):
        raise ValueError(f"a planned task of {device} has an offset or a deadline that is no finite number")
    # The text of `_canonical`, put together by hand: a plan may have a million tasks.
    begin = json.dumps(content_name(workload, seed, device, 0))[: -len('0"')]
    columns = (tasks.offset_s.tolist(), tasks.frames.tolist(), tasks.deadline_s.tolist(), tasks.epoch.tolist())
    rows = [
        f'[{index},{begin}{index}",{offset_s!r},{frames},{deadline_s!r},{epoch}]'
        for index, (offset_s, frames, deadline_s, epoch) in enumerate(zip(*columns, strict=True))
    ]
    return hashlib.sha256(f"[{','.join(rows)}]".encode()).hexdigest()


def columns_of_setting(setting: Setting, seed: int, devices: Sequence[str]) -> list[PlannedColumns]:
    """The tasks of `tasks_of_setting` as columns, of each device.

    Raises:
        BadInput: they are too many.
    """
    arrivals = setting.arrival_settings
    return PLANNED.of_devices(arrivals, seed, devices, epochs=setting.epochs, epoch_s=setting.epoch_s)


def tasks_of_setting(setting: Setting, seed: int, device: str) -> list[PlannedTask]:
    """The tasks of a device in every cell with this setting and seed, in order of arrival.

    Raises:
        BadInput: they are too many.
    """
    return planned_tasks(
        setting.arrival_settings,
        seed,
        device,
        workload=setting.workload,
        epochs=setting.epochs,
        epoch_s=setting.epoch_s,
    )


def with_hosts(plan: Plan, inventory: Inventory) -> Plan:
    """The plan with these hosts, where they are; paths of keys stay behind."""
    return msgspec.structs.replace(
        plan,
        controller=inventory.controller,
        edge_servers=[replace(host, ssh_key_file=None) for host in inventory.edge_servers],
        devices=[replace(host, ssh_key_file=None) for host in placed(inventory.devices, plan.settings)],
        boards=inventory.boards,
    )


def with_hash(plan: Plan) -> Plan:
    """The plan with its hash, numbers as they will be when it is read back (a whole number of a float as a float)."""
    plan = msgspec.convert(msgspec.to_builtins(plan), Plan)
    return msgspec.structs.replace(plan, plan_hash=content_hash(_plain(plan)))


def content_hash(plain: dict[str, Any]) -> str:
    """SHA-256 over all of a plan that matters for results, as canonical JSON."""
    kept = {key: value for key, value in plain.items() if key not in _NOT_HASHED}
    return hashlib.sha256(_canonical(kept | _hashed_hosts(plain))).hexdigest()


def _hashed_hosts(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a plan that comes from the hosts file and matters for results."""
    hosts = {
        group: [{key: value for key, value in host.items() if key not in _NOT_HASHED_OF_HOSTS} for host in plain[group]]
        for group in ("edge_servers", "devices")
        if isinstance(plain.get(group), list)
    }
    return {**hosts, "controller": plain.get("controller"), "boards": plain.get("boards")}


def _canonical(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _plain(plan: Plan) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(plan)
    for host in (*plain["edge_servers"], *plain["devices"]):
        del host["ssh_key_file"]
    if plan.stop is None:
        del plain["stop"]  # so that the plans of experiments without the key have the hash that they always had
    return plain
