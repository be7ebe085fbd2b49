"""The contract of a scenario: a system model that steps ``B`` environments of ``N`` devices at once.

Learners, environments and `edgebed evaluate` see a scenario only through this. Arrays are struct-of-arrays: nothing
loops over the batch or over devices. An environment's result depends on its seed and its actions alone, never on the
batch that it runs in. `edgebed.simulation.testing` ships the checker.

An episode of ``B`` environments::

    scenario = make_scenario("dc-drl", {"n": 10})
    scenario.reset(seeds)                       # [B]
    while True:
        step = scenario.step(policy.act())      # actions as scenario.actions says
        if (step.terminated | step.truncated).all():
            break
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgebed.errors import BadInput
from edgebed.simulation.random_streams import FloatArray, stream_keys, uniforms
from edgebed.types import BoolArray, Feature, Float32Array, IntArray

SeedArray = NDArray[np.int64]
ActionArray = NDArray[Any]


class Parameters(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of a scenario. Subclass it; declare each as ``Annotated[type, parameter(...)] = default``."""


def parameter(unit: str, meaning: str, source: str = "assumed", **bounds: Any) -> msgspec.Meta:
    """What a field of `Parameters` means: its range is checked, and its page is written, from this.

    Args:
        unit: ``"1"`` where it has none.
        meaning: a clause.
        source: the paper and where in it, ``published code``, or ``assumed``.
        bounds: ``ge``, ``gt``, ``le``, ``lt`` of `msgspec.Meta`.
    """
    return msgspec.Meta(description=meaning, extra={"unit": unit, "source": source}, **bounds)


@dataclass(frozen=True, slots=True)
class ScenarioSpec:
    """What a scenario is, readable without making it.

    Attributes:
        name: its registered name.
        title: one line.
        paper: where its equations come from.
        parameters: the settings, with their defaults.
    """

    name: str
    title: str
    paper: str
    parameters: type[Parameters]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What every device of every environment does, ``[B, N]`` arrays; meanings as in `edgebed.types.SlotDecision`."""

    site: IntArray
    server: IntArray
    channel: IntArray
    edge_fraction: FloatArray
    cpu_fraction: FloatArray
    power_fraction: FloatArray


@dataclass(frozen=True, slots=True)
class ActionLayout:
    """What an action of one device is.

    Only ``choices``: actions are integers ``[B, N]``. Only ``numbers``: floats ``[B, N, len(numbers)]``. Both: floats
    ``[B, N, 1 + len(numbers)]``, whose first column is the choice's index.

    Attributes:
        choices: meaning of each value of the discrete part, in order; empty when there is none.
        numbers: the continuous part: name, unit and range of each.
    """

    choices: tuple[str, ...] = ()
    numbers: tuple[Feature, ...] = ()

    @property
    def width(self) -> int:
        """Numbers that one device's action takes; 0 when it is a bare choice, ``[B, N]``."""
        return (len(self.numbers) + bool(self.choices)) if self.numbers else 0


@dataclass(frozen=True, slots=True)
class BatchObservation:
    """What is known before a step.

    Attributes:
        devices: ``[B, N, device features]``.
        shared: ``[B, shared features]``.
    """

    devices: Float32Array
    shared: Float32Array

    def joint(self) -> Float32Array:
        """``[B, N * device features + shared features]``: device by device, then what is shared."""
        return np.concatenate([self.devices.reshape(len(self.devices), -1), self.shared], axis=1)


@dataclass(frozen=True, slots=True)
class BatchStep:
    """What came of a step.

    Attributes:
        reward: ``[B]``, float64.
        costs: ``[B, N]``, float64, not negative, of each device's task; 0 where it had none.
        terminated: ``[B]``, the episode came to an end of its own (no value follows).
        truncated: ``[B]``, the time limit, or a lost device, cut it off.
    """

    reward: FloatArray
    costs: FloatArray
    terminated: BoolArray
    truncated: BoolArray


class Scenario(ABC):
    """``B`` environments of ``N`` devices; see the module.

    Attributes:
        spec: class attribute, readable without making one.
        heuristics: class attribute: its hand-written policies by name.
        parameters: the settings, checked, defaults filled in.
        devices: N.
        servers: how many edge servers (stations) there are.
        channels: channels a server.
        steps: time limit; an episode of so many steps is truncated.
        device_features, shared_features: columns of the observation, with unit and range.
        actions: what an action is.
        seeds: ``[B]`` of the episodes going on.
        step_index: ``[B]``, steps done in each.
    """

    spec: ClassVar[ScenarioSpec]
    heuristics: ClassVar[Mapping[str, type[Heuristic]]]
    devices: int
    servers: int = 1
    channels: int = 1
    steps: int
    device_features: tuple[Feature, ...]
    shared_features: tuple[Feature, ...]
    actions: ActionLayout
    seeds: SeedArray
    step_index: SeedArray

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        """Check the settings.

        Raises:
            BadInput: one is unknown, of the wrong type or out of range; the allowed ones are named.
        """
        self.parameters = read_parameters(self.spec, parameters or {})

    @abstractmethod
    def reset(self, seeds: ArrayLike, where: BoolArray | None = None) -> None:
        """Start episodes.

        Args:
            seeds: ``[B]``; entries that ``where`` leaves out mean nothing.
            where: ``[B]``, which environments start over; None: all, and ``B`` may differ from before.
        """

    @abstractmethod
    def observe(self) -> BatchObservation:
        """What is known now; the caller's to keep."""

    @abstractmethod
    def step(self, actions: ActionArray) -> BatchStep:
        """One epoch. An environment that has ended stays as it is and earns 0 until it is reset.

        Raises:
            BadInput: the actions' shape or range is wrong; both are named.
        """

    @abstractmethod
    def decisions(self, actions: ActionArray) -> Decisions:
        """What actions mean, in the product's own terms."""

    @abstractmethod
    def metrics(self) -> dict[str, FloatArray]:
        """The scenario's own numbers about the episodes so far, ``[B]`` each; at least ``cost_per_task``."""

    def device_views(self) -> Float32Array:
        """What each device knows when it decides alone, ``[B, N, V]``: its own features, then what is shared."""
        seen = self.observe()
        shared = np.broadcast_to(seen.shared[:, None, :], (*seen.devices.shape[:2], seen.shared.shape[1]))
        return np.concatenate([seen.devices, shared], axis=2)

    @property
    def view_features(self) -> tuple[Feature, ...]:
        """Columns of `device_views`."""
        return self.device_features + self.shared_features


class Heuristic(ABC):
    """A hand-written policy of one scenario. It may look into the scenario's state: then it is *informed*.

    The first line of its docstring is what it is called in lists and pages.

    Attributes:
        options_type: class attribute: what may be set, as for a scenario.
        scenario: whose current state it acts on.
        options: the settings, checked, defaults filled in.
    """

    options_type: ClassVar[type[Parameters]] = Parameters

    def __init__(self, scenario: Any, options: Mapping[str, Any] | None = None) -> None:
        """Check the settings.

        Raises:
            BadInput: one is unknown, of the wrong type or out of range; the allowed ones are named.
        """
        self.scenario = scenario
        self.options: Any = read_settings(f"policy {self.name}", self.options_type, options or {})

    @property
    def name(self) -> str:
        """What its scenario calls it."""
        known: Mapping[str, type[Heuristic]] = self.scenario.heuristics
        return next((name for name, kind in known.items() if kind is type(self)), type(self).__name__)

    @abstractmethod
    def act(self) -> ActionArray:
        """Actions for the state that the scenario is in, as its ``actions`` says."""

    def draw(self, count: int, name: str = "policy") -> FloatArray:
        """``[B, count]`` uniform numbers in [0, 1): of (environment's seed, name, step), so of no batch."""
        scenario: Scenario = self.scenario
        return uniforms(stream_keys(scenario.seeds, name), scenario.step_index * count, count)


def read_parameters(spec: ScenarioSpec, given: Mapping[str, Any]) -> Any:
    """The settings of a scenario as ``spec.parameters``, defaults filled in.

    Raises:
        BadInput: one is unknown, of the wrong type, not finite or out of range; the allowed ones are named.
    """
    return read_settings(f"scenario {spec.name}", spec.parameters, given)


def read_settings(what: str, kind: type[Parameters], given: Mapping[str, Any]) -> Any:
    """Settings as ``kind``, defaults filled in.

    Args:
        what: whose they are; errors begin with it.
        kind: fields and ranges.
        given: by name.

    Raises:
        BadInput: one is unknown, of the wrong type, not finite or out of range; the allowed ones are named.
    """
    try:
        settings = msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        allowed = ", ".join(kind.__struct_fields__) or "none"
        raise BadInput(f"{what}: {error}; its parameters: {allowed}") from None
    for name in kind.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, float) and not np.isfinite(value):
            raise BadInput(f"{what}: `{name}` is {value}, which is not finite")
    return settings
