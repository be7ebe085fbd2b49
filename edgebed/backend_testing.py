"""The `Backend` contract's checker; `edgebed.backend_toy` is its fake.

``check_backend`` is run against every backend by ``tests/contracts/test_backends.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import numpy as np

from edgebed.backend import Backend, EpisodePlan, OutOfOrder, Receipt, TaskOutcome, opened
from edgebed.errors import BadInput
from edgebed.types import BoolArray, DecidedBy, Decision, Observation, ObservationSpec, Outcome, Site

PlanT = TypeVar("PlanT", bound=EpisodePlan)
Decide = Callable[[Observation], Decision | None]

_CALLS = ("reset", "observe", "submit", "poll")


@dataclass(slots=True)
class Episode:
    """Everything that a backend said in one episode."""

    observations: list[Observation] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)
    receipts: dict[int, Receipt] = field(default_factory=dict)
    outcomes: list[TaskOutcome] = field(default_factory=list)


def play(backend: Backend[PlanT], plan: PlanT, seed: int, decide: Decide) -> Episode:
    """Run an opened backend through one episode; an observation that ``decide`` gives None for is not answered."""
    episode = Episode()
    backend.reset(seed)
    for epoch in range(plan.epochs + 1):
        observation = backend.observe()
        episode.observations.append(observation)
        decision = decide(observation) if epoch < plan.epochs else None
        if decision is not None:
            episode.decisions[epoch] = decision
            episode.receipts[epoch] = backend.submit(decision)
        episode.outcomes += backend.poll(0.0)
    while late := backend.poll(math.inf):
        episode.outcomes += late
    return episode


def check_backend(make: Callable[[], Backend[PlanT]], plan: PlanT, *, deterministic: bool = True) -> None:
    """Check that a backend keeps the contract of `edgebed.backend`.

    Args:
        make: makes a new, unopened backend.
        plan: a plan that it can open, of at least two epochs.
        deterministic: the same seed and decisions must give the same episode. Not so on hosts.

    Raises:
        AssertionError: it breaks the contract; the text says which rule.
    """
    _check_unopened(make(), plan)
    spec = make().observation_spec(plan)
    with opened(make(), plan) as backend:
        _expect(backend.observation_spec(plan) == spec, "opening a backend does not change its observation spec")
        _check_order_of_an_episode(backend, plan)
        first = play(backend, plan, 3, _chooser(spec))
        _expect(bool(first.outcomes), "the plan has tasks in it; without, nothing is checked")
        _check_episode(first, plan, spec)
        _check_episode(play(backend, plan, 4, _lazy(_chooser(spec))), plan, spec)
        again = play(backend, plan, 3, _chooser(spec))
        _check_episode(again, plan, spec)
        _expect(not deterministic or _same_episode(first, again), "the same seed and decisions give the same episode")
    _check_closed(backend, plan)
    _check_bad_decisions(make(), plan, spec)


def _chooser(spec: ObservationSpec) -> Decide:
    """Allowed actions at random, now and then with a wish that a backend may have to refuse."""
    rng = np.random.default_rng(11)

    def decide(observation: Observation) -> Decision:
        noise = rng.random(observation.allowed_actions.shape) * observation.allowed_actions
        decision = Decision.from_actions(noise.argmax(axis=1).astype(np.int32), spec)
        return replace(decision, power_fraction=rng.choice(np.array([0.5, 1.0], np.float32), len(spec.slots)))

    return decide


def _lazy(decide: Decide) -> Decide:
    """Leaves every other observation unanswered."""
    return lambda observation: decide(observation) if observation.epoch % 2 else None


def _check_unopened(backend: Backend[PlanT], plan: PlanT) -> None:
    spec = backend.observation_spec(plan)
    _expect(spec.slots == tuple(plan.devices), "the slots are the plan's devices, in their order")
    _expect(spec.servers == tuple(plan.servers), "the servers are the plan's, in their order")
    _check_closed(backend, plan)


def _check_closed(backend: Backend[PlanT], plan: PlanT) -> None:
    for name in _CALLS:
        _refuses(backend, name, "a backend that is not open", plan)
    backend.close()
    backend.close()


def _check_order_of_an_episode(backend: Backend[PlanT], plan: PlanT) -> None:
    for name in ("observe", "submit", "poll"):
        _refuses(backend, name, "a backend that is not reset", plan)
    backend.reset(0)
    _refuses(backend, "submit", "a backend that has shown nothing yet", plan)
    first = backend.observe()
    _expect(first.epoch == 0, "the first observation is of epoch 0")
    backend.submit(Decision.local(len(plan.devices)))
    _refuses(backend, "submit", "an observation that is answered", plan)
    _refuses(backend, "open", "a backend that is open", plan)
    _expect(backend.observe().epoch == 1, "epochs follow one another")
    backend.reset(0)
    _expect(backend.observe().epoch == 0, "a reset in the middle of an episode starts over")
    for _ in range(plan.epochs):
        backend.observe()
    for name in ("submit", "observe"):
        _refuses(backend, name, "an episode that is over", plan)


def _check_bad_decisions(backend: Backend[PlanT], plan: PlanT, spec: ObservationSpec) -> None:
    """A decision that does not fit is refused and changes nothing: a good one can still follow."""
    slots = len(spec.slots)
    outside = replace(Decision.local(slots), server=np.full(slots, len(spec.servers) + 1, np.int32))
    with opened(backend, plan):
        backend.reset(0)
        backend.observe()
        for decision, what in ((Decision.local(slots + 1), "one slot too many"), (outside, "a server out of range")):
            try:
                backend.submit(decision)
            except BadInput:
                continue
            _expect(False, f"a decision with {what} is refused with BadInput or SchemaMismatch")
        receipt = backend.submit(Decision.local(slots))
        _expect(receipt.epoch == 0, "after a refused decision the observation can still be answered")


def _check_episode(episode: Episode, plan: EpisodePlan, spec: ObservationSpec) -> None:
    epochs = [observation.epoch for observation in episode.observations]
    _expect(epochs == list(range(plan.epochs + 1)), f"observations are of epochs 0 to {plan.epochs}, got {epochs}")
    for observation in episode.observations:
        observation.check(spec)
        _expect(not observation.values[~observation.present].any(), "an absent slot's values are 0")
    for epoch, receipt in episode.receipts.items():
        _expect(receipt.epoch == epoch, f"the receipt of epoch {epoch} says {receipt.epoch}")
        _check_receipt(receipt, episode.decisions[epoch], episode.observations[epoch].present, spec)
    for outcome in episode.outcomes:
        _check_outcome(outcome, episode, plan)
    _check_every_task_once(episode, spec)


def _check_receipt(receipt: Receipt, asked: Decision, present: BoolArray, spec: ObservationSpec) -> None:
    receipt.executed.check(spec)
    shape = (len(spec.slots),)
    _expect(receipt.accepted.shape == shape and receipt.tasks.shape == shape, "a receipt speaks of every slot")
    for slot, name in enumerate(spec.slots):
        executed, accepted = receipt.executed.slot(slot), bool(receipt.accepted[slot])
        same = bool(present[slot]) and executed == asked.slot(slot)
        _expect(accepted == same, f"{name}: accepted is {accepted}; asked {asked.slot(slot)}, executed {executed}")
        if not present[slot]:
            _expect(executed.site is Site.DEVICE, f"{name}: an absent slot's executed decision is local")
            _expect(receipt.tasks[slot] == 0, f"{name}: nothing is decided for an absent slot")


def _check_outcome(outcome: TaskOutcome, episode: Episode, plan: EpisodePlan) -> None:
    problem = outcome.problem()
    _expect(problem is None, f"{outcome.task_id}: {problem}")
    _expect(outcome.device_id in plan.devices, f"{outcome.task_id}: its device {outcome.device_id!r} is in the plan")
    epoch = outcome.decision_epoch
    if epoch is None:
        _expect(outcome.outcome is not Outcome.DONE, f"{outcome.task_id}: what nobody decided cannot be done")
        return
    _expect(0 <= epoch < plan.epochs, f"{outcome.task_id}: decision_epoch {epoch} is one of the episode")
    if epoch not in episode.receipts:
        by_fallback = outcome.decided_by is DecidedBy.FALLBACK
        _expect(by_fallback, f"{outcome.task_id}: epoch {epoch} was not answered, so the fallback policy decided")
    elif outcome.decided_by is not DecidedBy.FALLBACK:
        slot = list(plan.devices).index(outcome.device_id)
        executed = episode.receipts[epoch].executed.slot(slot).site
        _expect(outcome.site is executed, f"{outcome.task_id}: ran at {outcome.site}; its receipt said {executed}")


def _check_every_task_once(episode: Episode, spec: ObservationSpec) -> None:
    """A task is reported once, or twice if it was unknown first; the receipts counted them right."""
    last: dict[str, TaskOutcome] = {}
    for outcome in episode.outcomes:
        before = last.get(outcome.task_id)
        upgrade = before is None or (before.outcome is Outcome.UNKNOWN and outcome.outcome is Outcome.DONE)
        _expect(upgrade, f"{outcome.task_id}: reported as {before and before.outcome}, then as {outcome.outcome}")
        last[outcome.task_id] = outcome
    ended = Counter((outcome.decision_epoch, outcome.device_id) for outcome in last.values())
    for epoch, receipt in episode.receipts.items():
        present = episode.observations[epoch].present
        for slot, name in enumerate(spec.slots):
            if not present[slot]:  # it may decide for itself: it was late, not away
                continue
            decided = int(receipt.tasks[slot])
            _expect(
                ended[epoch, name] == decided, f"{name}, epoch {epoch}: {decided} decided, {ended[epoch, name]} ended"
            )


def _same_episode(left: Episode, right: Episode) -> bool:
    pairs = [*zip(left.observations, right.observations, strict=True)]
    pairs_executed = zip(left.receipts.values(), right.receipts.values(), strict=True)
    same_views = all(_same_arrays(one, other) for one, other in pairs)
    same_receipts = all(_same_arrays(one.executed, other.executed) for one, other in pairs_executed)
    return same_views and same_receipts and left.outcomes == right.outcomes


def _same_arrays(left: Observation | Decision, right: Observation | Decision) -> bool:
    return all(np.array_equal(getattr(left, part.name), getattr(right, part.name)) for part in fields(left))


def _refuses(backend: Backend[PlanT], call: str, when: str, plan: PlanT) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "open": (plan,),
        "reset": (0,),
        "submit": (Decision.local(len(plan.devices)),),
        "poll": (0.0,),
    }
    rule = f"{call}() on {when} raises OutOfOrder"
    try:
        getattr(backend, call)(*arguments.get(call, ()))
    except OutOfOrder:
        return
    except Exception as error:
        raise AssertionError(f"the Backend contract is broken: {rule}, not {error!r}") from error
    _expect(False, rule)


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"the Backend contract is broken: {rule}")
