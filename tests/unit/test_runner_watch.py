"""How members of a cell stand, from what is heard of them."""

from __future__ import annotations

import pytest

from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Members, Ready, Role, Status
from orchestrator.backends.watch import CellWatch
from orchestrator.provision.supervision import ProgramState


@pytest.fixture
def watch() -> CellWatch:
    spec = CellSpec(
        run_id="r",
        plan_hash="h",
        cell_id="c",
        serial=7,
        attempt=1,
        policy="all_edge",
        policy_name="all_edge",
        seed=1,
        workload="instant",
        arrivals={},
        epoch_s=0.5,
        epochs=4,
        devices=["pi-1", "pi-2"],
        servers=["edge"],
    )
    return CellWatch(spec, "controller")


def names(members: object) -> list[str]:
    return [member.name for member in members]  # type: ignore[attr-defined]


def test_everyone_is_waited_for_until_ready(watch: CellWatch) -> None:
    assert names(watch.unready) == ["controller", "edge", "pi-1", "pi-2"]
    watch.hear(Ready(7, "controller", True), 1.0)
    watch.hear(Ready(6, "edge", True), 1.0)  # of another cell
    watch.hear(Status(7, "pi-1", "ready"), 1.0)  # its Ready went to an orchestrator that was lost
    watch.hear(Ready(7, "stranger", True), 1.0)
    assert names(watch.unready) == ["edge", "pi-2"]


def test_a_refusal_is_kept_with_its_reason(watch: CellWatch) -> None:
    watch.hear(Ready(7, "pi-2", False, "no such workload"), 1.0)
    assert [(each.member, each.detail) for each in watch.refusals] == [("pi-2", "no such workload")]
    assert "pi-2" in names(watch.unready)


def test_devices_are_finished_when_they_say_so(watch: CellWatch) -> None:
    watch.hear(Status(7, "pi-1", "running", planned=5, terminal=3), 1.0)
    watch.hear(Status(7, "pi-2", "finished", planned=4, terminal=4), 1.0)
    watch.hear(Status(6, "pi-1", "finished", planned=9, terminal=9), 1.1)
    assert names(watch.unfinished) == ["pi-1"]
    assert watch.tasks == (7, 9)
    watch.hear(Status(7, "pi-2", "preparing"), 2.0)
    assert names(watch.unfinished) == ["pi-1", "pi-2"], "it was restarted and has to find out"
    assert watch.tasks == (7, 9), "what it had is not forgotten"


def test_draining_needs_a_word_after_the_stop(watch: CellWatch) -> None:
    watch.hear(Status(7, "pi-1", "idle", unsent=0), 1.0)
    watch.is_stopping = True
    assert len(watch.undrained) == 4
    watch.hear(Status(7, "pi-1", "idle", unsent=2), 2.0)
    watch.hear(Status(7, "pi-2", "finished", unsent=0), 2.0)
    watch.hear(Status(7, "edge", "idle", unsent=0), 2.0)
    watch.hear(Status(0, "controller", "idle", unsent=0), 2.0)  # restarted: it knows of no cell
    assert names(watch.undrained) == ["pi-1", "pi-2"]
    watch.hear(Status(6, "pi-2", "idle", unsent=0), 2.0)
    assert names(watch.undrained) == ["pi-1", "pi-2"], "of another cell"


def test_who_is_given_up_is_waited_for_no_more(watch: CellWatch) -> None:
    watch.give_up("pi-2", "dead")
    watch.give_up("pi-2", "again")
    assert watch.given_up == {"pi-2": "dead"}
    for waited_for in (watch.unready, watch.unfinished, watch.undrained, watch.silent(100.0, 1.0)):
        assert "pi-2" not in names(waited_for)


def test_silence_is_since_the_last_word(watch: CellWatch) -> None:
    watch.hear(Status(3, "pi-1", "idle"), 10.0)
    watch.hear(Members([("edge", Role.SERVER, True, "i")]), 11.0)
    watch.hear_controller(11.0)
    assert names(watch.silent(13.5, 3.0)) == ["pi-1", "pi-2"], "a list of members is a word of all who are on it"
    assert [member.name for member in watch.members.values() if member.is_connected] == ["controller", "edge"]
    watch.hear(Members([]), 12.0)
    assert watch.up == 1


def test_dead_is_only_what_nobody_will_start_again(watch: CellWatch) -> None:
    assert not watch.members["pi-1"].is_dead, "nobody has asked"
    watch.note_programs(
        {
            "pi-1": ProgramState("device_agent", None, None, None, 1),
            "pi-2": ProgramState("device_agent", 10, None, None, 2),
            "edge": None,
        }
    )
    assert [member.name for member in watch.members.values() if member.is_dead] == ["pi-1"]
