"""Checkpoints and metrics on disk: whole or not there, and nothing of somebody else's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgebed.errors import BadInput, RunConflict
from edgebed.learning.base import State
from edgebed.learning.checkpoint import (
    KEPT,
    Checkpoint,
    CheckpointMeta,
    checkpoint_paths,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from edgebed.learning.generators import pack_generator, unpack_generator
from edgebed.learning.metrics import METRICS_FILE, MetricLine, MetricsFile, read_metrics
from edgebed.learning.result import training_result
from edgebed.learning.training_plan import TrainingSettings, resolve
from edgebed.randomness import stream


def checkpoint(steps: int, plan_hash: str = "ours", cells: int = 2) -> Checkpoint:
    meta = CheckpointMeta(
        plan_hash=plan_hash,
        learner="cross_entropy",
        scenario="dc-drl",
        steps=steps,
        metric_lines=3,
        next_evaluation_steps=9,
        cells=cells,
    )
    return Checkpoint(meta, driver(steps), [{"episodes": np.array(index + steps)} for index in range(cells)])


def driver(steps: int) -> State:
    return {
        "weights": np.arange(6, dtype=np.float32).reshape(2, 3) + steps,
        "generators": pack_generator(stream(1, "x"))[None],
        "flags": np.array([True, False]),
        "scalar": np.array(0.1),
    }


class TestCheckpoints:
    def test_come_back_as_they_were(self, tmp_path: Path) -> None:
        stored = checkpoint(120)
        found = load_checkpoint(save_checkpoint(tmp_path, stored), "ours")
        assert found.meta == stored.meta
        assert list(found.driver) == list(stored.driver)
        for name, array in stored.driver.items():
            np.testing.assert_array_equal(found.driver[name], array)
            assert found.driver[name].dtype == array.dtype
        assert [int(state["episodes"]) for state in found.cell_states] == [120, 121]

    def test_a_learner_without_cells_has_some_too(self, tmp_path: Path) -> None:
        assert load_checkpoint(save_checkpoint(tmp_path, checkpoint(1, cells=0)), "ours").cell_states == []

    def test_the_last_ones_are_kept_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        for steps in (5, 10, 1000, 200_000):
            save_checkpoint(tmp_path, checkpoint(steps))
        assert [path.name for path in checkpoint_paths(tmp_path)] == ["step-000000001000.npz", "step-000000200000.npz"]
        assert len(list((tmp_path / "checkpoints").iterdir())) == KEPT

    @pytest.mark.parametrize("keep", [0, 10, -30, -1])
    def test_a_damaged_one_is_left_out(self, keep: int, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, checkpoint(5))
        path = save_checkpoint(tmp_path, checkpoint(10))
        path.write_bytes(path.read_bytes()[:keep])
        found, problems = latest_checkpoint(tmp_path, "ours")
        assert found is not None
        assert found.meta.steps == 5
        assert [problem.partition(": ")[0] for problem in problems] == [str(path)]

    def test_a_flipped_bit_is_noticed(self, tmp_path: Path) -> None:
        path = save_checkpoint(tmp_path, checkpoint(10))
        content = bytearray(path.read_bytes())
        at = content.index(np.float32(15.0).tobytes())
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"is not a checkpoint, or is damaged: .*CRC"):
            load_checkpoint(path, "ours")

    def test_of_another_training_both_are_named(self, tmp_path: Path) -> None:
        path = save_checkpoint(tmp_path, checkpoint(10, plan_hash="theirs"))
        with pytest.raises(RunConflict, match=r"belongs to the training theirs \(cross_entropy in dc-drl\).*is ours"):
            load_checkpoint(path, "ours")

    def test_objects_are_not_stored(self, tmp_path: Path) -> None:
        stored = checkpoint(10)
        stored.driver["objects"] = np.array([{}], dtype=object)
        with pytest.raises(BadInput, match="driver: 'objects' must be an array without objects"):
            save_checkpoint(tmp_path, stored)
        assert checkpoint_paths(tmp_path) == []

    def test_somebody_else_s_file(self, tmp_path: Path) -> None:
        path = tmp_path / "step-000000000001.npz"
        np.savez(path, weights=np.ones(3))
        with pytest.raises(BadInput, match="is not a checkpoint"):
            load_checkpoint(path, "ours")


def test_a_generator_goes_on_where_it_was() -> None:
    generator = stream(7, "weights")
    generator.random(5)
    generator.integers(10, size=3, dtype=np.int32)  # leaves half a word
    again = unpack_generator(pack_generator(generator))
    assert (
        again.integers(10, size=7, dtype=np.int32).tolist() == generator.integers(10, size=7, dtype=np.int32).tolist()
    )
    assert again.random(5).tolist() == generator.random(5).tolist()


class TestMetrics:
    LINES = (
        MetricLine(steps=0, evaluation={"return_mean": [-1.5, -2.0]}),
        MetricLine(steps=10, learning={"loss": [0.1, None]}),
        MetricLine(steps=20, learning={"loss": [0.2, 0.3]}),
    )

    def written(self, folder: Path) -> list[MetricLine]:
        metrics = MetricsFile(folder)
        for line in self.LINES:
            metrics.append(line)
        metrics.close()
        return read_metrics(folder)

    def test_come_back(self, tmp_path: Path) -> None:
        assert self.written(tmp_path) == list(self.LINES)
        first = json.loads((tmp_path / METRICS_FILE).read_text().splitlines()[0])
        assert first == {"steps": 0, "evaluation": {"return_mean": [-1.5, -2.0]}}

    def test_what_came_after_the_checkpoint_is_forgotten(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        metrics = MetricsFile(tmp_path, 2)
        metrics.append(self.LINES[0])
        metrics.close()
        assert metrics.lines == 3
        assert read_metrics(tmp_path) == [self.LINES[0], self.LINES[1], self.LINES[0]]

    def test_a_line_that_was_being_written_is_left_out(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        path = tmp_path / METRICS_FILE
        path.write_bytes(path.read_bytes()[:-7])
        assert read_metrics(tmp_path) == list(self.LINES[:2])

    def test_damage_in_the_middle_is_told(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        path = tmp_path / METRICS_FILE
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], lines[1][:5], lines[2]]))
        with pytest.raises(BadInput, match=r"metrics\.jsonl:2: is not a line of metrics"):
            read_metrics(tmp_path)

    def test_fewer_lines_than_the_checkpoint_knows(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        with pytest.raises(BadInput, match="has 3 lines; the checkpoint was written after 5"):
            MetricsFile(tmp_path, 5)


class TestResult:
    PLAN = resolve("cross_entropy", "dc-drl", [3, 4], 100, {}, {"n": 2}, TrainingSettings(average_last=2))

    def lines(self, *evaluations: dict[str, list[float | None]]) -> list[MetricLine]:
        """Evaluations, each after a chunk of learning."""
        found = []
        for number, evaluation in enumerate(evaluations):
            found.append(MetricLine(steps=10 * number, learning={"loss": [0.0, 0.0]}))
            found.append(MetricLine(steps=10 * number, evaluation=evaluation))
        return found

    def test_is_the_mean_of_the_last_evaluations_with_an_interval_over_seeds(self) -> None:
        result = training_result(
            self.PLAN, self.lines({"return_mean": [9.0, 9.0]}, {"return_mean": [1.0, 5.0]}, {"return_mean": [3.0, 7.0]})
        )
        assert result is not None
        measure = result.measures["return_mean"]
        assert (measure.by_seed, measure.mean, result.steps, result.evaluations) == ([2.0, 6.0], 4.0, 20, 2)
        assert measure.ci95 == pytest.approx([4.0 - 12.706205 * 2.0, 4.0 + 12.706205 * 2.0])

    def test_what_is_not_known_is_not_made_up(self) -> None:
        first, second = {"energy_j": [1.0, None]}, {"energy_j": [3.0, 5.0]}
        result = training_result(self.PLAN, self.lines(first, second))
        assert result is not None
        measure = result.measures["energy_j"]
        assert (measure.by_seed, measure.mean, measure.ci95) == ([2.0, None], None, None)

    def test_before_the_first_evaluation_there_is_none(self) -> None:
        assert training_result(self.PLAN, [MetricLine(steps=1, learning={"loss": [0.0, 0.0]})]) is None
