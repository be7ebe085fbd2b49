"""Faults are planned: from the rules and the seed alone, in the order of time, refused when a host cannot do them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgebed.errors import BadInput
from orchestrator.faults.hands import LocalHands, SshHands
from orchestrator.faults.kinds import KINDS
from orchestrator.faults.schedule import FaultRule, PlannedFault, Targets, schedule
from orchestrator.plan import make_plan
from orchestrator.plan_file import Plan

TARGETS = Targets(
    {"edge": ("edge_server", "controller"), "pi-1": ("device_agent",), "pi-2": ("device_agent",)},
    {"devices": ("pi-1", "pi-2"), "edge_servers": ("edge",)},
)

RULES = st.builds(
    FaultRule,
    kind=st.sampled_from(["kill", "stop", "cut_link"]),
    hosts=st.lists(st.sampled_from(["edge", "pi-1", "pi-2", "devices", "edge_servers"]), min_size=1, max_size=3),
    at_s=st.lists(st.floats(0, 100), max_size=4),
    every_s=st.none() | st.floats(0.5, 200),
    probability=st.floats(0.01, 1.0),
    for_s=st.floats(0, 5),
)


@given(st.lists(RULES, max_size=4), st.integers(0, 2**53), st.floats(1, 80))
def test_a_schedule_is_in_the_order_of_time_within_the_cell_and_the_same_again(
    rules: list[FaultRule], seed: int, horizon_s: float
) -> None:
    faults = schedule(rules, seed, horizon_s, TARGETS)
    assert [fault.number for fault in faults] == list(range(len(faults)))
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(0 <= fault.at_s < horizon_s for fault in faults)
    assert all(fault.host in TARGETS.programs for fault in faults)
    assert faults == schedule(rules, seed, horizon_s, TARGETS)


@given(st.integers(0, 2**53))
def test_more_probable_faults_contain_the_less_probable_ones(seed: int) -> None:
    """So that two settings of a sweep differ by what was added, not by everything."""
    rare, often, always = (
        {
            (fault.host, fault.at_s)
            for fault in schedule(
                [FaultRule(kind="kill", hosts=["devices"], every_s=1.0, probability=p)], seed, 50.0, TARGETS
            )
        }
        for p in (0.2, 0.6, 1.0)
    )
    assert rare <= often <= always
    assert always == {(host, float(turn)) for host in ("pi-1", "pi-2") for turn in range(1, 50)}


def test_a_longer_cell_only_adds_and_hosts_are_drawn_for_by_themselves() -> None:
    rule = FaultRule(kind="kill", hosts=["devices"], every_s=1.0, probability=0.5)
    short, long = (schedule([rule], 7, horizon_s, TARGETS) for horizon_s in (100.0, 200.0))
    assert [(each.host, each.at_s) for each in short] == [(each.host, each.at_s) for each in long if each.at_s < 100.0]
    times = {host: [each.at_s for each in long if each.host == host] for host in ("pi-1", "pi-2")}
    assert times["pi-1"] != times["pi-2"]
    assert all(60 < len(found) < 140 for found in times.values())
    alone = schedule([FaultRule(kind="kill", hosts=["pi-2"], every_s=1.0, probability=0.5)], 7, 200.0, TARGETS)
    assert [each.at_s for each in alone] == times["pi-2"]
    assert schedule([rule], 8, 200.0, TARGETS) != long


def test_what_a_rule_leaves_out() -> None:
    rules = [
        FaultRule(kind="kill", hosts=["edge", "devices", "pi-1"], at_s=[1.0, 9.0, 1.0]),
        FaultRule(kind="stop", hosts=["edge"], program="controller", at_s=[1.0], for_s=2.0),
    ]
    assert schedule(rules, 1, 5.0, TARGETS) == [
        PlannedFault(number=0, at_s=1.0, for_s=0.0, kind="kill", host="edge", program="edge_server"),
        PlannedFault(number=1, at_s=1.0, for_s=0.0, kind="kill", host="pi-1", program="device_agent"),
        PlannedFault(number=2, at_s=1.0, for_s=0.0, kind="kill", host="pi-2", program="device_agent"),
        PlannedFault(number=3, at_s=1.0, for_s=2.0, kind="stop", host="edge", program="controller"),
    ]


def test_too_many_faults_are_refused() -> None:
    with pytest.raises(BadInput, match="more than 10000 faults in a cell"):
        schedule([FaultRule(kind="kill", hosts=["devices"], every_s=0.001)], 1, 100.0, TARGETS)


# --- in a plan --------------------------------------------------------------------------------------------------------

EXPERIMENT: dict[str, Any] = {
    "name": "trial",
    "workload": "instant",
    "deadline_s": 1,
    "arrivals": {"kind": "poisson", "rate_per_s": 2.0},
    "epoch_s": 0.5,
    "epochs": 40,
    "policies": ["all_local", "all_edge"],
    "seeds": [1, 2],
}


def plan(folder: Path, *faults: Any, connection: str = "local", **changes: Any) -> Plan:
    (folder / "trial.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"faults": list(faults)} | changes))
    groups = {"edge_servers": {"hosts": {"edge": {}}}, "devices": {"hosts": {"pi-1": {}, "pi-2": {}}}}
    variables = {"ansible_connection": connection, "edgebed_board": "raspberry-pi-4b"}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"all": {"vars": variables, "children": groups}}))
    return make_plan(folder / "trial.yaml", folder / "hosts.yaml")


def problem(folder: Path, *faults: Any, **changes: Any) -> str:
    with pytest.raises(BadInput) as caught:
        plan(folder, *faults, **changes)
    return str(caught.value)


def test_faults_are_in_the_plan_and_its_hash_and_the_same_for_every_policy(tmp_path: Path) -> None:
    rule = {"kind": "kill", "host": "devices", "every_s": 3, "probability": 0.5}
    found = plan(tmp_path, rule)
    (tmp_path / "plan.yaml").write_text(found.to_yaml())
    assert Plan.from_yaml(tmp_path / "plan.yaml") == found
    assert [(each.seed, each.settings) for each in found.fault_lists] == [(1, ["base"]), (2, ["base"])]
    assert found.faults_of(1, "base") != found.faults_of(2, "base") != []
    assert plan(tmp_path, rule | {"probability": 0.4}).plan_hash != found.plan_hash
    assert plan(tmp_path).fault_lists == []


def test_a_sweep_may_change_faults(tmp_path: Path) -> None:
    rule = {"kind": "stop", "host": "pi-1", "at_s": 2.0, "for_s": 1.0}
    found = plan(tmp_path, rule, sweep={"faults.0.for_s": [1.0, 3.0], "deadline_s": [1, 2]})
    durations = [[fault.for_s for fault in each.faults] for each in found.fault_lists]
    assert sorted(durations) == [[1.0], [1.0], [3.0], [3.0]]
    assert all(len(each.settings) == 2 for each in found.fault_lists), "what changes no fault shares a list"


def test_a_sweep_may_compare_with_and_without(tmp_path: Path) -> None:
    found = plan(tmp_path, sweep={"faults": [[], [{"kind": "kill", "host": "pi-1", "at_s": 1.0}]]})
    counts = {setting.name: len(found.faults_of(1, setting.name)) for setting in found.settings}
    assert sorted(counts.values()) == [0, 1]


KILL = {"kind": "kill", "host": "pi-1", "at_s": 1}
STOP = {"kind": "stop", "host": "pi-1", "at_s": 1, "for_s": 2}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"host": "pi-1", "at_s": 1}, "faults.0.kind: is missing; one of kill, stop, reboot"),
        (KILL | {"kind": "kil"}, "faults.0.kind: there is no kind of fault 'kil'; did you mean kill?"),
        (KILL | {"colour": 1}, "faults.0.colour: is not a key here"),
        (
            KILL | {"host": "pi-9"},
            "faults: there is no host 'pi-9'; those that exist: edge_servers, devices, edge",
        ),
        (KILL | {"program": "controller"}, "faults: pi-1 runs no controller; allowed for it: device_agent"),
        (KILL | {"program": "sshd"}, "faults.0.program: is 'sshd'"),
        (KILL | {"at_s": -1}, "expected seconds since the cell's start"),
        (KILL | {"at_s": []}, "expected seconds since the cell's start"),
        (KILL | {"every_s": 2}, "kill: say either at_s or every_s"),
        ({"kind": "kill", "host": "pi-1"}, "kill: say either at_s or every_s"),
        (KILL | {"probability": 0.5}, "kill: probability goes with every_s"),
        (KILL | {"for_s": 2}, "kill: for_s does not go with it"),
        ({"kind": "stop", "host": "pi-1", "at_s": 1}, "stop: for_s is needed"),
        ({"kind": "stop", "host": "pi-1", "every_s": 2, "for_s": 2}, "for_s is 2; allowed: less than every_s, 2"),
        (STOP | {"loss": 0.5}, "stop: loss is not for it; allowed: none"),
        (STOP | {"kind": "cut_link", "program": "device_agent"}, "cut_link: program goes with kill and stop"),
        (STOP | {"kind": "slow_link"}, "slow_link: rate_bps or delay_s or loss is needed"),
        (STOP | {"kind": "slow_link", "loss": 2}, "slow_link: loss is 2; allowed: 0 to 1"),
        (STOP | {"kind": "throttle"}, "throttle: fraction is needed"),
        (STOP | {"kind": "step_clock", "by_s": 1e6}, "allowed: -86400 to 86400"),
    ],
)
def test_rules_that_are_refused(tmp_path: Path, fault: dict[str, Any], text: str) -> None:
    assert text in problem(tmp_path, fault, connection="ssh")


def rule_of(kind: str) -> dict[str, Any]:
    """A rule of this kind, as short as it can be."""
    about = KINDS[kind]
    parameters = {name: each.high / 2 for name, each in about.parameters.items() if each.default is None}
    return {"kind": kind, "host": "pi-1", "at_s": 1, **({"for_s": 2} if about.lasts else {}), **parameters}


@pytest.mark.parametrize("kind", KINDS)
def test_hosts_are_asked_only_for_what_they_can_do(tmp_path: Path, kind: str) -> None:
    assert len(plan(tmp_path, rule_of(kind), connection="ssh").faults_of(1, "base")) == 1
    if kind in ("kill", "stop"):
        assert len(plan(tmp_path, rule_of(kind)).faults_of(1, "base")) == 1
    else:
        said = problem(tmp_path, rule_of(kind))
        assert f"{kind}: pi-1 is a program on this machine, which cannot do that; it can: kill, stop" in said


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_method(kind: str) -> None:
    """`orchestrator.faults.hands.do` calls methods by the names of the kinds."""
    assert callable(getattr(SshHands, kind))
    assert hasattr(LocalHands, kind) == issubclass(LocalHands, KINDS[kind].ability)


@pytest.mark.parametrize(
    ("faults", "is_refused"),
    [
        ([STOP, STOP | {"at_s": 2.5}], True),
        ([STOP, STOP | {"at_s": 3.5}], False),
        ([STOP, STOP | {"at_s": 2.5, "host": "pi-2"}], False),
        ([STOP, KILL | {"at_s": 2}], True),
        ([STOP | {"host": "edge"}, KILL | {"host": "edge", "program": "controller", "at_s": 2}], False),
        ([STOP | {"kind": "cut_link"}, STOP | {"kind": "slow_link", "loss": 0.1, "at_s": 2}], True),
        ([STOP | {"kind": "cut_link"}, STOP | {"kind": "fill_disk", "at_s": 2}], False),
        ([STOP | {"kind": "cut_link"}, {"kind": "reboot", "host": "pi-1", "at_s": 2}], True),
        ([{"kind": "reboot", "host": "pi-1", "at_s": 2}, KILL | {"at_s": 2}], True),
        ([STOP | {"for_s": 10}, KILL | {"host": "pi-2"}, STOP | {"at_s": 2}, STOP | {"at_s": 9}], True),
    ],
)
def test_faults_of_the_same_thing_may_not_overlap(tmp_path: Path, faults: list[Any], is_refused: bool) -> None:
    if is_refused:
        assert "touch the same of pi-1; let the one end before the other begins" in problem(
            tmp_path, *faults, connection="ssh"
        )
    else:
        assert plan(tmp_path, *faults, connection="ssh").faults_of(1, "base")


def test_the_page_shows_rules_that_are_accepted(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
    block = page.split("```yaml\n")[1].split("```")[0]
    rules = yaml.safe_load(block)["faults"]
    for rule in rules:
        rule["host"] = "edge" if rule["host"] == "edge-1" else rule["host"]
    found = plan(tmp_path, *rules, connection="ssh", epochs=1000, seeds=[1])
    assert {fault.kind for fault in found.faults_of(1, "base")} == {"kill", "stop", "cut_link", "slow_link"}
    assert all(f"| `{kind}` |" in page for kind in KINDS)
