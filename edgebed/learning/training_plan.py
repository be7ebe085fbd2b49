"""``training.yaml``: a training with everything resolved. Its hash guards resuming.

Where a training runs, and in which folder, is not in it: neither changes a digit of the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from edgebed.errors import BadInput, RunConflict, SchemaMismatch
from edgebed.learning import learner_class
from edgebed.learning.base import TrainingTask, parameter, read_learner_config
from edgebed.learning.training_place import TRAINING_FILE
from edgebed.simulation.scenarios import make_scenario

SCHEMA_VERSION = 1
EVALUATIONS = 40
"""Evaluations in a training, unless ``evaluate_every_steps`` is given."""


class TrainingSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a training is watched; nothing here changes what is learned."""

    evaluate_every_steps: Annotated[
        int, parameter("1", f"environment steps a seed between evaluations; 0: {EVALUATIONS} in all", ge=0)
    ] = 0
    evaluation_episodes: Annotated[int, parameter("1", "episodes of each evaluation", ge=1, le=100_000)] = 20
    evaluation_seed: Annotated[
        int, parameter("1", "environment seed of the first one; far from those that results are tested on", ge=0)
    ] = 1_000_000
    average_last: Annotated[int, parameter("1", "the result is the mean of so many last evaluations", ge=1)] = 5


class TrainingPlan(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What ``training.yaml`` holds.

    Attributes:
        learner, scenario: registered names. steps: environment steps a seed, all cells together.
        learner_settings, scenario_settings: all of them, defaults filled in.
        files: SHA-256 of what the scenario is read from, by path; such as a calibrated profile.
        plan_hash: of all the rest.
    """

    schema_version: int = SCHEMA_VERSION
    learner: str
    scenario: str
    seeds: list[int]
    steps: int
    learner_settings: dict[str, Any]
    scenario_settings: dict[str, Any]
    training: TrainingSettings
    files: dict[str, str] = {}
    plan_hash: str = ""

    @property
    def evaluate_every_steps(self) -> int:
        """Environment steps a seed between evaluations."""
        return self.training.evaluate_every_steps or max(1, self.steps // EVALUATIONS)

    def task(self) -> TrainingTask:
        """What the learner is given.

        Raises:
            BadInput: a setting is not (or no longer) one of the learner's.
        """
        config = read_learner_config(learner_class(self.learner).spec, self.learner_settings)
        return TrainingTask(self.learner, config, self.scenario, self.scenario_settings, tuple(self.seeds), self.steps)

    def to_yaml(self) -> str:
        """Text of the file."""
        plain = msgspec.to_builtins(self)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def resolve(
    learner: str,
    scenario: str,
    seeds: Sequence[int],
    steps: int,
    learner_settings: Mapping[str, Any],
    scenario_settings: Mapping[str, Any],
    training: TrainingSettings | None = None,
) -> TrainingPlan:
    """A plan with all defaults filled in and its hash.

    Raises:
        BadInput: a name is unknown, or a setting unknown or out of range.
        MissingExtra: the learner's packages are not installed.
    """
    config = read_learner_config(learner_class(learner).spec, learner_settings)
    made = make_scenario(scenario, scenario_settings)
    plan = TrainingPlan(
        learner=learner,
        scenario=scenario,
        seeds=list(seeds),
        steps=steps,
        learner_settings=msgspec.to_builtins(config),
        scenario_settings=msgspec.to_builtins(made.parameters),
        training=training or TrainingSettings(),
        files=_files(scenario),
    )
    plan.task()  # seeds and steps are checked there
    return msgspec.structs.replace(plan, plan_hash=plan_hash(plan))


def plan_hash(plan: TrainingPlan) -> str:
    """SHA-256 of everything in a plan but this."""
    content = msgspec.json.encode(msgspec.structs.replace(plan, plan_hash=""), order="sorted")
    return hashlib.sha256(content).hexdigest()


def read_training(folder: Path) -> TrainingPlan:
    """The plan of a training's folder.

    Raises:
        BadInput: the folder is not that of a training, or the file is damaged.
        RunConflict: the file, or one that it names, was changed after the training had begun.
        SchemaMismatch: it was written by a newer edgebed.
    """
    path = folder / TRAINING_FILE
    try:
        data = yaml.safe_load(path.read_bytes())
        version = int(data["schema_version"])
        if version > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{path}: has schema version {version}; this edgebed reads up to {SCHEMA_VERSION}: update it"
            )
        plan = msgspec.convert(data, TrainingPlan)
    except OSError as error:
        raise BadInput(f"{folder}: is not the folder of a training: {path.name}: {error.strerror}") from None
    except (yaml.YAMLError, msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: is not the plan of a training: {error}") from None
    if plan_hash(plan) != plan.plan_hash:
        raise RunConflict(
            f"{path}: was changed after the training had begun: it says {plan.plan_hash[:12]}, its content gives "
            f"{plan_hash(plan)[:12]}; undo the change, or start anew by `edgebed train --config {path}`"
        )
    for name, checksum in plan.files.items():
        if _files_checksum(Path(name)) != checksum:
            raise RunConflict(
                f"{path}: {name} is not the file that the training began with; put that one back, or start anew"
            )
    return plan


def _files(scenario: str) -> dict[str, str]:
    """A scenario that is read from a file names it behind a colon."""
    name = scenario.partition(":")[2]
    return {name: _files_checksum(Path(name))} if name and Path(name).is_file() else {}


def _files_checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
