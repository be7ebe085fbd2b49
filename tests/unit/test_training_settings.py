"""From a file, options and ``--set`` to one plan; and the plan's file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import yaml

from edgebed.errors import BadInput, RunConflict
from edgebed.learning import training_plan
from edgebed.learning.base import LearnerConfig, TrainingTask, parameter
from edgebed.learning.cross_entropy import CrossEntropy, CrossEntropyConfig
from edgebed.learning.settings_table import settings_of
from edgebed.learning.training_place import TRAINING_FILE, find_training
from edgebed.learning.training_plan import TrainingPlan, plan_hash, read_training, resolve
from orchestrator.training.folder import create_training_folder
from orchestrator.training.settings import Request, plan_of, read_seeds


def planned(*changes: str, **asked: Any) -> TrainingPlan:
    return plan_of(Request(**{"learner": "cross_entropy", "scenario": "dc-drl", "changes": changes, **asked}))


def in_file(folder: Path, **keys: Any) -> Path:
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


class TestSet:
    def test_a_bare_name_reaches_what_has_it(self) -> None:
        plan = planned("n=4", "population=10", "evaluation_episodes=7")
        assert plan.scenario_settings["n"] == 4
        assert plan.learner_settings["population"] == 10
        assert plan.training.evaluation_episodes == 7

    def test_a_section_says_which(self) -> None:
        plan = planned("scenario.n=4", "learner.population=10", "training.average_last=2")
        assert (plan.scenario_settings["n"], plan.learner_settings["population"]) == (4, 10)
        assert plan.training.average_last == 2

    def test_the_last_one_counts(self) -> None:
        assert planned("n=4", "scenario.n=5").scenario_settings["n"] == 5

    def test_defaults_are_filled_in(self) -> None:
        plan = planned()
        assert plan.learner_settings == msgspec.to_builtins(CrossEntropyConfig())
        assert plan.scenario_settings["n"] == 10
        assert (plan.seeds, plan.steps) == ([0], 60_000)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("nothing", r"--set nothing: name=value is needed, for example --set n=20"),
            ("=3", r"--set =3: name=value is needed"),
            ("tau=1", r"--set tau: nothing has 'tau'\. What can be set: scenario: .*n, .*; learner: .*population"),
            ("world.n=1", r"there is no 'world'; write scenario\.n or learner\.n or training\.n"),
            ("learner.n=1", r"the learner has no 'n'; it has: population, "),
            ("population=2", r"learner cross_entropy: Expected `int` >= 4 - at `\$\.population`"),
            ("population=x", r"Expected `int`, got `str`"),
            ("deviation=.nan", r"learner cross_entropy"),
            ("deviation=.inf", r"`deviation` is inf, which is not finite"),
            ("n=0", r"scenario dc-drl: "),
            ("evaluation_episodes=0", r"training: Expected `int` >= 1"),
            ("n=[", r"--set n=\[: is not YAML"),
        ],
    )
    def test_what_is_wrong_is_told(self, change: str, says: str) -> None:
        with pytest.raises(BadInput, match=says):
            planned(change)

    def test_a_name_that_two_have_must_say_whose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Twin(LearnerConfig, frozen=True):
            n: Annotated[int, parameter("1", "another n")] = 1

        monkeypatch.setattr(CrossEntropy, "spec", replace(CrossEntropy.spec, config=Twin))
        with pytest.raises(
            BadInput,
            match=r"both the scenario and the learner have 'n'; write --set scenario\.n=\.\.\. or --set learner\.n=",
        ):
            planned("n=4")
        plan = planned("scenario.n=4", "learner.n=5")
        assert (plan.scenario_settings["n"], plan.learner_settings["n"]) == (4, 5)


class TestFile:
    def test_options_and_changes_go_over_it(self, tmp_path: Path) -> None:
        keys = {"learner": "cross_entropy", "scenario": "dc-drl", "seeds": [3, 4], "steps": 100}
        path = in_file(tmp_path, **keys, learner_settings={"population": 12}, scenario_settings={"n": 7, "steps": 20})
        plan = plan_of(Request(config=path, steps=200, changes=["n=8"]))
        assert (plan.seeds, plan.steps) == ([3, 4], 200)
        assert plan.learner_settings["population"] == 12
        assert (plan.scenario_settings["n"], plan.scenario_settings["steps"]) == (8, 20)

    def test_a_training_s_own_file_gives_the_same_plan(self, tmp_path: Path) -> None:
        plan = planned("n=4", seeds=[1, 2])
        folder = create_training_folder(plan, tmp_path)
        assert plan_of(Request(config=folder / TRAINING_FILE)) == plan

    def test_another_learner_than_the_file_s(self, tmp_path: Path) -> None:
        path = in_file(tmp_path, learner="dc_drl", scenario="dc-drl")
        with pytest.raises(BadInput, match=r"training\.yaml: learner: is dc_drl, and cross_entropy was asked for"):
            planned(config=path, scenario=None)

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ({"tau": 1}, r"training\.yaml:1: tau: is unknown; allowed: learner, scenario, seeds"),
            ({"learner_settings": [1]}, r"learner_settings: must hold `name: value` lines"),
            ({"seeds": ["x"]}, r"seeds: 'x' is not a whole number"),
            ({"steps": 1.5}, r"steps: 1\.5 is not a whole number"),
            ({"steps": 0}, r"steps: 0; at least 1 environment step a seed is needed"),
            ({"seeds": [1, 1]}, r"seeds: \[1, 1\] has one twice"),
            ({"seeds": []}, r"seeds: there is none"),
            ({"seeds": [-1]}, r"a seed is not negative"),
        ],
    )
    def test_what_is_wrong_is_told(self, keys: dict[str, Any], says: str, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=says):
            planned(config=in_file(tmp_path, **keys))

    def test_names_that_are_missing(self) -> None:
        with pytest.raises(BadInput, match="LEARNER: is not given; for example dc_drl"):
            plan_of(Request(scenario="dc-drl"))
        with pytest.raises(BadInput, match="--scenario: is not given; for example dc-drl"):
            plan_of(Request(learner="cross_entropy"))


@pytest.mark.parametrize(("text", "seeds"), [("0", [0]), ("0,1, 5", [0, 1, 5]), ("[2,3]", [2, 3]), ("4..6", [4, 5, 6])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "1,", "3..1", "0..9999999", "1.5"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="whole numbers from 0 on are needed, as in 0,1,2 or 0"):
        read_seeds(text)


class TestPlan:
    def test_its_hash_covers_all_but_itself(self) -> None:
        plan = planned("n=4")
        others = [planned("n=5"), planned("n=4", "population=8"), planned("n=4", seeds=[1]), planned("n=4", steps=7)]
        others.append(planned("n=4", "evaluation_seed=1"))
        assert len({one.plan_hash for one in (plan, *others)}) == 6
        assert plan.plan_hash == plan_hash(plan) == planned("n=4").plan_hash

    def test_a_file_that_the_scenario_is_read_from_is_guarded(self, tmp_path: Path) -> None:
        profile = tmp_path / "profile.yaml"
        profile.write_text("one")
        plan = planned()
        files = training_plan._files(f"calibrated:{profile}")
        plan = msgspec.structs.replace(plan, files=files)
        plan = msgspec.structs.replace(plan, plan_hash=plan_hash(plan))
        (tmp_path / TRAINING_FILE).write_text(plan.to_yaml())
        assert read_training(tmp_path) == plan
        profile.write_text("two")
        with pytest.raises(RunConflict, match=r"profile\.yaml is not the file that the training began with"):
            read_training(tmp_path)

    def test_evaluations_are_forty_unless_said(self) -> None:
        assert planned(steps=4000).evaluate_every_steps == 100
        assert planned("evaluate_every_steps=7").evaluate_every_steps == 7
        assert planned(steps=1).evaluate_every_steps == 1

    def test_its_task_is_what_the_learner_gets(self) -> None:
        plan = resolve("cross_entropy", "dc-drl", [1], 10, {"population": 6}, {"n": 2})
        task = plan.task()
        assert isinstance(task, TrainingTask)
        assert task.config == CrossEntropyConfig(population=6)
        assert task.parameters["n"] == 2


def test_folders_are_never_used_twice(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first, second = (create_training_folder(planned(), tmp_path, now) for _ in range(2))
    assert [one.name for one in (first, second)] == ["20260102T030405Z", "20260102T030405Z-2"]
    assert find_training(tmp_path / "cross_entropy-dc-drl") == second.resolve()
    assert find_training(first) == first.resolve()
    assert find_training(tmp_path) is None


def test_settings_with_unit_range_and_source() -> None:
    found = settings_of(CrossEntropyConfig)
    assert found["population"] == {
        "default": 32,
        "unit": "1",
        "range": ">= 4, <= 100000",
        "meaning": "weight vectors a generation",
        "source": "assumed",
    }
    assert list(found) == list(CrossEntropyConfig.__struct_fields__)
