"""`edgebed evaluate` and `edgebed list scenarios`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.simulation.evaluation import evaluate
from edgebed.simulation.scenarios import make_scenario, scenario_names
from edgebed.types import ObservationSpec
from orchestrator.cli import main

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


def answer(arguments: list[str], capsys: Capture) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    found = json.loads(captured.out)
    assert isinstance(found, dict)
    return found


def test_the_answer_for_programs(capsys: Capture) -> None:
    arguments = ["evaluate", "dc-drl", "--policy", "all_edge", "--episodes", "3", "--seed", "7", "--set", "n=4"]
    found = answer(arguments, capsys)
    assert list(found) == [
        "scenario",
        "policy",
        "episodes",
        "seed",
        "return_mean",
        "return_ci95",
        "returns",
        "cost_per_task_mean",
        "metrics",
    ]
    scenario = make_scenario("dc-drl", {"n": 4})
    expected = evaluate(scenario, scenario.heuristics["all_edge"], episodes=3, seed=7)
    assert found["returns"] == expected.returns.tolist()
    assert (found["scenario"], found["policy"], found["episodes"], found["seed"]) == ("dc-drl", "all_edge", 3, 7)
    assert found["return_ci95"] == list(expected.return_ci95 or ())
    assert found["metrics"] == expected.metric_means
    assert found["cost_per_task_mean"] == expected.cost_per_task_mean > 0.0 > found["return_mean"]
    assert answer(arguments, capsys) == found


def test_one_episode_has_no_interval(capsys: Capture) -> None:
    assert answer(["evaluate", "dc-drl", "--policy", "all_local", "--episodes", "1"], capsys)["return_ci95"] is None


def test_for_people(capsys: Capture) -> None:
    assert main(["evaluate", "dc-drl", "--policy", "all_local", "--episodes", "3"]) == 0
    text = capsys.readouterr().out
    assert "all_local in dc-drl, 3 episodes" in text
    assert "95 % interval" in text
    assert "miss_rate" in text


def test_options_of_the_policy(capsys: Capture) -> None:
    base = ["evaluate", "dc-drl", "--policy", "greedy_sampled", "--episodes", "3", "--set", "n=4"]
    few, many = (answer([*base, "--set", f"policy.m={m}"], capsys)["cost_per_task_mean"] for m in (1, 200))
    assert many < few


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no-such", "--policy", "all_local"], "scenario: there is no 'no-such'; those that exist: "),
        (["dc-drl", "--policy", "nobody"], "dc-drl has no heuristic 'nobody', and there is no such folder"),
        (["dc-drl", "--policy", "all_local", "--episodes", "0"], "episodes: 0; at least 1"),
        (["dc-drl", "--policy", "all_local", "--seed", "-1"], "seed: -1; a number from 0"),
        (["dc-drl", "--policy", "all_local", "--set", "n=0"], "scenario dc-drl: Expected `int` >= 1 - at `$.n`"),
        (["dc-drl", "--policy", "all_local", "--set", "n=x"], "Expected `int`, got `str` - at `$.n`"),
        (["dc-drl", "--policy", "all_local", "--set", "x=1"], "unknown field `x`; its parameters: n, "),
        (["dc-drl", "--policy", "all_local", "--set", "n"], "--set n: name=value is needed"),
        (["dc-drl", "--policy", "all_local", "--set", "n=[1"], "--set n=[1"),
        (["dc-drl", "--policy", "all_local", "--set", "policy.m=3"], "policy all_local: "),
        (["dc-drl", "--policy", "."], "has no policy.json; a policy's folder is needed"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_bad_input(
    arguments: list[str], text: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""


def test_a_policy_for_hosts_does_not_fit_and_has_no_options(capsys: Capture, tmp_path: Path) -> None:
    save_policy(tmp_path, random_hosts_policy(ObservationSpec(("pi-1", "pi-2"), ("edge-1",))))
    arguments = ["evaluate", "dc-drl", "--policy", str(tmp_path)]
    assert main(arguments) == 2
    assert (
        "made for hosts and does not fit dc-drl: it was trained for 2 devices, the scenario has 10"
        in capsys.readouterr().err
    )
    assert main([*arguments, "--set", "policy.m=1"]) == 2
    assert "--set policy.m: a learned policy has no options" in capsys.readouterr().err


def test_list_scenarios(capsys: Capture) -> None:
    found = {each["name"]: each for each in answer(["list", "scenarios"], capsys)["scenarios"]}
    assert list(found) == scenario_names()
    assert {"all_local", "all_edge", "uniform_random"} <= set(found["dc-drl"]["heuristics"])
    assert found["dc-drl"]["parameters"][0] == "n"
    assert all(each["summary"] and each["paper"] for each in found.values())


def test_evaluating_loads_neither_torch_nor_gymnasium() -> None:
    program = (
        "import sys; from orchestrator.cli import main; "
        "status = main(['evaluate', 'dc-drl', '--policy', 'all_local', '--episodes', '1']); "
        "print(status, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    status, *loaded = done.stdout.splitlines()[-1].split()
    assert status == "0"
    assert "edgebed" in loaded
    assert not {"torch", "gymnasium", "pettingzoo", "duckdb", "matplotlib", "ray"} & set(loaded)
