"""A learned policy: its weights come from a file, and numpy evaluates them, in a controller or on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgebed.errors import BadInput
from edgebed.policies.base import Options, Policy, read_options, settle
from edgebed.policies.forward import Layer, Network
from edgebed.policies.heads import Head
from edgebed.policies.hosts_features import device_block
from edgebed.policies.hosts_mapping import (
    FRACTIONS,
    check_fit,
    choice_actions,
    columns_of,
    host_slots,
    own_columns,
    plain_mapping,
    read_mapping,
)
from edgebed.policies.inputs import Inputs
from edgebed.policies.policy_file import JOINT, PolicyFile, load_policy, pack_policy, save_policy
from edgebed.types import BoolArray, Decision, Float32Array, Observation, ObservationSpec, Placement, PolicySpec, Site
from workloads.files import Packed, reference_to

__all__ = ["Head", "Inputs", "Layer", "Network", "NetworkPolicy", "PolicyFile", "load_policy", "save_policy"]

LEAST_FRACTION = 0.01
"""Least share of a clock or a power that a learned policy can ask for: 0 would never end."""

_PRESENT = np.ones(1, np.float32)


class _Local:
    """Decisions to run everything on the devices; copies are made faster than new ones."""

    def __init__(self, slots: int) -> None:
        self._arrays = [getattr(Decision.local(slots), one.name) for one in fields(Decision)]

    def copy(self) -> Decision:
        return Decision(*(array.copy() for array in self._arrays))


class NetworkOptions(Options):
    """Settings of `NetworkPolicy`."""

    weights: str = ""
    mapping: dict[str, Any] | str = msgspec.field(default_factory=dict)


class NetworkPolicy(Policy):
    """Decides as a trained network says: the best choice that is allowed.

    Attributes:
        file: the policy's file, as it was read.
        placements: where it can decide: a joint policy, which has to see every device, only in a controller.
    """

    spec = PolicySpec(
        "network",
        sets=("site", "server", "channel", *FRACTIONS),
        options={
            "weights": "folder of a trained policy (policy.json and policy.npz)",
            "mapping": "what of the hosts stands for what of a paper's scenario, or a YAML file that says so; see "
            "docs/policies.md",
        },
    )
    options_type = NetworkOptions
    options: NetworkOptions

    def __init__(self, observation_spec: ObservationSpec, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(observation_spec, options)
        if not self.options.weights:
            raise BadInput("policy network: needs `weights`, the folder of a trained policy")
        self._use(load_policy(self.options.weights))

    def _use(self, file: PolicyFile) -> None:
        """Decide as this file says from now on.

        Raises:
            SchemaMismatch: it does not fit the observations; nothing has changed.
        """
        spec, mapping = self.observation_spec, read_mapping(plain_mapping(self.options.mapping))
        check_fit(file, mapping, spec)
        columns, slots = columns_of(file, mapping, spec), host_slots(file, mapping, spec)
        choices = choice_actions(file, mapping, spec)
        numbers = [mapping.numbers.get(one.name, one.name) for one in file.head.numbers]
        self.file, self.version = file, file.version
        self._columns, self._slots, self._choices = columns, slots, choices
        self._is_scaled = bool((columns.scale != 1).any() or columns.offset.any())
        self._of_slot: dict[int, Network] = {}
        self._own_columns = own_columns(columns, spec)
        self._local = _Local(len(spec.slots))
        self._numbers = {name: index for index, name in enumerate(numbers) if name in FRACTIONS}

    def take_weights(self, content: bytes, version: str) -> None:
        """Decide with other weights from now on; see `edgebed.policies.base.CanTakeWeights`.

        Raises:
            BadInput: they are damaged, or do not fit the observations; nothing has changed.
        """
        self._use(replace(load_policy(content), version=version))

    @classmethod
    def pack(cls, options: Mapping[str, Any], folder: Path) -> Packed:
        """The weights as one file for hosts; see `workloads.files.NeedsFiles`.

        Args:
            options: ``weights``, and the file of a ``mapping``, are looked for in ``folder``, then in the current one.
            folder: that of the experiment.

        Raises:
            BadInput, SchemaMismatch: there are no weights, or they are damaged.
        """
        given = read_options(cls.spec, cls.options_type, options)
        assert isinstance(given, NetworkOptions)
        if not given.weights:
            raise BadInput("policy network: needs `weights`, the folder of a trained policy")
        beside = folder / given.weights
        content = pack_policy(beside if beside.exists() else given.weights)
        reference = reference_to(content)
        packed = dict(options) | {"weights": reference}
        if given.mapping:
            packed["mapping"] = plain_mapping(given.mapping, folder)
        return Packed(packed, {reference: content})

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where this policy can decide."""
        return (Placement.CONTROLLER,) if self.file.scope == JOINT else (Placement.CONTROLLER, Placement.DEVICE)

    def decide(self, observation: Observation) -> Decision:
        """The network's choice for every slot that is present.

        Raises:
            BadInput: the outputs are not finite.
        """
        present = observation.present.nonzero()[0]
        if len(present) == 1 and self.file.scope != JOINT:
            return self._decide_for(int(present[0]), observation)
        outputs = self._checked(self._outputs(observation, present), observation)
        head = self.file.head
        if head.choices:
            preferred = self._choices[head.choice(outputs, observation.allowed_actions[:, self._choices])]
        else:
            preferred = np.broadcast_to(self._choices, len(outputs))
        decision = Decision.from_actions(settle(preferred, observation), self.observation_spec)
        if self._numbers:
            self._set_numbers(decision, head.values(outputs), observation.allowed_actions[:, 0], observation.present)
        return decision

    def _decide_for(self, slot: int, observation: Observation) -> Decision:
        """The same for one slot, the only one that is present: what a device asks, and has little time for."""
        x = np.concatenate([observation.values[slot], _PRESENT, observation.age_s[slot : slot + 1], observation.server])
        x = self._scaled(x[self._own_columns], slot)
        outputs = self._checked(self._network_of(slot)(self.file.inputs(x)), observation)
        head, allowed = self.file.head, observation.allowed_actions[slot]
        action = int(self._choices[head.one_choice(outputs, allowed[self._choices]) if head.choices else 0])
        if not allowed[action]:
            action = int(allowed.argmax())  # the first that is, or else the device
        decision = self._local.copy()
        if action:
            decision.site[slot], decision.edge_fraction[slot] = Site.EDGE, 1.0
            decision.server[slot], decision.channel[slot] = divmod(action - 1, self.observation_spec.channels)
        if self._numbers:
            values = np.zeros((len(self._slots), len(head.numbers)), np.float32)
            values[slot] = head.values(outputs)
            self._set_numbers(decision, values, observation.allowed_actions[:, 0], observation.present)
        return decision

    def _checked(self, outputs: Float32Array, observation: Observation) -> Float32Array:
        # One sum is cheaper than a look at every number, and not finite when any of them is not.
        if not math.isfinite(np.add.reduce(outputs, axis=None)):
            raise BadInput(f"policy {self.version}: the network's outputs are not finite in epoch {observation.epoch}")
        return outputs

    def _outputs(self, observation: Observation, present: np.ndarray[Any, np.dtype[np.intp]]) -> Float32Array:
        """``[N, outputs]`` in the hosts' order; zeros for slots that are absent, where each decides for itself."""
        flat = np.concatenate([device_block(observation).ravel(), observation.server])
        x = self._scaled(flat[self._columns.index])
        if self.file.scope == JOINT:
            joint: Float32Array = self.file.outputs(x[None])[0][self._slots]
            return joint
        outputs = np.zeros((len(self._slots), self.file.head.outputs), np.float32)
        if self.file.actor.count is None:
            outputs[present] = self.file.actor(self.file.inputs(x[present]))
        elif len(present):
            places = np.argsort(self._slots)
            outputs[places] = self.file.outputs(x[places][None])[0]
        return outputs

    def _scaled(self, x: Float32Array, slot: int | None = None) -> Float32Array:
        """Numbers of the hosts as numbers of the policy, as the mapping says."""
        if not self._is_scaled:
            return x
        columns, rows = self._columns, slice(None) if slot is None else slot
        with np.errstate(over="ignore"):  # an infinite number is limited like any large one
            return x * columns.scale[rows] + columns.offset[rows]

    def _network_of(self, slot: int) -> Network:
        """The network of one of the hosts' slots."""
        if slot not in self._of_slot:
            self._of_slot[slot] = self.file.actor.of_device(int(self._slots[slot]))
        return self._of_slot[slot]

    def _set_numbers(self, decision: Decision, values: Float32Array, may_stay: BoolArray, present: BoolArray) -> None:
        """Write the network's numbers into a decision; absent slots keep the defaults."""
        for name in ("cpu_fraction", "power_fraction"):
            if name in self._numbers:
                wanted = np.clip(values[:, self._numbers[name]], LEAST_FRACTION, 1.0)
                getattr(decision, name)[:] = np.where(present, wanted, 1.0)
        if "edge_fraction" not in self._numbers:
            return
        share = np.where(may_stay, np.clip(values[:, self._numbers["edge_fraction"]], 0.0, 1.0), 1.0)
        offloaded = decision.site == Site.EDGE
        decision.site[offloaded & (share < 1)] = Site.SPLIT
        stays = offloaded & (share <= 0)
        for kept in (decision.site, decision.server, decision.channel):
            kept[stays] = 0
        decision.edge_fraction[:] = np.where(decision.site == Site.DEVICE, 0.0, share)


POLICY = NetworkPolicy
