"""Training from the first step to the last, or from a checkpoint on: learn, evaluate, write down, store.

In a training's folder::

    training.yaml             everything resolved; its hash guards resuming
    status.json               running | complete | interrupted | failed, versions, times, restarts
    metrics.jsonl             what was measured, without any wall-clock value
    tensorboard/seed-<k>/     the same for TensorBoard
    policies/seed-<k>/        the policy of each seed, as the last evaluation had it
    checkpoints/              the last two, to go on from
    log.jsonl                 warnings of learners and executors, restarts of workers, beginnings and ends, with times

The result is the same however often a training was interrupted, whatever it runs on, and however long things take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import WorkFailed
from edgebed.exclusive import exclusive
from edgebed.learning import learner_class
from edgebed.learning.base import Executor, Learner, Metrics
from edgebed.learning.checkpoint import Checkpoint, CheckpointMeta, latest_checkpoint, save_checkpoint
from edgebed.learning.metrics import MetricLine, MetricsFile, TensorBoardFiles, read_metrics
from edgebed.learning.status import State, TrainingLog, read_status, write_status
from edgebed.learning.training_plan import TrainingPlan, read_training
from edgebed.simulation.evaluation import evaluate
from edgebed.simulation.learned import LearnedPolicy
from edgebed.simulation.scenarios import make_scenario

POLICIES_FOLDER = "policies"
CHECKPOINT_EVERY_S = 60.0

RETURN = "return_mean"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Attributes:
        steps, planned_steps: environment steps a seed.
        steps_per_s: of this invocation; 0 when not known yet.
        return_exploring: of the last chunk, mean over seeds; None when no episode has ended.
        return_mean: of the last evaluation, mean over seeds; None before there is one.
        remaining_s: None when not known yet.
    """

    steps: int
    planned_steps: int
    steps_per_s: float
    return_exploring: float | None
    return_mean: float | None
    remaining_s: float | None


class Trainer:
    """Trains what a folder's ``training.yaml`` says, from its last checkpoint on where there is one.

    Args:
        folder: holds ``training.yaml``.
        executor: runs the learner's cells; the caller closes it.
        should_stop: asked after each chunk; then the training is stored, to be resumed.
        on_progress: told after each chunk.
        on_warning: shown what learners and executors warn of; ``log.jsonl`` has it, too.
        checkpoint_every_s: a checkpoint is stored after the chunk in which so much time has passed.

    Raises:
        BadInput: the folder is not a training's, a checkpoint is damaged beyond going on, or a setting makes no sense.
        RunConflict: the plan was changed, or a checkpoint belongs to another one.
    """

    def __init__(
        self,
        folder: Path,
        executor: Executor,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_warning: Callable[[str], None] = lambda text: None,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    ) -> None:
        self.folder = folder
        self.plan: TrainingPlan = read_training(folder)
        self._executor = executor
        self._should_stop = should_stop
        self._on_progress = on_progress
        self._on_warning = on_warning
        self._checkpoint_every_s = checkpoint_every_s
        self._next_evaluation_steps = 0
        self._last: dict[str, float | None] = {"return_exploring": None, RETURN: None}

    def run(self) -> State:
        """Train to the end, or until asked to stop.

        Returns:
            ``complete`` or ``interrupted``.

        Raises:
            WorkFailed: a loss is not finite, or a worker failed; the last good checkpoint has been kept.
            RunConflict: another process trains in this folder.
        """
        with exclusive(self.folder, "training", "training here"), TrainingLog(self.folder, self._on_warning) as log:
            if read_status(self.folder).state == "complete":
                return "complete"
            write_status(self.folder, "running", executor=self._executor)
            try:
                state = self._train(log)
            except KeyboardInterrupt:
                write_status(self.folder, "interrupted", executor=self._executor)
                raise
            except BaseException as error:
                write_status(self.folder, "failed", executor=self._executor, problem=str(error))
                raise
            write_status(self.folder, state, executor=self._executor)
            return state

    def _train(self, log: TrainingLog) -> State:
        learner = learner_class(self.plan.learner)(self.plan.task(), self._executor)
        with self._begin(learner, log) as (metrics, boards):
            started_s, started_steps = time.monotonic(), learner.steps
            stored_s = started_s
            while learner.steps < self.plan.steps:
                if self._should_stop():
                    self._store(learner, metrics)
                    return "interrupted"
                self._evaluate_when_due(learner, metrics, boards)
                self._advance(learner, metrics, boards)
                if time.monotonic() - stored_s > self._checkpoint_every_s:
                    self._store(learner, metrics)
                    stored_s = time.monotonic()
                self._tell(learner, started_s, started_steps)
            self._evaluate(learner, metrics, boards)
            self._store(learner, metrics)
        return "complete"

    @contextmanager
    def _begin(self, learner: Learner, log: TrainingLog) -> Iterator[tuple[MetricsFile, TensorBoardFiles]]:
        """Load the last checkpoint, and open the files as they were then."""
        checkpoint, problems = latest_checkpoint(self.folder, self.plan.plan_hash)
        for problem in problems:
            log.note("checkpoint", f"left out: {problem}")
        lines = 0
        if checkpoint is not None:
            self._executor.load_states(checkpoint.cell_states)
            learner.load_state(checkpoint.driver)
            lines = checkpoint.meta.metric_lines
            self._next_evaluation_steps = checkpoint.meta.next_evaluation_steps
        where = f" on {', '.join(self._executor.places)}" if self._executor.places else ""
        kind = type(self._executor).__name__
        log.note("began", f"at step {learner.steps}, {self._executor.cells} cells, {kind}{where}")
        metrics = MetricsFile(self.folder, lines)
        boards = TensorBoardFiles(self.folder, self.plan.seeds, read_metrics(self.folder))
        try:
            yield metrics, boards
        finally:
            metrics.close()
            boards.close()

    def _advance(self, learner: Learner, metrics: MetricsFile, boards: TensorBoardFiles) -> None:
        before = learner.steps
        measured = learner.advance()
        self._check(measured, before, learner.steps)
        self._append(MetricLine(steps=learner.steps, learning=measured), metrics, boards)
        self._last["return_exploring"] = _mean(measured.get("return_exploring", []))

    def _check(self, measured: Metrics, before: int, after: int) -> None:
        for name, values in measured.items():
            if len(values) != len(self.plan.seeds):
                raise WorkFailed(
                    f"learner {self.plan.learner}: {name} has {len(values)} values for {len(self.plan.seeds)}"
                )
            for seed, value in zip(self.plan.seeds, values, strict=True):
                if value is not None and not math.isfinite(value):
                    raise WorkFailed(
                        f"{self.folder}: seed {seed}: {name} is {value} between steps {before} and {after}; the "
                        "training has stopped, and the last good checkpoint and policies are kept. Lower the learning "
                        "rates or scale the rewards down; metrics.jsonl shows what grew before"
                    )
        if after <= before:
            raise WorkFailed(f"learner {self.plan.learner}: a chunk did no environment step; it would never end")

    def _evaluate_when_due(self, learner: Learner, metrics: MetricsFile, boards: TensorBoardFiles) -> None:
        if learner.steps >= self._next_evaluation_steps:
            self._evaluate(learner, metrics, boards)
            every = self.plan.evaluate_every_steps
            self._next_evaluation_steps = (learner.steps // every + 1) * every

    def _evaluate(self, learner: Learner, metrics: MetricsFile, boards: TensorBoardFiles) -> None:
        """Write the policies, and judge what was written on the same episodes as ever, without exploration."""
        found: Metrics = {}
        settings = self.plan.training
        for index, seed in enumerate(self.plan.seeds):
            folder = self.folder / POLICIES_FOLDER / f"seed-{seed}"
            learner.export(index, folder)
            scenario = make_scenario(self.plan.scenario, self.plan.scenario_settings)
            one = evaluate(
                scenario,
                lambda made, folder=folder: LearnedPolicy.load(made, folder),  # type: ignore[misc]
                episodes=settings.evaluation_episodes,
                seed=settings.evaluation_seed,
            )
            for name, value in {RETURN: one.return_mean, **one.metric_means}.items():
                found.setdefault(name, []).append(value if math.isfinite(value) else None)
        self._last[RETURN] = _mean(found[RETURN])
        self._append(MetricLine(steps=learner.steps, evaluation=found), metrics, boards)

    def _append(self, line: MetricLine, metrics: MetricsFile, boards: TensorBoardFiles) -> None:
        metrics.append(line)
        boards.append(line)

    def _store(self, learner: Learner, metrics: MetricsFile) -> None:
        meta = CheckpointMeta(
            plan_hash=self.plan.plan_hash,
            learner=self.plan.learner,
            scenario=self.plan.scenario,
            steps=learner.steps,
            metric_lines=metrics.lines,
            next_evaluation_steps=self._next_evaluation_steps,
            cells=self._executor.cells,
        )
        save_checkpoint(self.folder, Checkpoint(meta, learner.state(), self._executor.states()))

    def _tell(self, learner: Learner, started_s: float, started_steps: int) -> None:
        elapsed_s = time.monotonic() - started_s
        rate = (learner.steps - started_steps) / elapsed_s if elapsed_s > 0 else 0.0
        left = max(0, self.plan.steps - learner.steps)
        self._on_progress(
            Progress(
                steps=learner.steps,
                planned_steps=self.plan.steps,
                steps_per_s=rate,
                return_exploring=self._last["return_exploring"],
                return_mean=self._last[RETURN],
                remaining_s=left / rate if rate > 0 else None,
            )
        )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
