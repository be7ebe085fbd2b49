"""The plan of a replay: the source's, with another name, other policies, or other arrivals."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgebed import __version__
from edgebed.clock import utc_now
from edgebed.errors import BadInput, Problem
from edgebed.policies import policy_names
from edgebed.policies.files import make_placed, pack_files
from edgebed.types import ObservationSpec
from orchestrator.experiment import PlannedPolicy, PolicySource, Setting
from orchestrator.plan_file import Cell, Plan, with_hash
from orchestrator.provision.content import content_of
from orchestrator.replay.source import Source
from orchestrator.sweep import BASE_SETTING
from orchestrator.validation import NAME_RULE, is_name
from workloads.files import file_name

RECORDED = "recorded"
"""The policy that decides as the record says."""

SUFFIX = "-replay"


@dataclass(frozen=True, slots=True)
class Target:
    """Who decides in a replay.

    Attributes:
        policy: None: everyone as recorded.
        source: where its files lie; None: it has none.
    """

    policy: PlannedPolicy | None
    source: PolicySource | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        return RECORDED if self.policy is None else self.policy.label


def target_of(text: str, plan: Plan) -> Target:
    """The policy that ``--policy`` names: one of the run's, a registered one, or a folder with a learned one.

    Raises:
        BadInput: it is none of these.
    """
    if text == RECORDED:
        return Target(None)
    for policy in plan.policies:
        if policy.label == text and policy.learn is None:
            source = next((each for each in plan.policy_sources if each.label == text), None)
            return Target(policy, source)
    if Path(text).exists():
        return _learned(Path(text))
    if text in policy_names():
        return Target(PlannedPolicy(label=text, name=text))
    raise BadInput(
        f"--policy: there is no {text!r}; the run's policies: {', '.join(each.label for each in plan.policies)}; "
        f"registered: {', '.join(policy_names())}; or the folder of a learned one, or `{RECORDED}`"
    )


def _learned(folder: Path) -> Target:
    options = {"weights": str(folder.resolve())}
    packed = pack_files("network", options, folder)
    assert packed is not None, "weights are files"
    label = next((part for part in reversed(folder.parts) if is_name(part)), "network")
    return Target(
        PlannedPolicy(label=label, name="network", options=packed.options),
        PolicySource(label=label, name="network", options=options, folder=str(folder.resolve())),
    )


def replay_name(experiment: str) -> str:
    """What a replay is called: it has a folder of its own, so that ``latest`` stays the recorded run.

    Raises:
        BadInput: the name would be too long.
    """
    name = experiment if experiment.endswith(SUFFIX) else experiment + SUFFIX
    if not is_name(name):
        raise BadInput(f"the replay would be called {name!r}; allowed: {NAME_RULE}; give the experiment a shorter name")
    return name


def planned(source: Source, targets: Sequence[Target], backend: str, **changes: Any) -> Plan:
    """The plan of a replay: each target on every day of the source, or every cell again as recorded.

    Args:
        source: what is replayed.
        targets: who decides.
        backend: of the plan.
        changes: further fields of the plan.

    Raises:
        BadInput: a name would be too long; or two targets have the same label.
    """
    plan = source.trace.plan
    policies = list(plan.policies) if targets[0].policy is None else [_policy(each) for each in targets]
    cells = [cell.cell for cell in source.cells] if targets[0].policy is None else list(_cells(source, targets))
    name = replay_name(plan.experiment)
    for cell in cells:
        if not is_name(cell.id):
            text = f"a cell would be called {cell.id!r}; allowed: {NAME_RULE}; give the policy another folder"
            raise BadInput(text)
    if len({cell.id for cell in cells}) < len(cells):
        raise BadInput("--policy: the same policy is named twice; name each once")
    used = {cell.setting for cell in cells}
    fields: dict[str, Any] = {
        "run_id": "",
        "plan_hash": "",
        "created": utc_now().isoformat(timespec="seconds"),
        "edgebed": __version__,
        "experiment": name,
        "backend": backend,
        "profile": "",
        "overrides": [],
        "policies": policies,
        "policy_sources": [each.source for each in targets if each.source is not None]
        if targets[0].policy is not None
        else plan.policy_sources,
        "listed_cells": cells,
        "seeds": list(dict.fromkeys(cell.seed for cell in cells)),
        "settings": [setting for setting in plan.settings if setting.name in used],
        "stop": None,  # it had its say when the cells were run that are replayed
    }
    return with_hash(msgspec.structs.replace(plan, **fields | changes))


def _policy(target: Target) -> PlannedPolicy:
    assert target.policy is not None
    policy = target.policy
    # A program outside is not there any more: its registered name, if it has one, decides in the controller.
    placement = "controller" if policy.placement == "external" else policy.placement
    return msgspec.structs.replace(policy, placement=placement)


def _cells(source: Source, targets: Sequence[Target]) -> list[Cell]:
    cells = []
    for day in source.days:
        suffix = "" if day.setting == BASE_SETTING else f"-{day.setting}"
        for target in targets:
            name = f"{target.label}-s{day.seed}{suffix}"
            cells.append(Cell(id=name, policy=target.label, seed=day.seed, setting=day.setting))
    return cells


def placement_of(policy: PlannedPolicy, setting: Setting) -> str:
    """Where a policy decides in a replay; nobody is outside."""
    placement = policy.placement or setting.placement
    return "controller" if placement == "external" else placement


def check_policies(plan: Plan) -> None:
    """Make every policy once for what these hosts show; better known before anything is written.

    Raises:
        BadInput, SchemaMismatch: one does not fit; both sides are named.
    """
    slots = tuple(host.name for host in plan.devices)
    servers = tuple(host.name for host in plan.edge_servers)
    with tempfile.TemporaryDirectory(prefix="edgebed-content-") as scratch:
        for name, data in content_of(plan).items():
            (Path(scratch) / file_name(name)).write_bytes(data)
        for setting in plan.settings:
            spec = ObservationSpec(slots, servers, setting.channels.count)
            for policy in plan.policies:
                made = make_placed(policy.name, spec, policy.options, Path(scratch))
                placement = placement_of(policy, setting)
                allowed = [one.value for one in getattr(made, "placements", made.spec.placements)]
                if placement not in allowed:
                    text = f"policy {policy.label} cannot decide at {placement!r}, where the run had its policies"
                    raise BadInput(Problem(f"{text}; allowed: {', '.join(allowed)}", key="--policy"))
