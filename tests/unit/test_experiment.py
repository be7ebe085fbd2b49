"""Experiment files: keys, defaults, overrides, sweeps, and every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgebed.errors import BadInput
from orchestrator.documents import parse_document, parse_value
from orchestrator.experiment import Experiment, PlannedPolicy, load_experiment, read_experiment, with_overrides
from orchestrator.experiment_file import ExperimentFile

ROOT = Path(__file__).parents[2]

SMALL = """\
name: small
workload: instant
deadline_s: 1
arrivals: {kind: poisson, rate_per_s: 2}
epoch_s: 0.5
epochs: 4
policies: [all_local, all_edge]
seeds: [1]
"""


def experiment(text: str = SMALL, *overrides: str, folder: Path = Path()) -> Experiment:
    return read_experiment(with_overrides(parse_document(text, "e.yaml"), overrides), folder)


def problems(text: str = SMALL, *overrides: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        experiment(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


def with_line(line: str) -> str:
    """The small experiment with one key changed or added, on the last line."""
    key = line.partition(":")[0]
    return "".join(each for each in SMALL.splitlines(keepends=True) if not each.startswith(f"{key}:")) + line + "\n"


def test_the_demo() -> None:
    demo = load_experiment(ROOT / "inventory/experiments/demo.yaml", ["seeds=[7]", "epochs=10"])
    names = ["all_local", "all_edge", "uniform_random", "queue_threshold", "greedy_latency"]
    assert [policy.name for policy in demo.policies] == names
    assert demo.seeds == (7,)
    assert demo.overrides == ("seeds=[7]", "epochs=10")
    (setting,) = demo.settings
    assert (setting.name, setting.workload, setting.epochs) == ("base", "digits", 10)
    assert setting.arrivals["frames"] == {"low": 2, "high": 8}


def test_defaults() -> None:
    small = experiment()
    assert (small.name, small.backend, small.order, small.seeds) == ("small", "hosts", "blocked_random", (1,))
    assert small.policies[0] == PlannedPolicy(label="all_local", name="all_local")
    (setting,) = small.settings
    assert (setting.placement, setting.fallback_policy, setting.decide_at) == ("controller", "all_local", "tick")
    assert (setting.warm_up_epochs, setting.on_refusal, setting.horizon_s) == (1, "fail", 2.0)
    assert (setting.channels.count, setting.channels.model, setting.channels.rate_bps) == (1, "none", 0.0)
    assert (setting.reward.latency, setting.reward.energy, setting.reward.miss_penalty) == (1.0, 0.0, 1.0)
    assert (setting.timeouts.decision_s, setting.timeouts.task_s, setting.timeouts.prepare_s) == (0.25, 5.0, 120.0)


def test_a_task_times_out_after_five_of_the_longest_deadlines() -> None:
    trace = "arrivals: {kind: trace, trace: [[0.2, 1, 3.0], [0.4, 1, 0.5]]}"
    assert experiment(with_line(trace)).settings[0].timeouts.task_s == 15.0
    assert experiment(with_line("timeouts: {task_s: 2}")).settings[0].timeouts.task_s == 2.0


def test_every_key_arrives() -> None:
    text = (
        SMALL
        + """\
placement: device
decide_at: arrival
warm_up_epochs: 0
fallback_policy: all_edge
order: sequential
channels: {count: 3, rate_bps: 5e6, parameters: {noise_dbm: -90}}
channel_model: share
reward: {latency: 2, energy: 0.5, miss_penalty: 0}
on_refusal: local
timeouts: {decision_s: 0.1, prepare_s: 60}
"""
    )
    found = experiment(text)
    (setting,) = found.settings
    assert found.order == "sequential"
    assert (setting.placement, setting.decide_at, setting.fallback_policy) == ("device", "arrival", "all_edge")
    assert (setting.channels.count, setting.channels.model, setting.channels.rate_bps) == (3, "share", 5e6)
    assert setting.channels.parameters == {"noise_dbm": -90.0}
    assert (setting.reward.latency, setting.reward.energy, setting.reward.miss_penalty) == (2.0, 0.5, 0.0)
    assert (setting.on_refusal, setting.timeouts.decision_s, setting.timeouts.prepare_s) == ("local", 0.1, 60.0)


def test_channels_that_interfere_are_those_of_the_paper_but_for_what_is_written() -> None:
    (setting,) = experiment(with_line("channels: {parameters: {bandwidth_hz: 1e6}}") + "channel_model: sinr\n").settings
    assert setting.channels.parameters == {
        "bandwidth_hz": 1e6,
        "transmit_power_w": 0.1,
        "noise_dbm": -100.0,
        "path_loss_exponent": 4.0,
        "half_side_m": 50.0,
        "position_seed": 2020.0,
    }


def test_a_policy_may_be_compared_with_itself_under_other_options() -> None:
    line = "policies: [uniform_random, {name: uniform_random, label: rarely, placement: device, options: {p: 0.1}}]"
    assert experiment(with_line(line)).policies == (
        PlannedPolicy(label="uniform_random", name="uniform_random"),
        PlannedPolicy(label="rarely", name="uniform_random", placement="device", options={"p": 0.1}),
    )


def test_an_external_policy_needs_no_registered_name() -> None:
    found = experiment(with_line("policies: [all_local, {name: my_agent, placement: external}]"))
    assert found.policies[1] == PlannedPolicy(label="my_agent", name="my_agent", placement="external")
    everywhere = experiment(with_line("policies: [my_agent]") + "placement: external\n")
    assert everywhere.policies == (PlannedPolicy(label="my_agent", name="my_agent"),)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("name: a b", "name: is 'a b', which is not a name; allowed: letters"),
        ("name: ../../etc", "name: is '../../etc', which is not a name"),
        ("workload: instnt", "workload: there is no workload 'instnt'; did you mean instant?"),
        ("workload: {name: instant, options: {colour: 1}}", "workload: workload instant: options ['colour']"),
        ("workload: {options: {}}", "workload.name: is missing"),
        ("scenario: droo", "scenario: there is no 'droo'; those that exist: ccm-s10,"),
        ("scenario: [dc-drl]", "scenario: is a list; expected a mapping of keys"),
        ("scenario: {n: 3}", "scenario.name: is missing"),
        ("scenario: {name: dc-drl, nn: 3}", "scenario: scenario dc-drl: Object contains unknown field `nn`"),
        ("scenario: {name: dc-drl, n: 0}", "scenario: scenario dc-drl: Expected `int` >= 1"),
        ("scenario: {name: dc-drl, device_hz: 1e9}", "scenario.parameters.device_hz: has no counterpart"),
        ("scenario: {name: dc-drl, radio: orthogonal}", "scenario.parameters.radio: is 'orthogonal', which"),
        ("scenario: cell-selection-lte", "scenario: cell-selection-lte has no counterpart on hosts: it is about which"),
        ("scenario: ccm-s10", "scenario: ccm-s10 has no counterpart on hosts: its policies set"),
        ("scenario: explaboff-3x2", "scenario: explaboff-3x2 has no counterpart on hosts: its sizes"),
        ("scenario: meta-rl", "scenario: meta-rl has no counterpart on hosts: its samples"),
        ("faults: [kill]", "faults.0: is 'kill'; expected a mapping of keys"),
        ("stop: {tasks: 3}", "stop.tasks: is not a key here"),
        ("profile: p.yaml", "profile: is only for backends 'simulated' and 'replayed'; the backend is 'hosts'"),
        ("backend: simulate", "backend: is 'simulate'; did you mean simulated? allowed: 'hosts', 'simulated' or"),
        ("channels: {parameters: {noise: 1}}", "channels.parameters.noise: is not a key here; did you mean noise_dbm?"),
        ("channels: {parameters: {bandwidth_hz: 0}}", "channels.parameters.bandwidth_hz: is 0; allowed: more than 0"),
        ("channel_model: share", "channels.rate_bps: is needed when channel_model is 'share'"),
        ("channels: 0", "channels.count: is 0; allowed: at least 1"),
        ("channels: true", "channels.count: is true; expected a whole number"),
        ("deadline_s: 0", "deadline_s: is 0; allowed: more than 0"),
        ("deadline_s: '1'", "deadline_s: is '1'; expected a number"),
        ("deadline_s: .inf", "deadline_s: is inf; expected a finite number"),
        ("epochs: 2.5", "epochs: is 2.5; expected a whole number"),
        ("warm_up_epochs: 4", "warm_up_epochs: is 4; allowed: less than epochs, 4"),
        ("decide_at: arrival", "decide_at: 'arrival' is for policies that decide on the devices; all_local decides at"),
        ("policies: []", "policies: has 0 entries; at least 1 needed"),
        ("policies: [all_locl]", "policies.0: there is no policy 'all_locl'; did you mean all_local?"),
        ("policies: [all_edge, all_edge]", "policies: has all_edge more than once; give each its own `label`"),
        ("policies: [{name: all_edge, label: x}, {name: all_edge, label: X}]", "policies: has x more than once"),
        ("policies: [{name: all_edge, option: {}}]", "policies.0.option: is not a key here; did you mean options?"),
        ("policies: [{name: all_edge, label: a/b}]", "policies.0.label: is 'a/b', which is not a name"),
        ("policies: [{name: all_edge, options: {x: 1}}]", "policies.0: policy all_edge: options: "),
        ("policies: [{name: uniform_random, options: {p: half}}]", "policies.0: policy uniform_random: options: "),
        ("fallback_policy: none_local", "fallback_policy: there is no policy 'none_local'"),
        ("seeds: []", "seeds: has 0 entries; at least 1 needed"),
        ("seeds: 5", "seeds: is 5; expected a list"),
        ("seeds: [1, 1]", "seeds: has 1 more than once"),
        ("seeds: [-1]", "seeds.0: is -1; allowed: at least 0"),
        ("seeds: ['1']", "seeds.0: is '1'; expected a whole number"),
        ("order: random", "order: is 'random'; did you mean blocked_random?"),
        ("reward: {latency: -1}", "reward.latency: is -1; allowed: at least 0"),
        ("timeouts: {task: 3}", "timeouts.task: is not a key here; did you mean task_s?"),
        ("epoch: 3", "epoch: is not a key here; did you mean epochs?"),
        ("arrivals: {kind: poisson}", "arrivals.rate_per_s: "),
        ("arrivals: {kind: poisson, rate_per_s: 1, fps: 3}", "arrivals.fps: is not a setting"),
        ("arrivals: {kind: poisson, rate_per_s: 1, deadline_s: 3}", "arrivals.deadline_s: belongs one level up"),
        ("arrivals: 5", "arrivals: is 5; expected a mapping of keys"),
        ("arrivals: {kind: trace, trace: nowhere.csv}", "nowhere.csv"),
        ("sweep: {seeds: [1]}", "sweep.seeds: seeds cannot be swept; allowed: workload,"),
        ("sweep: {deadline_s: 1}", "sweep.deadline_s: is 1; expected a list of values to try"),
        ("sweep: {deadline_s: []}", "sweep.deadline_s: is an empty list; expected a list of values to try"),
        ("sweep: {deadline_s: [1, -1]}", "deadline_s: is -1; allowed: more than 0"),
        ("sweep: {reward.latency: [1], reward: {latency: [2]}}", "sweep: has reward.latency twice"),
        ("sweep: [1]", "sweep: is a list; expected"),
    ],
)
def test_what_is_wrong_with_a_key(line: str, problem: str) -> None:
    found = [each for each in problems(with_line(line)) if problem in each]
    assert len(found) == 1
    number = len(with_line(line).splitlines())
    if "nowhere.csv" not in problem and "channels.rate_bps" not in problem:
        assert found[0].startswith(f"e.yaml:{number}: ")


@pytest.mark.parametrize(
    "key", ["name", "workload", "deadline_s", "arrivals", "epoch_s", "epochs", "policies", "seeds"]
)
def test_a_key_that_is_needed(key: str) -> None:
    text = "".join(line for line in SMALL.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    (problem,) = problems(text)
    assert problem.startswith(f"e.yaml: {key}: is missing; ")


def test_all_problems_come_at_once_and_in_the_files_order() -> None:
    text = SMALL.replace("epochs: 4", "epochs: 0").replace("deadline_s: 1", "deadline_s: x").replace("all_edge", "edge")
    text += "epochs: 5\narrival: {}\n"
    found = problems(text.replace("rate_per_s: 2", "rate_per_s: fast"), "seeds=[0.5]", "nonsense", "polices.0=x")
    assert [problem.partition(";")[0] for problem in found] == [
        "--set nonsense: expected key=value, for example epochs=10 or reward.energy=0.5",
        "--set polices.0=x: polices: is not a key here",
        "--set seeds=[0.5]: seeds.0: is 0.5",
        "e.yaml:3: deadline_s: is 'x'",
        "e.yaml:4: arrivals.rate_per_s: 'fast' must be a number",
        "e.yaml:6: epochs: is 0",
        "e.yaml:7: policies.1: there is no policy 'edge'",
        "e.yaml:9: epochs: is here twice, first in line 6",
        "e.yaml:10: arrival: is not a key here",
    ]


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seeds=[7]", lambda e: e.seeds == (7,)),
        ("epochs=10", lambda e: e.settings[0].epochs == 10),
        ("reward.energy=0.5", lambda e: e.settings[0].reward.energy == 0.5),
        ("timeouts.task_s=20e0", lambda e: e.settings[0].timeouts.task_s == 20.0),
        ("arrivals.rate_per_s=9", lambda e: e.settings[0].arrivals["rate_per_s"] == 9.0),
        ("arrivals={kind: periodic, period_s: 1}", lambda e: e.settings[0].arrivals["kind"] == "periodic"),
        ("workload.options={}", lambda e: e.settings[0].workload == "instant"),
        ("policies.1.label=mine", lambda e: [p.label for p in e.policies] == ["all_local", "mine"]),
        ("policies.0=uniform_random", lambda e: e.policies[0].name == "uniform_random"),
        ("channels.rate_bps=5", lambda e: e.settings[0].channels.rate_bps == 5.0),
        ("sweep.deadline_s=[1,2]", lambda e: [s.name for s in e.settings] == ["deadline_s_1", "deadline_s_2"]),
        ("name='x'", lambda e: e.name == "x"),
        ("reward=", lambda e: e.settings[0].reward.latency == 1.0),
    ],
)
def test_an_override_changes_what_it_names(override: str, found: Any) -> None:
    assert found(experiment(SMALL + "channels: 2\n", override))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("epchs=3", "--set epchs=3: epchs: is not a key here; did you mean epochs? allowed: name, workload, "),
        ("timeouts.task=3", "--set timeouts.task=3: timeouts.task: is not a key here; did you mean task_s? allowed: "),
        ("epochs=", "--set epochs=: epochs: is empty; expected a whole number"),
        ("epochs.x=3", "--set epochs.x=3: epochs: is 4, which has nothing below it"),
        ("policies.7.label=x", "--set policies.7.label=x: policies: is a list, which has no 7; allowed: 0 to 1"),
        ("seeds=[7", "--set seeds=[7: is not YAML: "),
        ("=3", "--set =3: expected key=value"),
        ("a..b=3", "--set a..b=3: expected key=value"),
    ],
)
def test_an_override_that_cannot_be(override: str, problem: str) -> None:
    (found,) = problems(SMALL, override)
    assert found.startswith(problem)


def test_a_sweep_multiplies_into_settings() -> None:
    found = experiment(SMALL + "sweep: {deadline_s: [0.5, 2], arrivals: {rate_per_s: [1, 3]}}\n")
    assert [(setting.name, setting.changes) for setting in found.settings] == [
        ("deadline_s_0.5-rate_per_s_1", {"deadline_s": 0.5, "arrivals.rate_per_s": 1}),
        ("deadline_s_0.5-rate_per_s_3", {"deadline_s": 0.5, "arrivals.rate_per_s": 3}),
        ("deadline_s_2-rate_per_s_1", {"deadline_s": 2, "arrivals.rate_per_s": 1}),
        ("deadline_s_2-rate_per_s_3", {"deadline_s": 2, "arrivals.rate_per_s": 3}),
    ]
    assert [setting.arrivals["deadline_s"] for setting in found.settings] == [0.5, 0.5, 2.0, 2.0]
    assert [setting.arrivals["rate_per_s"] for setting in found.settings] == [1.0, 3.0, 1.0, 3.0]
    assert [setting.timeouts.task_s for setting in found.settings] == [2.5, 2.5, 10.0, 10.0]


@pytest.mark.parametrize(
    ("sweep", "names"),
    [
        ("{deadline_s: [0.5, 1]}", ["deadline_s_0.5", "deadline_s_1"]),
        ("{reward.energy: [0, 1]}", ["energy_0", "energy_1"]),
        ("{channels: [{count: 1}, {count: 2}]}", ["channels_1", "channels_2"]),
        ("{placement: [controller, device]}", ["placement_controller", "placement_device"]),
        ("{epochs: [3], deadline_s: [1.00000000000000000001]}", ["epochs_3-deadline_s_1.0"]),
        (
            "{deadline_s: [0.123456789012345678901, 2.123456789012345678901]}",
            ["deadline_s_0.12345678901234568", "deadline_s_2.1234567890123457"],
        ),
        ("{arrivals.rate_per_s: [1, 2], arrivals.kind: [poisson], deadline_s: [1]}", ["setting1", "setting2"]),
    ],
)
def test_settings_have_names_for_people_or_else_numbers(sweep: str, names: list[str]) -> None:
    assert [setting.name for setting in experiment(SMALL + f"sweep: {sweep}\n").settings] == names


def test_a_sweep_that_is_too_large() -> None:
    (problem,) = problems(SMALL + f"sweep: {{epochs: {list(range(2, 42))}, deadline_s: {list(range(1, 41))}}}\n")
    assert problem == "e.yaml:9: sweep: makes 1600 settings; at most 1000 are allowed"


def test_a_sweep_reaches_below_short_forms() -> None:
    found = experiment(SMALL + "channels: 2\nchannel_model: share\nsweep: {channels.rate_bps: [1e6, 2e6]}\n")
    assert [(setting.channels.count, setting.channels.rate_bps) for setting in found.settings] == [(2, 1e6), (2, 2e6)]


def test_a_sweep_below_a_number_is_a_problem_among_others() -> None:
    text = SMALL.replace("seeds: [1]", "seeds: []") + "sweep: {epochs.x: [1]}\n"
    assert "e.yaml:9: epochs: is 4, which has nothing below it" in problems(text)


def test_one_wrong_deadline_is_one_problem() -> None:
    for value in ("0", "-1", ".inf", "'1'", "true", "[1]"):
        assert len(problems(with_line(f"deadline_s: {value}"))) == 1


def test_a_problem_in_one_combination_names_the_sweep() -> None:
    assert problems(SMALL + "sweep:\n  warm_up_epochs: [1]\n  epochs: [1, 2]\n") == [
        "e.yaml:10: warm_up_epochs: is 1; allowed: less than epochs, 1"
    ]


def test_a_trace_becomes_part_of_the_setting(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("offset_s,frames,device_id\n0.25,3,pi-1\n0.5,,\n")
    (tmp_path / "e.yaml").write_text(with_line("arrivals: {kind: trace, trace: trace.csv}"))
    (setting,) = load_experiment(tmp_path / "e.yaml").settings
    assert setting.arrivals["trace"] == [{"offset_s": 0.25, "frames": 3, "device_id": "pi-1"}, {"offset_s": 0.5}]
    assert setting.arrival_settings.trace[0].device_id == "pi-1"


def test_a_trace_that_could_not_be_sent_to_a_host_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{number * 1e-4:.4f}\n" for number in range(1, 40_000))
    (tmp_path / "trace.csv").write_text(f"offset_s\n{rows}")
    (tmp_path / "e.yaml").write_text(with_line("arrivals: {kind: trace, trace: trace.csv}"))
    with pytest.raises(BadInput, match=r"arrivals\.trace: is \d+ bytes long; at most 524288 are sent"):
        load_experiment(tmp_path / "e.yaml")


def documented() -> dict[str, str]:
    text = (
        (ROOT / "docs/experiments.md")
        .read_text()
        .partition("## Experiment")[2]
        .partition("| `arrivals` | meaning |")[0]
    )
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    return {row[1].strip(" `"): row[3].strip() for row in rows}


def test_the_documentation_has_every_key_in_the_models_order() -> None:
    assert list(documented()) == list(ExperimentFile.model_fields)


@pytest.mark.parametrize(
    "key",
    ["placement", "decide_at", "warm_up_epochs", "fallback_policy", "order", "channel_model", "backend", "on_refusal"],
)
def test_the_documentation_states_defaults_as_they_are(key: str) -> None:
    assert parse_value(documented()[key].strip("`"), "docs") == ExperimentFile.model_fields[key].default


def test_the_documentation_says_which_keys_are_needed() -> None:
    needed = [key for key, default in documented().items() if default == "needed"]
    assert needed == [key for key, field in ExperimentFile.model_fields.items() if field.is_required()]
