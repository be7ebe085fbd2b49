"""The verdict: each threshold, on both of its sides, and the facts it is judged by."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgebed.trace.manifest import read_manifest, write_manifest
from edgebed.trace.runs import Run
from edgebed.trace.schema import EventRecord, TaskRecord
from edgebed.trace.segments import outside_path
from orchestrator.recognition import Recognition
from orchestrator.run_facts import gather_facts
from orchestrator.verdict import RunFacts, Standing, Verdict, judge

MakeRun = Callable[..., Any]


def recognised(site: str, frames: int, correct: int) -> Recognition:
    """Frames that came alone."""
    return Recognition.of_clips(site, [(1, 1)] * correct + [(1, 0)] * (frames - correct))


FINE = RunFacts(
    planned=1000,
    rows=1000,
    done=1000,
    unknown=0,
    decided=1000,
    offloaded=500,
    recognition=(recognised("device", 2000, 1975), recognised("edge", 2000, 1990)),
    promised_accuracy=0.99,
)

CASES: list[tuple[dict[str, Any], Standing, str]] = [
    ({}, Standing.VALID, ""),
    ({"rows": 999}, Standing.INVALID, "999 rows for 1000 planned"),
    ({"unplanned": 1}, Standing.INVALID, "the plan does not have"),
    ({"done": 0}, Standing.INVALID, "Not one task"),
    ({"reasons": {"device_down": 51}}, Standing.INVALID, r"51 of 1000 tasks \(5.1 %\) were lost"),
    ({"reasons": {"lost": 30, "server_lost": 21}}, Standing.INVALID, "51 of 1000"),
    ({"reasons": {"lost": 30, "server_lost": 20}}, Standing.SUSPECT, "50 of 1000"),
    ({"reasons": {"queue_full": 900}}, Standing.VALID, ""),
    ({"reasons": {"not_run": 51}}, Standing.INVALID, "never run: cells are missing"),
    ({"reasons": {"not_run": 1}}, Standing.SUSPECT, "1 of 1000 tasks .* never run"),
    ({"recognition": (recognised("edge", 1000, 950),)}, Standing.INVALID, "site 'edge' 950 of 1000"),
    ({"recognition": (recognised("edge", 1000, 975),)}, Standing.VALID, ""),
    ({"recognition": (recognised("edge", 10, 8),)}, Standing.VALID, ""),
    # The same share of wrong frames, but whole clips of them: five bad clips say much less than fifty bad frames.
    ({"recognition": (Recognition.of_clips("edge", [(10, 10)] * 95 + [(10, 0)] * 5),)}, Standing.VALID, ""),
    ({"recognition": (Recognition.of_clips("edge", [(10, 9)] * 95 + [(10, 0)] * 5),)}, Standing.INVALID, "855 of 1000"),
    ({"recognition": (recognised("edge", 1000, 0),), "promised_accuracy": None}, Standing.VALID, ""),
    ({"unknown": 51}, Standing.SUSPECT, "is unknown"),
    ({"unknown": 50}, Standing.VALID, ""),
    ({"restarted": ("edge-1", "pi-2")}, Standing.SUSPECT, "edge-1, pi-2"),
    ({"incidents": {"policy_failed": 1, "stalled": 2}}, Standing.SUSPECT, "'policy_failed' was reported once"),
    ({"late": 51}, Standing.SUSPECT, "came late"),
    ({"late": 50}, Standing.VALID, ""),
    ({"fallback": 51}, Standing.SUSPECT, "fallback policy"),
    ({"clock_suspect": 6}, Standing.SUSPECT, "above 10 ms for 6 of 500"),
    ({"clock_suspect": 5}, Standing.VALID, ""),
    ({"flags": {"throttled": 11}}, Standing.SUSPECT, "throttled"),
    ({"flags": {"throttled": 10, "emulated": 1000, "warm_up": 80}}, Standing.VALID, ""),
    ({"flags": {"under_voltage": 11}}, Standing.SUSPECT, "voltage"),
    ({"flags": {"overloaded": 11}}, Standing.SUSPECT, "overloaded"),
    ({"flags": {"wifi_power_save": 11}}, Standing.SUSPECT, "Wi-Fi power saving"),
    ({"flags": {"wifi_power_save": 10, "overloaded": 10}}, Standing.VALID, ""),
    ({"incidents": {"meters_disagree": 3}}, Standing.SUSPECT, "'meters_disagree' was reported 3 times"),
    ({"other_work": {"pi-1": 0.51, "pi-2": 0.88, "pi-3": 0.5}}, Standing.SUSPECT, "up to 88 % .* of pi-1, pi-2 busy"),
    ({"other_work": {"pi-1": 0.5}}, Standing.VALID, ""),
    ({"faults": {"kill": 2, "stop": 1}}, Standing.SUSPECT, "part of the experiment: kill 2 times, stop once"),
    ({"faults": {"kill": 1}, "reasons": {"device_down": 500}}, Standing.SUSPECT, "500 of .* were lost"),
    ({"faults_missed": 1}, Standing.SUSPECT, "could not be done: 1"),
    ({"problems": ("a.records: 3 bytes unreadable",)}, Standing.SUSPECT, "3 bytes"),
    ({"source": Verdict(Standing.VALID, ())}, Standing.VALID, ""),
    ({"source": Verdict(Standing.SUSPECT, ("X was.",))}, Standing.SUSPECT, "The recorded run is suspect: X was"),
    ({"source": Verdict(Standing.INVALID, ())}, Standing.INVALID, "The recorded run is invalid: it does not say why"),
]


@pytest.mark.parametrize(("change", "standing", "reason"), CASES)
def test_thresholds(change: dict[str, Any], standing: Standing, reason: str) -> None:
    verdict = judge(replace(FINE, **change))
    assert verdict.verdict is standing, verdict.reasons
    assert bool(verdict.reasons) == (standing is not Standing.VALID)
    if reason:
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError("\n".join(verdict.reasons))
    assert all(sentence.endswith(".") for sentence in verdict.reasons)


def test_all_reasons_are_given_and_the_grave_ones_first() -> None:
    verdict = judge(replace(FINE, rows=999, late=500, restarted=("pi-1",)))
    assert verdict.verdict is Standing.INVALID
    assert len(verdict.reasons) == 3
    assert "rows" in verdict.reasons[0]


def test_a_run_without_tasks_is_invalid_and_divides_by_nothing() -> None:
    assert judge(RunFacts(planned=0, rows=0, done=0, unknown=0)).verdict is Standing.INVALID


def facts_of(made: Any) -> RunFacts:
    return gather_facts(run_of(made), made.counts.planned, made.counts.problems)


def run_of(made: Any) -> Run:
    return Run(made.path)


def test_facts_of_a_run_in_which_nothing_happened(shared_run: Any) -> None:
    facts = facts_of(shared_run)
    assert (facts.planned, facts.rows, facts.done, facts.unknown) == (855, 855, 855, 0)
    assert facts.decided == 855
    assert 0 < facts.offloaded < 855
    assert facts.flags == {"emulated": 855, "warm_up": facts.flags["warm_up"]}
    assert [site.site for site in facts.recognition] == ["device", "edge"]
    by_site: dict[str, dict[str, tuple[int, int]]] = {"device": {}, "edge": {}}
    for site, content, frames, correct in (
        run_of(shared_run)
        .query("SELECT site, content_id, frames, correct FROM tasks WHERE outcome = 'done' ORDER BY arrived_s")
        .rows
    ):
        by_site[site].setdefault(content, (frames, correct))
    assert facts.recognition == tuple(
        Recognition.of_clips(site, list(clips.values())) for site, clips in by_site.items()
    )
    verdict = judge(facts)
    assert verdict.verdict is Standing.VALID, verdict.reasons


def test_the_same_frames_count_once_at_a_site(make_run: MakeRun) -> None:
    one = facts_of(make_run(policies=("all_local",), seeds=(1,), epochs=3))
    two = facts_of(make_run(policies=("all_local", "all_local_again"), seeds=(1,), epochs=3, name="twice"))
    assert [site.frames for site in one.recognition] == [site.frames for site in two.recognition]


def test_facts_of_a_run_in_which_much_happened(make_run: MakeRun) -> None:
    def change(row: TaskRecord) -> TaskRecord | None:
        index = int(row.task_id.rpartition("/")[2])
        if index == 0:
            return None
        if index == 1:
            row.outcome, row.reason, row.latency_s, row.correct = "failed", "server_lost", None, None
        if index == 2:
            row.clock_error_s, row.decided_by, row.flags = 0.02, "fallback", ["decision_late"]
        return row

    made = make_run(policies=("all_edge",), seeds=(1, 2), epochs=6, throttle_words={"pi-2": 0x5}, change=change)
    facts = facts_of(made)
    assert (facts.planned, facts.rows, facts.unknown) == (54, 54, 6)
    assert facts.reasons == {"not_reported": 6, "server_lost": 6}
    assert (facts.late, facts.fallback, facts.clock_suspect) == (6, 6, 6)
    assert facts.flags["throttled"] > 0
    assert facts.flags["under_voltage"] == facts.flags["throttled"]
    assert judge(facts).verdict is Standing.INVALID


def test_restarts_are_named_once_whoever_saw_them(
    make_run: MakeRun, write_segment: Callable[..., None], tmp_path: Path
) -> None:
    made = make_run(policies=("all_local",), seeds=(1,), epochs=3)

    def event(host: str, kind: str, **detail: Any) -> EventRecord:
        return EventRecord(t_s=1.0, host=host, kind=kind, detail=json.dumps(detail))

    events = [
        event("pi-1", "restarted", alive_cell_s=1.0),
        event("controller", "member_joined", member="pi-1", restarted=True),
        event("controller", "member_joined", member="pi-2", restarted=False),
        event("edge-1", "peer_joined", peer="pi-1", restarted=True),
        event("pi-3", "server_up", server="edge-1", restarted=True),
        event("pi-3", "controller_up", restarted=True),
        event("pi-3", "policy_failed", error="x"),
        event("pi-2", "meters_disagree", used_energy_j=30.0),
        EventRecord(t_s=1.0, host="pi-3", kind="note", detail="not JSON"),
    ]
    write_segment(outside_path(made.path, "watchers"), 0, events)
    counts = made.seal_again()
    facts = gather_facts(Run(made.path), counts.planned)
    assert facts.restarted == ("controller", "edge-1", "pi-1")
    assert facts.incidents == {"policy_failed": 1, "meters_disagree": 1}


@pytest.mark.parametrize("connection", ["local", "ssh"])
def test_other_work_is_what_the_tasks_do_not_account_for(make_run: MakeRun, connection: str) -> None:
    made = make_run(policies=("all_local", "all_edge"), seeds=(1,), epochs=6)
    manifest = read_manifest(made.path)
    for host, about in manifest.hosts.items():
        about |= {"connection": connection, "facts": {} if host == "pi-3" else {"cpu_count": 4}}
    write_manifest(made.path, manifest)
    run = Run(made.path)
    facts = gather_facts(run, made.counts.planned)
    assert set(facts.other_work) == {"edge-1", "pi-1", "pi-2"}
    tasks = run.query("FROM tasks").records()
    cells: dict[str, list[float]] = {}
    for row in tasks:
        cells.setdefault(row["cell_id"], []).extend((row["arrived_s"], row["arrived_s"] + row["latency_s"]))
    windows = [(min(times), max(times)) for times in cells.values()]
    cpu = [
        row["cpu"]
        for row in run.query("FROM samples WHERE host = 'pi-1'").records()
        if any(begin <= row["t_s"] <= end for begin, end in windows)
    ]
    own_s = sum(
        row["device_cpu_s"] + (row["server_cpu_s"] if connection == "local" else 0.0)
        for row in tasks
        if connection == "local" or row["device_id"] == "pi-1"
    )
    expected = sum(cpu) / len(cpu) - own_s / (4 * sum(end - begin for begin, end in windows))
    assert facts.other_work["pi-1"] == pytest.approx(max(0.0, expected))
