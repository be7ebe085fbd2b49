"""What turns decisions into outcomes: the `Backend` contract.

Real hosts, the simulator and the replay of a trace all stand behind it, so that a learner or an environment cannot
tell them apart. `edgebed.backend_testing` ships its checker and its fake.

An episode, which on hosts is one cell::

    with opened(backend, plan):
        backend.reset(seed)
        observation = backend.observe()                       # epoch 0
        while observation.epoch < plan.epochs:
            receipt = backend.submit(policy.decide(observation))
            observation = backend.observe()                   # the next tick; the last one is only looked at
            outcomes += backend.poll(0.0)                     # what has ended meanwhile
        while late := backend.poll(math.inf):                 # the rest
            outcomes += late

A task's cost belongs to the epoch that decided it (``decision_epoch``). The reward of epoch t is minus the sum of the
costs of its tasks, and final when as many of them have been reported as ``Receipt.tasks`` of epoch t adds up to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

from edgebed.errors import EdgebedError
from edgebed.types import BoolArray, DecidedBy, Decision, IntArray, Observation, ObservationSpec, Outcome, Site


class OutOfOrder(EdgebedError, RuntimeError):
    """A backend was called in an order that makes no sense, for example ``submit`` before ``observe``."""


class EpisodePlan(Protocol):
    """The least that a plan says; `edgebed.protocol.cells.CellSpec` is one. Backends may ask for more."""

    @property
    def devices(self) -> Sequence[str]:
        """Names of the devices, in slot order."""
        ...

    @property
    def servers(self) -> Sequence[str]:
        """Names of the edge servers, in the order that decisions index."""
        ...

    @property
    def epochs(self) -> int:
        """Decisions in an episode; it has one observation more."""
        ...

    @property
    def epoch_s(self) -> float:
        """Seconds from one tick to the next."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a decision.

    Attributes:
        epoch: the epoch of the observation that it answers.
        executed: what will really be executed; local where a slot is absent.
        accepted: ``[slots]``, True where the device is present and ``executed`` is exactly what was asked for.
        tasks: ``[slots]``, how many tasks were decided by it; 0 where a slot is absent.
    """

    epoch: int
    executed: Decision
    accepted: BoolArray
    tasks: IntArray


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How one task ended, as far as a learner needs to know. What is not known is None.

    Attributes:
        decision_epoch: the epoch whose decision covered it; None if nobody ever decided it (its device was down).
        decided_by: whose decision was executed; None as above.
        site: where it was executed; None as above.
        reason: why it failed or is unknown; empty when done.
        latency_s: from the scheduled arrival until the result is on the device; None unless done.
        deadline_met: None if unknown, False if failed.
        device_energy_j, server_energy_j: marginal energy.
        cost: not negative; None if unknown.
    """

    task_id: str
    device_id: str
    outcome: Outcome
    deadline_s: float
    decision_epoch: int | None = None
    decided_by: DecidedBy | None = None
    site: Site | None = None
    reason: str = ""
    latency_s: float | None = None
    deadline_met: bool | None = None
    device_energy_j: float | None = None
    server_energy_j: float | None = None
    cost: float | None = None

    def problem(self) -> str | None:
        """Which of the rules above it breaks, or None."""
        done, unknown = self.outcome is Outcome.DONE, self.outcome is Outcome.UNKNOWN
        if (self.latency_s is not None) != done:
            return f"a task that is {self.outcome} has latency_s {self.latency_s}; it is known exactly when done"
        met = None if unknown else self.latency_s is not None and self.latency_s <= self.deadline_s
        if self.deadline_met is not met:
            return f"deadline_met is {self.deadline_met}; latency {self.latency_s} s and {self.outcome} say {met}"
        if (self.cost is None) != unknown or (self.cost is not None and self.cost < 0):
            return f"a task that is {self.outcome} costs {self.cost}; None exactly when unknown, else not negative"
        if done == bool(self.reason):
            return f"a task that is {self.outcome} gives the reason {self.reason!r}; needed exactly when not done"
        undecided = [self.decision_epoch is None, self.decided_by is None, self.site is None]
        if any(undecided) != all(undecided):
            return "decision_epoch, decided_by and site are either all known or all None"
        return None


PlanT_contra = TypeVar("PlanT_contra", bound=EpisodePlan, contravariant=True)


class Backend(Protocol[PlanT_contra]):
    """Turns decisions into outcomes. Calls out of order raise `OutOfOrder` and do nothing."""

    def observation_spec(self, plan: PlanT_contra) -> ObservationSpec:
        """What the observations of a plan look like; needs nothing opened or connected."""
        ...

    def open(self, plan: PlanT_contra) -> None:
        """Acquire what the plan needs. If it fails, `close` still has to be called."""
        ...

    def reset(self, seed: int) -> None:
        """Start an episode, abandoning an unfinished one. The seed fixes arrivals and all other chance."""
        ...

    def observe(self) -> Observation:
        """Wait for the next tick and return what is known then.

        The first is epoch 0, the last is epoch ``plan.epochs``. An epoch that was not answered by `submit` before the
        next tick is decided by the fallback policy.
        """
        ...

    def submit(self, decision: Decision) -> Receipt:
        """Answer the last observation, once. The last of an episode has no answer.

        Raises:
            SchemaMismatch, BadInput: the decision does not fit the observation spec; nothing was done, try again.
        """
        ...

    def poll(self, timeout_s: float) -> list[TaskOutcome]:
        """Outcomes not reported before, in the order in which they became known.

        Waits until there is one, ``timeout_s`` has passed, the next tick is due, or nothing is outstanding: so after
        the last observation ``poll(math.inf)`` is empty only when every task is terminal. A task is reported once,
        or twice if it was ``unknown`` and a late result made it ``done``.
        """
        ...

    def close(self) -> None:
        """Let go of everything; harmless when nothing is open."""
        ...


AnyBackend = TypeVar("AnyBackend", bound=Backend[Any])


@contextmanager
def opened(backend: AnyBackend, plan: EpisodePlan) -> Iterator[AnyBackend]:
    """Open a backend for the length of a ``with`` block, and close it whatever happens in there."""
    try:
        backend.open(plan)
        yield backend
    finally:
        backend.close()


@runtime_checkable
class CanShapeLink(Protocol):
    """The ability to make a device's link worse than it is."""

    def shape_link(self, device: str, rate_bps: float, delay_s: float = 0.0, loss: float = 0.0) -> None:
        """Limit the rate both ways, delay each way, and lose this share of packets, from now on.

        Raises:
            BadInput: no such device, or a value that no link has.
        """
        ...

    def restore_link(self, device: str) -> None:
        """Undo `shape_link`."""
        ...


@runtime_checkable
class CanPause(Protocol):
    """The ability to stop the run clock between two epochs, for example while a learner updates."""

    def pause(self) -> None:
        """Let no task arrive and no tick come until `resume`; work under way goes on."""
        ...

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        ...


@runtime_checkable
class CanRunCells(Protocol[PlanT_contra]):
    """The ability to run a whole cell alone, where the decision loop lives on the hosts and not with the caller."""

    def run_cell(self, plan: PlanT_contra, report: Callable[[TaskOutcome], None]) -> None:
        """Run the plan's policy from start to end; ``report`` is called with each outcome as it becomes known.

        Returns when every planned task is terminal or a stop rule of the plan says so.

        Raises:
            WorkFailed: the cell could not be started or was lost; what was reported stays valid.
        """
        ...


class Turn(StrEnum):
    """Where a backend is in its episode."""

    CLOSED = "closed"
    OPEN = "open, not reset"
    RUNNING = "between two observations"
    ASKED = "observed, not answered"
    OVER = "at the end of the episode"


_EPISODE = frozenset({Turn.RUNNING, Turn.ASKED, Turn.OVER})
_ALLOWED_TURNS: dict[str, frozenset[Turn]] = {
    "open": frozenset({Turn.CLOSED}),
    "reset": _EPISODE | {Turn.OPEN},
    "observe": frozenset({Turn.RUNNING, Turn.ASKED}),
    "submit": frozenset({Turn.ASKED}),
    "poll": _EPISODE,
}


class CallOrder:
    """Keeps the order of calls for a backend, so that all backends refuse the same ones with the same words.

    Attributes:
        turn: set it after a call has succeeded.
    """

    def __init__(self) -> None:
        self.turn = Turn.CLOSED

    def check(self, call: str) -> None:
        """Refuse a call that is out of turn.

        Raises:
            OutOfOrder: says where the backend is and what may be called.
        """
        if self.turn not in _ALLOWED_TURNS[call]:
            possible = [name for name, turns in _ALLOWED_TURNS.items() if self.turn in turns]
            raise OutOfOrder(f"{call}() while the backend is {self.turn}; possible now: {', '.join(possible)}, close")
