"""Hosts out of each other's reach in virtual time: programs that stand still or die, links that are cut, reboots."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgebed.simulation.testbed.disturbances import Throttled, combined, stood_still_s
from edgebed.simulation.testbed.fluid import Channel
from edgebed.trace.runs import Run
from orchestrator.faults.happening import BOOT_S, LOADING_S, RESTART_S
from orchestrator.faults.silences import DEAD_AFTER_S, Span, joined
from tests.simulated_runs import BUSY, pairs, simulated

AT_S = 3.1
SHORT_S, LONG_S = 2.0, 5.0
"""Before a peer is given up, and after."""

ANSWERED = "arrived_s + latency_s"


def rows_of(run: Run, device: str = "", where: str = "true") -> list[dict[str, Any]]:
    """Tasks, in the order of time."""
    of = f"device_id = '{device}'" if device else "true"
    return run.query(f"SELECT * FROM tasks WHERE {of} AND {where} ORDER BY arrived_s, device_id").records()


def ends_of(run: Run, device: str = "", where: str = "true") -> Counter[tuple[str, str]]:
    """How many ended how."""
    return Counter((row["outcome"], row["reason"] or "") for row in rows_of(run, device, where))


def told_by(run: Run, *kinds: str) -> list[tuple[float, str, str, dict[str, Any]]]:
    """Events of some kinds, in the order of time."""
    events = run.query("SELECT t_s, host, kind, detail FROM events ORDER BY t_s, host").rows
    return [(t_s, host, kind, json.loads(detail)) for t_s, host, kind, detail in events if kind in kinds]


def answers_between(run: Run, device: str, from_s: float, until_s: float, site: str) -> int:
    """How many answers of a site were known then."""
    where = f"site = '{site}' AND {ANSWERED} > {from_s + 1e-6} AND {ANSWERED} < {until_s - 1e-6}"
    return len(rows_of(run, device, where))


# -- arithmetic -------------------------------------------------------------------------------------------------------


def test_where_a_stop_meets_a_throttling_nothing_is_computed() -> None:
    found = combined([Throttled(1.0, 5.0, 0.5), Throttled(2.0, 3.0, 0.0)])
    assert found == [Throttled(1.0, 2.0, 0.5), Throttled(2.0, 3.0, 0.0), Throttled(3.0, 5.0, 0.5)]
    assert stood_still_s(found, 1.5, 1.0) == 0.5
    assert stood_still_s([], 1.5, 1.0) == 0.0


def test_silences_that_meet_are_one() -> None:
    spans = [Span(5.0, 6.0), Span(1.0, 2.0), Span(1.5, 3.0, is_another=True)]
    assert joined(spans) == [Span(1.0, 3.0, is_another=True), Span(5.0, 6.0)]
    assert Span(1.0, 1.0 + DEAD_AFTER_S).lost_s is None
    assert Span(1.0, 5.0).lost_s == 1.0 + DEAD_AFTER_S


def test_nothing_passes_a_channel_whose_server_stands_still() -> None:
    channel = Channel(100.0)
    channel.join("a", 100.0, 0.0)
    channel.stand_still(0.5, 2.0)
    channel.join("b", 50.0, 1.0)
    assert channel.next_carried() == (3.0, "a")
    assert channel.left_bits("a", 1.5) == 50.0


# -- a device that stands still ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "placement"), [("all_edge", "controller"), ("all_edge", "device")])
def test_nothing_of_a_device_that_stands_still_is_known_until_it_goes_on(
    tmp_path: Path, policy: str, placement: str
) -> None:
    fault = {"kind": "stop", "host": "pi-1", "at_s": AT_S, "for_s": SHORT_S}
    run = simulated(tmp_path / "run", policy, fault, placement=placement, arrivals=BUSY)
    assert ends_of(run) == {("done", ""): 100}
    until_s = AT_S + SHORT_S
    for site in ("device", "edge"):
        assert answers_between(run, "pi-1", AT_S, until_s, site) == 0
    asked = rows_of(run, "pi-1", f"arrived_s BETWEEN {AT_S} AND {until_s - 0.6}")
    assert asked
    assert all(row["arrived_s"] + row["decision_s"] >= until_s for row in asked)
    # It is absent when the others are decided for, so its own waiting tasks stay with it.
    decided = ("device", "edge") if placement == "device" else ("controller", "device")
    assert {(row["decided_by"], row["site"]) for row in asked} == {decided}
    assert told_by(run, "stalled") == [(until_s, "pi-1", "stalled", {"seconds": SHORT_S})]
    assert "The event 'stalled' was reported once." in run.manifest.reasons


def test_the_others_are_decided_for_when_the_controller_has_waited_long_enough(tmp_path: Path) -> None:
    fault = {"kind": "stop", "host": "pi-1", "at_s": AT_S, "for_s": LONG_S}
    calm, run = simulated(tmp_path / "calm", "all_edge"), simulated(tmp_path / "run", "all_edge", fault)
    for before, row in pairs(calm, run, "pi-2"):
        tick_s = (row["epoch"] + 1) * 0.5
        late_s = 0.125 if AT_S <= tick_s < AT_S + DEAD_AFTER_S else 0.0  # half of timeouts.decision_s
        assert row["decision_s"] == pytest.approx(before["decision_s"] + late_s)
    assert ends_of(run, "pi-2") == {("done", ""): 20}


def test_what_was_due_while_a_device_stood_still_for_long_is_decided_by_itself(tmp_path: Path) -> None:
    fault = {"kind": "stop", "host": "pi-1", "at_s": AT_S, "for_s": LONG_S}
    run = simulated(tmp_path / "run", "all_local", fault, timeouts={"task_s": 3.0})
    ends = ends_of(run, "pi-1", f"arrived_s > {AT_S} AND arrived_s < {AT_S + LONG_S - 3.0}")
    assert set(ends) == {("failed", "timeout_not_started")}
    late = rows_of(run, "pi-1", "'decision_late' IN flags")
    assert {row["decided_by"] for row in late} == {"fallback"}
    assert rows_of(run, "pi-1")[-1]["outcome"] == "done", "it went on"
    up = told_by(run, "controller_up", "server_up", "server_lost")
    assert [(t_s, host, kind) for t_s, host, kind, _ in up] == [
        (AT_S + LONG_S, "pi-1", "controller_up"), (AT_S + LONG_S, "pi-1", "server_up")
    ]  # fmt: skip


def test_a_program_that_stands_still_uses_no_energy(tmp_path: Path) -> None:
    calm = simulated(tmp_path / "calm", "all_local")
    one = rows_of(calm, "pi-1")[6]
    begun_s = one["arrived_s"] + one["decision_s"] + one["device_queue_s"]
    fault = {"kind": "stop", "host": "pi-1", "at_s": begun_s + one["device_compute_s"] / 2, "for_s": 1.0}
    run = simulated(tmp_path / "run", "all_local", fault)
    longer = [
        (before, row)
        for before, row in pairs(calm, run, "pi-1")
        if row["device_compute_s"] == pytest.approx(before["device_compute_s"] + 1.0)
    ]
    assert len(longer) == 1
    for before, row in pairs(calm, run, "pi-1"):
        assert row["device_energy_j"] == pytest.approx(before["device_energy_j"])


# -- an edge server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [{}, {"channels": {"count": 1, "rate_bps": 2e7}, "channel_model": "share"}])
def test_a_server_that_stands_still_for_a_moment_loses_nothing(tmp_path: Path, channels: dict[str, Any]) -> None:
    fault = {"kind": "stop", "host": "edge", "at_s": AT_S, "for_s": SHORT_S}
    run = simulated(tmp_path / "run", "all_edge", fault, **channels)
    assert set(ends_of(run)) == {("done", "")}
    for device in ("pi-1", "pi-2"):
        assert answers_between(run, device, AT_S + 0.01, AT_S + SHORT_S, "edge") == 0
    assert told_by(run, "server_lost", "server_up", "restarted") == []


def test_a_server_that_stands_still_for_long_is_given_up_and_late_answers_count(tmp_path: Path) -> None:
    fault = {"kind": "stop", "host": "edge", "at_s": AT_S, "for_s": LONG_S}
    run = simulated(tmp_path / "run", "all_edge", fault)
    lost_s, until_s = AT_S + DEAD_AFTER_S, AT_S + LONG_S
    assert [each[:3] for each in told_by(run, "server_lost", "server_up")] == [
        (lost_s, "pi-1", "server_lost"), (lost_s, "pi-2", "server_lost"),
        (until_s, "pi-1", "server_up"), (until_s, "pi-2", "server_up"),
    ]  # fmt: skip
    # While it is not reachable nobody is sent there, by the word of the devices themselves.
    ticked = f"(epoch + 1) * 0.5 BETWEEN {lost_s} AND {until_s}"
    assert {(row["site"], row["decided_by"]) for row in rows_of(run, where=ticked)} == {("device", "controller")}
    late = rows_of(run, where=f"outcome = 'done' AND site = 'edge' AND arrived_s < {lost_s} AND {ANSWERED} > {until_s}")
    assert late, "what it had been sent it has done after all"
    assert set(ends_of(run)) <= {("done", ""), ("failed", "server_lost"), ("failed", "server_unreachable")}


def test_a_killed_server_loses_what_it_had_and_its_successor_has_to_load(tmp_path: Path) -> None:
    fault = {"kind": "kill", "host": "edge", "at_s": AT_S}
    run = simulated(tmp_path / "run", "all_edge", fault, arrivals=BUSY)
    back_s = AT_S + RESTART_S
    ends = ends_of(run)
    assert set(ends) <= {
        ("done", ""), ("unknown", "server_lost"), ("failed", "server_lost"), ("failed", "not_ready"),
    }  # fmt: skip
    assert ends["unknown", "server_lost"] > 4
    assert ends["failed", "not_ready"] > 0
    assert answers_between(run, "pi-1", AT_S + 0.01, back_s + LOADING_S, "edge") == 0
    assert [(t_s, host) for t_s, host, _, _ in told_by(run, "restarted")] == [(back_s, "edge")]
    ups = told_by(run, "server_up")
    assert [(t_s, host, told["restarted"]) for t_s, host, _, told in ups] == [
        (back_s, "pi-1", True), (back_s, "pi-2", True)
    ]  # fmt: skip
    assert "Restarted during the run: edge." in run.manifest.reasons
    assert rows_of(run)[-1]["outcome"] == "done", "the cell went on with it"


def test_what_a_killed_server_refuses_runs_on_the_device_where_that_is_asked_for(tmp_path: Path) -> None:
    fault = {"kind": "kill", "host": "edge", "at_s": AT_S}
    run = simulated(tmp_path / "run", "all_edge", fault, arrivals=BUSY, on_refusal="local")
    assert set(ends_of(run)) == {("done", ""), ("unknown", "server_lost")}
    assert rows_of(run, where="requested_site = 'edge' AND site = 'device'")


# -- the controller ---------------------------------------------------------------------------------------------------


def test_devices_fall_back_while_there_is_no_controller(tmp_path: Path) -> None:
    fault = {"kind": "kill", "host": "edge", "program": "controller", "at_s": AT_S}
    run = simulated(tmp_path / "run", "all_edge", fault)
    assert set(ends_of(run)) == {("done", "")}, "no task needs the controller"
    down = f"(epoch + 1) * 0.5 BETWEEN {AT_S} AND {AT_S + RESTART_S}"
    for row in rows_of(run):
        assert (row["decided_by"] == "fallback") == ("decision_late" in row["flags"])
    assert {row["decided_by"] for row in rows_of(run, where=down)} == {"fallback"}
    assert {row["decided_by"] for row in rows_of(run, where=f"NOT ({down})")} == {"controller"}
    ups = [(host, told["restarted"]) for _, host, _, told in told_by(run, "controller_up")]
    assert ups == [("pi-1", True), ("pi-2", True)]
    assert "Restarted during the run: controller." in run.manifest.reasons
    joint = [epoch for (epoch,) in run.query("SELECT epoch FROM epochs WHERE device_id = '' ORDER BY epoch").rows]
    assert set(range(20)) - set(joint) == {6, 7, 8}, "the ticks at 3.5, 4.0 and 4.5 s"


def test_a_controller_that_stands_still_for_long_is_not_waited_for(tmp_path: Path) -> None:
    fault = {"kind": "stop", "host": "edge", "program": "controller", "at_s": AT_S, "for_s": LONG_S}
    run = simulated(tmp_path / "run", "all_edge", fault)
    for row in rows_of(run, where="decided_by = 'fallback'"):
        tick_s = (row["epoch"] + 1) * 0.5
        waited_s = row["arrived_s"] + row["decision_s"] - tick_s
        assert waited_s == pytest.approx(0.25 if tick_s < AT_S + DEAD_AFTER_S else 0.0, abs=0.01)
    assert len(rows_of(run, where="decided_by = 'fallback'")) == 20, "ten ticks, two devices"
    assert [each[2] for each in told_by(run, "controller_lost", "controller_up")] == [
        *["controller_lost"] * 2, *["controller_up"] * 2
    ]  # fmt: skip


# -- links and power --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [{}, {"channels": {"count": 1, "rate_bps": 2e7}, "channel_model": "share"}])
def test_a_cut_link_holds_up_what_is_on_it_and_the_device_decides(tmp_path: Path, channels: dict[str, Any]) -> None:
    fault = {"kind": "cut_link", "host": "pi-1", "at_s": 3.01, "for_s": SHORT_S}
    run = simulated(tmp_path / "run", "all_edge", fault, **channels)
    assert set(ends_of(run)) == {("done", "")}
    until_s = 3.01 + SHORT_S
    assert answers_between(run, "pi-1", 3.01, until_s, "edge") == 0
    waited = rows_of(run, "pi-1", f"site = 'edge' AND arrived_s < 3.01 AND {ANSWERED} >= {until_s - 1e-6}")
    assert waited, "what was on its way came when the link was whole"
    ticked = f"(epoch + 1) * 0.5 BETWEEN 3.01 AND {until_s - 0.5}"
    assert {row["decided_by"] for row in rows_of(run, "pi-1", ticked)} == {"fallback"}
    assert {row["decided_by"] for row in rows_of(run, "pi-2")} == {"controller"}


def test_a_link_that_is_cut_for_long_loses_what_was_sent(tmp_path: Path) -> None:
    fault = {"kind": "cut_link", "host": "pi-1", "at_s": 3.1, "for_s": LONG_S}
    run = simulated(tmp_path / "run", "all_edge", fault, arrivals=BUSY)
    ends = ends_of(run, "pi-1")
    assert ends["unknown", "server_lost"] > 0
    assert set(ends) <= {
        ("done", ""), ("unknown", "server_lost"), ("failed", "server_lost"), ("failed", "server_unreachable"),
    }  # fmt: skip
    assert ends_of(run, "pi-2") == {("done", ""): 50}
    lost, up = 3.1 + DEAD_AFTER_S, 3.1 + LONG_S
    told = told_by(run, "controller_lost", "server_lost", "controller_up", "server_up")
    assert [(t_s, host, kind) for t_s, host, kind, _ in told] == [
        (lost, "pi-1", "controller_lost"), (lost, "pi-1", "server_lost"),
        (up, "pi-1", "controller_up"), (up, "pi-1", "server_up"),
    ]  # fmt: skip


def test_a_device_decides_for_itself_without_the_server_that_it_has_lost(tmp_path: Path) -> None:
    fault = {"kind": "cut_link", "host": "pi-1", "at_s": AT_S, "for_s": LONG_S}
    run = simulated(tmp_path / "run", "all_edge", fault, placement="device")
    lost_s, until_s = AT_S + DEAD_AFTER_S, AT_S + LONG_S
    ticked = f"(epoch + 1) * 0.5 BETWEEN {lost_s} AND {until_s}"
    assert {(row["site"], row["decided_by"]) for row in rows_of(run, "pi-1", ticked)} == {("device", "device")}


@pytest.mark.parametrize(("said", "boot_s"), [({"boot_s": 2.0}, 2.0), ({}, BOOT_S)])
def test_a_rebooted_device_ends_its_tasks_as_a_killed_one_when_it_is_back(
    tmp_path: Path, said: dict[str, float], boot_s: float
) -> None:
    fault = {"kind": "reboot", "host": "pi-1", "at_s": AT_S} | said
    run = simulated(tmp_path / "run", "all_edge", fault, arrivals=BUSY)
    back_s = AT_S + boot_s + RESTART_S
    due = ends_of(run, "pi-1", f"arrived_s > {AT_S + 0.5} AND arrived_s <= {back_s}")
    assert set(due) == {("failed", "device_down")}
    assert set(ends_of(run, "pi-1", f"arrived_s > {back_s}")) <= {("done", "")}
    assert ends_of(run, "pi-1")["unknown", "agent_restarted"] > 0
    told = told_by(run, "fault_begin", "fault_end", "restarted")
    assert [(t_s, kind) for t_s, _, kind, _ in told] == [
        (AT_S, "fault_begin"), (AT_S + boot_s, "fault_end"), (back_s, "restarted")
    ]  # fmt: skip
    assert told[1][3] == told[0][3] | {"by": "time"}


# -- all of them ------------------------------------------------------------------------------------------------------

ALL = [
    {"kind": "stop", "host": "pi-2", "at_s": 1.2, "for_s": 0.8},
    {"kind": "cut_link", "host": "pi-1", "at_s": 2.1, "for_s": 3.5},
    {"kind": "stop", "host": "edge", "at_s": 2.6, "for_s": 0.5},
    {"kind": "kill", "host": "edge", "at_s": 3.5},
    {"kind": "kill", "host": "edge", "program": "controller", "at_s": 4.5},
    {"kind": "reboot", "host": "pi-2", "at_s": 6.0, "boot_s": 1.0},
    {"kind": "stop", "host": "edge", "at_s": 4.0, "for_s": 0.5},
]


@pytest.mark.parametrize(
    ("policy", "channels"),
    [
        ("uniform_random", {}),
        ("greedy_latency", {"channels": {"count": 2, "rate_bps": 4e6}, "channel_model": "share"}),
    ],
)
def test_runs_with_all_of_them_are_the_same_to_the_byte_and_lose_no_task(
    tmp_path: Path, policy: str, channels: dict[str, Any]
) -> None:
    more = {"arrivals": BUSY, "seeds": [1, 2], "timeouts": {"task_s": 2.0}, **channels}
    one, other = (simulated(tmp_path / name, policy, *ALL, **more) for name in ("one", "other"))
    for table in ("tasks", "epochs", "events"):
        assert (one.path / f"{table}.parquet").read_bytes() == (other.path / f"{table}.parquet").read_bytes()
    assert sum(ends_of(one).values()) == one.manifest.counts["planned"] == 200
    assert (one.manifest.state, one.manifest.verdict) == ("complete", "suspect")
    # The server's program is dead when it is to stand still: that could not be done.
    failed = told_by(one, "fault_failed")
    assert [(host, told["problem"]) for _, host, _, told in failed] == [
        ("edge", "edge: edge_server does not run just now")
    ] * 2  # fmt: skip
    for row in rows_of(one, where="outcome = 'done'"):
        stages = sum(row[name] for name in row if name.endswith("_s") and name in STAGES)
        assert row["latency_s"] == pytest.approx(row["decision_s"] + stages)


STAGES = frozenset(
    {"device_queue_s", "device_compute_s", "uplink_queue_s", "uplink_s", "server_queue_s", "server_compute_s"}
    | {"downlink_s"}
)


def test_what_lasts_is_lifted_at_the_end_of_the_cell(tmp_path: Path) -> None:
    fault = {"kind": "stop", "host": "pi-1", "at_s": AT_S, "for_s": 1000.0}
    run = simulated(tmp_path / "run", "all_local", fault, timeouts={"task_s": 2.0})
    begin, end = told_by(run, "fault_begin", "fault_end")
    assert end[0] == 10.0 + 0.5 + 2.0
    assert end[3] == begin[3] | {"by": "end"}
    assert set(ends_of(run, "pi-1", f"arrived_s > {AT_S}")) == {("failed", "timeout_not_started")}
