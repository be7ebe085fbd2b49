"""What `edgebed watch` makes of the files of a run: segments that grow, events, cells, and who works on it."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from edgebed.errors import BadInput
from edgebed.exclusive import exclusive, is_taken
from edgebed.trace.manifest import read_manifest, write_manifest
from edgebed.trace.schema import EventRecord, Record
from edgebed.trace.segments import SUFFIX, SegmentWriter, outside_path, read_segment, segment_path
from orchestrator.attempts import Attempt, Attempts
from orchestrator.cli import main
from orchestrator.progress import Standing
from orchestrator.simulated_runner import SimulatedRunner
from orchestrator.watching.cells import WatchedCell, current_of
from orchestrator.watching.display import PlainDisplay, display_for, line_of, picture, table_lines
from orchestrator.watching.happenings import EVENTS_SHOWN, Happenings
from orchestrator.watching.pace import Pace, computed_pace, hosts_pace
from orchestrator.watching.presence import is_left
from orchestrator.watching.run import RunWatch
from orchestrator.watching.tail import SegmentTail
from orchestrator.watching.tally import Reported, Tally, tallies_of_tables
from orchestrator.watching.view import View, policy_standing
from tests.unit.test_simulated_run import Quiet, planned


def record(sequence: int) -> Record:
    return Record(sequence, 1, "event", msgspec.msgpack.encode({"t_s": float(sequence)}))


class TestTail:
    def test_each_look_gives_what_came_since_the_one_before(self, tmp_path: Path) -> None:
        path = tmp_path / "pi-1.records"
        tail = SegmentTail(path)
        with SegmentWriter(path) as writer:
            assert list(tail.fresh()) == []
            writer.append([record(1), record(2)])
            assert list(tail.fresh()) == [record(1), record(2)]
            writer.append([record(3)])
            assert list(tail.fresh()) == [record(3)]
        assert tail.problem is None

    def test_a_record_that_is_being_written_comes_when_it_is_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "pi-1.records"
        with SegmentWriter(path) as writer:
            writer.append([record(1), record(2)])
        data = path.read_bytes()
        tail, seen = SegmentTail(path), []
        for end in range(len(data) + 1):
            path.write_bytes(data[:end])
            seen += [(end, each.sequence) for each in tail.fresh()]
        assert seen == [(len(data) // 2, 1), (len(data), 2)]
        assert tail.problem is None

    def test_damage_is_told_and_what_came_before_it_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "pi-1.records"
        with SegmentWriter(path) as writer:
            writer.append([record(1)])
        path.write_bytes(path.read_bytes() + b"\xff" * 40)
        tail = SegmentTail(path)
        assert list(tail.fresh()) == [record(1)]
        assert "is damaged at byte" in (tail.problem or "")
        assert list(tail.fresh()) == []


def test_segments_come_to_the_same_as_the_sealed_tables(shared_run: Any) -> None:
    tables = tallies_of_tables([shared_run.path / "tasks.parquet"])
    assert len(tables) == len(shared_run.recipe.cells())
    for cell in shared_run.recipe.cells():
        reported = Reported(cell.warm_up_epochs)
        for path in (shared_run.path / "cells" / cell.cell_id / "attempt-1").glob(f"*{SUFFIX}"):
            for each in read_segment(path):
                if each.kind == "task":
                    reported.add(each.row)
        mine, sealed = reported.tally(), tables[cell.cell_id]
        assert (mine.terminal, mine.done, mine.failed, mine.unknown, mine.missed) == (
            sealed.terminal,
            sealed.done,
            sealed.failed,
            sealed.unknown,
            sealed.missed,
        )
        assert sorted(mine.latencies_s.tolist()) == sorted(sealed.latencies_s.tolist())


def test_the_best_outcome_of_a_task_counts_and_what_is_no_row_does_not() -> None:
    reported = Reported(warm_up_epochs=1)

    def add(task_id: str, outcome: str, epoch: int = 1, **more: object) -> None:
        reported.add(msgspec.msgpack.encode({"task_id": task_id, "epoch": epoch, "outcome": outcome, **more}))

    add("a", "unknown")
    add("a", "done", latency_s=0.5, deadline_met=True)
    add("a", "unknown")
    add("b", "failed", reason="queue_full", deadline_met=False)
    add("c", "failed", reason="not_run")
    add("d", "done", epoch=0, latency_s=9.0, deadline_met=False)
    add("e", "nonsense")
    add("f", "unknown")
    reported.add(b"\x00")
    tally = reported.tally()
    assert (tally.terminal, tally.done, tally.failed, tally.unknown, tally.missed) == (4, 1, 1, 1, 1)
    assert tally.latencies_s.tolist() == [0.5]


class TestHappenings:
    def told(self, *events: tuple[float, str, str, dict[str, object]]) -> Happenings:
        happenings = Happenings("controller")
        for t_s, host, kind, detail in events:
            happenings.add(EventRecord(t_s=t_s, host=host, kind=kind, detail=json.dumps(detail)))
        return happenings

    def test_who_is_up_is_what_the_controller_told_last_whatever_came_first(self) -> None:
        happenings = self.told(
            (3.0, "controller", "member_left", {"member": "pi-2"}),
            (0.0, "controller", "started", {}),
            (1.0, "controller", "member_joined", {"member": "pi-1"}),
            (1.5, "controller", "member_joined", {"member": "pi-2"}),
            (1.6, "pi-1", "started", {}),
        )
        assert happenings.up == {"controller", "pi-1"}
        happenings.add(EventRecord(t_s=9.0, host="controller", kind="started", detail="{}"))
        assert happenings.up == {"controller"}, "a new controller has nobody yet"

    def test_the_session_is_the_newest_that_was_begun(self) -> None:
        happenings = self.told((90.0, "orchestrator", "run_resumed", {}), (0.0, "orchestrator", "run_started", {}))
        assert happenings.session_began_s == 90.0

    def test_troubles_are_counted_and_the_newest_events_kept(self) -> None:
        detail: dict[str, object] = {"server": "edge"}
        events = [(float(t_s), "pi-1", "server_lost", detail) for t_s in range(20)]
        happenings = self.told(*reversed(events))
        assert [event.t_s for event in happenings.newest] == [float(t_s) for t_s in range(20 - EVENTS_SHOWN, 20)]
        assert happenings.problems == ["server_lost, 20 times; last: 19.0 s  pi-1: server_lost (server edge)"]


def test_a_policy_comes_to_what_its_cells_come_to() -> None:
    tallies = [
        Tally(terminal=6, done=3, failed=1, unknown=2, missed=2, latencies_s=np.array([0.1, 0.2, 0.3])),
        Tally(terminal=5, done=4, failed=2, unknown=0, missed=3, latencies_s=np.array([0.4, 0.5, 0.6, 0.7])),
    ]
    found = policy_standing("p", 1, 2, tallies)
    assert (found.done, found.failed, found.unknown) == (7, 3, 2)
    assert found.miss_rate == 5 / 10, "of the tasks of known outcome"
    assert (found.p50_s, found.p95_s) == (pytest.approx(0.4), pytest.approx(0.67))
    nothing = policy_standing("p", 0, 2, [Tally(unknown=3)])
    assert (nothing.p50_s, nothing.p95_s, nothing.miss_rate) == (None, None, None)


class TestWhoWorksOnIt:
    @pytest.mark.parametrize(
        ("is_going_on", "quiet_s", "expected"),
        [(False, 6.0, True), (False, 4.0, False), (True, 1e6, False), (None, 1e6, False)],
    )
    def test_it_is_left_when_nobody_has_it_and_nothing_came(
        self, is_going_on: bool | None, quiet_s: float, expected: bool
    ) -> None:
        assert is_left(is_going_on, 1000.0, 1000.0 + quiet_s) is expected

    def test_a_lock_is_seen_and_not_taken(self, tmp_path: Path) -> None:
        assert is_taken(tmp_path) is False
        with exclusive(tmp_path, "run", "working on this run"):
            assert is_taken(tmp_path) is True
            assert is_taken(tmp_path) is True
        assert is_taken(tmp_path) is False
        with exclusive(tmp_path, "run", "working on this run"):
            pass  # looking has left nothing behind that would be in the way

    def test_a_system_without_the_list_of_locks_cannot_tell(self, tmp_path: Path) -> None:
        assert is_taken(tmp_path, tmp_path / "nothing") is None
        assert is_taken(tmp_path / "nothing") is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with one that has ended."""
    folder, plan = planned(tmp_path_factory.mktemp("finished"))
    SimulatedRunner(folder, plan, Quiet()).run(None)
    return folder.parents[1]


class TestSimulated:
    def test_cells_are_seen_as_they_become_complete(self, tmp_path: Path) -> None:
        folder, plan = planned(tmp_path, order="sequential")
        views: dict[int, View] = {}
        watch = RunWatch(folder)

        def note(standing: Standing) -> None:
            if standing.cells_done not in views and "simulating" in standing.doing:
                views[standing.cells_done] = watch.look()

        SimulatedRunner(folder, plan, Quiet(note)).run(None)
        last = watch.look()
        assert sorted(views) == [0, 1, 2, 3, 4, 5]
        for cells_done, view in views.items():
            assert (view.state, view.is_going_on, view.is_over) == ("running", True, False)
            assert view.standing.cells_done == cells_done
            assert view.cell == plan.listed_cells[cells_done].id
            assert view.standing.doing == f"{view.cell}: simulating"
        of_first_seed = sum(found.count for found in plan.task_lists if found.seed == 1)
        assert views[3].standing.tasks_done == 3 * of_first_seed, "each policy had its tasks"
        first_half = {each.name: each.done + each.failed for each in views[3].policies}
        assert min(first_half.values()) > 0, "each policy has had its first seed"
        assert (last.state, last.is_over, last.verdict) == ("complete", True, "valid")
        assert last.standing.tasks_done == last.standing.tasks

    def test_one_that_nobody_works_on_is_left(self, tmp_path: Path) -> None:
        folder, _ = planned(tmp_path)
        watch = RunWatch(folder)
        view = watch.look()
        assert (view.state, view.is_left, view.is_over) == ("starting", False, False), "it may be about to begin"
        aged(folder)
        view = watch.look()
        assert (view.is_left, view.is_over) == (True, True)
        assert any("edgebed resume" in note for note in view.notes)

    def test_one_that_was_cut_off_while_it_was_sealed_is_left(self, finished: Path, tmp_path: Path) -> None:
        folder = shutil.copytree((finished / "trial" / "latest").resolve(), tmp_path / "run")
        (folder / "epochs.parquet").unlink()
        aged(folder)
        view = RunWatch(folder).look()
        assert (view.state, view.is_left, view.is_over) == ("complete", True, True)
        assert view.standing.tasks_done == view.standing.tasks, "of its cells' own tables"

    def test_where_nobody_can_tell_who_works_on_it_the_verdict_ends_it(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.watching.run.is_taken", lambda folder: None)
        folder, _ = planned(tmp_path)
        view = RunWatch(folder).look()
        assert (view.is_over, view.is_left) == (False, False)
        assert RunWatch(finished / "trial" / "latest").look().is_over
        sealed = shutil.copytree((finished / "trial" / "latest").resolve(), tmp_path / "sealed")
        manifest = read_manifest(sealed)
        manifest.verdict = None
        write_manifest(sealed, manifest)
        assert not RunWatch(sealed).look().is_over

    def test_it_has_not_ended_before_it_is_let_go(self, finished: Path, tmp_path: Path) -> None:
        folder = shutil.copytree((finished / "trial" / "latest").resolve(), tmp_path / "run")
        watch = RunWatch(folder)
        with exclusive(folder, "run", "working on this run"):
            view = watch.look()
            assert (view.state, view.is_going_on, view.is_over) == ("complete", True, False)
            assert view.standing.doing == "sealing"
        assert watch.look().is_over


class TestWhatHappensMeanwhile:
    def test_a_run_that_is_moved_away_is_told(self, tmp_path: Path) -> None:
        folder, _ = planned(tmp_path)
        watch = RunWatch(folder)
        watch.look()
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(BadInput, match=f"{folder}: can no longer be watched: .*was it moved or deleted?"):
            watch.look()

    def test_a_cell_that_is_begun_anew_has_none_of_its_earlier_rows(self, tmp_path: Path) -> None:
        folder, plan = planned(tmp_path)
        attempts = Attempts(folder, [cell.id for cell in plan.listed_cells])
        first = plan.listed_cells[0].id
        watch = RunWatch(folder)
        attempts.begin(first)
        row = msgspec.msgpack.encode({"task_id": "a", "epoch": 3, "outcome": "done", "latency_s": 0.5})
        with SegmentWriter(segment_path(folder, first, 1, "pi-1")) as writer:
            writer.append([Record(1, 1, "task", row)])
        view = watch.look()
        assert (view.cell, view.standing.tasks_done) == (first, 1)
        attempts.begin(first)
        assert watch.look().standing.tasks_done == 0

    def test_what_is_damaged_or_has_failed_is_a_problem(self, tmp_path: Path) -> None:
        folder, _ = planned(tmp_path)
        event = msgspec.msgpack.encode({"t_s": 1.0, "host": "edge", "kind": "member_given_up"})
        damaged = outside_path(folder, "edge")
        with SegmentWriter(damaged) as writer:
            writer.append([Record(1, 0, "event", event)])
        damaged.write_bytes(damaged.read_bytes() + b"\xff" * 40)
        first, second = RunWatch(folder).look().problems
        assert first == "member_given_up, once; last: 1.0 s  edge: member_given_up"
        assert second.startswith(f"{damaged}: is damaged at byte")

    def test_policies_are_told_by_setting_where_there_are_several(self, tmp_path: Path) -> None:
        folder, _ = planned(tmp_path, policies=["all_edge"], sweep={"deadline_s": [0.5, 0.9]})
        names = [policy.name for policy in RunWatch(folder).look().policies]
        assert names == ["all_edge · deadline_s_0.5", "all_edge · deadline_s_0.9"]

    def test_of_cells_without_attempts_the_rows_tell(self, finished: Path, tmp_path: Path) -> None:
        folder = shutil.copytree((finished / "trial" / "latest").resolve(), tmp_path / "run")
        shutil.rmtree(folder / "cells")
        assert RunWatch(folder).look().standing.cells_done == 6

    def test_rows_that_are_no_events_are_left_to_sealing(self, tmp_path: Path) -> None:
        folder, _ = planned(tmp_path)
        good = msgspec.msgpack.encode({"t_s": 1.0, "host": "pi-1", "kind": "server_lost"})
        with SegmentWriter(outside_path(folder, "pi-1")) as writer:
            writer.append([Record(1, 0, "event", b"\x00"), Record(2, 0, "event", good)])
        assert [event.kind for event in RunWatch(folder).look().events] == ["server_lost"]

    def test_a_replay_is_not_said_to_be_resumed(self, finished: Path, tmp_path: Path) -> None:
        replay = ["replay", str(finished / "trial" / "latest"), "--mode", "reevaluate", "--policy", "all_local"]
        assert main([*replay, "--runs", str(tmp_path)]) == 0
        folder = (tmp_path / "trial-replay" / "latest").resolve()
        (folder / "tasks.parquet").unlink()
        aged(folder)
        view = RunWatch(folder).look()
        assert view.is_left
        assert "replayed is not resumed but made again; it was made by `edgebed replay" in view.notes[0]
        assert view.notes[1:] == ("replayed: a cell's tasks are seen when it is complete",)


def aged(folder: Path) -> None:
    """Make all in it look old."""
    long_ago_s = 1_000_000_000
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (long_ago_s, long_ago_s))


class TestPace:
    """Four cells of 10 s and 20 tasks: one of an earlier session, one complete, one going on, one to come."""

    def cells(self) -> list[WatchedCell]:
        begun = {0: (0.0, "complete", 20), 1: (100.0, "complete", 20), 2: (112.0, "running", 8)}
        found = []
        for number in range(4):
            cell = WatchedCell(f"c{number}", "p", "base", planned=20, horizon_s=10.0, warm_up_epochs=0)
            if number in begun:
                at_s, state, terminal = begun[number]
                cell.attempt = msgspec.convert(
                    {"cell_id": cell.cell_id, "attempt": 1, "serial": number + 1, "state": state, "run_clock_s": at_s}
                    | {"started_utc_s": 5000.0 + at_s},
                    Attempt,
                )
                cell.tally = Tally(terminal=terminal)
                cell.changed_s = 5012.0 + at_s
            found.append(cell)
        return found

    def test_the_rate_is_that_of_the_session_and_what_is_left_is_reckoned_by_the_plan(self) -> None:
        cells = self.cells()
        assert current_of(cells) is cells[2]
        # It is 116 on the run clock: 4 s of the third cell are over, the fourth is to come, 2 s more for each.
        assert hosts_pace(cells, session_began_s=99.0, utc_s=5116.0) == Pace(28 / 16, 8.0 + 12.0)
        # Of one session the first cell counts too, though it began at the very beginning.
        assert hosts_pace(cells, session_began_s=0.0, utc_s=5116.0).rate == 48 / 116

    def test_a_cell_takes_no_less_than_nothing_however_late_it_is(self) -> None:
        assert hosts_pace(self.cells(), session_began_s=99.0, utc_s=5200.0).remaining_s == 2.0 + 12.0

    def test_computed_cells_are_timed_by_when_they_were_there(self) -> None:
        # The second was there 100 s after the first: a task in 5 s, and 32 are left.
        assert computed_pace(self.cells()) == Pace(20 / 100, 32 * 5.0)

    def test_nothing_is_known_before_something_has_begun(self) -> None:
        cells = self.cells()[3:]
        assert hosts_pace(cells, session_began_s=0.0, utc_s=5.0) == computed_pace(cells) == Pace(0.0, None)
        assert current_of(cells) is None


class TestPicture:
    @pytest.fixture
    def view(self, finished: Path) -> View:
        return RunWatch((finished / "trial" / "latest").resolve()).look()

    def drawn(self, view: View, width: int) -> list[str]:
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        with console.capture() as capture:
            console.print(picture(view, width))
        return [line.rstrip() for line in capture.get().splitlines()]

    def test_on_a_wide_terminal_a_table_below_the_bar(self, view: View) -> None:
        lines = self.drawn(view, 100)
        assert lines[0] == f"trial/{view.path.name}  complete, valid"
        assert lines[2] == "━" * 60
        assert lines[3:7] == table_lines(view)

    def test_on_a_narrow_one_every_number_with_its_name(self, view: View) -> None:
        lines = self.drawn(view, 20)
        assert max(map(len, lines)) <= 20
        told = " ".join(lines)
        for policy in view.policies:
            assert f"{policy.name}: cells 2/2, done {policy.done}, failed" in told

    def test_the_bar_is_as_long_as_what_is_over(self, view: View) -> None:
        half = replace(view.standing, tasks=100, tasks_done=50)
        console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
        with console.capture() as capture:
            console.print(picture(replace(view, standing=half), 80))
        assert f"\x1b[32m{'━' * 30}\x1b[0m" in capture.get()

    def test_a_terminal_that_cannot_move_its_cursor_gets_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(display_for(Console(file=io.StringIO(), force_terminal=True)), PlainDisplay)

    def test_lines_for_files_tell_what_has_changed_and_each_problem_once(self, view: View) -> None:
        stream = io.StringIO()
        display = PlainDisplay(stream)
        for shown in (view, view, replace(view, problems=("one",)), replace(view, problems=("one", "two"))):
            display.show(shown)
        display.close(replace(view, reasons=("because",), notes=("a note",)))
        lines = stream.getvalue().splitlines()
        assert lines == [
            line_of(view), "problem: one", "problem: two", *table_lines(view), "verdict valid", "  because", "a note",
        ]  # fmt: skip


class TestCommand:
    def test_one_look_as_json(self, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = finished / "trial" / "latest"
        assert main(["watch", "trial", "--runs", str(finished), "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        found = json.loads(line)
        assert (found["run"], found["state"], found["cells_done"]) == (str(folder.resolve()), "complete", 6)
        assert {each["name"] for each in found["policies"]} == {"all_local", "all_edge", "greedy_latency"}

    def test_an_ended_run_is_shown_once(self, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["watch", str(finished / "trial" / "latest")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("cell 6/6 | complete | ")
        assert lines[1].split() == ["policy", "cells", "done", "failed", "unknown", "median", "p95", "missed"]
        assert lines[-1] == "verdict valid"

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda folder: (folder / "plan.yaml").unlink(), "there is no run"),
            (lambda folder: (folder / "plan.yaml").write_text("nonsense"), "plan.yaml"),
            (lambda folder: (folder / "manifest.json").write_text("{"), "not a run's manifest"),
        ],
    )
    def test_what_is_no_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], Any], says: str
    ) -> None:
        folder, _ = planned(tmp_path)
        damage(folder)
        assert main(["watch", str(folder)]) == 2
        assert says in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["tasks.parquet", "events.parquet"])
    def test_a_table_that_is_damaged(
        self, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        folder = shutil.copytree((finished / "trial" / "latest").resolve(), tmp_path / "run")
        os.truncate(folder / name, 100)
        assert main(["watch", str(folder)]) == 2
        assert f"{folder}: its tables cannot be read" in capsys.readouterr().err

    def test_a_table_of_a_cell_that_is_damaged(self, finished: Path, tmp_path: Path) -> None:
        folder = shutil.copytree((finished / "trial" / "latest").resolve(), tmp_path / "run")
        (folder / "manifest.json").unlink()
        damaged = folder / "cells" / "all_edge-s1" / "attempt-1"
        os.truncate(damaged / "tasks.parquet", 100)
        with pytest.raises(BadInput, match=f"{damaged}: its tables cannot be read: .*take another copy"):
            RunWatch(folder).look()

    def test_a_name_that_cannot_be_a_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for verb in ("watch", "resume"):
            assert main([verb, "x" * 5000]) == 2
            assert "there is no run 'xxx" in capsys.readouterr().err

    def test_an_attempt_that_cannot_be_read(self, tmp_path: Path) -> None:
        folder, plan = planned(tmp_path)
        path = folder / "cells" / plan.listed_cells[0].id / "attempt-1" / "attempt.json"
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with pytest.raises(BadInput, match=r"attempt\.json: cannot be understood"):
            RunWatch(folder).look()
