"""A training in the foreground: progress, Ctrl-C, and the answer at the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from edgebed.errors import EXIT_DONE, EXIT_INTERRUPTED
from edgebed.learning.executor import make_executor
from edgebed.learning.result import TrainingResult, write_result
from edgebed.learning.trainer import CHECKPOINT_EVERY_S, Progress, Trainer
from orchestrator.cli.output import Output
from orchestrator.progress import duration
from orchestrator.training.curves import write_curves

TERMINAL_INTERVAL_S = 0.3
PLAIN_INTERVAL_S = 10.0


class Stop:
    """Ctrl-C and SIGTERM: once, and the training is stored at the next possible moment; twice, and it ends at once."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals over for the length of a ``with`` block; only in the main thread."""

        def note(number: int, frame: FrameType | None) -> None:
            self.count += 1
            if self.count > 1:
                raise KeyboardInterrupt
            print("stopping after this chunk; again: at once, losing what was learned since", file=sys.stderr)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class ProgressLine:
    """One line that changes in place on a terminal, and a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._due_s = 0.0

    def show(self, progress: Progress) -> None:
        """Show it, when it is time to."""
        now_s = time.monotonic()
        if now_s < self._due_s and progress.steps < progress.planned_steps:
            return
        self._due_s = now_s + (TERMINAL_INTERVAL_S if self._is_terminal else PLAIN_INTERVAL_S)
        text = progress_text(progress)
        print(f"\r\033[K{text}" if self._is_terminal else text, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        print(f"\r\033[K{text}" if self._is_terminal else text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._is_terminal:
            print(file=sys.stderr)


def progress_text(progress: Progress) -> str:
    """As one line of text."""
    parts = [f"{progress.steps}/{progress.planned_steps} steps", f"{progress.steps_per_s:.0f}/s"]
    if progress.return_mean is not None:
        parts.append(f"return {progress.return_mean:.4g}")
    if progress.return_exploring is not None:
        parts.append(f"exploring {progress.return_exploring:.4g}")
    if progress.remaining_s is not None:
        parts.append(f"{duration(progress.remaining_s)} left")
    return " | ".join(parts)


@dataclass(frozen=True, slots=True)
class Where:
    """What a training runs on; it may change whenever the training is resumed.

    Attributes:
        executor: one of `edgebed.learning.executor.EXECUTORS`. ray_address: of a running cluster.
        checkpoint_every_s: how much learning may be lost when the machine dies.
    """

    executor: str = "inline"
    ray_address: str | None = None
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


def train_in_folder(folder: Path, where: Where, output: Output) -> int:
    """Train what a folder says, from its last checkpoint on; draw its curves; answer.

    Returns:
        The exit status: 0 when it is complete, 130 when it was interrupted and stored.

    Raises:
        EdgebedError: see `edgebed.learning.trainer.Trainer`; what was measured has been drawn.
    """
    line = ProgressLine()
    # Ray takes signals over when it starts, so ours are set after that.
    with make_executor(where.executor, where.ray_address) as made, Stop().listening() as stop:
        trainer = Trainer(
            folder,
            made,
            should_stop=lambda: stop.count > 0,
            on_progress=line.show,
            on_warning=line.note,
            checkpoint_every_s=where.checkpoint_every_s,
        )
        try:
            state = trainer.run()
        finally:
            line.close()
            result = write_result(folder, trainer.plan)
            write_curves(folder, trainer.plan)
        restarts = made.restarts
    _say(folder, state, result, restarts, output)
    return EXIT_DONE if state == "complete" else EXIT_INTERRUPTED


def _say(folder: Path, state: str, result: TrainingResult | None, restarts: int, output: Output) -> None:
    where = os.path.relpath(folder)
    if result is not None:
        for name, measure in result.measures.items():
            spread = "" if measure.ci95 is None else f" (95 % interval {measure.ci95[0]:.4g} to {measure.ci95[1]:.4g})"
            mean = "not known" if measure.mean is None else f"{measure.mean:.5g}"
            output.text(f"{name}: {mean}{spread}")
    if state == "complete":
        output.text(f"policies: {where}/policies, report: {where}/report.html")
    else:
        output.text(f"stored; it goes on by `edgebed resume {where}`")
    answer: dict[str, Any] = {"training": str(folder), "state": state, "restarts": restarts}
    if result is not None:
        answer |= {
            "learner": result.learner,
            "scenario": result.scenario,
            "seeds": result.seeds,
            "steps": result.steps,
            "evaluations": result.evaluations,
            "episodes": result.episodes,
            "measures": {
                name: {"mean": one.mean, "ci95": one.ci95, "by_seed": one.by_seed}
                for name, one in result.measures.items()
            },
            "policies": [str(folder / "policies" / f"seed-{seed}") for seed in result.seeds],
        }
    output.answer(answer)
