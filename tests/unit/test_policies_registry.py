"""How a policy is found by name, and what is said when it cannot be."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from edgebed import entry_points
from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies import ENTRY_POINT_GROUP, make_policy, policy_class, policy_names, policy_spec
from edgebed.policies.testing import ScriptedPolicy
from edgebed.types import DEVICE_FEATURES, SERVER_FEATURES, Feature, ObservationSpec

SPEC = ObservationSpec(("pi-1",), ("edge-1",))
HEURISTICS = ["all_edge", "all_local", "greedy_latency", "queue_threshold", "uniform_random"]


def install(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Entry points as an installed package would bring them."""
    points = [EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in values.items()]

    def of_group(group: str) -> list[EntryPoint]:
        return points if group == ENTRY_POINT_GROUP else []

    monkeypatch.setattr(entry_points, "points_of", of_group)


def test_the_fixed_names_are_there() -> None:
    assert set(HEURISTICS) <= set(policy_names())


def test_the_spec_is_readable_without_making_the_policy() -> None:
    assert "waiting_cycles" in policy_spec("greedy_latency").needs
    assert policy_spec("uniform_random").sets == ("site", "server", "channel")


def test_an_unknown_name_lists_the_known_ones() -> None:
    known = "greedy_latency, network, queue_threshold"
    with pytest.raises(BadInput, match=rf"there is no 'gredy'; those that exist: .*{known}"):
        make_policy("gredy", SPEC)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("all_local", {"p": 1}, r"policy all_local: options: .*unknown field `p`; allowed options: none"),
        ("uniform_random", {"q": 1}, r"unknown field `q`; allowed options: p: probability of offloading"),
        ("uniform_random", {"p": "half"}, r"Expected `float`, got `str` - at `\$\.p`; allowed options: p:"),
        ("uniform_random", {"p": 1.5}, r"Expected `float` <= 1\.0 - at `\$\.p`"),
        ("uniform_random", {"p": math.nan}, r"`p` is nan, which is not finite|Expected `float`"),
        ("uniform_random", {1: 2}, r"policy uniform_random: options:"),
        ("queue_threshold", {"threshold_s": math.inf}, r"`threshold_s` is inf, which is not finite"),
        ("queue_threshold", {"threshold_s": None}, r"Expected `float`, got `null`"),
    ],
)
def test_a_bad_option_names_the_allowed_ones(name: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        make_policy(name, SPEC, options)


def test_a_whole_number_is_good_enough_for_a_float() -> None:
    assert make_policy("uniform_random", SPEC, {"p": 1}).options.p == 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (
            ObservationSpec(("pi-1",), ("edge-1",), device_features=DEVICE_FEATURES[:3]),
            "needs the device features waiting_cycles, .*; these .* have: waiting_tasks, waiting_.*, waiting_bytes$",
        ),
        (
            ObservationSpec(("pi-1",), ("edge-1",), server_features=SERVER_FEATURES[:2]),
            "needs the server features workers, worker_speed_hz; these .* have: queue_tasks, queue_delay_s",
        ),
        (
            ObservationSpec(("pi-1",), ("edge-1",), channel_features=(Feature("gain", "1", 0, 1, "path gain"),)),
            "needs the server features channel_rate_bps, channel_uploads; these .* server_cpu, uploading_bytes, gain$",
        ),
    ],
)
def test_a_missing_feature_names_both_sides(spec: ObservationSpec, complaint: str) -> None:
    with pytest.raises(SchemaMismatch, match=complaint):
        make_policy("greedy_latency", spec)


def test_an_outside_package_is_admitted_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, scripted="edgebed.policies.testing:ScriptedPolicy")
    assert "scripted" in policy_names()
    assert isinstance(make_policy("scripted", SPEC, {"actions": [[1]]}), ScriptedPolicy)


def test_two_policies_of_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, all_local="edgebed.policies.testing:ScriptedPolicy")
    with pytest.raises(BadInput, match=r"edgebed\.policies\.all_local and entry point edgebed\.policies\.testing:Scr"):
        policy_class("all_local")
    assert policy_class("all_edge").spec.name == "all_edge"


def test_an_entry_point_to_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, odd="edgebed.policies.testing:check_policy")
    with pytest.raises(BadInput, match=r"entry point edgebed\.policies\.testing:check_policy gives .* a subclass of"):
        policy_class("odd")


def test_a_broken_outside_package_harms_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, broken="no_such_package:Policy")
    assert policy_class("all_local").spec.name == "all_local"
    with pytest.raises(ModuleNotFoundError):
        policy_class("broken")


def test_importing_the_registry_imports_no_policy_and_no_numpy() -> None:
    code = (
        "import sys, edgebed.policies; print([m for m in sys.modules if m == 'numpy' or m.startswith('edgebed.pol')])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "['edgebed.policies']"
