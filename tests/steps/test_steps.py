"""Facts in, commands out: what a host still needs, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.provision.facts import HostFacts
from orchestrator.provision.installation import Keeper, Record
from orchestrator.provision.ledger import Entry, ledger_after
from orchestrator.provision.steps import CHRONY_FILE, SYSTEM_UNIT, Wanted, changes_for, sha256, user_unit_path
from orchestrator.provision.unit import instances_of

ROOT = "/home/pi/.edgebed"
SCRIPTS = {"launch.sh": "launch\n", "service.sh": "service\n"}
BARE = HostFacts(user="pi", uid=1000, home="/home/pi", machine="aarch64", state_root="/home/pi/.local/state/edgebed")


def record(
    keeper: Keeper = "systemd_system", digest: str = "d1", programs: tuple[str, ...] = ("device_agent",)
) -> Record:
    return Record(
        digest=digest,
        wheel="w",
        edgebed="0.1.0",
        interpreter="/usr/bin/python3",
        python="3.11",
        machine="aarch64",
        keeper=keeper,
        programs=programs,
    )


def wanted(keeper: Keeper = "systemd_system", *, digest: str = "d1", clock: str = "", unit: str = "unit\n") -> Wanted:
    return Wanted(record=record(keeper, digest), scripts=SCRIPTS, unit="" if keeper == "shell" else unit, clock=clock)


def deployed(facts: HostFacts, want: Wanted) -> HostFacts:
    """What the facts would say after the changes that ``want`` asks for were made: an independent, simple model."""
    changes = changes_for(facts, want)
    sums = {f"{ROOT}/{name}": sha256(text) for name, text in want.scripts.items()}
    units = frozenset(instances_of(want.record.programs))
    if want.record.keeper == "systemd_system":
        sums[SYSTEM_UNIT] = sha256(want.unit)
    if want.record.keeper == "systemd_user":
        sums[user_unit_path(facts)] = sha256(want.unit)
    if want.clock:
        sums[CHRONY_FILE] = sha256(want.clock)
    return replace(
        facts,
        root="ours",
        record=want.record,
        current=f"versions/{want.record.digest}",
        current_python="3.11.2",
        versions=frozenset({want.record.digest}),
        partial=frozenset(),
        linger=facts.linger or want.record.keeper == "systemd_user",
        enabled_system=units if want.record.keeper == "systemd_system" else frozenset(),
        enabled_user=units if want.record.keeper == "systemd_user" else frozenset(),
        sums=tuple(sums.items()),
        ledger=ledger_after(facts.ledger, changes),
    )


def keys(facts: HostFacts, want: Wanted) -> list[str]:
    return [change.key for change in changes_for(facts, want)]


def test_a_bare_host_gets_all_of_it_and_current_last() -> None:
    assert keys(BARE, wanted()) == [
        "root",
        "runs",
        "version:d1",
        "file:launch.sh",
        "file:service.sh",
        "unit:system",
        "enabled:system:edgebed@device_agent.service",
        "current",
        "record",
    ]


def test_a_users_service_needs_linger_and_folders() -> None:
    assert keys(BARE, wanted("systemd_user"))[5:9] == [
        "linger",
        "user_units",
        "unit:user",
        "enabled:user:edgebed@device_agent.service",
    ]


def test_without_systemd_no_unit() -> None:
    assert [key for key in keys(BARE, wanted("shell")) if key.startswith(("unit", "enabled", "linger"))] == []


@pytest.mark.parametrize("keeper", ["systemd_system", "systemd_user", "shell"])
@pytest.mark.parametrize("clock", ["", "server edge\n"])
def test_a_host_that_has_all_of_it_needs_nothing(keeper: Keeper, clock: str) -> None:
    want = wanted(keeper, clock=clock)
    assert changes_for(deployed(BARE, want), want) == []


def test_only_the_installation_of_wheels_needs_the_archive() -> None:
    assert [change.key for change in changes_for(BARE, wanted()) if change.needs_archive] == ["version:d1"]


CASES = [
    (
        "another version",
        {"current": "versions/d0", "versions": {"d0"}},
        ["version:d1", "current", "version:d0", "record"],
    ),
    ("half installed", {"versions": set(), "partial": {"d1"}}, ["version:d1", "record"]),
    ("the system's Python is gone", {"current_python": ""}, ["version:d1", "record"]),
    ("the system's Python is another", {"current_python": "3.13.1"}, ["version:d1", "record"]),
    ("current was not switched", {"current": ""}, ["current", "record"]),
    ("left-overs of a deploy that was cut short", {"partial": {"d7"}}, ["version:d7", "record"]),
    ("the unit was edited", {"sums": {SYSTEM_UNIT: "0"}}, ["unit:system", "record"]),
    ("the unit was deleted", {"sums": {SYSTEM_UNIT: ""}}, ["unit:system", "record"]),
    ("a script was edited", {"sums": {f"{ROOT}/launch.sh": "0"}}, ["file:launch.sh", "record"]),
    (
        "the service was disabled",
        {"enabled_system": set()},
        ["enabled:system:edgebed@device_agent.service", "record"],
    ),
    ("the record is missing", {"record": None}, ["record"]),
]


@pytest.mark.parametrize(("what", "differs", "expected"), CASES, ids=[case[0] for case in CASES])
def test_only_what_differs_is_changed(what: str, differs: dict[str, object], expected: list[str]) -> None:
    want = wanted()
    facts = deployed(BARE, want)
    sums = differs.pop("sums", None)
    if isinstance(sums, dict):
        facts = replace(facts, sums=tuple((dict(facts.sums) | sums).items()))
    frozen = {name: frozenset(value) if isinstance(value, set) else value for name, value in differs.items()}
    assert keys(replace(facts, **frozen), want) == expected  # type: ignore[arg-type]


def test_an_old_version_stays_while_a_program_is_to_be_kept() -> None:
    facts = replace(deployed(BARE, wanted(digest="d0")), active=(("device_agent", "/run"),))
    assert "version:d0" not in keys(facts, wanted(digest="d1"))


def test_another_keeper_takes_the_first_ones_service_away() -> None:
    facts = deployed(BARE, wanted("systemd_system"))
    changes = changes_for(facts, wanted("shell"))
    assert [change.key for change in changes] == [
        "enabled:system:edgebed@device_agent.service",
        "unit:system",
        "record",
    ]
    undone = {entry.key: entry.undo for entry in facts.ledger}
    assert all(change.command == undone[change.key] for change in changes[:2])
    left = {entry.key for entry in ledger_after(facts.ledger, changes)}
    assert left.isdisjoint({"enabled:system:edgebed@device_agent.service", "unit:system"}), (
        "and so undo does not repeat it"
    )


def test_a_host_of_another_role_has_other_programs() -> None:
    facts = deployed(BARE, wanted())
    server = replace(wanted(), record=record(programs=("controller", "edge_server")))
    assert sorted(keys(facts, server)) == [
        "enabled:system:edgebed@controller.service",
        "enabled:system:edgebed@device_agent.service",
        "enabled:system:edgebed@edge_server.service",
        "record",
    ]


def test_a_clock_that_is_no_longer_wanted_is_given_back() -> None:
    facts = deployed(BARE, wanted(clock="server edge\n"))
    (change, _) = changes_for(facts, wanted())
    assert change.key == "clock"
    assert f"rm -f {CHRONY_FILE}" in change.command
    assert "clock" not in {entry.key for entry in ledger_after(facts.ledger, [change])}


def test_root_needs_no_sudo() -> None:
    as_root = " ".join(change.command + change.undo for change in changes_for(replace(BARE, uid=0), wanted()))
    as_user = " ".join(change.command + change.undo for change in changes_for(BARE, wanted()))
    assert "sudo" not in as_root
    assert "sudo -n systemctl" in as_user


def test_a_users_own_service_never_asks_for_sudo() -> None:
    lingering = replace(BARE, linger=True)  # which alone may need it
    assert not any("sudo" in change.command + change.undo for change in changes_for(lingering, wanted("systemd_user")))


@pytest.mark.parametrize("there", [(), ("/home/pi/.local",), ("/home/pi/.local", "/home/pi/.local/state")])
def test_folders_that_were_there_are_left_there(there: tuple[str, ...]) -> None:
    undo = {change.key: change.undo for change in changes_for(replace(BARE, folders=frozenset(there)), wanted())}[
        "runs"
    ]
    removed = [line.split()[1] for line in undo.splitlines()]
    assert removed == [
        path
        for path in ("/home/pi/.local/state/edgebed", "/home/pi/.local/state", "/home/pi/.local")
        if path not in there
    ]


KEEPERS: list[Keeper] = ["systemd_system", "systemd_user", "shell"]
wishes = st.builds(
    wanted,
    st.sampled_from(KEEPERS),
    digest=st.sampled_from(["d1", "d2"]),
    clock=st.sampled_from(["", "a\n", "b\n"]),
    unit=st.sampled_from(["u\n", "v\n"]),
)


@given(st.lists(wishes, min_size=1, max_size=6))
def test_after_any_history_a_second_deploy_changes_nothing_and_undoing_knows_all(history: list[Wanted]) -> None:
    facts = BARE
    for want in history:
        facts = deployed(facts, want)
        assert changes_for(facts, want) == []
    keeper = history[-1].record.keeper
    expected = {"root", "runs", f"version:{history[-1].record.digest}", "file:launch.sh", "file:service.sh", "current"}
    expected |= {"record"} | ({"clock"} if history[-1].clock else set())
    if keeper != "shell":
        scope = keeper.removeprefix("systemd_")
        expected |= {f"unit:{scope}", f"enabled:{scope}:edgebed@device_agent.service"}
    if keeper == "systemd_user":
        expected |= {"user_units"}
    found = {entry.key for entry in facts.ledger}
    # Linger is only edgebed's if it was not there before.
    assert found - {"linger"} == expected
    assert len(found) == len(facts.ledger)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=8))
def test_the_first_entry_of_a_key_is_the_one_that_counts(changes: list[tuple[str, bool]]) -> None:
    known = tuple(Entry(key=key, what="", undo=str(number)) for number, (key, _) in enumerate(changes))
    kept = {entry.key: entry.undo for entry in ledger_after(known, [])}
    assert kept == {key: str([each for each, _ in changes].index(key)) for key, _ in changes}
