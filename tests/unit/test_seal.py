"""Sealing: one row a planned task, in the fixed columns, whatever was reported, repeated, torn or missing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec, RewardSettings, Timeouts
from edgebed.trace.cost import task_cost
from edgebed.trace.runs import TABLES, import_duckdb
from edgebed.trace.schema import EpochRecord, EventRecord, SampleRecord, TaskRecord, columns
from edgebed.trace.segments import outside_path, segment_path
from orchestrator import seal as seal_module
from orchestrator.seal import SealedCounts, seal, trouble_shown

MakeRun = Callable[..., Any]


def cell(cell_id: str = "c", **changes: Any) -> CellSpec:
    settings: dict[str, Any] = {
        "run_id": "r",
        "plan_hash": "h",
        "cell_id": cell_id,
        "serial": 1,
        "attempt": 1,
        "policy": "p",
        "policy_name": "p",
        "seed": 1,
        "workload": "digits",
        "arrivals": {},
        "epoch_s": 1.0,
        "epochs": 5,
        "reward": RewardSettings(latency=1.0, energy=0.0, miss_penalty=2.0),
        "timeouts": Timeouts(task_s=4.0),
        "devices": ["pi-1", "pi-2"],
        "servers": ["edge-1"],
    }
    return CellSpec(**(settings | changes))


def task(task_id: str, **changes: Any) -> TaskRecord:
    settings: dict[str, Any] = {
        "run_id": "r",
        "cell_id": "c",
        "policy": "p",
        "seed": 1,
        "device_id": "pi-1",
        "task_id": task_id,
        "epoch": 2,
        "backend": "hosts",
        "attempt": 1,
        "arrived_s": 2.5,
        "content_id": f"content of {task_id}",
        "deadline_s": 1.0,
        "outcome": "unknown",
        "reason": "not_reported",
    }
    return TaskRecord(**(settings | changes))


def done(task_id: str, latency_s: float = 0.5, **changes: Any) -> TaskRecord:
    settings: dict[str, Any] = {"latency_s": latency_s, "deadline_met": latency_s <= 1.0, "decision_epoch": 3}
    return task(task_id, outcome="done", reason=None, **(settings | changes))


class Folder:
    """A run folder that a test fills by hand."""

    def __init__(self, path: Path, write_segment: Callable[..., None]) -> None:
        self.path = path
        self._write = write_segment

    def reports(self, *rows: Any, host: str = "pi-1", cell_id: str = "c", attempt: int = 1) -> Path:
        path = segment_path(self.path, cell_id, attempt, host)
        self._write(path, 1, list(rows))
        return path

    def outside(self, *rows: Any, host: str = "orchestrator") -> None:
        self._write(outside_path(self.path, host), 0, list(rows))

    def seal(self, *planned: TaskRecord, cells: list[CellSpec] | None = None) -> SealedCounts:
        return seal(self.path, cells or [cell()], planned)

    def rows(self, table: str, wanted: str = "*") -> list[dict[str, Any]]:
        found = import_duckdb("a test").sql(f"SELECT {wanted} FROM read_parquet('{self.path}/{table}.parquet')")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


@pytest.fixture
def folder(tmp_path: Path, write_segment: Callable[..., None]) -> Folder:
    return Folder(tmp_path, write_segment)


def test_tables_have_exactly_the_schemas_columns_even_when_empty(folder: Folder) -> None:
    counts = folder.seal()
    assert counts == SealedCounts(0, 0, 0, 0, 0, 0, 0, 0, 0, ())
    duckdb = import_duckdb("a test")
    for table, record_type in TABLES.items():
        found = duckdb.sql(f"FROM read_parquet('{folder.path}/{table}.parquet')")
        got = list(zip(found.columns, map(str, found.types), strict=True))
        assert got == [(column.name, column.sql_type) for column in columns(record_type)]
    assert [column.name for column in columns(TaskRecord)][:3] == ["run_id", "cell_id", "policy"]
    assert not (folder.path / ".sealing").exists()


def test_every_value_comes_through_unchanged(folder: Folder) -> None:
    row = done(
        'tricky "name" \\ \n ü',
        latency_s=0.1 + 0.2,
        payload_bytes=2**52 + 1,
        frames=3,
        predicted=[1, 2, 3],
        label=[1, 2, 4],
        correct=2,
        flags=["emulated"],
        epoch=0,
        cost=1.25,
    )
    folder.reports(row)
    folder.seal(task(row.task_id))
    (got,) = folder.rows("tasks")
    assert got == {column.name: getattr(row, column.name) for column in columns(TaskRecord)} | {
        "flags": ["emulated", "warm_up"]
    }


def test_what_is_not_a_number_becomes_null(folder: Folder) -> None:
    folder.reports(done("a", cycles=math.nan, link_rate_bps=math.inf, cost=1.0))
    folder.seal(task("a"))
    assert folder.rows("tasks", "cycles, link_rate_bps") == [{"cycles": None, "link_rate_bps": None}]


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        (["done 0.5"], "done 0.5"),
        (["unknown", "done 0.5"], "done 0.5"),
        (["done 0.5", "unknown"], "done 0.5"),
        (["done 0.5", "failed"], "done 0.5"),
        (["unknown", "failed", "unknown"], "failed"),
        (["done 0.5", "done 0.7"], "done 0.7"),
        (["failed", "failed"], "failed"),
        ([], "not reported"),
    ],
)
def test_the_best_outcome_counts_and_then_the_latest(folder: Folder, reports: list[str], expected: str) -> None:
    made = {
        "unknown": task("a", reason="timeout"),
        "failed": task("a", outcome="failed", reason="queue_full", deadline_met=False),
        "done 0.5": done("a", 0.5),
        "done 0.7": done("a", 0.7),
        "not reported": task("a"),
    }
    folder.reports(*(made[report] for report in reports))
    counts = folder.seal(made["not reported"])
    (row,) = folder.rows("tasks")
    assert (row["outcome"], row["latency_s"], row["reason"]) == (
        made[expected].outcome,
        made[expected].latency_s,
        made[expected].reason,
    )
    assert counts.planned == 1
    assert counts.unreported == (expected == "not reported")


def test_rows_nobody_reported_are_the_plans_and_have_their_cost(folder: Folder) -> None:
    folder.reports(done("a"))
    counts = folder.seal(
        task("a"), task("b"), task("c", outcome="failed", reason="device_down", deadline_met=False, device_id="pi-2")
    )
    rows = folder.rows("tasks", "task_id, outcome, reason, cost")
    assert rows == [
        {"task_id": "a", "outcome": "done", "reason": None, "cost": 0.5},
        {"task_id": "b", "outcome": "unknown", "reason": "not_reported", "cost": None},
        {"task_id": "c", "outcome": "failed", "reason": "device_down", "cost": 6.0},
    ]
    assert (counts.planned, counts.done, counts.failed, counts.unknown, counts.unreported) == (3, 1, 1, 1, 2)


def test_rows_come_in_the_order_of_the_plan(folder: Folder) -> None:
    cells = [cell("second"), cell("first")]
    planned = [
        task(f"{cell_id}/{device}/{arrived_s}/{n}", cell_id=cell_id, device_id=device, arrived_s=arrived_s)
        for cell_id in ("first", "second")
        for device in ("pi-2", "pi-1")
        for arrived_s in (10.0, 9.0)
        for n in (1, 0)
    ]
    folder.seal(*planned, cells=cells)
    got = [(row["cell_id"], row["device_id"], row["arrived_s"], row["task_id"]) for row in folder.rows("tasks")]
    assert got == sorted(got, key=lambda row: (row[0] == "first", *row[1:]))


def test_earlier_attempts_stay_out_of_the_tables(folder: Folder) -> None:
    first = folder.reports(done("a", attempt=1), done("b", attempt=1), attempt=1)
    folder.reports(done("a", latency_s=0.9, attempt=2), attempt=2)
    folder.seal(task("a", attempt=2), task("b", attempt=2))
    rows = folder.rows("tasks", "task_id, attempt, latency_s")
    assert rows == [
        {"task_id": "a", "attempt": 2, "latency_s": 0.9},
        {"task_id": "b", "attempt": 2, "latency_s": None},
    ]
    assert first.stat().st_size > 0


def test_a_task_that_was_not_planned_is_kept_flagged_and_not_counted(folder: Folder) -> None:
    folder.reports(done("a"), done("ghost"))
    counts = folder.seal(task("a"))
    assert {row["task_id"]: row["flags"] for row in folder.rows("tasks")} == {"a": [], "ghost": ["unplanned"]}
    assert (counts.planned, counts.done, counts.unplanned) == (1, 1, 1)


def test_warm_up_is_flagged_by_the_epoch_of_arrival(folder: Folder) -> None:
    folder.reports(done("a", epoch=0), done("b", epoch=1, flags=["warm_up"]), done("c", epoch=2))
    folder.seal(task("a"), task("b"), task("c"), cells=[cell(warm_up_epochs=2)])
    assert [row["flags"] for row in folder.rows("tasks")] == [["warm_up"], ["warm_up"], []]


def samples(host: str, words: dict[float, int | None]) -> list[SampleRecord]:
    return [SampleRecord(host=host, t_s=t_s, throttle_word=word) for t_s, word in words.items()]


def test_tasks_that_overlap_throttling_are_flagged(folder: Folder) -> None:
    during = done("during", arrived_s=10.0, latency_s=1.0)
    before = done("before", arrived_s=7.0, latency_s=0.5)
    after = done("after", arrived_s=14.5, latency_s=0.5)
    waits_into_it = done("waits", arrived_s=5.0, latency_s=5.0)
    elsewhere = done("elsewhere", arrived_s=10.0, latency_s=1.0, device_id="pi-2")
    at_throttled_server = done("at server", arrived_s=10.0, latency_s=1.0, device_id="pi-2", server="edge-1")
    folder.reports(during, before, after, waits_into_it, *samples("pi-1", {8.0: 0, 9.0: 0b0101, 10.0: 0b0001, 12.0: 0}))
    folder.reports(elsewhere, at_throttled_server, host="pi-2")
    folder.reports(*samples("edge-1", {10.0: 0b1000}), host="edge-1")
    folder.seal(*(task(name) for name in ("during", "before", "after", "waits", "elsewhere", "at server")))
    assert {row["task_id"]: row["flags"] for row in folder.rows("tasks")} == {
        "during": ["under_voltage"],
        "before": [],
        "after": [],
        "waits": ["under_voltage", "throttled"],
        "elsewhere": [],
        "at server": ["throttled"],
    }


def test_tasks_on_a_host_that_is_busy_with_something_else_are_flagged(folder: Folder) -> None:
    def second(host: str, t_s: float, other_cpu: float | None) -> SampleRecord:
        return SampleRecord(host=host, t_s=t_s, other_cpu=other_cpu)

    folder.reports(
        done("in it", arrived_s=10.2, latency_s=0.3),
        done("before", arrived_s=8.5, latency_s=0.4),
        done("after", arrived_s=11.5, latency_s=0.4),
        done("lasts", arrived_s=8.0, latency_s=9.0),
        done("there", arrived_s=10.2, latency_s=0.3, device_id="pi-2", server="edge-1"),
        # The busy second ends at 11; in between nothing is known, and that says nothing.
        *(second("pi-1", 9.0 + tenth / 10, None) for tenth in range(1, 30)),
        *(second("pi-1", t_s, share) for t_s, share in ((9.0, 0.1), (10.0, 0.5), (11.0, 0.51), (12.0, 0.2))),
    )
    folder.reports(second("edge-1", 9.9, 0.0), second("edge-1", 10.9, 0.95), host="edge-1")
    folder.seal(*(task(name) for name in ("in it", "before", "after", "lasts", "there")))
    assert {row["task_id"]: row["flags"] for row in folder.rows("tasks")} == {
        "in it": ["overloaded"],
        "before": [],
        "after": [],
        "lasts": ["overloaded"],
        "there": ["overloaded"],
    }


def test_tasks_over_wifi_that_saves_power_are_flagged(folder: Folder) -> None:
    def told(t_s: float, state: bool | None) -> SampleRecord:
        return SampleRecord(host="pi-1", t_s=t_s, wifi_power_save=state)

    folder.reports(
        done("early", arrived_s=1.0, latency_s=0.5),
        done("saving", arrived_s=5.0, latency_s=0.5),
        done("cured", arrived_s=9.0, latency_s=0.5),
        *(told(t_s, t_s > 3.0 and t_s < 8.0) for t_s in (0.5, 1.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)),
        told(20.0, None),
    )
    folder.seal(*(task(name) for name in ("early", "saving", "cured")))
    assert [row["flags"] for row in folder.rows("tasks")] == [[], ["wifi_power_save"], []]


@pytest.mark.parametrize(
    ("word", "before", "shown"),
    [
        (0, None, []),
        (0x1, None, ["under_voltage"]),
        (0x2, 0, ["throttled"]),
        (0x4, 0x4, ["throttled"]),
        (0x8, 0, ["throttled"]),
        (0x50005, 0x50005, ["under_voltage", "throttled"]),
        (0x10000, None, []),  # since boot, perhaps
        (0x10000, 0x10000, []),
        (0x10000, 0, ["under_voltage"]),  # between the two samples
        (0x50000, 0x10000, ["throttled"]),
    ],
)
def test_what_a_throttle_word_shows(word: int, before: int | None, shown: list[str]) -> None:
    assert trouble_shown(word, before) == shown


def epoch(number: int, device_id: str = "", action: list[float] | None = None) -> EpochRecord:
    return EpochRecord(
        run_id="r", cell_id="c", epoch=number, device_id=device_id, action=[1.0] * 6 if action is None else action
    )


def test_rewards_are_minus_the_costs_of_what_was_decided(folder: Folder) -> None:
    folder.reports(
        done("a", 0.5, decision_epoch=1),
        done("b", 0.25, decision_epoch=1, device_id="pi-2"),
        done("late", 1.5, decision_epoch=2),
        task("lost", decision_epoch=2, reason="timeout"),
        task("down", outcome="failed", reason="device_down"),
    )
    folder.reports(*(epoch(number) for number in range(4)), epoch(4, action=[]), host="controller")
    folder.reports(epoch(1, "pi-2"), epoch(2, "pi-2"), epoch(3, "pi-2", action=[]), host="pi-2")
    folder.seal(*(task(name) for name in ("a", "b", "late", "lost", "down")))
    wanted = "device_id, epoch, reward, reward_complete, terminated, truncated"
    assert [tuple(row.values()) for row in folder.rows("epochs", wanted)] == [
        ("", 0, 0.0, True, False, False),
        ("", 1, -0.75, True, False, False),
        ("", 2, -3.5, False, False, False),
        ("", 3, 0.0, True, False, True),
        ("", 4, None, None, None, None),
        ("pi-2", 1, -0.25, True, False, False),
        ("pi-2", 2, 0.0, True, False, True),
        ("pi-2", 3, None, None, None, None),
    ]


def test_rewards_of_a_whole_run_add_up(shared_run: Any) -> None:
    rows = import_duckdb("a test").sql(f"SELECT * FROM read_parquet('{shared_run.path}/tasks.parquet')")
    tasks = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    expected: dict[tuple[str, int], float] = defaultdict(float)
    for row in tasks:
        expected[row["cell_id"], row["decision_epoch"]] -= row["cost"]
    epochs = import_duckdb("a test").sql(
        f"SELECT cell_id, epoch, reward FROM read_parquet('{shared_run.path}/epochs.parquet') WHERE len(action) > 0"
    )
    got = {(cell_id, number): reward for cell_id, number, reward in epochs.fetchall()}
    assert len(got) == len(shared_run.recipe.cells()) * (shared_run.recipe.epochs + 1)
    assert got == {key: pytest.approx(expected[key]) for key in got}
    assert set(expected) <= set(got)


def test_a_decision_made_again_after_a_restart_counts_once(folder: Folder) -> None:
    folder.reports(epoch(1, action=[0.0] * 6), epoch(1, action=[1.0] * 6), epoch(2, action=[]), host="controller")
    assert folder.seal().epochs == 2
    assert [row["action"] for row in folder.rows("epochs")] == [[1.0] * 6, []]


def test_a_record_that_came_twice_counts_once_and_equal_events_count_each(
    folder: Folder, write_segment: Callable[..., None]
) -> None:
    event = EventRecord(t_s=1.0, host="pi-1", kind="reconnected")
    path = folder.reports(event, event, *samples("pi-1", {1.0: None}))
    write_segment(path, 1, [event])  # sent again: the same number
    counts = folder.seal()
    assert (counts.events, counts.samples) == (2, 1)


def test_events_outside_the_cells_are_in_the_table(folder: Folder) -> None:
    folder.outside(EventRecord(t_s=9.0, host="orchestrator", kind="run_ended"))
    folder.outside(EventRecord(t_s=3.0, host="pi-1", kind="started"), *samples("pi-1", {2.0: 0}), host="pi-1")
    folder.reports(EventRecord(t_s=5.0, host="pi-1", kind="reconnected"))
    folder.seal()
    assert [row["kind"] for row in folder.rows("events")] == ["started", "reconnected", "run_ended"]
    assert len(folder.rows("samples")) == 1


def test_damage_and_misplaced_rows_are_reported_and_the_rest_is_kept(
    folder: Folder, write_segment: Callable[..., None]
) -> None:
    path = folder.reports(done("a"), done("b", cell_id="other"), done("b", attempt=7), task("b", outcome="maybe"))
    with path.open("ab") as file:
        file.write(b"\x10\x00\x00")
    folder.outside(done("b"))
    counts = folder.seal(task("a"), task("b"))
    assert (counts.done, counts.unreported) == (1, 1)
    text = "\n".join(counts.problems)
    for expected in ("3 bytes", "cell 'other'", "attempt 7", "outcome 'maybe'", "of no cell: a task of cell 'c'"):
        assert expected in text
    assert len(counts.problems) == 5


def test_sealing_again_gives_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run(epochs=4, seeds=(1, 2))
    before = {table: (run.path / f"{table}.parquet").read_bytes() for table in TABLES}
    for table in TABLES:
        (run.path / f"{table}.parquet").unlink()
    (run.path / ".sealing").mkdir()
    (run.path / ".sealing" / "tasks").write_bytes(b"left by a crash")
    assert run.seal_again() == run.counts
    assert {table: (run.path / f"{table}.parquet").read_bytes() for table in TABLES} == before


def test_a_crash_while_sealing_leaves_the_tables_as_they_were(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.reports(done("a", 0.5))
    folder.seal(task("a"))
    before = (folder.path / "tasks.parquet").read_bytes()
    folder.reports(done("a", 0.7), host="pi-2")

    def crash(*_: object) -> None:
        raise OSError("no power")

    monkeypatch.setattr(seal_module, "publish", crash)
    with pytest.raises(OSError, match="no power"):
        folder.seal(task("a"))
    assert (folder.path / "tasks.parquet").read_bytes() == before
    monkeypatch.undo()
    folder.seal(task("a"))
    assert folder.rows("tasks", "latency_s") == [{"latency_s": 0.5}]


def test_a_plan_with_a_task_twice_or_in_no_cell_is_refused(folder: Folder) -> None:
    with pytest.raises(BadInput, match="'a' more than once"):
        folder.seal(task("a"), task("b"), task("a"))
    with pytest.raises(BadInput, match="cell 'x'"):
        folder.seal(task("a", cell_id="x"))
    assert not list(folder.path.glob("*.parquet"))


@pytest.mark.parametrize(
    ("row", "reward", "expected"),
    [
        (done("a", 0.5), RewardSettings(latency=2.0), 1.0),
        (done("a", 1.5), RewardSettings(latency=2.0, miss_penalty=5.0), 8.0),
        (done("a", 0.5, device_energy_j=1.0, server_energy_j=2.0), RewardSettings(energy=0.1), 0.8),
        (done("a", 0.5, device_energy_j=1.0), RewardSettings(energy=0.1), None),
        (done("a", 0.5), RewardSettings(energy=0.0), 0.5),
        (task("a"), RewardSettings(), None),
        (task("a", outcome="failed"), RewardSettings(latency=2.0, miss_penalty=3.0), 11.0),
        (task("a", outcome="failed", device_energy_j=2.0), RewardSettings(energy=0.5), 6.0),
    ],
)
def test_what_a_task_costs(row: TaskRecord, reward: RewardSettings, expected: float | None) -> None:
    assert task_cost(row, reward, task_timeout_s=4.0) == (None if expected is None else pytest.approx(expected))


def test_what_ran_on_a_host_that_stands_for_another_says_so(folder: Folder) -> None:
    rows = [done("a"), done("b", device_id="pi-2", server="edge-1"), done("c", device_id="pi-2", server="edge-2")]
    folder.reports(*rows)
    seal(folder.path, [cell()], [task(row.task_id, device_id=row.device_id) for row in rows], {"pi-1", "edge-1"})
    flagged = {row["task_id"]: "emulated" in row["flags"] for row in folder.rows("tasks")}
    assert flagged == {"a": True, "b": True, "c": False}
