"""Faults in virtual time: what they do to tasks, to the tick, and what events and verdict say of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edgebed.simulation.testbed.disturbances import Disturbances, SlowLink, Throttled, stretched_s
from edgebed.types import ObservationSpec
from orchestrator.faults.happening import RESTART_S
from tests.simulated_runs import BUSY, EXPERIMENT, pairs, simulated

AT_S, FOR_S = 3.0, 4.0


def begun_s(row: dict[str, Any]) -> float:
    """When it began to compute on its device, or to be sent."""
    return float(row["arrived_s"] + row["decision_s"] + row["device_queue_s"] + row["uplink_queue_s"])


@pytest.mark.parametrize(
    ("begin_s", "compute_s", "lasts_s"),
    [
        (0.0, 1.0, 1.0),  # over before it begins
        (0.0, 2.0, 2.0),
        (0.0, 3.0, 4.0),  # the last of three seconds at half the speed
        (1.0, 2.0, 3.0),
        (2.0, 1.0, 2.0),
        (2.0, 2.0, 4.0),  # to its very end
        (3.0, 2.0, 3.5),  # three seconds give 1.5, and the rest at full speed
        (5.5, 1.0, 1.25),
        (6.0, 1.0, 1.0),
        (0.0, 10.0, 2.0 + 4.0 + 4.0 + 8.0),  # two of them
    ],
)
def test_a_throttled_computation_lasts_as_long_as_its_work_takes(
    begin_s: float, compute_s: float, lasts_s: float
) -> None:
    throttled = [Throttled(2.0, 6.0, 0.5), Throttled(10.0, 20.0, 0.25)]
    assert stretched_s(throttled, begin_s, compute_s) == pytest.approx(lasts_s)
    assert stretched_s((), begin_s, compute_s) == compute_s


def test_a_link_is_slow_from_its_begin_and_not_any_more_at_its_end() -> None:
    slow = SlowLink(2.0, 4.0, delay_s=0.1)
    disturbed = Disturbances(links={1: [slow]})
    assert [disturbed.link_at(1, at_s) for at_s in (1.9, 2.0, 3.9, 4.0)] == [None, slow, slow, None]
    assert disturbed.link_delays_s(3, 3.0) == [0.0, 0.1, 0.0]
    assert math.isinf(slow.rate_bps)


def test_a_throttled_device_computes_longer_and_the_others_as_before(tmp_path: Path) -> None:
    fault = {"kind": "throttle", "host": "pi-1", "at_s": AT_S, "for_s": FOR_S, "fraction": 0.5}
    calm, run = simulated(tmp_path / "calm", "all_local"), simulated(tmp_path / "run", "all_local", fault)
    stretched = 0
    for before, row in pairs(calm, run, "pi-1"):
        inside = Throttled(AT_S, AT_S + FOR_S, 0.5)
        expected_s = stretched_s([inside], begun_s(row), before["device_compute_s"])
        assert row["device_compute_s"] == pytest.approx(expected_s, rel=1e-9)
        stretched += row["device_compute_s"] > 1.9 * before["device_compute_s"]
        if begun_s(before) + before["device_compute_s"] < AT_S:
            assert row["latency_s"] == before["latency_s"]
        assert row["device_energy_j"] >= before["device_energy_j"]
    assert stretched > 3
    assert all(before["latency_s"] == row["latency_s"] for before, row in pairs(calm, run, "pi-2"))


def test_events_and_verdict_are_those_of_a_run_with_faults(tmp_path: Path) -> None:
    fault = {"kind": "throttle", "host": "edge_servers", "at_s": [AT_S, 9.9], "for_s": 1.0, "fraction": 0.25}
    run = simulated(tmp_path / "run", "all_edge", fault, seeds=[1, 2])
    events = run.query(
        "SELECT t_s, host, kind, detail FROM events WHERE kind LIKE 'fault%' ORDER BY t_s, kind"
    ).records()
    told = [(each["kind"], each["host"], json.loads(each["detail"])) for each in events]
    assert [kind for kind, _, _ in told] == ["fault_begin", "fault_end"] * 4
    assert {host for _, host, _ in told} == {"edge"}
    serials = ["1-0", "1-0", "1-1", "1-1", "2-0", "2-0", "2-1", "2-1"]
    assert [detail["fault"] for _, _, detail in told] == serials
    assert told[1][2] == told[0][2] | {"by": "time"}
    assert told[0][2] == {
        "fault": "1-0", "kind": "throttle", "host": "edge", "at_s": AT_S, "for_s": 1.0, "fraction": 0.25,
    }  # fmt: skip
    # Cells follow each other on the run clock, with room for the last task's time-out: 10 s, an epoch, and 60 s.
    assert [events[0]["t_s"], events[4]["t_s"]] == [AT_S, 70.5 + AT_S]
    manifest = run.manifest
    assert (manifest.state, manifest.verdict) == ("complete", "suspect")
    assert manifest.reasons[0].startswith("Faults were part of the experiment: throttle 4 times")
    again = simulated(tmp_path / "again", "all_edge", fault, seeds=[1, 2])
    for table in ("tasks", "events"):
        assert (run.path / f"{table}.parquet").read_bytes() == (again.path / f"{table}.parquet").read_bytes()


def test_what_is_sent_by_a_slow_link_takes_its_rate_and_its_delay(tmp_path: Path) -> None:
    rate_bps, delay_s = 2e6, 0.03
    fault = {
        "kind": "slow_link", "host": "pi-2", "at_s": AT_S, "for_s": FOR_S, "rate_bps": rate_bps, "delay_s": delay_s,
    }  # fmt: skip
    calm, run = simulated(tmp_path / "calm", "all_edge"), simulated(tmp_path / "run", "all_edge", fault)
    slowed = 0
    for before, row in pairs(calm, run, "pi-2"):
        # At the tick what it sees goes up, and what is decided comes down.
        tick_s = (row["epoch"] + 1) * EXPERIMENT["epoch_s"]
        late_s = 2 * delay_s if AT_S <= tick_s < AT_S + FOR_S else 0.0
        assert row["decision_s"] == pytest.approx(before["decision_s"] + late_s)
        if AT_S <= begun_s(row) < AT_S + FOR_S:
            sent_s = 8.0 * row["payload_bytes"] / rate_bps
            assert row["uplink_s"] == pytest.approx(sent_s + delay_s, rel=0.05)
            assert row["downlink_s"] == pytest.approx(before["downlink_s"] + delay_s)
            slowed += 1
        else:
            assert (row["uplink_s"], row["downlink_s"]) == (before["uplink_s"], before["downlink_s"])
    assert slowed > 3
    assert all(row["uplink_s"] == before["uplink_s"] for before, row in pairs(calm, run, "pi-1"))


def test_a_decision_that_a_slow_link_brings_too_late_is_the_fallbacks(tmp_path: Path) -> None:
    fault = {"kind": "slow_link", "host": "pi-2", "at_s": AT_S, "for_s": FOR_S, "delay_s": 0.2}
    run = simulated(tmp_path / "run", "all_edge", fault)
    late = run.query("SELECT DISTINCT device_id, site, decided_by FROM tasks WHERE 'decision_late' IN flags").records()
    assert late == [{"device_id": "pi-2", "site": "device", "decided_by": "fallback"}]


KILLED_S, BACK_S = 3.1, 3.1 + RESTART_S


@pytest.mark.parametrize("policy", ["all_local", "all_edge"])
@pytest.mark.parametrize("placement", ["controller", "device"])
def test_a_killed_device_ends_its_tasks_as_its_successor_does(tmp_path: Path, policy: str, placement: str) -> None:
    fault = {"kind": "kill", "host": "pi-1", "at_s": KILLED_S}
    run = simulated(tmp_path / "run", policy, fault, placement=placement, arrivals=BUSY)
    rows = run.query("SELECT * FROM tasks WHERE device_id = 'pi-1' ORDER BY arrived_s").records()
    ends = [(row["outcome"], row["reason"]) for row in rows]
    assert len(rows) == 50
    certain_s = 3.0 + 0.5  # a sign of life each quarter of a second, and what may still have been done after it
    for row, end in zip(rows, ends, strict=True):
        if certain_s < row["arrived_s"] <= BACK_S:
            assert end == ("failed", "device_down")
        elif KILLED_S < row["arrived_s"] <= certain_s:
            assert end == ("unknown", "agent_restarted")
        elif row["arrived_s"] > BACK_S:
            assert end == ("done", None)
        else:
            assert end in {("done", None), ("unknown", "agent_restarted")}
            answered_s = row["arrived_s"] + (row["latency_s"] or 0.0)
            assert answered_s <= KILLED_S, "nothing is told of later"
    lost = [row for row in rows if row["outcome"] != "done"]
    assert len([row for row in lost if row["arrived_s"] < KILLED_S]) >= 1
    for row in lost:
        names = ("requested_site", "site", "decided_by", "decision_s", "latency_s", "device_energy_j", "policy_version")
        assert [row[name] for name in names] == [None] * len(names)
        assert row["cost"] == (None if row["outcome"] == "unknown" else 61.0)
    others = run.query("SELECT DISTINCT outcome FROM tasks WHERE device_id = 'pi-2'").rows
    assert others == [("done",)]


def test_what_a_run_says_of_a_kill_and_what_policies_see(tmp_path: Path) -> None:
    fault = {"kind": "kill", "host": "pi-1", "at_s": [KILLED_S, KILLED_S + 0.5]}
    run = simulated(tmp_path / "run", "all_edge", fault, arrivals=BUSY)
    told = run.query("SELECT t_s, host, kind, detail FROM events WHERE kind <> 'stopped' ORDER BY t_s").records()
    assert [(each["kind"], each["host"]) for each in told] == [
        ("fault_begin", "pi-1"), ("fault_failed", "pi-1"), ("restarted", "pi-1")
    ]  # fmt: skip
    assert "does not run just now" in told[1]["detail"]
    assert json.loads(told[2]["detail"]) == {"alive_cell_s": 3.0, "cell_s": BACK_S}
    assert told[2]["t_s"] == BACK_S
    manifest = run.manifest
    assert (manifest.state, manifest.verdict) == ("complete", "suspect")
    assert any(reason.startswith("Faults were part of the experiment: kill once") for reason in manifest.reasons)
    assert "Restarted during the run: pi-1." in manifest.reasons
    seen = run.query("SELECT epoch, observation FROM epochs ORDER BY epoch").rows
    width = (len(seen[0][1]) - run_width(seen)) // 2
    absent = [epoch for epoch, observation in seen if not any(observation[:width])]
    assert absent == [6, 7, 8], "the ticks at 3.5, 4.0 and 4.5 s"


def run_width(seen: list[tuple[Any, ...]]) -> int:
    """Features of the one server."""
    spec = ObservationSpec(("pi-1", "pi-2"), ("edge",), 1)
    assert len(seen[0][1]) == 2 * len(spec.device_features) + len(spec.server_names)
    return len(spec.server_names)


def test_killed_runs_are_the_same_to_the_byte(tmp_path: Path) -> None:
    fault = {"kind": "kill", "host": "devices", "every_s": 2.0, "probability": 0.5}
    shaped = {"channels": {"count": 1, "rate_bps": 8e6}, "channel_model": "share", "arrivals": BUSY, "seeds": [1, 2]}
    one, other = (simulated(tmp_path / name, "greedy_latency", fault, **shaped) for name in ("one", "other"))
    for table in ("tasks", "epochs", "events"):
        assert (one.path / f"{table}.parquet").read_bytes() == (other.path / f"{table}.parquet").read_bytes()
    counts = dict(one.query("SELECT outcome, count(*) FROM tasks GROUP BY outcome").rows)
    assert set(counts) == {"done", "failed", "unknown"}
    assert sum(counts.values()) == one.manifest.counts["planned"] == 200
