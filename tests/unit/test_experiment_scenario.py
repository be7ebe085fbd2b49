"""``scenario`` of an experiment: what a paper or a profile says, as defaults for hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgebed.errors import BadInput
from edgebed.simulation.scenarios import make_scenario, scenario_names
from edgebed.simulation.scenarios.dc_drl_parameters import DcDrlParameters
from edgebed.simulation.testbed.profile import Profile, Source, write_profile
from orchestrator.documents import parse_document
from orchestrator.experiment import Experiment, Setting, read_experiment, with_overrides
from orchestrator.experiment_scenario import AS_HOSTS_ARE, NO_COUNTERPART, RADIO
from tests.simulated_cells import cell, profile
from workloads import load_workload

PAPER: dict[str, Any] = {
    "name": "paper",
    "workload": {"name": "instant", "cycles_per_frame": 1e7, "frame_bytes": 50_000},
    "scenario": "dc-drl",
    "policies": ["all_local"],
    "seeds": [1],
}


def read(*overrides: str, folder: Path = Path(), **changes: Any) -> Experiment:
    """The experiment, changed."""
    document = parse_document(yaml.safe_dump(PAPER | changes), "e.yaml")
    return read_experiment(with_overrides(document, overrides), folder)


def only(*overrides: str, **changes: Any) -> Setting:
    """Its setting."""
    (setting,) = read(*overrides, **changes).settings
    return setting


def test_the_paper_says_everything_but_what_is_compared() -> None:
    found, setting = read(), only()
    assert found.devices == 10
    assert (setting.epoch_s, setting.epochs, setting.arrivals["deadline_s"]) == (0.6, 50, 2.0)
    arrivals = setting.arrival_settings
    assert (arrivals.kind, arrivals.period_s, arrivals.phase_s) == ("periodic", 0.6, 0.6)
    assert (setting.channels.count, setting.channels.model) == (5, "sinr")
    assert (setting.reward.latency, setting.reward.energy, setting.reward.miss_penalty) == (0.0, 0.1, 1.0)


def test_a_task_has_the_papers_cycles_in_frames_and_its_upload_the_papers_time() -> None:
    setting, paper = only(), DcDrlParameters()
    assert (setting.arrival_settings.frames_low, setting.arrival_settings.frames_high) == (60, 80)
    demand = load_workload(setting.workload, setting.workload_options).demand
    assert demand.cycles_per_frame == 1e7
    # The mean task: its bits over the bandwidth are the paper's bits over the paper's bandwidth.
    ours_s = 70 * demand.bytes_per_frame / setting.channels.parameters["bandwidth_hz"]
    theirs_s = (paper.input_min_bytes + paper.input_max_bytes) / 2 / paper.bandwidth_hz
    assert ours_s == pytest.approx(theirs_s, rel=1e-3)
    assert {key: setting.channels.parameters[key] for key in RADIO} == {key: getattr(paper, key) for key in RADIO}


def test_a_task_arrives_with_each_decision() -> None:
    setting = only("epochs=3")
    offsets = [round(task.offset_s, 6) for task in _tasks(setting)]
    assert offsets == [0.6, 1.2, 1.8]


def _tasks(setting: Setting) -> Any:
    from orchestrator.plan_file import tasks_of_setting

    return tasks_of_setting(setting, 1, "pi-1")


def test_parameters_of_the_scenario_stand_beside_its_name_or_below() -> None:
    for scenario in (
        {"name": "dc-drl", "n": 3, "channels": 2, "position_seed": 7},
        {"name": "dc-drl", "parameters": {"n": 3, "channels": 2, "position_seed": 7}},
    ):
        found = read(scenario=scenario)
        (setting,) = found.settings
        assert (found.devices, setting.channels.count, setting.channels.parameters["position_seed"]) == (3, 2, 7.0)
    assert read("scenario.n=4").devices == 4
    weighted = only(scenario={"name": "dc-drl", "cost": "weighted_sum", "delay_price": 0.5})
    assert weighted.reward.latency == 0.5


def test_what_is_written_wins_key_by_key() -> None:
    setting = only(
        "deadline_s=1",
        "channels.parameters.bandwidth_hz=1e6",
        "reward.latency=2",
        "arrivals={kind: poisson, rate_per_s: 3}",
        devices=2,
    )
    assert read(devices=2).devices == 2
    assert setting.arrivals["deadline_s"] == 1
    assert setting.channels.parameters["bandwidth_hz"] == 1e6
    assert setting.channels.parameters["path_loss_exponent"] == 4.0
    assert (setting.reward.latency, setting.reward.miss_penalty) == (2.0, 1.0)
    arrivals = setting.arrival_settings
    assert (arrivals.kind, arrivals.rate_per_s, arrivals.period_s) == ("poisson", 3, None)
    assert (arrivals.frames_low, arrivals.frames_high) == (60, 80)
    assert only("channels=2").channels.count == 2
    shared = only("channel_model=share", "channels.rate_bps=1e6", scenario={"name": "dc-drl", "radio": "orthogonal"})
    assert (shared.channels.model, shared.channels.rate_bps) == ("share", 1e6)


def test_a_sweep_changes_what_the_scenario_says() -> None:
    found = read(sweep={"deadline_s": [1.0, 2.0], "channels.count": [1]})
    assert [(each.arrivals["deadline_s"], each.channels.count) for each in found.settings] == [(1.0, 1), (2.0, 1)]


def test_every_scenario_is_either_carried_over_or_refused_with_its_reason() -> None:
    for name in scenario_names():
        if name == "dc-drl":
            continue
        (why,) = [why for begin, why in NO_COUNTERPART.items() if name.startswith(begin)]
        with pytest.raises(BadInput, match=f"{name} has no counterpart on hosts: {why}"):
            read(scenario=name)


def test_what_is_refused_are_parameters_of_the_scenario() -> None:
    assert set(AS_HOSTS_ARE) <= set(DcDrlParameters.__struct_fields__)
    assert make_scenario("dc-drl").parameters == DcDrlParameters()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("scenario.cycles_max=1e12", "scenario dc-drl: arrivals.frames: 60 to 100000; 1 <= low <= high <= 1024"),
        ("workload.cycles_per_frame=1e-300", "arrivals.frames: 1000000000 to 1000000000; 1 <= low <= high <= 1024"),
        ("scenario={name: dc-drl, parameters: 3}", "scenario.parameters: is 3; expected a mapping of keys"),
        ("scenario={name: dc-drl, parameters: [n]}", "scenario.parameters: is a list; expected a mapping of keys"),
        ("scenario=3", "scenario: is 3; expected a mapping of keys"),
        ("scenario={parameters: {n: 3}}", "scenario.name: is missing"),
        ("scenario.n=0", "e.yaml:4: scenario: scenario dc-drl: Expected `int` >= 1 - at `$.n`; its parameters: n,"),
        ("scenario.nn=3", "Object contains unknown field `nn`; its parameters: n,"),
        ("scenario.server_hz=3", "scenario.parameters.server_hz: has no counterpart on hosts: hosts are as fast as"),
        ("scenario.radio=orthogonal", "scenario.parameters.radio: is 'orthogonal', which edge servers cannot grant;"),
        (f"scenario=calibrated:{'x' * 5000}", "xxx: cannot be read: File name too long"),
        ("workload={name: digits, options: 3}", "workload.options: is 3; expected a mapping of keys"),
        ("workload={name: 3}", "workload.name: is 3; expected text"),
        ("workload=3", "workload: is 3; expected a mapping of keys"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(override: str, says: str) -> None:
    with pytest.raises(BadInput, match=re.escape(says)):
        read(override)


def test_what_else_is_wrong_with_the_file_is_told_at_once() -> None:
    with pytest.raises(BadInput) as raised:
        read("workload=nope", "epochs=0")
    assert {problem.key for problem in raised.value.problems} == {"workload", "epochs"}


CONDITIONS = {
    "epochs": 20, "epoch_s": 0.5, "rate_per_s": 4.0, "frames_low": 1, "frames_high": 6, "deadline_s": 0.6,
    "task_timeout_s": 2.5, "channels": 2, "channel_rate_bps": 2e7, "latency_weight": 1.0, "energy_weight": 0.2,
    "miss_penalty": 0.5,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a profile that was fitted to runs under `CONDITIONS`, one that was fitted to none, and bad ones."""
    made: Profile = profile(cell())
    write_profile(made, tmp_path / "stated.yaml")
    made.source = Source(kind="calibrated", conditions=CONDITIONS)
    write_profile(made, tmp_path / "p.yaml")
    made.source = Source(kind="calibrated", conditions=CONDITIONS | {"channel_rate_bps": 0.0})
    write_profile(made, tmp_path / "unshaped.yaml")
    made.source = Source(kind="calibrated", conditions={"epochs": 20})
    write_profile(made, tmp_path / "half.yaml")
    made.source = Source(kind="calibrated", conditions=CONDITIONS | {"epoch_s": "short"})
    write_profile(made, tmp_path / "wrong.yaml")
    return tmp_path


def test_a_profile_gives_the_conditions_of_its_runs(folder: Path) -> None:
    found = read(folder=folder, scenario="calibrated:p.yaml")
    (setting,) = found.settings
    assert found.devices is None
    assert (setting.epochs, setting.epoch_s, setting.arrivals["deadline_s"]) == (20, 0.5, 0.6)
    arrivals = setting.arrival_settings
    assert (arrivals.kind, arrivals.rate_per_s, arrivals.frames_low, arrivals.frames_high) == ("poisson", 4.0, 1, 6)
    assert (setting.channels.count, setting.channels.model, setting.channels.rate_bps) == (2, "share", 2e7)
    assert (setting.reward.energy, setting.reward.miss_penalty, setting.timeouts.task_s) == (0.2, 0.5, 2.5)
    assert found.profile == ""
    simulated = read("backend=simulated", folder=folder, scenario="calibrated:p.yaml")
    assert simulated.profile == str(folder / "p.yaml")
    (unshaped,) = read(folder=folder, scenario="calibrated:unshaped.yaml").settings
    assert (unshaped.channels.model, unshaped.channels.rate_bps) == ("none", 0.0)


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        ("calibrated:stated.yaml", "does not say under which conditions its runs were"),
        ("calibrated:half.yaml", "under which conditions its runs were: epoch_s, rate_per_s, frames_low, .*calibrate"),
        ("calibrated:wrong.yaml", r"wrong.yaml: source.conditions: Expected `float`, got `str` - at `\$.epoch_s`"),
        ("calibrated:nowhere.yaml", "nowhere.yaml: cannot be read"),
        ({"name": "calibrated:p.yaml", "devices": 3}, "a profile has none here; write the experiment's own keys"),
    ],
)
def test_what_a_profile_cannot_say(folder: Path, scenario: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read(folder=folder, scenario=scenario)
