"""The results' command, on a training of seconds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from benchmarks.dc_drl_jobs import SEEDS, Job, jobs
from benchmarks.dc_drl_results import evaluate_references, train, write_json
from benchmarks.dc_drl_table import write_tables
from edgebed.errors import RunConflict
from edgebed.learning.training_place import TRAINING_FILE
from edgebed.learning.training_plan import plan_hash, read_training

KEPT = Path(__file__).parents[2] / "docs/results/dc-drl"
SMALL = {"hidden": [16, 16], "cells": 2, "episodes": 1, "capacity": 2000, "cell_capacity": 1000}


def test_a_training_its_raw_numbers_and_the_table(tmp_path: Path) -> None:
    job = Job("dc_drl", "dc_drl", 300, {"n": 3}, SMALL)
    found = train(job, tmp_path / "runs")
    assert found["steps"] == 300
    assert len(found["cost_by_seed"]) == len(SEEDS)
    for index, last in enumerate(found["cost_of_last_evaluations"]):
        assert found["cost_by_seed"][index] == pytest.approx(sum(last) / len(last))
        assert last[-1] == found["curve"][-1][1][index]
    again = train(job, tmp_path / "runs")  # complete: nothing is trained anew
    assert again["curve"] == found["curve"]
    with pytest.raises(RunConflict, match="other settings"):
        train(Job("dc_drl", "dc_drl", 300, {"n": 3}, SMALL | {"tau": 0.1}), tmp_path / "runs")
    write_json(tmp_path / "raw" / f"{job.name}.json", found)
    evaluate_references(Job("dc_drl", "dc_drl", 60_000, {"n": 5}), tmp_path)
    write_tables(tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    known = json.loads((tmp_path / "raw" / "references-n5.json").read_text(encoding="utf-8"))["cost"]
    assert f"{known['all_local']:.3f}" in page
    assert known["greedy_priced"] < known["all_local"]
    assert "missing" in page  # the trainings of the plan are not there


def test_a_training_from_before_there_was_a_setting_is_gone_on_with(tmp_path: Path) -> None:
    job = Job("dc_drl", "dc_drl", 100, {"n": 3}, SMALL)
    found = train(job, tmp_path)
    plan = read_training(tmp_path / job.name)
    older = {name: value for name, value in plan.learner_settings.items() if not name.startswith("priorit")}
    assert len(older) < len(plan.learner_settings)
    plan = msgspec.structs.replace(plan, learner_settings=older)
    plan = msgspec.structs.replace(plan, plan_hash=plan_hash(plan))
    (tmp_path / job.name / TRAINING_FILE).write_text(plan.to_yaml())
    assert train(job, tmp_path)["curve"] == found["curve"]
    with pytest.raises(RunConflict, match="other settings"):
        train(Job("dc_drl", "dc_drl", 100, {"n": 3}, SMALL | {"prioritised": True}), tmp_path)


def test_the_kept_page_is_what_its_raw_numbers_give(tmp_path: Path) -> None:
    shutil.copytree(KEPT / "raw", tmp_path / "raw")
    write_tables(tmp_path)
    page = (KEPT / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page
    shown = set(re.findall(r"\((\S+\.svg)\)", page))
    assert {"devices.svg", "ablations.svg", "shapes.svg", "curves-n10.svg"} <= shown
    for name in shown:
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
        assert (KEPT / name).is_file()


def test_names_of_trainings_are_unique_and_the_most_important_come_first() -> None:
    names = [job.name for job in jobs()]
    assert len(set(names)) == len(names)
    assert names[:3] == ["dc_drl-60k-n10", "ppo-60k-n10", "dc_drl-60k-n20"]
