"""The cell that a controller works on: whom it concerns, and what is due when. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge_server.controller.asking import Asking
from edge_server.controller.deciding import CentralPolicy
from edge_server.controller.gathering import Gathering
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.front import Session
from edgebed.protocol.messages import Prepare, Role, Start
from edgebed.types import Observation


@dataclass(slots=True)
class CurrentCell:
    """The cell that everyone is told about.

    Attributes:
        start: None until the orchestrator has started it.
        is_concluded: how things stand after the last decision has been shown and noted.
        observations: of the newest decision, flat, by epoch.
    """

    prepare: Prepare
    spec: CellSpec
    gathering: Gathering
    asking: Asking
    policy: CentralPolicy | None
    start: Start | None = None
    is_concluded: bool = False
    observations: dict[int, list[float]] = field(default_factory=dict)

    @property
    def serial(self) -> int:
        """The attempt's number."""
        return self.prepare.serial

    def concerns(self, peer: Session) -> bool:
        """Is a peer told of the cell? Its devices and servers are, and an external decider that it waits for."""
        if peer.role is Role.EXTERNAL:
            return self.spec.placement == "external"
        return peer.name in (*self.spec.devices, *self.spec.servers)

    def tick_s(self, epoch: int) -> float:
        """When an epoch is decided, on the controller's clock; of the one after the last, when the end is looked at."""
        assert self.start is not None
        return self.start.start_s + (epoch + 1) * self.spec.epoch_s

    def newest_epoch(self, now_s: float) -> int:
        """The next to be decided; ``epochs`` after the last.

        A controller that was stopped or restarted takes up at the newest epoch that somebody reports for.
        """
        assert self.start is not None
        begun = int((now_s - self.start.start_s) / self.spec.epoch_s) - 1
        return min(max(self.gathering.decided + 1, begun), self.spec.epochs)

    def last_observation(self, now_s: float) -> Observation:
        """How things stand after the last decision; in a cell that ends before, what was known at its last one."""
        if self.gathering.any_for(self.spec.epochs):
            return self.gathering.observation(self.spec.epochs, now_s)
        last = self.gathering.decided
        return replace(self.gathering.observation(last, now_s), epoch=last + 1)

    def run_clock_s(self, instant_s: float) -> float:
        """An instant of the controller's clock on the run clock."""
        assert self.start is not None
        return self.start.run_clock_s + instant_s - self.start.start_s

    def over(self, now_s: float) -> bool:
        """Can nothing of it still be running?"""
        if self.start is None:
            return False
        return now_s > self.start.start_s + self.spec.horizon_s + 2 * self.spec.timeouts.task_s
