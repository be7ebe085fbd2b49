"""``stop``: runs that end before their last cell, simulated; on hosts see tests/integration/test_run_stop.py."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from edgebed.errors import BadInput
from edgebed.trace.runs import Run
from orchestrator.attempts import Attempts
from orchestrator.cli import main
from orchestrator.interrupts import Interrupts
from orchestrator.measures import MEASURES, counted_tasks, seed_measures
from orchestrator.plan import make_plan
from orchestrator.plan_file import Plan
from orchestrator.replay.source import open_source
from orchestrator.runner import RunOutcome
from orchestrator.simulated_runner import SimulatedRunner
from orchestrator.statistics import paired_difference
from orchestrator.stop_file import HalfWidthChoice
from orchestrator.stop_measures import measure_of_cell
from orchestrator.stop_rule import read_stop_state
from orchestrator.stopping import Stopping
from tests.unit.test_simulated_run import Quiet, files, planned

SEEDS = [1, 2, 3, 4, 5, 6]


def run(folder: Path, **changes: Any) -> tuple[RunOutcome, Plan]:
    path, plan = planned(folder, **changes)
    return SimulatedRunner(path, plan, Quiet()).run(None), plan


def rows_by_cell(folder: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for cell, reason, count in (
        Run(folder).query("SELECT cell_id, coalesce(reason, outcome), count(*) FROM tasks GROUP BY ALL").rows
    ):
        found.setdefault(cell, Counter())[reason] = count
    return found


def half_width(at_most: float, measure: str = "latency_s", **more: Any) -> dict[str, Any]:
    return {"half_width": {"measure": measure, "at_most": at_most, **more}}


@pytest.fixture(scope="module")
def by_time(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOutcome, Plan]:
    """Ended by its time. A cell takes 4 s, its last tick 0.5 s, its tasks' time-out 3.5 s of the run clock."""
    return run(tmp_path_factory.mktemp("by_time"), stop={"run_s": 17.0})


@pytest.fixture(scope="module")
def by_width(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOutcome, Plan]:
    """One that has ended when enough was known, which is at once here."""
    return run(tmp_path_factory.mktemp("by_width"), seeds=SEEDS, stop=half_width(1e6))


class TestRunTime:
    def test_no_cell_begins_after_it(self, by_time: tuple[RunOutcome, Plan]) -> None:
        outcome, plan = by_time
        assert (outcome.manifest.state, outcome.exit_status) == ("incomplete", 1)
        assert (outcome.cells_complete, outcome.cells) == (3, 6), "begun at 0, 8 and 16 s"
        rows = rows_by_cell(outcome.folder)
        for number, cell in enumerate(plan.listed_cells):
            assert ("not_run" in rows[cell.id]) == (number >= 3)
        state = read_stop_state(outcome.folder)
        assert (state.rule, state.worked_s) == ("run_s", 24.0)
        assert state.not_begun == [cell.id for cell in plan.listed_cells[3:]]
        assert any(
            "Stopped by stop.run_s: the run has worked 24 s of 17 s; 3 of 6" in reason
            for reason in outcome.manifest.reasons
        )
        assert "Stopped by stop.run_s" in (outcome.folder / "report.html").read_text()

    def test_resuming_begins_none_and_says_why(
        self, by_time: tuple[RunOutcome, Plan], capsys: pytest.CaptureFixture[str]
    ) -> None:
        outcome, _ = by_time
        before = rows_by_cell(outcome.folder)
        assert main(["resume", str(outcome.folder), "--json"]) == 1
        printed = capsys.readouterr()
        assert json.loads(printed.out.splitlines()[-1])["cells"] == 3
        assert "resuming begins none: for those start a new run with a larger stop.run_s." in printed.err
        assert "goes on" not in printed.err
        assert rows_by_cell(outcome.folder) == before

    def test_what_a_run_is_that_it_has_ended(self, tmp_path: Path) -> None:
        path, plan = planned(tmp_path, stop={"run_s": 17.0})
        stopping = Stopping(path, plan, Attempts(path, [cell.id for cell in plan.listed_cells]))
        first = plan.listed_cells[0].id
        assert not stopping.ends_before(first, 16.9)
        assert stopping.final_state("", is_interrupted=False) == "failed", "cells are missing, and no rule says why"
        assert stopping.ends_before(first, 17.0)
        assert stopping.final_state("", is_interrupted=False) == "incomplete"
        assert stopping.final_state("a host is lost", is_interrupted=False) == "failed"
        assert stopping.final_state("a host is lost", is_interrupted=True) == "incomplete"
        later = Stopping(path, plan, Attempts(path, [cell.id for cell in plan.listed_cells]))
        assert (later.worked_before_s, later.has_ended_it, later.not_needed) == (17.0, True, frozenset())

    def test_time_enough_changes_nothing(self, tmp_path: Path) -> None:
        outcome, _ = run(tmp_path, stop={"run_s": 1000.0})
        assert (outcome.manifest.state, outcome.manifest.verdict, outcome.manifest.reasons) == ("complete", "valid", [])
        assert read_stop_state(outcome.folder).rule == ""

    def test_an_interrupted_run_goes_on_up_to_it(self, tmp_path: Path) -> None:
        path, plan = planned(tmp_path, stop={"run_s": 17.0})
        interrupts = Interrupts()

        def stop_in_the_second(standing: Any) -> None:
            if standing.cells_done == 1 and not interrupts.count:
                interrupts.interrupt()

        first = SimulatedRunner(path, plan, Quiet(stop_in_the_second), interrupts=interrupts).run(None)
        interrupts.close()
        assert (first.manifest.state, first.exit_status, first.cells_complete) == ("incomplete", 130, 1)
        assert not any("stop.run_s" in reason for reason in first.manifest.reasons), "that was not why"
        again = SimulatedRunner(path, plan, Quiet()).resume()
        assert (again.manifest.state, again.exit_status, again.cells_complete) == ("incomplete", 1, 3)


class TestHalfWidth:
    def test_the_measures_on_the_way_are_those_of_the_sealed_tables(self, tmp_path: Path) -> None:
        outcome, plan = run(tmp_path)
        attempts = Attempts(outcome.folder, [cell.id for cell in plan.listed_cells])
        with counted_tasks(Run(outcome.folder)) as connection:
            sealed = {(one.policy, one.seed): one.measures for one in seed_measures(connection)}
        for cell in plan.cells:
            attempt = attempts.latest(cell.cell_id)
            assert attempt is not None
            for measure in MEASURES.keys() - {"energy_error_j"}:
                found = measure_of_cell(outcome.folder, cell, attempt, measure)
                assert found == pytest.approx(sealed[cell.cell.policy, cell.seed][measure], rel=1e-12)

    def test_it_ends_at_the_first_seed_after_which_every_pair_is_narrow(self, tmp_path: Path) -> None:
        """The same experiment run to its end tells after how many seeds that is."""
        whole, plan = run(tmp_path / "whole", seeds=SEEDS)
        with counted_tasks(Run(whole.folder)) as connection:
            latency = {(one.policy, one.seed): one.measures["latency_s"] for one in seed_measures(connection)}
        labels = [policy.label for policy in plan.policies]

        def widest(seeds: list[int]) -> float:
            widths = []
            for pair in combinations(labels, 2):
                one, other = ({seed: latency[label, seed] for seed in seeds} for label in pair)
                interval = paired_difference(one, other).interval
                assert interval is not None
                assert interval.half_width is not None
                widths.append(interval.half_width)
            return max(widths)

        by_seeds = {number: widest(SEEDS[:number]) for number in range(3, 7)}
        at_most = by_seeds[4] * 1.000001
        expected = next(number for number in by_seeds if by_seeds[number] <= at_most)
        outcome, _ = run(tmp_path / "stopped", seeds=SEEDS, stop=half_width(at_most))
        assert (outcome.manifest.state, outcome.exit_status) == ("complete", 0)
        assert outcome.cells_complete == 3 * expected < outcome.cells == 18
        state = read_stop_state(outcome.folder)
        assert state.rule == "half_width"
        assert max(state.half_widths.values()) == pytest.approx(by_seeds[expected])
        assert len(state.half_widths) == 3

    def test_what_was_not_needed_is_told_and_counts_nowhere(
        self, by_width: tuple[RunOutcome, Plan], capsys: pytest.CaptureFixture[str]
    ) -> None:
        outcome, plan = by_width
        rows = rows_by_cell(outcome.folder)
        for cell in plan.listed_cells:
            assert (rows[cell.id].keys() == {"not_needed"}) == (cell.seed > 3), "three seeds, and every one whole"
        assert outcome.manifest.verdict == "valid"
        (reason,) = outcome.manifest.reasons
        assert reason.startswith("Stopped by stop.half_width after 3 of 6 seeds: ")
        assert "9 of 18 cells were not needed" in reason
        report = (outcome.folder / "report.html").read_text()
        assert "of cells that were not needed" in report
        assert "Stopped by stop.half_width" in report
        with counted_tasks(Run(outcome.folder)) as connection:
            assert {one.seed for one in seed_measures(connection)} == {1, 2, 3}
        assert len(open_source(str(outcome.folder), outcome.folder.parents[1]).cells) == 9, (
            "a replay is of what was run"
        )
        assert main(["watch", str(outcome.folder)]) == 0
        assert "9/18 | complete" in capsys.readouterr().out
        assert main(["resume", str(outcome.folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["cells"] == 9
        assert rows_by_cell(outcome.folder) == rows

    def test_the_same_plan_gives_the_same_bytes(self, by_width: tuple[RunOutcome, Plan], tmp_path: Path) -> None:
        outcomes = [by_width[0], run(tmp_path, seeds=SEEDS, stop=half_width(1e6))[0]]
        for name in ("tasks.parquet", "stop.json"):
            one, other = ((outcome.folder / name).read_bytes() for outcome in outcomes)
            assert one == other

    def test_more_seeds_when_asked_for_and_every_seed_whole(self, tmp_path: Path) -> None:
        outcome, plan = run(tmp_path, seeds=SEEDS, order="sequential", stop=half_width(1e6, min_seeds=5))
        assert outcome.cells_complete == 15
        assert {cell.seed for cell in plan.listed_cells if cell.id in read_stop_state(outcome.folder).not_begun} == {6}

    @pytest.mark.parametrize("rule", [half_width(1e-12), half_width(1e6, min_seeds=7)])
    def test_it_goes_on_to_the_end_otherwise(self, tmp_path: Path, rule: dict[str, Any]) -> None:
        outcome, _ = run(tmp_path, seeds=[1, 2, 3, 4], stop=rule)
        assert (outcome.manifest.state, outcome.cells_complete) == ("complete", 12)
        assert outcome.manifest.reasons == []

    def test_every_setting_has_to_be_narrow(self, tmp_path: Path) -> None:
        outcome, _ = run(tmp_path, seeds=SEEDS, sweep={"deadline_s": [0.5, 0.9]}, stop=half_width(1e6))
        state = read_stop_state(outcome.folder)
        assert outcome.cells_complete == 3 * 3 * 2
        assert len(state.half_widths) == 6
        assert all(name.endswith(("deadline_s_0.5", "deadline_s_0.9")) for name in state.half_widths)

    def test_a_session_that_was_cut_off_decides_as_it_would_have(
        self, by_width: tuple[RunOutcome, Plan], tmp_path: Path
    ) -> None:
        path, plan = planned(tmp_path, seeds=SEEDS, stop=half_width(1e6))
        interrupts = Interrupts()

        def stop_in_the_third_seed(standing: Any) -> None:
            if standing.cells_done == 7 and not interrupts.count:
                interrupts.interrupt()

        SimulatedRunner(path, plan, Quiet(stop_in_the_third_seed), interrupts=interrupts).run(None)
        interrupts.close()
        again = SimulatedRunner(path, plan, Quiet()).resume()
        assert again.manifest.state == "complete"
        assert read_stop_state(path) == read_stop_state(by_width[0].folder)


class TestThePlan:
    def test_an_experiment_without_the_key_has_the_plan_that_it_always_had(self, tmp_path: Path) -> None:
        without = make_plan(*files(tmp_path / "a"))
        assert "stop" not in without.to_yaml()
        assert make_plan(*files(tmp_path / "b", stop=None)).plan_hash == without.plan_hash
        assert make_plan(*files(tmp_path / "c", stop={"run_s": 1.0})).plan_hash != without.plan_hash

    def test_the_rule_is_in_the_plan_and_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment, hosts = files(tmp_path, stop={"run_s": 60, **half_width(0.05)})
        plan = make_plan(experiment, hosts)
        assert msgspec.to_builtins(plan.stop) == {
            "run_s": 60.0,
            "half_width": {"measure": "latency_s", "at_most": 0.05, "min_seeds": 3},
        }
        assert main(["plan", str(experiment), "--hosts", str(hosts)]) == 0
        assert "Stop: no further cell begins after 60 s of work; no further seed begins once" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"stop": {"run_s": 0}}, "stop.run_s: is 0; allowed: more than 0"),
            ({"stop": {"tasks": 3}}, "stop.tasks: is not a key here"),
            ({"stop": 5}, "stop: is 5; expected a mapping"),
            ({"stop": half_width(0.1, "latency")}, "stop.half_width.measure: is 'latency'; did you mean latency_s?"),
            ({"stop": half_width(-1)}, "stop.half_width.at_most: is -1; allowed: more than 0"),
            ({"stop": half_width(1, min_seeds=1)}, "stop.half_width.min_seeds: is 1; allowed: at least 2"),
            ({"stop": half_width(1), "policies": ["all_edge"]}, "stop.half_width: is about pairs of policies"),
            ({"sweep": {"stop.run_s": [1, 2]}}, "stop cannot be swept"),
        ],
    )
    def test_what_is_wrong(self, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(BadInput) as raised:
            make_plan(*files(tmp_path, **changes))
        assert says in str(raised.value)

    def test_every_measure_but_an_error_may_be_asked_for(self) -> None:
        asked = get_args(HalfWidthChoice.model_fields["measure"].annotation)
        assert set(asked) == MEASURES.keys() - {"energy_error_j"}

    def test_a_damaged_state_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "stop.json").write_text("{")
        with pytest.raises(BadInput, match=r"stop\.json: cannot be understood"):
            read_stop_state(tmp_path)
