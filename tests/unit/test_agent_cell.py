"""A cell on a device, driven by a clock that only moves when it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.cell import Predecessor
from device_agent.testing import DEVICE, SECONDS_PER_FRAME, SERVER, CellOnBench, cell_with
from edgebed.protocol.cells import CellSpec, Timeouts
from edgebed.protocol.messages import Cancel, Offer
from edgebed.trace.schema import STAGES, TaskRecord
from edgebed.types import DEVICE_FEATURES, Site

Bench = Callable[..., CellOnBench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made: list[CellOnBench] = []

    def make(cell: CellSpec, **settings: Any) -> CellOnBench:
        made.append(CellOnBench(tmp_path, cell, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def stages_of(row: TaskRecord) -> dict[str, float]:
    return {name: getattr(row, name) for name in STAGES if getattr(row, name)}


# -- in closed form ---------------------------------------------------------------------------------------------------


def test_a_task_on_the_device(bench: Bench) -> None:
    on = bench(cell_with([0.25, 0.75]))
    on.begin(run_clock_s=50.0)
    on.until(1.0)
    on.execute(0.125, cpu_s=0.1)
    on.execute(0.25)
    first, second = on.tasks()
    assert (first.task_id, first.arrived_s, first.epoch, first.decision_epoch) == (f"cell/{DEVICE}/0", 50.25, 0, 0)
    assert first.decision_s == pytest.approx(0.75)
    assert stages_of(first) == pytest.approx({"device_compute_s": 0.125})
    assert first.latency_s == first.decision_s + sum(getattr(first, name) for name in STAGES)
    assert first.latency_s == pytest.approx(0.875)
    assert (first.outcome, first.deadline_met, first.cost) == ("done", False, pytest.approx(1.875))
    assert stages_of(second) == pytest.approx({"device_queue_s": 0.125, "device_compute_s": 0.25})
    assert second.decision_s == pytest.approx(0.25)
    assert (second.site, second.server, second.edge_frames, second.cpu_fraction) == ("device", None, 0, 1.0)
    assert (second.device_cpu_s, second.server_cpu_s) == (0.0, 0.0)
    assert second.predicted == second.label
    assert on.run.is_finished


def test_a_task_at_the_edge(bench: Bench) -> None:
    on = bench(cell_with([0.5], policy_name="all_edge"))
    on.begin()
    on.servers[0].offset.add(1000.0, 1200.005, 1200.005, 1000.01)  # 200 ahead, within 5 ms
    on.until(1.0)
    (offer,) = on.servers[0].of(Offer)
    assert (offer.task_id, offer.cell, offer.frames, offer.payload_bytes) == (f"cell/{DEVICE}/0", 7, 2, 2012)
    on.until(1.5)
    on.answer(offer, received_s=1201.125, started_s=1201.25, finished_s=1201.375)
    (row,) = on.tasks()
    assert row.decision_s == pytest.approx(0.5)
    expected = {"uplink_s": 0.125, "server_queue_s": 0.125, "server_compute_s": 0.125, "downlink_s": 0.125}
    assert stages_of(row) == pytest.approx(expected)
    assert row.latency_s == pytest.approx(1.0)
    assert row.clock_error_s == pytest.approx(0.005)
    assert (row.site, row.server, row.channel, row.edge_frames, row.edge_fraction) == ("edge", SERVER, 0, 2, 1.0)
    assert row.link_rate_measured_bps == pytest.approx(8 * 2012 / 0.125)
    assert (row.device_cpu_s, row.server_cpu_s, row.server_energy_j) == (0.0, 0.01, 0.5)
    assert row.predicted == row.label


@pytest.mark.parametrize("slower", ["device", "edge"])
def test_a_split_task_takes_as_long_as_its_slower_part(bench: Bench, slower: str) -> None:
    arrivals = {"kind": "trace", "trace": [[0.5, 4]], "deadline_s": 5.0}
    on = bench(cell_with([], arrivals=arrivals, placement="controller"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.SPLIT, 0.25)
    on.until(1.0)
    (offer,) = on.servers[0].of(Offer)
    assert offer.frames == 1
    if slower == "device":
        on.answer(offer)
        on.execute(0.5)
    else:
        on.execute(0.25)
        assert not on.tasks()
        on.until(1.5)
        on.answer(offer)
    (row,) = on.tasks()
    assert (row.site, row.edge_frames, row.edge_fraction, row.frames) == ("split", 1, 0.25, 4)
    assert row.predicted == row.label
    assert row.latency_s == pytest.approx(1.0)
    expected = {"device_compute_s": 0.5} if slower == "device" else {"uplink_s": 0.25, "downlink_s": 0.25}
    assert stages_of(row) == pytest.approx(expected)


# -- ticks and decisions ----------------------------------------------------------------------------------------------


def test_tasks_wait_for_their_tick(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.0, 1.5], placement="controller"))
    on.begin()
    on.until(3.0)
    assert [(observe.epoch, observe.values[0]) for observe in on.observed] == [(0, 2), (1, 1), (2, 0)]


def epochs_shown(on: CellOnBench) -> list[tuple[int, float]]:
    """Epoch and waiting tasks of each observation."""
    return [(observe.epoch, observe.values[0]) for observe in on.observed]


def test_after_the_last_decision_it_shows_how_things_stand_at_the_next_tick(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.5], placement="controller", epochs=2))
    on.begin()
    on.until(2.875)
    assert epochs_shown(on) == [(0, 1), (1, 1)], "a task is under way"
    on.until(3.0)
    assert epochs_shown(on)[2:] == [(2, 0)]
    on.until(9.0)
    assert len(on.observed) == 3


def test_a_device_with_nothing_left_to_do_shows_how_things_stand_at_once(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.5], placement="controller", epochs=2))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.DEVICE)
    on.execute(0.125)
    on.until(2.0)
    on.decide(on.observed[1], Site.DEVICE)
    assert not on.run.is_finished
    on.execute(0.125)
    on.until(2.125)
    assert on.run.is_finished
    assert epochs_shown(on) == [(0, 1), (1, 1), (2, 0)]
    # And again at the tick, should the cell not have been stopped by then.
    on.until(3.0)
    assert epochs_shown(on)[3:] == [(2, 0)]


def test_a_device_that_decides_by_itself_shows_nobody_anything(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="device", epochs=2))
    on.begin()
    on.until(9.0)
    assert on.observed == []


def test_what_a_device_shows_of_itself(bench: Bench) -> None:
    on = bench(
        cell_with([0.25, 0.5, 1.5], placement="controller", servers=[SERVER, "edge-2"], epochs=2),
        link_rate_bps=16e3,
        position_m=(3.0, 4.0),
    )
    on.begin()
    on.servers[1].is_reachable = False
    on.servers[0].offset.add(0.0, 5.0, 5.0, 0.02)
    on.until(1.0)
    on.decide(on.observed[0], Site.DEVICE)
    job = on.jobs.start()
    on.until(1.025)
    on.jobs.start()
    on.until(2.0)
    shown = [
        dict(zip([feature.name for feature in DEVICE_FEATURES], observe.values, strict=True)) for observe in on.observed
    ]
    assert shown[0]["waiting_tasks"] == 2
    assert shown[0]["waiting_frames"] == 4
    assert shown[0]["waiting_bytes"] == 2 * 2012
    assert shown[0]["waiting_cycles"] == 4e6
    assert shown[0]["deadline_s"] == 0.5
    assert shown[0]["waited_s"] == pytest.approx(0.75)
    assert shown[0]["device_queue_delay_s"] == 0.0
    assert shown[0]["device_speed_hz"] == pytest.approx(1e6 / SECONDS_PER_FRAME)
    assert shown[0]["link_rate_bps"] == 16e3
    assert shown[0]["round_trip_s"] == pytest.approx(0.02)
    assert (shown[0]["battery"], shown[0]["position_x_m"], shown[0]["position_y_m"]) == (1.0, 3.0, 4.0)
    assert on.observed[0].servers_up == [True, False]
    assert job.started_s == on.run.start_s + 1.0
    assert shown[1]["device_queue_delay_s"] == 0.0, "both have taken longer than they ought to"


def test_the_queue_delay_counts_what_is_left(bench: Bench) -> None:
    on = bench(cell_with([0.25, 0.5, 0.75]))
    on.begin()
    on.until(1.0)
    on.jobs.start()
    on.until(1.03)
    assert on.run.dispatcher.queue_delay_s(on.clock.now_s()) == pytest.approx(6 * SECONDS_PER_FRAME - 0.03)


def test_the_own_speed_follows_what_was_measured(bench: Bench) -> None:
    on = bench(cell_with([0.5, 0.6]))
    on.begin()
    on.until(1.0)
    on.execute(0.2)
    assert on.run.dispatcher.seconds_per_frame == pytest.approx(0.8 * SECONDS_PER_FRAME + 0.2 * 0.1)


def test_bytes_that_wait_for_the_uplink_are_shown(bench: Bench) -> None:
    on = bench(cell_with([0.5, 0.6], policy_name="all_edge"), link_rate_bps=8 * 1006)
    on.begin()
    on.until(1.5)
    assert on.run.dispatcher.uplink_queue_bytes == 2 * 2012


def test_a_late_decision_does_not_count(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="controller"))
    on.begin()
    on.until(1.0)
    on.until(1.3)
    on.decide(on.observed[0], Site.EDGE)
    on.execute(0.1)
    (row,) = on.tasks()
    assert (row.site, row.decided_by, row.flags) == ("device", "fallback", ["decision_late"])
    assert row.decision_s == pytest.approx(0.5 + 0.25)
    (epoch,) = on.rows.of("epoch")
    assert (epoch.epoch, epoch.device_id, epoch.decided_by) == (0, DEVICE, "fallback")


def test_a_decision_for_nobody_is_not_missed(bench: Bench) -> None:
    on = bench(cell_with([1.5], placement="controller"))
    on.begin()
    on.until(1.4)
    assert not on.rows.of("epoch")


def test_without_a_controller_the_fallback_decides_at_once(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="controller"))
    on.begin()
    on.is_controller_there = False
    on.until(1.0)
    on.execute(0.1)
    assert on.tasks()[0].decision_s == pytest.approx(0.5)


def test_a_decision_that_comes_before_the_own_tick_waits_for_it(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.5], placement="controller"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.DEVICE)
    on.until(1.99)
    on.decide(on.observed[0], Site.EDGE, epoch=1)
    assert not on.servers[0].sent
    on.until(2.0)
    assert len(on.servers[0].of(Offer)) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"server": 1}, {"channel": 3}, {"cpu_fraction": 0.0}, {"decided_by": "nobody"}],
)
def test_a_decision_that_cannot_be_is_replaced(bench: Bench, wrong: dict[str, Any]) -> None:
    on = bench(cell_with([0.5], placement="controller"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.EDGE, **wrong)
    on.execute(0.1)
    assert on.tasks()[0].decided_by == "fallback"
    assert [event.kind for event in on.rows.of("event")] == ["bad_decision"]


def test_decisions_of_others_are_ignored(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="controller"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.EDGE, serial=6)
    on.decide(on.observed[0], Site.EDGE, member="pi-2")
    assert not on.servers[0].sent
    on.decide(on.observed[0], Site.EDGE)
    on.until(1.0)
    assert on.servers[0].sent


def test_decisions_at_arrival(bench: Bench) -> None:
    on = bench(cell_with([0.5, 0.75], decide_at="arrival"))
    on.begin()
    on.until(0.5)
    on.execute(0.1)
    on.until(0.75)
    on.execute(0.1)
    assert [row.decision_s for row in on.tasks()] == [0.0, 0.0]
    on.until(2.0)
    assert not on.jobs.queue


def test_a_policy_that_raises_costs_nothing_but_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on = bench(cell_with([0.5]))

    def fail(observation: object) -> None:
        raise ZeroDivisionError("of the policy")

    assert on.prepared.policy is not None
    monkeypatch.setattr(on.prepared.policy._policy, "decide", fail)
    on.begin()
    on.until(1.0)
    on.execute(0.1)
    assert (on.tasks()[0].decided_by, on.tasks()[0].outcome) == ("fallback", "done")
    monkeypatch.setattr(on.prepared.fallback._policy, "decide", fail)
    on.until(2.0)
    assert [event.kind for event in on.rows.of("event")] == ["policy_failed"] * 3
    assert on.rows.of("epoch")[-1].action == [0, 0, 0, 0, 1, 1]


# -- standing still ---------------------------------------------------------------------------------------------------


def test_ticks_that_were_missed_are_made_up_for(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.5, 2.5, 3.5, 4.5], placement="controller", timeouts=Timeouts(task_s=2.5)))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.DEVICE)
    on.execute(0.1)
    on.jump(5.1)
    on.until(5.1)
    assert [observe.epoch for observe in on.observed] == [0, 4], "nobody is asked about what is long past"
    late = [row for row in on.tasks() if row.outcome == "failed"]
    assert [(row.arrived_s, row.reason) for row in late] == [(1.5, "timeout_not_started"), (2.5, "timeout_not_started")]
    on.decide(on.observed[-1], Site.DEVICE)
    on.execute(0.1)
    on.execute(0.1)
    done = on.tasks()[3:]
    assert [row.outcome for row in done] == ["done", "done"]
    assert done[0].latency_s == pytest.approx(5.2 - 3.5)
    assert [row.decided_by for row in done] == ["fallback", "controller"]


# -- time-outs --------------------------------------------------------------------------------------------------------

SOON = Timeouts(task_s=2.0)


def test_what_was_not_started_in_time_certainly_failed(bench: Bench) -> None:
    on = bench(cell_with([0.5, 0.6], timeouts=SOON))
    on.begin()
    on.until(1.0)
    job = on.jobs.start()
    on.until(2.7)
    (row,) = on.tasks()
    assert (row.task_id[-1], row.outcome, row.reason, row.deadline_met) == ("1", "failed", "timeout_not_started", False)
    assert row.cost == 2.0 + 1.0
    assert row.latency_s is None
    on.until(3.0)
    on.run.dispatcher.executed(on.jobs.finish(job))
    first = on.tasks()[0]
    assert (first.outcome, first.deadline_met) == ("done", False)
    assert first.latency_s == pytest.approx(2.5)


def test_silence_of_a_server_is_unknown_until_it_answers(bench: Bench) -> None:
    on = bench(cell_with([0.5], policy_name="all_edge", timeouts=SOON))
    on.begin()
    on.until(3.0)
    (offer,) = on.servers[0].of(Offer)
    assert [cancel.task_id for cancel in on.servers[0].of(Cancel)] == [offer.task_id]
    (row,) = on.tasks()
    assert (row.outcome, row.reason, row.deadline_met, row.cost) == ("unknown", "timeout", None, None)
    assert row.site == "edge"
    assert on.run.is_finished
    on.answer(offer)
    assert [row.outcome for row in on.rows.of("task")] == ["unknown", "done"]
    assert on.run.terminal == 1
    on.answer(offer)
    assert len(on.rows.of("task")) == 2, "a result counts once"


def test_a_late_refusal_makes_it_certain(bench: Bench) -> None:
    on = bench(cell_with([0.5], policy_name="all_edge", timeouts=SOON, on_refusal="local"))
    on.begin()
    on.until(3.0)
    (offer,) = on.servers[0].of(Offer)
    on.run.dispatcher.refused(0, offer.task_id, "draining", on.clock.now_s())
    assert [(row.outcome, row.reason) for row in on.rows.of("task")] == [("unknown", "timeout"), ("failed", "draining")]
    assert not on.jobs.queue, "too late to do it here"


def test_an_upload_that_took_too_long_certainly_failed(bench: Bench) -> None:
    on = bench(cell_with([0.5, 0.6], policy_name="all_edge", timeouts=SOON), link_rate_bps=8 * 500)
    on.begin()
    on.until(4.0)
    assert {(row.outcome, row.reason) for row in on.tasks()} == {("failed", "timeout_not_started")}
    assert len(on.servers[0].of(Cancel)) == len(on.servers[0].of(Offer)) == 2
    assert on.run.dispatcher.uplink_queue_bytes == 0


def test_a_split_task_fails_as_a_whole(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="controller"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.SPLIT, 0.5)
    on.until(1.0)
    (offer,) = on.servers[0].of(Offer)
    on.run.dispatcher.refused(0, offer.task_id, "queue_full", on.clock.now_s())
    (row,) = on.tasks()
    assert (row.outcome, row.reason, row.site) == ("failed", "queue_full", "split")
    assert not on.jobs.queue, "the other half would be in vain"


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_refused_task_may_run_here(bench: Bench) -> None:
    on = bench(cell_with([0.5], policy_name="all_edge", on_refusal="local"))
    on.begin()
    on.until(1.0)
    on.until(1.25)
    (offer,) = on.servers[0].of(Offer)
    on.run.dispatcher.refused(0, offer.task_id, "queue_full", on.clock.now_s())
    on.until(1.5)
    on.execute(0.5)
    (row,) = on.tasks()
    assert (row.outcome, row.requested_site, row.requested_server, row.site, row.server, row.edge_frames) == (
        "done",
        "edge",
        SERVER,
        "device",
        None,
        0,
    )
    assert stages_of(row) == pytest.approx({"uplink_s": 0.25, "device_queue_s": 0.25, "device_compute_s": 0.5})
    assert row.latency_s == pytest.approx(1.5)


def test_the_refused_half_of_a_split_runs_here_too(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="controller", on_refusal="local"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.SPLIT, 0.5)
    on.until(1.0)
    on.run.dispatcher.refused(0, on.servers[0].of(Offer)[0].task_id, "queue_full", on.clock.now_s())
    on.execute(0.25)
    on.execute(0.25)
    (row,) = on.tasks()
    assert (row.outcome, row.requested_site, row.site) == ("done", "split", "device")
    assert row.predicted == row.label
    assert row.latency_s == pytest.approx(1.0)


def test_edge_without_any_server_is_refused(bench: Bench) -> None:
    on = bench(cell_with([0.5], placement="controller", servers=[]))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.EDGE)
    (row,) = on.tasks()
    assert (row.outcome, row.reason, row.requested_site, row.requested_server) == (
        "failed",
        "server_unreachable",
        "edge",
        None,
    )


# -- losing servers ---------------------------------------------------------------------------------------------------


def test_a_lost_server_leaves_nothing_open(bench: Bench) -> None:
    on = bench(cell_with([0.5, 0.6, 0.7], policy_name="all_edge"), link_rate_bps=8 * 2012)
    on.begin()
    on.until(2.5)  # the first has gone, the second half of its way
    first, second = on.servers[0].of(Offer)
    on.servers[0].is_reachable = on.servers[0].is_up = False
    on.run.server_lost(0, "silent", on.clock.now_s())
    assert [(row.outcome, row.reason) for row in on.tasks()] == [
        ("unknown", "server_lost"),
        ("failed", "server_lost"),
        ("failed", "server_unreachable"),
    ]
    on.servers[0].is_reachable = on.servers[0].is_up = True
    on.run.server_back(0, False, on.clock.now_s())
    on.answer(first)
    assert [row.outcome for row in on.tasks()] == ["done", "failed", "failed"]
    on.answer(second)
    assert [row.outcome for row in on.tasks()] == ["done", "failed", "failed"]


def test_while_a_server_only_reconnects_uploads_wait(bench: Bench) -> None:
    on = bench(cell_with([0.5], policy_name="all_edge"))
    on.begin()
    on.servers[0].is_up = False
    on.until(1.5)
    assert not on.servers[0].sent
    assert not on.tasks()
    on.servers[0].is_up = True
    on.run.server_back(0, True, on.clock.now_s())
    on.until(1.75)
    on.answer(on.servers[0].of(Offer)[0])
    (row,) = on.tasks()
    assert row.uplink_queue_s == pytest.approx(0.5)


def test_what_a_restarted_server_had_is_unknown_for_good(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.5], policy_name="all_edge"))
    on.begin()
    on.until(1.0)
    (offer,) = on.servers[0].of(Offer)
    on.run.server_back(0, True, on.clock.now_s())
    assert (on.tasks()[0].outcome, on.tasks()[0].reason) == ("unknown", "server_lost")
    on.answer(offer)
    assert on.tasks()[0].outcome == "unknown", "the new process cannot have done it"


def test_a_result_that_cannot_be_is_not_believed(bench: Bench) -> None:
    on = bench(cell_with([0.5], policy_name="all_edge"))
    on.begin()
    on.until(1.0)
    on.answer(on.servers[0].of(Offer)[0], started_s=5.0, finished_s=4.0)
    assert (on.tasks()[0].outcome, on.tasks()[0].reason) == ("unknown", "bad_result")


# -- taking up after a predecessor ------------------------------------------------------------------------------------


def test_taking_up_a_cell_after_a_crash(bench: Bench) -> None:
    arrivals = [0.5, 1.5, 2.2, 2.8, 3.5, 4.5]
    on = bench(cell_with(arrivals))
    on.rows.terminal[7] = {f"cell/{DEVICE}/0": "done", f"cell/{DEVICE}/1": "unknown"}
    on.clock.advance(4.0)
    on.begin(start_s=1000.0, predecessor=Predecessor(alive_cell_s=2.0))
    assert [(row.arrived_s, row.outcome, row.reason) for row in on.tasks()] == [
        (2.2, "unknown", "agent_restarted"),  # it may have been alive still
        (2.8, "failed", "device_down"),
        (3.5, "failed", "device_down"),
    ]
    assert on.run.terminal == 5
    on.until(5.0)
    on.execute(0.1)
    assert on.tasks()[-1].outcome == "done"
    assert on.run.is_finished
    (event,) = on.rows.of("event")
    assert (event.kind, json.loads(event.detail)) == ("restarted", {"alive_cell_s": 2.0, "cell_s": 4.0})


def test_a_device_that_comes_late_was_down_before(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.2, 1.7]))
    on.clock.advance(1.5)
    on.begin(start_s=1000.0, was_down=True)
    assert [(row.arrived_s, row.reason) for row in on.tasks()] == [(0.5, "device_down"), (1.2, "device_down")]
    on.until(2.0)
    on.execute(0.1)
    assert on.run.is_finished


def test_a_late_start_of_a_ready_device_loses_nothing(bench: Bench) -> None:
    on = bench(cell_with([0.5, 1.2]))
    on.clock.advance(1.5)
    on.begin(start_s=1000.0)
    on.until(1.5)
    on.execute(0.25)
    on.until(2.0)
    on.execute(0.25)
    assert [row.latency_s for row in on.tasks()] == pytest.approx([1.25, 1.05])


def test_it_says_until_when_it_lived(bench: Bench) -> None:
    on = bench(cell_with([0.5]))
    on.begin()
    on.until(1.1)
    assert on.rows.state["alive"] == {"serial": 7, "cell_time_s": 1.0}


# -- ending -----------------------------------------------------------------------------------------------------------


def test_stopping_gives_every_task_an_outcome(bench: Bench) -> None:
    on = bench(cell_with([0.2, 0.3, 0.4, 1.5, 5.5], placement="controller"))
    on.begin()
    on.until(1.0)
    on.decide(on.observed[0], Site.DEVICE)
    on.jobs.start()
    on.until(1.6)
    on.run.stop(on.clock.now_s(), "stopped")
    assert [(row.outcome, row.reason) for row in on.tasks()] == [
        ("unknown", "stopped"),
        ("failed", "stopped"),
        ("failed", "stopped"),
        ("failed", "stopped"),
        ("failed", "not_run"),
    ]


def test_leaving_leaves_the_future_to_a_successor(bench: Bench) -> None:
    on = bench(cell_with([0.2, 0.3, 5.5], policy_name="all_edge"))
    on.begin()
    on.until(1.0)
    on.run.stop(on.clock.now_s(), "agent_stopped", is_leaving=True)
    assert [(row.arrived_s, row.outcome, row.reason) for row in on.tasks()] == [
        (0.2, "unknown", "agent_stopped"),
        (0.3, "unknown", "agent_stopped"),
    ]


def test_the_last_epoch_row_is_what_was_left_behind(bench: Bench) -> None:
    on = bench(cell_with([0.5], epochs=2))
    on.begin()
    on.until(3.0)
    on.run.stop(on.clock.now_s(), "stopped")
    rows = on.rows.of("epoch")
    assert [(row.epoch, len(row.action), len(row.observation)) for row in rows] == [(0, 6, 23), (1, 6, 23), (2, 0, 23)]
    assert {row.decided_by for row in rows} == {"device", None}


def test_a_slower_board_is_marked(bench: Bench) -> None:
    on = bench(cell_with([0.5]), slowdown=3.0)
    on.begin()
    on.until(1.0)
    on.execute(0.3, cpu_s=0.1, padding_s=0.2)
    (row,) = on.tasks()
    assert row.flags == ["emulated"]
    assert row.device_cpu_s == 0.1
