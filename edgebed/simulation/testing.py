"""The checker of the `Scenario` contract, and actions to try scenarios with.

``check_scenario`` is run against every registered scenario by ``tests/contracts/test_scenarios.py``; run it against
yours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

import numpy as np

from edgebed.errors import BadInput
from edgebed.simulation.base import (
    ActionArray,
    ActionLayout,
    BatchObservation,
    BatchStep,
    Parameters,
    Scenario,
    SeedArray,
)
from edgebed.types import BoolArray

MakeScenario = Callable[[Mapping[str, Any]], Scenario]

MOST_STEPS = 120
"""Episodes that are longer are tried in part only."""


def random_actions(layout: ActionLayout, batch: int, devices: int, rng: np.random.Generator) -> ActionArray:
    """Actions that a layout allows, uniform, for ``[batch, devices]``."""
    choice = rng.integers(0, max(1, len(layout.choices)), (batch, devices))
    if not layout.numbers:
        return choice
    numbers = [rng.uniform(feature.low, feature.high, (batch, devices)) for feature in layout.numbers]
    return np.stack([choice.astype(np.float64), *numbers] if layout.choices else numbers, axis=2)


def check_scenario(make: MakeScenario, parameters: Mapping[str, Any] | None = None) -> None:
    """Check that what ``make`` makes keeps the `Scenario` contract.

    Args:
        make: makes a new scenario, given its parameters.
        parameters: to try it with; the defaults unless given.

    Raises:
        AssertionError: it breaks the contract; the text says which rule.
    """
    given = dict(parameters or {})

    def fresh() -> Scenario:
        return make(given)

    _check_description(fresh())
    _check_parameters(make, given)
    _check_shapes(fresh())
    _check_batch(fresh, 7)
    _check_partial_reset(fresh)
    _check_end(fresh())
    _check_bad_actions(fresh())
    for name in fresh().heuristics:
        _check_heuristic(fresh, name)


def _check_description(scenario: Scenario) -> None:
    names = [feature.name for feature in (*scenario.device_features, *scenario.shared_features)]
    assert len(set(names)) == len(names), f"features must have different names: {names}"
    for feature in (*scenario.device_features, *scenario.shared_features, *scenario.actions.numbers):
        assert feature.unit, f"feature {feature.name} has no unit; '1' says that it is a pure number"
        assert feature.meaning, f"feature {feature.name} does not say what it means"
        assert feature.low <= feature.high, f"feature {feature.name} is from {feature.low} to {feature.high}"
    assert scenario.actions.choices or scenario.actions.numbers, "an action must have choices or numbers"
    for field, hint in get_type_hints(scenario.spec.parameters, include_extras=True).items():
        notes = get_args(hint)[1:]
        assert notes, f"parameter {field} must be Annotated with `parameter(...)`"
        assert notes[0].extra, f"parameter {field} has neither unit nor source"
        assert notes[0].description, f"parameter {field} does not say what it means"
    for name, kind in scenario.heuristics.items():
        assert kind.__doc__, f"heuristic {name} needs a docstring: its first line is shown in lists"


def _check_parameters(make: MakeScenario, given: Mapping[str, Any]) -> None:
    for wrong in ({"no_such_parameter": 1}, *out_of_range(make(given).spec.parameters)):
        text = _refusal(lambda wrong=wrong: make({**given, **wrong}))  # type: ignore[misc]
        assert text is not None, f"the parameters {wrong} must be refused"
        assert next(iter(wrong)) in text, f"the error does not name what is wrong with {wrong}: {text}"


def _refusal(attempt: Callable[[], object]) -> str | None:
    """The error's text; None when there was none."""
    try:
        attempt()
    except BadInput as error:
        return str(error)
    return None


def out_of_range(parameters: type[Parameters]) -> list[dict[str, Any]]:
    """One value beyond each bound of each parameter, and one of the wrong type for each."""
    wrong: list[dict[str, Any]] = []
    for name, hint in get_type_hints(parameters, include_extras=True).items():
        kind, note = get_args(hint)[:2]
        wrong.append({name: {"not": "a value"}})
        if kind is float:
            wrong.append({name: float("nan")})
        if note.ge is not None:
            wrong.append({name: _beyond(kind, note.ge, -1)})
        if note.gt is not None:
            wrong.append({name: kind(note.gt)})
        if note.le is not None:
            wrong.append({name: _beyond(kind, note.le, 1)})
        if note.lt is not None:
            wrong.append({name: kind(note.lt)})
    return wrong


def _beyond(kind: type, bound: float, direction: int) -> float:
    return int(bound) + direction if kind is int else float(np.nextafter(bound, direction * np.inf))


def _check_shapes(scenario: Scenario) -> None:
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        scenario.reset(np.arange(batch))
        _check_observation(scenario, batch)
        actions = random_actions(scenario.actions, batch, scenario.devices, rng)
        before = actions.copy()
        decisions = scenario.decisions(actions)
        for name in decisions.__dataclass_fields__:
            shape = getattr(decisions, name).shape
            assert shape == (batch, scenario.devices), f"decisions.{name} has shape {shape}"
        assert np.isin(decisions.site, (0, 1, 2)).all(), "decisions.site must be 0 (device), 1 (edge) or 2 (split)"
        assert (decisions.server < scenario.servers).all(), "decisions.server is beyond the servers"
        assert (decisions.channel < scenario.channels).all(), "decisions.channel is beyond the channels"
        _check_step(scenario, scenario.step(actions), batch)
        assert (actions == before).all(), "step and decisions must not change the actions"
        _check_observation(scenario, batch)
        _check_metrics(scenario, batch)


def _check_observation(scenario: Scenario, batch: int) -> None:
    seen = scenario.observe()
    sides = (
        ("devices", seen.devices, scenario.device_features, (batch, scenario.devices, len(scenario.device_features))),
        ("shared", seen.shared, scenario.shared_features, (batch, len(scenario.shared_features))),
        ("device_views", scenario.device_views(), scenario.view_features, None),
    )
    for name, values, features, shape in sides:
        wanted = shape or (batch, scenario.devices, len(features))
        assert values.shape == wanted, f"{name} has shape {values.shape}; {wanted} is described"
        assert values.dtype == np.float32, f"{name} is {values.dtype}; float32 is needed"
        assert np.isfinite(values).all(), f"{name} has values that are not finite"
        for index, feature in enumerate(features):
            low, high = np.float32(feature.low), np.float32(feature.high)
            least, most = values[..., index].min(), values[..., index].max()
            assert low <= least <= most <= high, f"{feature.name} is {least} to {most}; described as {low} to {high}"
    kept = seen.devices.copy()
    seen.devices[:] = -1.0
    assert (scenario.observe().devices == kept).all(), "an observation is the caller's: changing it changed the next"


def _check_step(scenario: Scenario, step: BatchStep, batch: int) -> None:
    for name, kind, shape in (
        ("reward", np.float64, (batch,)),
        ("costs", np.float64, (batch, scenario.devices)),
        ("terminated", np.bool_, (batch,)),
        ("truncated", np.bool_, (batch,)),
    ):
        values = getattr(step, name)
        assert values.shape == shape, f"step.{name} has shape {values.shape}; {shape} is needed"
        assert values.dtype == kind, f"step.{name} is {values.dtype}; {np.dtype(kind)} is needed"
        assert np.isfinite(values).all(), f"step.{name} has values that are not finite"
    assert (step.costs >= 0.0).all(), "costs are not negative; returns are"


def _check_metrics(scenario: Scenario, batch: int) -> None:
    metrics = scenario.metrics()
    assert "cost_per_task" in metrics, "metrics must have cost_per_task"
    for name, values in metrics.items():
        assert values.shape == (batch,), f"metric {name} has shape {values.shape}; one number an environment is needed"
        assert np.isfinite(values).all(), f"metric {name} is not finite: {values}"


_Moment = tuple[BatchObservation, BatchStep]


def _record(scenario: Scenario, seeds: SeedArray, actions: list[ActionArray]) -> list[_Moment]:
    scenario.reset(seeds)
    return [(scenario.observe(), scenario.step(action)) for action in actions]


def _check_batch(fresh: Callable[[], Scenario], size: int) -> None:
    """An environment's results are the same, to the bit, alone, in any place of a batch, and again."""
    scenario = fresh()
    rng = np.random.default_rng(1)
    steps = min(scenario.steps, MOST_STEPS)
    seeds = np.arange(size, dtype=np.int64) * 3 + 5
    actions = [random_actions(scenario.actions, size, scenario.devices, rng) for _ in range(steps)]
    together = _record(scenario, seeds, actions)
    metrics = scenario.metrics()
    for index in (0, size - 2):
        alone = fresh()
        one = slice(index, index + 1)
        found = _record(alone, seeds[one], [action[one] for action in actions])
        for number, (expected, got) in enumerate(zip(together, found, strict=True)):
            _same(expected, got, one, f"step {number}: environment {index} of {size}")
        for name, values in alone.metrics().items():
            assert (values == metrics[name][one]).all(), f"metric {name} depends on the batch"
    for number, (expected, got) in enumerate(zip(together, _record(scenario, seeds, actions), strict=True)):
        _same(expected, got, slice(None), f"step {number}: the same seeds again")


def _same(expected: _Moment, got: _Moment, one: slice, what: str) -> None:
    for part, names in enumerate((("devices", "shared"), ("reward", "costs", "terminated", "truncated"))):
        for name in names:
            wanted, found = getattr(expected[part], name)[one], getattr(got[part], name)
            assert (wanted == found).all(), f"{what} has another {name}: {found} instead of {wanted}"


def _check_partial_reset(fresh: Callable[[], Scenario]) -> None:
    """Starting some environments over is starting them over, and leaves the others alone."""
    scenario, other = fresh(), fresh()
    rng = np.random.default_rng(2)
    seeds = np.array([11, 12, 13], np.int64)
    actions = random_actions(scenario.actions, 3, scenario.devices, rng)
    for one in (scenario, other):
        one.reset(seeds)
        one.step(actions)
    where: BoolArray = np.array([False, True, False])
    scenario.reset(np.array([-1, 99, -1]), where)
    assert scenario.seeds.tolist() == [11, 99, 13], f"after a partial reset the seeds are {scenario.seeds}"
    assert scenario.step_index[1] == 0, "step_index must be 0 after a reset"
    started = fresh()
    started.reset(np.array([99]))
    seen = scenario.observe()
    for name, expected in (("devices", started.observe().devices), ("shared", started.observe().shared)):
        got, undisturbed = getattr(seen, name), getattr(other.observe(), name)
        assert (got[1] == expected[0]).all(), f"{name}: an environment that was started over is not as new"
        assert (got[~where] == undisturbed[~where]).all(), f"{name}: a partial reset disturbed the others"
    step, alone, beside = scenario.step(actions), started.step(actions[1:2]), other.step(actions)
    assert (step.costs[1] == alone.costs[0]).all(), (
        "an environment that was started over goes on otherwise than a new one"
    )
    assert (step.costs[~where] == beside.costs[~where]).all(), "a partial reset disturbed the others"


def _check_end(scenario: Scenario) -> None:
    """Time limits truncate; what has ended stays as it is, earns 0, and can be started over."""
    rng = np.random.default_rng(3)
    scenario.reset(np.arange(2))
    ended = np.zeros(2, np.bool_)
    for index in range(scenario.steps):
        step = scenario.step(random_actions(scenario.actions, 2, scenario.devices, rng))
        on_time = index + 1 == scenario.steps
        fresh_ends = ~ended & (step.terminated | step.truncated)
        assert not (step.terminated & step.truncated)[fresh_ends].any(), "an end is either terminated or truncated"
        ended |= fresh_ends
        if not on_time:
            assert not (step.truncated & ~step.terminated)[fresh_ends].any(), f"truncated at step {index + 1}"
    assert ended.all(), f"an episode must end after {scenario.steps} steps"
    seen, metrics = scenario.observe(), scenario.metrics()
    step = scenario.step(random_actions(scenario.actions, 2, scenario.devices, rng))
    assert (step.reward == 0.0).all(), f"an environment that has ended earns {step.reward}"
    assert (step.costs == 0.0).all(), "an environment that has ended has costs"
    assert (scenario.observe().joint() == seen.joint()).all(), "an environment that has ended goes on"
    for name, values in scenario.metrics().items():
        assert (values == metrics[name]).all(), f"metric {name} changed after the end"
    scenario.reset(np.arange(2))
    assert (scenario.step_index == 0).all(), "step_index must be 0 after a reset"


def _check_bad_actions(scenario: Scenario) -> None:
    scenario.reset(np.arange(2))
    fine = random_actions(scenario.actions, 2, scenario.devices, np.random.default_rng(4))
    wrong: list[tuple[str, ActionArray]] = [
        ("one environment too few", fine[:1]),
        ("one device too many", np.concatenate([fine, fine[:, :1]], axis=1)),
    ]
    if scenario.actions.choices:
        for value in (-1, len(scenario.actions.choices)):
            beyond = fine.copy()
            if scenario.actions.numbers:
                beyond[0, 0, 0] = value
            else:
                beyond[0, 0] = value
            wrong.append((f"choice {value}", beyond))
    if scenario.actions.numbers:
        lost = fine.copy()
        lost[0, 0, -1] = np.nan
        wrong.append(("a number that is not one", lost))
    for what, actions in wrong:
        text = _refusal(lambda actions=actions: scenario.step(actions))  # type: ignore[misc]
        assert text is not None, f"actions with {what} must be refused"


def _check_heuristic(fresh: Callable[[], Scenario], name: str) -> None:
    """It acts within the layout, and alike in every batch."""
    scenario, alone = fresh(), fresh()
    together, single = scenario.heuristics[name](scenario), alone.heuristics[name](alone)
    scenario.reset(np.array([21, 22]))
    alone.reset(np.array([22]))
    for index in range(min(scenario.steps, 3)):
        actions, action = together.act(), single.act()
        assert (actions[1:] == action).all(), f"step {index}: {name} acts otherwise in another batch"
        _check_within(scenario.actions, actions, name)
        scenario.step(actions)
        alone.step(action)


def _check_within(layout: ActionLayout, actions: ActionArray, name: str) -> None:
    if layout.choices:
        choice = actions[..., 0] if layout.numbers else actions
        assert ((choice >= 0) & (choice < len(layout.choices))).all(), f"{name} chooses what there is not: {choice}"
    for index, feature in enumerate(layout.numbers):
        values = actions[..., index + bool(layout.choices)]
        inside = (values >= feature.low) & (values <= feature.high)
        assert inside.all(), f"{name} sets {feature.name} to {values}; allowed: {feature.low} to {feature.high}"
