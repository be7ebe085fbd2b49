"""The `Policy` contract's checker and its fake.

``check_policy`` is run against every registered policy by ``tests/contracts/test_policies.py``; run it against yours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from edgebed.policies.base import Options, Policy, settle
from edgebed.types import (
    Decision,
    Feature,
    Observation,
    ObservationSpec,
    PolicySpec,
    Site,
)

MakePolicy = Callable[[ObservationSpec], Policy]

_FIELDS = tuple(field.name for field in fields(Decision))
_EXTRA = Feature("unheard_of", "1", 0, 1, "a column that a policy knows nothing of")


def example_specs() -> list[ObservationSpec]:
    """From a lone device to a crowd, and a set-up with no edge server at all."""
    return [
        ObservationSpec(("pi-1",), ("edge-1",)),
        ObservationSpec(("pi-1",), ()),
        ObservationSpec(("pi-1", "pi-2", "pi-3"), ("edge-1",), channels=2),
        ObservationSpec(tuple(f"pi-{number}" for number in range(1, 18)), ("edge-1", "edge-2", "edge-3"), channels=4),
    ]


def check_policy(make: MakePolicy, specs: Sequence[ObservationSpec] | None = None) -> None:
    """Check that what ``make`` makes keeps the `Policy` contract.

    Args:
        make: makes a new policy for an observation spec.
        specs: what to try it on; `example_specs` unless given. A policy trained for certain slots gives its own.

    Raises:
        AssertionError: it breaks the contract; the text says which rule, and on what.
    """
    for spec in example_specs() if specs is None else specs:
        policy = make(spec)
        _check_description(policy, spec)
        for what, observation in example_observations(spec):
            policy.reset(0)
            _check_answer(policy, observation, spec, f"{len(spec.slots)} slots, {what}")
        _check_determinism(make, spec)
        _check_column_order(make, spec)


def example_observations(spec: ObservationSpec, seed: int = 0) -> Iterator[tuple[str, Observation]]:
    """Observations that a policy must be able to answer, each with a name: plain, empty, masked, extreme."""
    rng = np.random.default_rng(seed)
    plain = random_observation(spec, rng)
    no_mask = np.ones_like(plain.allowed_actions)
    yield "plain values", plain
    yield "all zeros", replace(Observation.empty(spec), present=np.ones_like(plain.present))
    yield "nobody present", Observation.empty(spec)
    yield "some absent", replace(plain, present=rng.random(len(spec.slots)) < 0.5)
    yield "old values", replace(plain, age_s=np.full_like(plain.age_s, 1e6), epoch=10**6)
    for number in range(8):
        allowed = rng.random(no_mask.shape) < 0.4
        yield f"mask {number}", replace(random_observation(spec, rng), allowed_actions=allowed)
    yield "everything masked", replace(plain, allowed_actions=~no_mask)
    yield "device masked", replace(plain, allowed_actions=no_mask & (np.arange(spec.actions) > 0))
    yield "edge masked", replace(plain, allowed_actions=no_mask & (np.arange(spec.actions) == 0))
    largest = np.finfo(np.float32).max
    yield (
        "huge values",
        replace(plain, values=np.full_like(plain.values, largest), server=np.full_like(plain.server, largest)),
    )


def random_observation(spec: ObservationSpec, rng: np.random.Generator) -> Observation:
    """Everyone present, every action allowed, each feature of a plausible size for its unit."""
    scale = {"B": 1e5, "cycle": 1e8, "cycle/s": 1e9, "bit/s": 1e7}
    by_server = [*spec.server_features, *(spec.channel_features * spec.channels)]

    def draw(features: Sequence[Feature], rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        sizes = np.array([scale.get(feature.unit, 1.0) for feature in features])
        lows = np.array([feature.low if np.isfinite(feature.low) else 0.0 for feature in features])
        return (lows + sizes * rng.random((rows, len(features)))).astype(np.float32)

    values = draw(spec.device_features, len(spec.slots))
    server = draw(by_server, len(spec.servers)).ravel()
    return replace(Observation.empty(spec), values=values, server=server, present=np.ones(len(spec.slots), np.bool_))


def _check_description(policy: Policy, spec: ObservationSpec) -> None:
    about = type(policy).spec
    _expect(bool(about.name), "the class attribute `spec` has a name")
    _expect(set(about.sets) <= set(_FIELDS), f"spec.sets {about.sets} are fields of Decision: {_FIELDS}")
    _expect(bool(about.placements), "spec.placements names at least one placement")
    declared = set(type(policy).options_type.__struct_fields__)
    _expect(set(about.options) == declared, f"spec.options {sorted(about.options)} describes all of {sorted(declared)}")
    _expect(0 < len(policy.version) <= 200, "`version` is a text of 1 to 200 letters")
    _expect(policy.observation_spec == spec, "`observation_spec` is the one that the policy was made for")


def _check_answer(policy: Policy, observation: Observation, spec: ObservationSpec, what: str) -> None:
    """One decision: shapes, ranges, masks, absent slots, untouched fields, and an observation left as it was."""
    shown = _copy(observation)
    for name in ("values", "present", "age_s", "server", "allowed_actions"):
        getattr(shown, name).flags.writeable = False
    decision = policy.decide(shown)
    decision.check(spec)
    defaults = Decision.local(len(spec.slots))
    for name in set(_FIELDS) - set(policy.spec.sets) - {"edge_fraction"}:
        same = np.array_equal(getattr(decision, name), getattr(defaults, name))
        _expect(same, f"{what}: `{name}` is not in spec.sets and keeps its default")
    for slot, name in enumerate(spec.slots):
        _check_slot(decision, observation, spec, slot, f"{what}, {name}")
    kept = _copy(decision)
    policy.decide(shown)
    _expect(_same(kept, decision), f"{what}: a decision once given is not changed by the next one")


def _check_slot(decision: Decision, observation: Observation, spec: ObservationSpec, slot: int, what: str) -> None:
    chosen = decision.slot(slot)
    action = 0 if chosen.site is Site.DEVICE else 1 + chosen.server * spec.channels + chosen.channel
    if not observation.present[slot]:
        _expect(action == 0, f"{what}: an absent slot runs locally, got action {action}")
    elif not observation.allowed_actions[slot].any():
        _expect(action == 0, f"{what}: a slot with everything masked runs locally, got action {action}")
    else:
        allowed = np.flatnonzero(observation.allowed_actions[slot]).tolist()
        _expect(
            bool(observation.allowed_actions[slot, action]), f"{what}: action {action} is masked; allowed: {allowed}"
        )
    share = chosen.edge_fraction
    fits = share == float(chosen.site) if chosen.site is not Site.SPLIT else 0 < share < 1
    _expect(fits, f"{what}: edge_fraction is 0 on the device, 1 on the edge, between for a split; got {share}")


def _check_determinism(make: MakePolicy, spec: ObservationSpec) -> None:
    """The seed decides, and nothing else: no other instance, no earlier episode, no global generator."""
    observations = [observation for _, observation in example_observations(spec, seed=1)]
    first, second = make(spec), make(spec)
    first.reset(7)
    episode = [first.decide(observation) for observation in observations]
    second.reset(8)
    for observation in reversed(observations):
        second.decide(observation)
    second.reset(7)
    for number, observation in enumerate(observations):
        first.decide(observation)
        same = _same(second.decide(observation), episode[number])
        _expect(same, f"{len(spec.slots)} slots: the same seed and observations give the same decisions (at {number})")


def _check_column_order(make: MakePolicy, spec: ObservationSpec) -> None:
    """Features are read by name: other columns, or another order of them, change nothing."""
    other = replace(
        spec,
        device_features=(_EXTRA, *reversed(spec.device_features)),
        server_features=(_EXTRA, *reversed(spec.server_features)),
        channel_features=(_EXTRA, *reversed(spec.channel_features)),
    )
    plain, reordered = make(spec), make(other)
    plain.reset(3)
    reordered.reset(3)
    for what, observation in example_observations(spec, seed=2):
        same = _same(plain.decide(observation), reordered.decide(_translate(observation, spec, other)))
        _expect(same, f"{what}: with its columns in another order it is decided the same")


def _translate(observation: Observation, spec: ObservationSpec, other: ObservationSpec) -> Observation:
    shown = Observation.empty(other, observation.epoch)
    for feature in spec.device_features:
        shown.values[:, other.device_index(feature.name)] = observation.values[:, spec.device_index(feature.name)]
    position = {name: index for index, name in enumerate(other.server_names)}
    for index, name in enumerate(spec.server_names):
        shown.server[position[name]] = observation.server[index]
    return replace(
        shown, present=observation.present, age_s=observation.age_s, allowed_actions=observation.allowed_actions
    )


def _copy(value: Any) -> Any:
    arrays = {field.name: getattr(value, field.name) for field in fields(value)}
    return replace(value, **{name: array.copy() for name, array in arrays.items() if isinstance(array, np.ndarray)})


def _same(left: Decision, right: Decision) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in _FIELDS)


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"the Policy contract is broken: {rule}")


_Row = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]
_Script = Annotated[list[_Row], Meta(min_length=1)]


class ScriptOptions(Options):
    """Settings of `ScriptedPolicy`."""

    actions: _Script = msgspec.field(default_factory=lambda: [[0]])


class ScriptedPolicy(Policy):
    """A fake that decides what it was told to, and remembers what it saw.

    Row t of ``actions`` is played at the t-th decision since the reset; the last row is repeated, and so is the last
    action of a row that is shorter than the slots. Masks and absent slots are honoured.

    Attributes:
        seen: the observations since the reset, oldest first.
    """

    spec = PolicySpec(
        "scripted",
        sets=("site", "server", "channel"),
        options={"actions": "an action index a slot, for each decision in turn; [[0]] unless given"},
    )
    options_type = ScriptOptions
    options: ScriptOptions

    def __init__(self, observation_spec: ObservationSpec, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(observation_spec, options)
        self.seen: list[Observation] = []

    def reset(self, seed: int) -> None:
        """Play the script from its start."""
        super().reset(seed)
        self.seen = []

    def decide(self, observation: Observation) -> Decision:
        """The next row of the script."""
        row = self.options.actions[min(len(self.seen), len(self.options.actions) - 1)]
        self.seen.append(observation)
        slots = len(self.observation_spec.slots)
        actions = [row[min(slot, len(row) - 1)] for slot in range(slots)]
        preferred = np.minimum(actions, self.observation_spec.actions - 1).astype(np.int32)
        return Decision.from_actions(settle(preferred, observation), self.observation_spec)
