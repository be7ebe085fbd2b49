"""The `Learner` contract's checker, and cells for the tests of executors.

``check_learner`` is run against every registered learner by ``tests/learning/test_learners.py``; run it against yours.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgebed.errors import BadInput
from edgebed.learning.base import Cell, CellWorker, Data, Executor, Learner, Metrics, State, TrainingTask
from edgebed.learning.checkpoint import Checkpoint, CheckpointMeta, load_checkpoint, save_checkpoint
from edgebed.learning.executor import make_executor
from edgebed.randomness import stream
from edgebed.simulation.learned import LearnedPolicy
from edgebed.simulation.scenarios import make_scenario


def check_learner(
    kind: type[Learner],
    task: TrainingTask,
    folder: Path,
    *,
    chunks: int = 2,
    executors: Sequence[str] = ("processes",),
) -> None:
    """Check that a learner keeps the contract, in a task that takes seconds.

    Args:
        kind: the learner.
        task: at least two seeds, and more steps than the chunks take.
        folder: empty; checkpoints and policies are written there.
        chunks: how many times it learns before and after it is stored.
        executors: other than ``inline``, that it must give the same on.

    Raises:
        AssertionError: it breaks the contract; the text says which rule.
    """
    _check_description(kind, task)
    with make_executor("inline") as executor:
        learner = kind(task, executor)
        assert learner.steps == 0, f"{learner.steps} steps before the first one"
        first = _chunks(learner, task, chunks)
        _store(folder, learner, executor)
        second = _chunks(learner, task, chunks)
        exported = _exported(learner, task, folder / "one")
        _check_policies(task, folder / "one")
    with make_executor("inline") as executor:
        again = kind(task, executor)
        _check_same("made anew", first, _chunks(again, task, chunks))
    with make_executor("inline") as executor:
        resumed = kind(task, executor)
        _load(folder, resumed, executor)
        _check_same("after a checkpoint", second, _chunks(resumed, task, chunks))
        assert _exported(resumed, task, folder / "two") == exported, "after a checkpoint the policies differ"
    for name in executors:
        with make_executor(name) as executor:
            elsewhere = kind(task, executor)
            _check_same(f"on the executor {name}", first + second, _chunks(elsewhere, task, 2 * chunks))
            assert _exported(elsewhere, task, folder / name) == exported, f"on {name} the policies differ"


def _check_description(kind: type[Learner], task: TrainingTask) -> None:
    spec = kind.spec
    assert spec.name == task.learner, f"the task is for {task.learner}, the learner is {spec.name}"
    assert spec.title, "the spec has no title"
    assert spec.paper, "the spec does not say where it comes from"
    assert isinstance(spec.config(), spec.config), "not every setting has a default"
    kept = msgspec.convert(msgspec.to_builtins(task.config), spec.config)
    assert kept == task.config, "the settings do not survive being written to a file"


def _chunks(learner: Learner, task: TrainingTask, count: int) -> list[Metrics]:
    found = []
    for _ in range(count):
        before = learner.steps
        metrics = learner.advance()
        assert learner.steps > before, "a chunk without an environment step"
        assert metrics, "a chunk without a metric"
        for name, values in metrics.items():
            assert isinstance(values, list), f"{name} is a {type(values).__name__}, a list is needed"
            assert len(values) == len(task.seeds), f"{name} has {len(values)} values for {len(task.seeds)} seeds"
            for value in values:
                assert value is None or np.isfinite(value), f"{name} is {value!r}"
        found.append(metrics)
    return found


def _check_same(when: str, expected: list[Metrics], found: list[Metrics]) -> None:
    for chunk, (one, other) in enumerate(zip(expected, found, strict=True)):
        for name in one:
            assert one[name] == other.get(name), f"{when}, chunk {chunk}: {name} is {other.get(name)}, was {one[name]}"


def _store(folder: Path, learner: Learner, executor: Executor) -> None:
    task = learner.task
    meta = CheckpointMeta(
        plan_hash="checked",
        learner=task.learner,
        scenario=task.scenario,
        steps=learner.steps,
        metric_lines=0,
        next_evaluation_steps=0,
        cells=executor.cells,
    )
    save_checkpoint(folder, Checkpoint(meta, learner.state(), executor.states()))


def _load(folder: Path, learner: Learner, executor: Executor) -> None:
    (path,) = (folder / "checkpoints").glob("*.npz")
    checkpoint = load_checkpoint(path, "checked")
    executor.load_states(checkpoint.cell_states)
    learner.load_state(checkpoint.driver)
    assert learner.steps == checkpoint.meta.steps, "a loaded state does not have the steps of the stored one"


def _exported(learner: Learner, task: TrainingTask, folder: Path) -> list[bytes]:
    for index, seed in enumerate(task.seeds):
        learner.export(index, folder / f"seed-{seed}")
    return [(folder / f"seed-{seed}" / "policy.npz").read_bytes() for seed in task.seeds]


def _check_policies(task: TrainingTask, folder: Path) -> None:
    scenario = make_scenario(task.scenario, task.parameters)
    for seed in task.seeds:
        policy = LearnedPolicy.load(scenario, folder / f"seed-{seed}")
        assert policy.file.learner == task.learner, f"the policy says that {policy.file.learner!r} made it"
        assert policy.file.training.get("seed") == seed, "the policy does not say which seed it is of"
        scenario.reset(np.arange(3))
        scenario.step(policy.act())


class CountingCell(CellWorker):
    """A cell that adds up what it is given and draws numbers; it can be told to fail, in several ways."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        if cell.task.parameters.get("fail") == "made":
            raise BadInput("this cell cannot be made; ask for another")
        self.total = 0.0
        self.draws = 0

    def add(self, numbers: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Data:
        """Add numbers and a drawn one; say what came of it, and from which process."""
        self.draws += 1
        self.total += float(numbers.sum()) + stream(self.cell.index, "draw", self.draws).random()
        numbers[:] = -1.0  # its own copy, whatever runs it
        return {"total": self.total, "draws": self.draws, "cell": self.cell.index, "seen": numbers, "pid": os.getpid()}

    def fail(self, how: str) -> Data:
        """Raise one of edgebed's errors, raise another one, answer what is no plain data, or die."""
        if how == "bad_input":
            raise BadInput("this cell does not like it; ask for something else")
        if how == "bug":
            raise ZeroDivisionError("an error in a learner")
        if how == "object":
            return {"object": self}
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    def state(self) -> State:
        """Total and number of draws."""
        return {"total": np.array(self.total), "draws": np.array(self.draws)}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.total, self.draws = float(state["total"]), int(state["draws"])
