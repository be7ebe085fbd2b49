"""Whoever decides for all devices at once: a policy in this process, or a program outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import BadInput
from edgebed.policies.base import CanTakeWeights, Policy
from edgebed.policies.files import make_placed
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Decide
from edgebed.types import Decision, Observation, ObservationSpec


@dataclass(frozen=True, slots=True)
class Decided:
    """A joint decision and how it came about."""

    epoch: int
    decision: Decision
    policy_version: str
    decided_by: str
    compute_s: float

    def message(self, serial: int, slot: int, member: str) -> Decide:
        """What one device is told."""
        one = self.decision.slot(slot)
        return Decide(
            serial,
            self.epoch,
            member,
            int(one.site),
            one.server,
            one.channel,
            one.edge_fraction,
            one.cpu_fraction,
            one.power_fraction,
            self.policy_version,
            self.decided_by,
            self.compute_s,
        )

    def flat(self) -> list[float]:
        """How ``epochs.parquet`` holds it: six numbers a slot."""
        return [float(number) for number in self.decision.table().ravel()]


class CentralPolicy:
    """A policy of this process, made and seeded for one cell; files that it needs lie in ``folder``."""

    def __init__(self, cell: CellSpec, spec: ObservationSpec, folder: Path = Path()) -> None:
        self._cell, self._spec, self._folder = cell, spec, folder
        self._weights: tuple[bytes, str] | None = None
        self._policy = self._made()

    def _made(self) -> Policy:
        cell = self._cell
        policy: Policy = make_placed(cell.policy_name, self._spec, cell.policy_options, self._folder)
        policy.reset(cell.seed)
        return policy

    def restart(self) -> None:
        """Begin anew, as in another process: nothing is remembered but the newest weights, which are sent again."""
        self._policy = self._made()
        if self._weights is not None:
            self.take_weights(*self._weights)

    def decide(self, observation: Observation) -> Decided:
        """Decide for an epoch, timed.

        Raises:
            BadInput: the policy's decision is out of range or of the wrong shape.
        """
        started_s = time.perf_counter()
        decision = self._policy.decide(observation)
        compute_s = time.perf_counter() - started_s
        decision.check(self._spec)
        return Decided(observation.epoch, decision, self._policy.version, "controller", compute_s)

    def take_weights(self, content: bytes, version: str) -> None:
        """Decide with other weights from now on.

        Raises:
            BadInput: the policy has none, or they do not fit; it stays as it is.
        """
        if not isinstance(self._policy, CanTakeWeights):
            raise BadInput(f"policy {self._policy.spec.name} has no weights that could be changed")
        self._policy.take_weights(content, version)
        self._weights = content, version
