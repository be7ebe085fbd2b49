"""What decides: the `Policy` contract.

A policy is pure: an observation goes in, a decision comes out, and only `Policy.reset` brings in randomness. It uses
numpy and nothing heavier, because it may be evaluated on a device. `edgebed.policies.testing` ships its checker.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import msgspec
import numpy as np

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.types import Decision, IntArray, Observation, ObservationSpec, PolicySpec


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of a policy. Subclass it: each field needs a type and a default; `PolicySpec.options` describes it."""


OptionsType = TypeVar("OptionsType", bound=Options)


class Policy(ABC):
    """Decides, for every slot at once, what the devices are to do with their waiting tasks.

    The same class serves both placements: a controller shows it all devices, a device shows it itself, one slot.

    Attributes:
        spec: name, needs and settings; a class attribute, readable with no hardware there.
        options_type: the fields that ``options`` may have, with types and defaults.
        version: changes whenever the same observation may be answered differently; stored in every row it decided.
        observation_spec: what observations look like; read features by name (`edgebed.policies.features`), never by
            position, so that other columns or another order of them do no harm.
        options: the settings, checked, defaults filled in.
    """

    spec: ClassVar[PolicySpec]
    options_type: ClassVar[type[Options]] = Options
    version: str = "1"

    def __init__(self, observation_spec: ObservationSpec, options: Mapping[str, Any] | None = None) -> None:
        """Check that the observations have what the policy needs, and that the options are its own.

        Raises:
            BadInput: an option is unknown, of the wrong type or out of range; the allowed ones are named.
            SchemaMismatch: a needed feature is missing; both sides are named.
        """
        check_needs(self.spec, observation_spec)
        self.observation_spec = observation_spec
        self.options = read_options(self.spec, self.options_type, options or {})
        self.seed = 0

    def reset(self, seed: int) -> None:
        """Start an episode: forget earlier ones, and draw all randomness from ``seed`` from now on."""
        self.seed = seed

    @abstractmethod
    def decide(self, observation: Observation) -> Decision:
        """What every slot is to do.

        A slot that is absent runs locally. An action that ``observation.allowed_actions`` masks (0 = not allowed) is
        never chosen, unless all of a slot's actions are masked: then it runs locally. See `settle`.

        Args:
            observation: of the shapes in ``observation_spec``; it must not be changed.

        Returns:
            Arrays of shape ``[slots]``, the caller's to keep.
        """


@runtime_checkable
class CanTakeWeights(Protocol):
    """The ability of a learned policy to get other weights while it is in use."""

    def take_weights(self, content: bytes, version: str) -> None:
        """Decide with these weights from now on, and be of this version.

        Args:
            content: a packed policy, see `edgebed.policies.policy_file.pack_policy`.
            version: what `Policy.version` becomes.

        Raises:
            BadInput: it is damaged, or does not fit the observations; nothing has changed.
        """
        ...


def read_options(spec: PolicySpec, kind: type[OptionsType], options: Mapping[str, Any]) -> OptionsType:
    """The settings as ``kind``, defaults filled in.

    Raises:
        BadInput: one is unknown, of the wrong type, out of range or not finite; the allowed ones are named.
    """
    try:
        settings = msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        raise BadInput(_bad_options(spec, str(error))) from None
    for name in kind.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(_bad_options(spec, f"`{name}` is {value}, which is not finite"))
    return settings


def _bad_options(spec: PolicySpec, problem: str) -> str:
    allowed = "; ".join(f"{name}: {meaning}" for name, meaning in spec.options.items())
    return f"policy {spec.name}: options: {problem}; allowed options: {allowed or 'none'}"


def check_needs(spec: PolicySpec, observation_spec: ObservationSpec) -> None:
    """Look up every feature that a policy needs; those of a server may be the server's own or its channels'.

    Raises:
        SchemaMismatch: some are missing; both sides are named.
    """
    by_server = (*observation_spec.server_features, *observation_spec.channel_features)
    sides = (("device", spec.needs, observation_spec.device_features), ("server", spec.needs_server, by_server))
    for side, needs, features in sides:
        given = [feature.name for feature in features]
        missing = [name for name in needs if name not in given]
        if missing:
            raise SchemaMismatch(
                f"policy {spec.name} needs the {side} features {', '.join(missing)}; these observations have: "
                f"{', '.join(given) or 'none'}"
            )


def settle(preferred: IntArray, observation: Observation) -> IntArray:
    """Keep the preferred actions that are possible and replace the others.

    Args:
        preferred: ``[slots]``, an action index each (see `ObservationSpec`).
        observation: says which slots are present and which actions are allowed.

    Returns:
        ``[slots]``: the preferred action where it is allowed, else the first allowed one (the device, where it is
        allowed), else the device; the device for absent slots.
    """
    allowed = observation.allowed_actions
    first_allowed = np.argmax(allowed, axis=1)  # 0, the device, also where nothing is allowed
    actions = np.where(allowed[np.arange(len(preferred)), preferred], preferred, first_allowed)
    return np.where(observation.present, actions, 0).astype(np.int32)
