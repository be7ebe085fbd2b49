"""Every registered learner keeps the `Learner` contract, on every executor that needs no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgebed.errors import BadInput
from edgebed.learning import learner_class, learner_names
from edgebed.learning.base import TrainingTask, read_learner_config
from edgebed.learning.testing import check_learner

SETTINGS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"population": 8},
    "dc_drl": {"cells": 2, "episodes": 2, "hidden": [16, 12], "batch": 8, "capacity": 400, "cell_capacity": 200},
    "aga": {"cells": 2, "episodes": 2, "hidden": [16, 12], "batch": 8, "capacity": 400, "cell_capacity": 200},
    "d4pg": {"cells": 2, "episodes": 2, "hidden": [16, 12], "batch": 8, "capacity": 400, "n_step": 3},
    "ppo": {"environments": 2, "episodes": 1, "epochs": 2, "batch": 10, "hidden": [16, 12]},
}
"""Settings with which each learner learns within seconds; one that is missing here is tried with its defaults."""


def small_task(name: str, **settings: Any) -> TrainingTask:
    config = read_learner_config(learner_class(name).spec, SETTINGS.get(name, {}) | settings)
    return TrainingTask(name, config, "dc-drl", {"n": 3, "steps": 10}, (3, 1), 100_000)


@pytest.mark.parametrize("name", learner_names())
def test_registered_learner_keeps_the_contract(name: str, tmp_path: Path) -> None:
    check_learner(learner_class(name), small_task(name), tmp_path)


def test_priorities_are_part_of_what_a_training_goes_on_from(tmp_path: Path) -> None:
    check_learner(learner_class("dc_drl"), small_task("dc_drl", prioritised=True), tmp_path)


@pytest.mark.parametrize("name", learner_names())
def test_registered_name_is_the_spec_s_name_and_its_module_s(name: str) -> None:
    kind = learner_class(name)
    assert kind.spec.name == name


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"there is no 'nobody'; those that exist: .*cross_entropy"):
        learner_class("nobody")
