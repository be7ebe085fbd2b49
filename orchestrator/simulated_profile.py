"""The profile that an experiment is simulated with: the one that was given, or what boards and workload state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.errors import BadInput, Problem, RunConflict
from edgebed.simulation.testbed.defaults import default_profile
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.profile import Profile, profile_text, read_profile
from orchestrator.faults.planning import targets_of
from orchestrator.faults.virtual import why_not_simulated
from workloads import load_workload

if TYPE_CHECKING:
    from orchestrator.experiment import Experiment, Setting
    from orchestrator.inventory import Inventory
    from orchestrator.plan_file import Plan

PROFILE_FILE = "profile.yaml"
"""In a run's folder: what it was simulated with."""


def checksum_of(profile: Profile) -> str:
    """SHA-256 of a profile's content."""
    return hashlib.sha256(profile_text(profile).encode()).hexdigest()


def given_profile(path: str) -> Profile | None:
    """The profile of an experiment; None when it names none.

    Raises:
        BadInput: it cannot be read, or is wrong.
    """
    return read_profile(path) if path else None


def problems_of_simulation(experiment: Experiment, inventory: Inventory) -> Iterator[Problem]:
    """What of an experiment only hosts can do, and where its profile is of something else."""
    for setting in experiment.settings:
        for rule in setting.faults:
            if text := why_not_simulated(rule, targets_of(inventory)):
                yield Problem(text, key="faults", file=experiment.file)
    try:
        profile = given_profile(experiment.profile)
        if profile is not None:
            for setting in experiment.settings:
                _check(profile, setting, inventory)
    except BadInput as error:
        yield from (
            each if each.file else Problem(each.message, each.key, experiment.profile) for each in error.problems
        )


def _check(profile: Profile, setting: Setting, inventory: Inventory) -> None:
    """Is the profile of this workload and of these hosts?

    Raises:
        BadInput: it is not; both sides are named.
    """
    boards = {host.name: host.board for host in inventory.hosts}
    profile.check_fits(setting.workload, model_of(setting), boards)
    Testbed(profile, inventory.devices, inventory.edge_servers)


def model_of(setting: Setting) -> str:
    """Checksum of the model of a setting's workload; empty when it ships none."""
    manifest = getattr(load_workload(setting.workload, setting.workload_options), "manifest", None)
    return str(getattr(getattr(manifest, "model", None), "sha256", ""))


def testbeds_of(plan: Plan, given: Profile | None) -> dict[str, Testbed]:
    """What each setting of a plan is simulated on, by its name.

    Args:
        plan: of the run.
        given: the profile that its experiment names; None: it names none.

    Raises:
        BadInput: the profile is not of these hosts.
    """
    made: dict[str, Testbed] = {}
    found: dict[str, Testbed] = {}
    for setting in plan.settings:
        key = repr((setting.workload, setting.workload_options))
        if key not in made:
            profile = given or stated_profile(plan, setting)
            made[key] = Testbed(profile, plan.devices, plan.edge_servers)
        found[setting.name] = made[key]
    return found


def stated_profile(plan: Plan, setting: Setting) -> Profile:
    """The profile that boards, hosts file and workload state."""
    workload = load_workload(setting.workload, setting.workload_options)
    accuracy = getattr(getattr(workload, "manifest", None), "accuracy", None)
    return default_profile(
        setting.workload,
        workload.demand,
        plan.devices,
        plan.edge_servers,
        plan.boards,
        model_sha256=model_of(setting),
        accuracy=getattr(accuracy, "fraction", None),
    )


def profile_of_run(folder: Path, plan: Plan) -> Profile | None:
    """The given profile that a run was begun with; None when none was given.

    Raises:
        RunConflict: the copy in its folder is another one by now.
        BadInput: it cannot be read.
    """
    if not plan.profile:
        return None
    profile = read_profile(folder / PROFILE_FILE)
    if checksum_of(profile) != plan.profile:
        raise RunConflict(
            f"{folder / PROFILE_FILE}: is not the profile that the run was planned with; put it back, or start a "
            "new run"
        )
    return profile
