"""The contracts of training: what a learner is, what one of its cells is, and what runs the cells.

A *cell* is one environment with everything that acts in it. All training seeds of a cell are one batch ``[S]``. A
learner's driver aggregates: it tells the cells what to do through an `Executor` and never knows whether they run in
this process, in processes of their own or on a Ray cluster. `edgebed.learning.testing` ships the checker of learners;
`edgebed.learning.cross_entropy` is a whole learner on one page.

What a training is made of::

    learner = MyLearner(task, executor)
    while learner.steps < task.steps:
        metrics = learner.advance()             # a generation, or a chunk of some seconds
    learner.export(0, folder)                   # the policy of the first seed

Everything here is numpy only, so that it can be imported without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import msgspec
import msgspec.inspect
import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.base import parameter

__all__ = [
    "Cell",
    "CellWorker",
    "Data",
    "Executor",
    "Learner",
    "LearnerConfig",
    "LearnerSpec",
    "Metrics",
    "State",
    "TrainingTask",
    "parameter",
    "read_learner_config",
]

Data = dict[str, Any]
"""Plain data: arrays, numbers, texts, and lists and dicts of them. What passes between a driver and its cells."""

State = dict[str, NDArray[Any]]
"""Arrays by name, none of objects: what a checkpoint stores. Names have no ``:`` in them."""

Metrics = dict[str, list[float | None]]
"""Numbers of a chunk by name, one a seed; None where there was nothing to measure yet. NaN means that it failed."""


class LearnerConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of a learner. Subclass it, ``frozen=True``; each is ``Annotated[type, parameter(...)] = default``."""


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """What a learner is, readable without making it.

    Attributes:
        name: its registered name, that of its module where it can be.
        title: one line.
        paper: where it comes from.
        config: the settings, with unit, range and default.
    """

    name: str
    title: str
    paper: str
    config: type[LearnerConfig]


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """What is to be learned, all settings resolved.

    Attributes:
        learner: registered name.
        config: the learner's settings.
        scenario: registered name.
        parameters: the scenario's settings, as `edgebed.simulation.scenarios.make_scenario` takes them.
        seeds: training seeds, trained as one batch ``[S]``.
        steps: environment steps a seed, all cells together.
    """

    learner: str
    config: LearnerConfig
    scenario: str
    parameters: Mapping[str, Any]
    seeds: tuple[int, ...]
    steps: int

    def __post_init__(self) -> None:
        problems = [
            (not self.seeds, "seeds: there is none; give at least one, as in 0,1,2"),
            (len(set(self.seeds)) < len(self.seeds), f"seeds: {list(self.seeds)} has one twice; each trains once"),
            (any(seed < 0 for seed in self.seeds), f"seeds: {list(self.seeds)}; a seed is not negative"),
            (self.steps < 1, f"steps: {self.steps}; at least 1 environment step a seed is needed"),
        ]
        for is_wrong, problem in problems:
            if is_wrong:
                raise BadInput(problem)


@dataclass(frozen=True, slots=True)
class Cell:
    """Which cell a `CellWorker` is, and all that it needs to make its environment.

    Attributes:
        index: of ``cells``; draw randomness from ``edgebed.randomness.stream(seed, "cell", index, ...)``.
    """

    task: TrainingTask
    index: int
    cells: int


class CellWorker(ABC):
    """One environment with all training seeds as a batch, wherever it runs.

    Its other public methods are what the learner's driver calls: each takes plain data by name and returns `Data`.
    What a worker returns depends on its cell, on what it was asked so far, and on nothing else: neither on the clock
    nor on the process, because a worker that died is made again from an earlier `state` and asked the same again.
    A subclass lies at the top of a module, so that another process can import it.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @abstractmethod
    def state(self) -> State:
        """All that changes, random generators included; the caller's to keep."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Go on from there. The worker was made for the same cell."""


class Executor(ABC):
    """Runs cell workers, one a cell, and gives their answers in the cells' order.

    A worker that dies is made again from its last snapshot, asked again what it was asked since, and the run goes on
    with the same result.

    Attributes:
        restarts: workers that were made again.
    """

    restarts: int = 0

    @abstractmethod
    def start(self, kind: type[CellWorker], task: TrainingTask, cells: int) -> None:
        """Make the workers ``kind(Cell(task, index, cells))``; once.

        Raises:
            BadInput: what a worker was given is wrong.
            WorkFailed: a worker could not be made.
        """

    @abstractmethod
    def call(self, method: str, payloads: Sequence[Data]) -> list[Data]:
        """Call a method of every worker, at the same time where the executor can, and wait for all.

        Args:
            method: name of it.
            payloads: arguments by name, one a cell.

        Returns:
            Answers, in the cells' order.

        Raises:
            WorkFailed: a worker raised, or died again and again; the cell and its traceback are in the text. An error
                of edgebed's own is raised as it is.
        """

    @abstractmethod
    def states(self) -> list[State]:
        """`CellWorker.state` of every cell. They are also what dead workers are made again from."""

    @abstractmethod
    def load_states(self, states: Sequence[State]) -> None:
        """`CellWorker.load_state` of every cell."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, if there are any; may be called twice."""

    def call_all(self, method: str, **payload: Any) -> list[Data]:
        """Call a method of every worker with the same arguments."""
        return self.call(method, [payload] * self.cells)

    @property
    @abstractmethod
    def cells(self) -> int:
        """How many workers there are; 0 before `start`."""

    @property
    def places(self) -> list[str]:
        """Where the cells run, as far as that is not this machine."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Learner(ABC):
    """Trains one policy a seed. It starts its cells in ``__init__``, by ``executor.start``; one without cells does not.

    The same task gives the same numbers on every executor, whatever else the machine does, and whether or not it was
    stopped and went on from `state` in between.

    Attributes:
        spec: class attribute, readable without making one.
        task: what to learn.
        executor: runs the cells; the caller closes it.
    """

    spec: ClassVar[LearnerSpec]

    def __init__(self, task: TrainingTask, executor: Executor) -> None:
        """Make the learner as it is before the first step.

        Raises:
            BadInput: as `check`, which the caller may have left out.
        """
        self.task = task
        self.executor = executor

    @classmethod
    def check(cls, task: TrainingTask) -> None:
        """Say, before anything is started or written, why a task cannot be learned; nothing by default.

        Raises:
            BadInput: the learner cannot learn in this scenario (say which it can), or a setting makes no sense there.
        """
        return

    @property
    @abstractmethod
    def steps(self) -> int:
        """Environment steps a seed so far, all cells together."""

    @abstractmethod
    def advance(self) -> Metrics:
        """Learn for one generation, or one chunk; best some seconds long, because it is not interrupted.

        Returns:
            What was measured, one value a seed. ``return_exploring`` is the mean return of the episodes that ended in
            the chunk, exploration included; a finite number stands for every loss, else the training is stopped.
        """

    @abstractmethod
    def state(self) -> State:
        """All of the driver that changes, random generators included; the cells are stored by `Executor.states`."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Go on from there; the cells' states have been loaded. The learner was made for the same task."""

    @abstractmethod
    def export(self, index: int, folder: Path) -> None:
        """Write the policy, without exploration, of ``task.seeds[index]`` by `edgebed.policies.network.save_policy`.

        Args:
            index: of the seed in ``task.seeds``.
            folder: made where it is missing; a policy that is there is replaced.
        """


def read_learner_config(spec: LearnerSpec, given: Mapping[str, Any]) -> Any:
    """The settings of a learner as ``spec.config``, defaults filled in.

    Raises:
        BadInput: one is unknown, of the wrong type, not finite or out of range; the allowed ones are named.
    """
    try:
        settings = msgspec.convert(_worded(spec.config, given), spec.config)
    except msgspec.ValidationError as error:
        allowed = ", ".join(spec.config.__struct_fields__) or "none"
        raise BadInput(f"learner {spec.name}: {error}; its settings: {allowed}") from None
    for name in spec.config.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, float) and not np.isfinite(value):
            raise BadInput(f"learner {spec.name}: `{name}` is {value}, which is not finite")
    return settings


def _worded(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the word where YAML has read one that is allowed, ``off`` or ``on``, as false or true."""
    found = dict(given)
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        value = found.get(field.name)
        plain = field.type.type if isinstance(field.type, msgspec.inspect.Metadata) else field.type
        if isinstance(value, bool) and isinstance(plain, msgspec.inspect.LiteralType):
            word = "on" if value else "off"
            found[field.name] = word if word in plain.values else value
    return found
