"""The search for PPO's settings."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from benchmarks.ppo_trials import EARLIER, FINALISTS, LONG, PARAMETERS, TRIALS, candidates, search, table
from edgebed.learning.ppo import PpoConfig
from edgebed.learning.training_plan import TrainingSettings, resolve

FOUND = Path(__file__).parents[2] / "docs/results/dc-drl/ppo-trials.json"


def test_candidates_are_the_same_each_time_and_settings_of_ppo() -> None:
    found = candidates()
    assert found == candidates()
    assert found[0] == EARLIER
    assert len(found) == TRIALS
    assert len({json.dumps(one, sort_keys=True) for one in found}) == TRIALS
    for one in found:
        plan = resolve("ppo", "dc-drl", (0,), 1000, one, PARAMETERS, TrainingSettings())
        assert plan.learner_settings["batch"] <= 50 * one["environments"] * one["episodes"]


def test_the_defaults_are_what_the_kept_search_found_best() -> None:
    trials = json.loads(FOUND.read_text(encoding="utf-8"))["trials"]
    finals = [one for one in trials if one["steps"] == LONG]
    assert len(finals) == FINALISTS + 1
    assert [one["settings"] for one in trials[:TRIALS]] == candidates()
    best = min(finals, key=lambda one: one["cost"])["settings"]
    defaults = msgspec.json.decode(msgspec.json.encode(PpoConfig()))
    assert {name: defaults[name] for name in best} == best
    assert FOUND.with_suffix(".md").read_text(encoding="utf-8") == table(trials)


def test_a_search_that_is_complete_trains_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "trials.json"
    kept.write_text(FOUND.read_text(encoding="utf-8"), encoding="utf-8")
    assert search(kept, tmp_path / "runs") == json.loads(FOUND.read_text(encoding="utf-8"))["trials"]
    assert not (tmp_path / "runs").exists()
