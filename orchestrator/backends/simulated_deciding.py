"""Who decides in a simulated cell: the real policies, shown what they would be shown on hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from device_agent.deciding import LocalPolicy, own_spec
from edge_server.controller.deciding import Decided
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray
from edgebed.types import DEVICE_ONLY, BoolArray, Decision, Float32Array, Observation, SlotDecision


class JointDecider(Protocol):
    """Decides for all devices at once: a policy of the controller, or a program outside that is asked."""

    def decide(self, observation: Observation) -> Decided | None:
        """What it decides; None: nothing in time."""

    def restart(self) -> None:
        """From now on it is asked by another process."""


class OwnPolicies:
    """One policy a device, each asked for its own slot, as on the devices; made when they are first asked.

    Args:
        content: the folder of the files that policies need.
        role: ``policy`` or ``fallback``; part of each one's seed.
        failed: told of a policy that raised an error: the slot, and the error.
    """

    def __init__(
        self,
        cell: CellSpec,
        content: Path,
        name: str,
        options: dict[str, Any],
        role: str,
        failed: Callable[[int, Exception], None],
    ) -> None:
        self._cell, self._content, self._role = cell, content, role
        self._name, self._options = name, options
        self._failed = failed
        self._policies: dict[int, LocalPolicy] = {}
        # One observation for all, of which one slot is filled in at a time: a device sees nothing of the others.
        self._shown = Observation.empty(own_spec(cell))

    def choose(self, seen: Observation, slot: int) -> tuple[SlotDecision, str] | None:
        """What a device decides for itself, and the version of its policy; None when its policy failed."""
        policy = self._policies.get(slot)
        if policy is None:
            name = self._cell.devices[slot]
            policy = LocalPolicy(self._name, self._options, name, self._cell, self._role, self._content)
            self._policies[slot] = policy
        shown = self._shown
        shown.values[slot], shown.present[slot] = seen.values[slot], True
        shown.allowed_actions[slot] = seen.allowed_actions[slot]
        own = Observation(
            shown.values, shown.present, shown.age_s, seen.server, shown.allowed_actions, epoch=seen.epoch
        )
        try:
            decision, _ = policy.decide(own)
        except Exception as error:  # a policy is someone's research code: it may raise anything
            self._failed(slot, error)
            return None
        finally:
            shown.values[slot], shown.present[slot] = 0.0, False
            shown.allowed_actions[slot] = True
        return decision, policy.version


def put(decision: Decision, slot: int, chosen: SlotDecision | None) -> None:
    """Enter what one device does; None: nobody could decide, so it stays on the device."""
    chosen = chosen or DEVICE_ONLY
    decision.site[slot] = chosen.site
    decision.server[slot], decision.channel[slot] = chosen.server, chosen.channel
    decision.edge_fraction[slot] = chosen.edge_fraction
    decision.cpu_fraction[slot], decision.power_fraction[slot] = chosen.cpu_fraction, chosen.power_fraction


class Answer:
    """A decision and how it came about, ``[slots]`` each."""

    __slots__ = ("by", "compute_s", "decision", "is_late", "ready_s", "version")

    def __init__(
        self,
        decision: Decision,
        ready_s: FloatArray,
        by: IndexArray,
        version: IndexArray,
        compute_s: FloatArray,
        is_late: BoolArray,
    ) -> None:
        self.decision, self.ready_s, self.by, self.version = decision, ready_s, by, version
        self.compute_s, self.is_late = compute_s, is_late


def executable(decision: Decision) -> Decision:
    """As hosts execute it: nothing scales a clock or a radio there. The caller's to change."""
    return Decision(
        site=decision.site.copy(),
        server=decision.server.copy(),
        channel=decision.channel.copy(),
        edge_fraction=decision.edge_fraction.copy(),
        cpu_fraction=np.ones_like(decision.cpu_fraction),
        power_fraction=np.ones_like(decision.power_fraction),
    )


def flat(seen: Observation) -> Float32Array:
    """How the trace holds a joint observation."""
    found: Float32Array = np.concatenate([seen.values.ravel(), seen.server])
    return found
