"""Trainings from end to end: through the command line, stopped, killed, resumed, and elsewhere."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.cli import main
from tests.learning.training import (
    CROSS_ENTROPY,
    SMALL,
    answer_of,
    edgebed,
    only_training,
    press_ctrl_c,
    result_of,
    start,
    train,
    wait_for,
)

STEPS = "2400"
LONG = "400000"
"""So many that it is still running when somebody stops it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A training that nobody disturbed, and its answer."""
    runs = tmp_path_factory.mktemp("finished")
    answer = train(*CROSS_ENTROPY, "--steps", STEPS, "--runs", runs)
    return Path(answer["training"]), answer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What 12,000 steps give."""
    answer = train(*CROSS_ENTROPY, "--steps", "12000", "--runs", tmp_path_factory.mktemp("undisturbed"))
    return result_of(Path(answer["training"]))


class TestAWholeTraining:
    def test_answer(self, finished: tuple[Path, dict[str, Any]]) -> None:
        folder, answer = finished
        assert answer["state"] == "complete"
        assert answer["seeds"] == [0, 1]
        assert answer["steps"] >= int(STEPS)
        measure = answer["measures"]["return_mean"]
        low, high = measure["ci95"]
        assert measure["mean"] == pytest.approx(np.mean(measure["by_seed"]))
        assert low <= measure["mean"] <= high
        assert [Path(policy).parent.parent for policy in answer["policies"]] == [folder, folder]

    def test_files(self, finished: tuple[Path, dict[str, Any]]) -> None:
        folder, _ = finished
        assert folder.parent.name == "cross_entropy-dc-drl"
        assert (folder.parent / "latest").resolve() == folder.resolve()
        policies = sorted(path.relative_to(folder) for path in folder.rglob("policy.npz"))
        assert policies == [Path(f"policies/seed-{seed}/policy.npz") for seed in (0, 1)]
        assert {path.parent.name for path in folder.rglob("*.npz")} == {"seed-0", "seed-1", "checkpoints"}
        pictures = {path.name for path in (folder / "curves").iterdir()}
        assert pictures == {f"{name}.{suffix}" for name in ("learning_curve", "metrics") for suffix in ("png", "svg")}
        page = (folder / "report.html").read_text()
        assert "data:image/svg+xml;base64," in page
        assert "http" not in page.replace("http://www.w3.org", "")
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["executor"], status["restarts"]) == ("complete", "InlineExecutor", 0)

    def test_result_is_the_mean_of_the_last_five_evaluations(self, finished: tuple[Path, dict[str, Any]]) -> None:
        folder, answer = finished
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        evaluated = [line["evaluation"]["return_mean"] for line in lines if "evaluation" in line]
        assert lines[0]["steps"] == 0
        assert len(evaluated) > 5
        assert answer["evaluations"] == 5
        assert answer["measures"]["return_mean"]["by_seed"] == pytest.approx(np.mean(evaluated[-5:], axis=0))

    def test_last_evaluation_is_that_of_the_policies_there(self, finished: tuple[Path, dict[str, Any]]) -> None:
        folder, _ = finished
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["evaluation"]
        words = ("--set", "n=3", "--set", "steps=10", "--episodes", "3", "--seed", "1000000", "--json")
        for index in (0, 1):
            policy = folder / "policies" / f"seed-{index}"
            found = answer_of(edgebed("evaluate", "dc-drl", "--policy", policy, *words))
            assert found["return_mean"] == last["return_mean"][index]
            assert found["cost_per_task_mean"] == last["cost_per_task"][index]

    def test_the_same_task_gives_the_same_digits(self, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        folder, _ = finished
        again = train("--config", folder / "training.yaml", "--runs", tmp_path, "--executor", "processes")
        assert result_of(Path(again["training"])) == result_of(folder)

    def test_it_learns(self, tmp_path: Path) -> None:
        """A linear policy finds that two devices do better at the edge; the first, all local, is the reference."""
        words = (*SMALL, "--set", "population=64", "--set", "evaluation_episodes=20", "--steps", "25000")
        answer = train("cross_entropy", *words, "--seeds", "0,1,2", "--runs", tmp_path)
        first = json.loads((Path(answer["training"]) / "metrics.jsonl").read_text().splitlines()[0])
        low, _ = answer["measures"]["return_mean"]["ci95"]
        assert low > np.mean(first["evaluation"]["return_mean"])

    def test_tensorboard_has_the_numbers_of_each_seed(self, finished: tuple[Path, dict[str, Any]]) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        folder, _ = finished
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for index in (0, 1):
            board = EventAccumulator(str(folder / "tensorboard" / f"seed-{index}"))
            board.Reload()
            for group, name in (("evaluation", "return_mean"), ("learning", "elite_return")):
                expected = [(line["steps"], line[group][name][index]) for line in lines if group in line]
                found = [(event.step, event.value) for event in board.Scalars(f"{group}/{name}")]
                np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_resuming_a_complete_one_changes_nothing(self, finished: tuple[Path, dict[str, Any]]) -> None:
        folder, answer = finished
        before = result_of(folder)
        again = answer_of(edgebed("resume", folder, "--json"))
        assert result_of(folder) == before
        assert again["measures"] == answer["measures"]


class TestStoppedAndResumed:
    @pytest.mark.parametrize("executor", ["inline", "processes"])
    def test_killed_in_the_middle(self, executor: str, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        words = ("--steps", "12000", "--runs", tmp_path, "--executor", executor, "--checkpoint-every", "0")
        process = start("train", *CROSS_ENTROPY, *words)
        wait_for(lambda: list(tmp_path.glob("*/2*/checkpoints/step-*.npz")), process)
        process.kill()
        process.communicate()
        folder = only_training(tmp_path)
        assert folder is not None
        at_kill = (folder / "metrics.jsonl").read_bytes()
        assert len(at_kill) < len(undisturbed["metrics.jsonl"])
        answer = answer_of(edgebed("resume", folder, "--json"))
        assert answer["state"] == "complete"
        assert result_of(folder) == undisturbed

    def test_ctrl_c_stores_and_says_how_to_go_on(self, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        words = ("--steps", "12000", "--runs", tmp_path, "--executor", "processes")
        process = start("train", *CROSS_ENTROPY, *words)
        wait_for(lambda: list(tmp_path.glob("*/2*/policies/seed-1/policy.json")), process)
        press_ctrl_c(process)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
        folder = only_training(tmp_path)
        assert folder is not None
        assert "edgebed resume" in output
        assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
        assert len(list((folder / "checkpoints").iterdir())) == 1
        edgebed("resume", folder.parent)  # its latest
        assert result_of(folder) == undisturbed

    def test_a_damaged_last_checkpoint_is_left_out(self, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        folder = self.stopped(tmp_path)
        *_, last = sorted((folder / "checkpoints").iterdir())
        last.write_bytes(last.read_bytes()[:-200])
        edgebed("resume", folder)
        assert result_of(folder) == undisturbed
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [line for line in log if line["kind"] == "checkpoint" and last.name in line["detail"]]

    def test_without_any_checkpoint_it_begins_anew(self, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        folder = self.stopped(tmp_path)
        shutil.rmtree(folder / "checkpoints")
        edgebed("resume", folder)
        assert result_of(folder) == undisturbed

    def test_two_at_once_are_refused(self, tmp_path: Path) -> None:
        process = start("train", *CROSS_ENTROPY, "--steps", LONG, "--runs", tmp_path)
        try:
            folder = wait_for(
                lambda: (one := only_training(tmp_path)) and (one / "metrics.jsonl").exists() and one, process
            )
            done = edgebed("resume", folder, status=2)
            assert "another edgebed is training here" in done.stderr
        finally:
            process.kill()
            process.communicate()

    @staticmethod
    def stopped(runs: Path) -> Path:
        """A training with two checkpoints, killed."""
        process = start("train", *CROSS_ENTROPY, "--steps", "12000", "--runs", runs, "--checkpoint-every", "0")
        wait_for(lambda: len(list(runs.glob("*/2*/checkpoints/step-*.npz"))) > 1, process)
        process.kill()
        process.communicate()
        folder = only_training(runs)
        assert folder is not None
        return folder


class TestWhatIsRefused:
    @pytest.fixture
    def stopped(self, tmp_path: Path) -> Path:
        return TestStoppedAndResumed.stopped(tmp_path)

    def test_a_checkpoint_of_another_training(self, stopped: Path, finished: tuple[Path, dict[str, Any]]) -> None:
        other, _ = finished
        (source,) = (other / "checkpoints").iterdir()
        shutil.copy(source, stopped / "checkpoints" / "step-000000999999.npz")
        done = edgebed("resume", stopped, status=2)
        ours, theirs = (
            yaml.safe_load((folder / "training.yaml").read_text())["plan_hash"] for folder in (stopped, other)
        )
        assert ours[:12] in done.stderr
        assert theirs[:12] in done.stderr
        assert "belongs to the training" in done.stderr

    def test_a_checkpoint_with_pickled_objects(self, stopped: Path, tmp_path: Path) -> None:
        witness = tmp_path / "executed"

        class Evil:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(witness),)

        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
        assert pickle.dumps(Evil()) in buffer.getvalue() or b"mkdir" in buffer.getvalue()
        *_, last = sorted((stopped / "checkpoints").iterdir())
        with zipfile.ZipFile(last, "a") as archive:
            archive.writestr("driver:evil.npy", buffer.getvalue())
        done = edgebed("resume", stopped, status=2)
        assert "holds pickled Python objects, and is refused: reading them runs whatever code is in them" in done.stderr
        assert not witness.exists()

    def test_a_changed_plan(self, stopped: Path) -> None:
        path = stopped / "training.yaml"
        path.write_text(path.read_text().replace("steps: 12000", "steps: 13000"))
        done = edgebed("resume", stopped, status=2)
        assert "was changed after the training had begun" in done.stderr
        assert "edgebed train --config" in done.stderr

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("[1, 2]", "is not the plan of a training"),
            ("schema_version: 99\n", "has schema version 99; this edgebed reads up to 1: update it"),
            (": :", "is not the plan of a training"),
        ],
    )
    def test_a_foreign_plan(self, content: str, says: str, tmp_path: Path) -> None:
        (tmp_path / "training.yaml").write_text(content)
        assert says in edgebed("resume", tmp_path, status=2).stderr

    def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good(self, tmp_path: Path) -> None:
        """The second generation is drawn with a deviation of 1e38, whose square is no float32 any more."""
        words = ("--set", "extra_deviation=1e38", "--steps", STEPS, "--runs", tmp_path, "--checkpoint-every", "0")
        done = edgebed("train", *CROSS_ENTROPY, *words, status=1)
        folder = only_training(tmp_path)
        assert folder is not None
        (kept,) = (folder / "checkpoints").iterdir()
        steps = int(kept.stem.partition("-")[2])
        assert "seed 0: " in done.stderr
        assert f" between steps {steps} and " in done.stderr
        assert "the last good checkpoint and policies are kept. Lower the learning rates" in done.stderr
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == "failed"
        assert status["problem"] in done.stderr
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert max(line["steps"] for line in lines) == steps
        edgebed("resume", folder, status=1)

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("cross_entropy", "--scenario", "explaboff-3x2"), "those of scenario explaboff-3x2 have numbers"),
            (("nobody", "--scenario", "dc-drl"), "there is no 'nobody'; those that exist: "),
            (("cross_entropy", "--scenario", "nowhere"), "there is no 'nowhere'; those that exist: "),
            ((*CROSS_ENTROPY, "--executor", "threads"), "there is no 'threads'; allowed: inline, processes, ray"),
            ((*CROSS_ENTROPY, "--set", "population=1"), "Expected `int` >= 4"),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else "",
    )
    def test_bad_input_leaves_no_folder(
        self, words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["train", *words, "--runs", str(tmp_path / "runs")]) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()
