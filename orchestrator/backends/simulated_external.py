"""A program outside decides a simulated cell: virtual time stands still until it has answered.

It is asked as a controller asks it, and its real time shows nowhere. Only who is not there, or thinks for longer than
``timeouts.prepare_s``, leaves an epoch to the fallback policy; so does who dies before its answer.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_server.controller.asking import Asking, external_of, unattended
from edge_server.controller.deciding import Decided
from edgebed.clock import Clock
from edgebed.errors import ProtocolError, WorkFailed
from edgebed.protocol.cells import cell_to_plain
from edgebed.protocol.front import Session
from edgebed.protocol.messages import ErrorCode, JointDecide, Prepare, Start, Stop
from edgebed.types import Observation
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_door import SimulatedDoor
from orchestrator.interrupts import Interrupted, Interrupts


class ExternalDecider:
    """Whoever comes in by the door decides one cell, a `orchestrator.backends.simulated_deciding.JointDecider`.

    Args:
        door: of the run.
        simulated: the cell.
        interrupts: who may ask to stop.
        clock: the real one.
    """

    def __init__(self, door: SimulatedDoor, simulated: SimulatedCell, interrupts: Interrupts, clock: Clock) -> None:
        cell = simulated.cell
        self._door, self._front, self._simulated = door, door.front, simulated
        self._interrupts, self._clock = interrupts, clock
        self._asking = Asking(self._front, cell.serial, simulated.spec, self._event)
        self._prepare = Prepare(cell.serial, cell_to_plain(cell))
        self._start: Start | None = None
        self._open: Observation | None = None
        self._answer: Decided | None = None
        self._is_awaited = True
        self._gone_s: float | None = None
        self._look_due_s = 0.0
        door.occupy(cell.serial, self._joined, self._left, self._answered)

    # -- the cell -----------------------------------------------------------------------------------------------------

    def begin(self, note: Callable[[str], None]) -> None:
        """Tell the program of the cell; wait for one that is not there.

        Args:
            note: says something to the user.

        Raises:
            WorkFailed: none came.
            Interrupted: someone has asked to stop.
        """
        cell = self._simulated.cell
        self._look()
        if not self._is_there:
            note(unattended(cell.cell_id))
        if not self._comes_by(self._clock.now_s() + cell.timeouts.prepare_s):
            late = f"it did not get ready within {cell.timeouts.prepare_s:g} s"
            raise WorkFailed(f"{self._door.name}: {late}; {unattended(cell.cell_id)}; start it beside the run")
        self._start = Start(cell.serial, self._clock.now_s(), self._simulated.start_s)
        self._tell(self._start)

    def decide(self, observation: Observation) -> Decided | None:
        """What the program decides; None: it did not.

        Raises:
            Interrupted: someone has asked to stop.
        """
        give_up_s = self._clock.now_s() + self._simulated.cell.timeouts.prepare_s
        self._turn(0.0)
        self._look()
        # Once one that was waited for has not come, a cell goes on without; until one comes, that is.
        self._is_awaited = self._is_awaited and self._comes_by(give_up_s)
        if not self._asking.ask(observation, self._clock.now_s()):
            return None
        self._open, self._answer = observation, None
        while self._is_asking:
            if self._clock.now_s() > give_up_s:
                self._close_question()
            else:
                self._turn(self._door.liveness.heartbeat_s)
        return self._answer

    def restart(self) -> None:
        """The controller is another process: it tells the cell again."""
        self._tell(self._prepare)

    def end(self, observation: Observation, reason: str = "complete") -> None:
        """Show how things stand after the last decision, and that the cell is over."""
        self._asking.show_last(observation)
        self._tell(Stop(self._simulated.cell.serial, reason))
        self._door.vacate()

    # -- who is there -------------------------------------------------------------------------------------------------

    @property
    def _is_there(self) -> bool:
        return external_of(self._front) is not None and self._gone_s is None

    def _comes_by(self, give_up_s: float) -> bool:
        while not self._is_there:
            if self._clock.now_s() > give_up_s:
                return False
            self._turn(self._door.liveness.heartbeat_s)
        return True

    def _turn(self, timeout_s: float) -> None:
        self._door.turn(timeout_s)
        if self._interrupts.count:
            raise Interrupted
        if self._clock.now_s() >= self._look_due_s:
            self._look()

    def _look(self) -> None:
        """See whether the program is still connected: who thinks says nothing, and so does who has died.

        What is sent to a dead one cannot be delivered. A live one may be on its way back, with another connection.
        """
        external, now_s = external_of(self._front), self._clock.now_s()
        self._look_due_s = now_s + self._door.liveness.heartbeat_s
        if external is None:
            return
        if self._front.send(external, self._start or self._prepare):  # nothing new, if it was told before
            self._gone_s = None
        elif self._gone_s is None:
            self._gone_s = now_s
        elif now_s - self._gone_s > self._door.liveness.dead_after_s:
            self._front.end(external, "silent")

    def _joined(self, session: Session, old: Session | None) -> None:
        is_another = old is None or old.instance != session.instance
        self._gone_s, self._is_awaited = None, True
        if is_another and self._start is not None:
            detail = {"member": session.name, "role": session.role, "restarted": old is not None}
            self._event("member_joined", detail)
        self._tell(self._prepare)
        if self._start is not None:
            self._tell(self._start)
        if self._open is not None and is_another:
            self._close_question()  # it was another's
        elif self._open is not None:
            self._asking.ask(self._open, self._clock.now_s())  # it may have been lost with the old connection

    def _left(self, session: Session, reason: str) -> None:
        self._gone_s = None
        if self._start is not None:
            self._event("member_left", {"member": session.name, "role": session.role, "reason": reason})
        self._close_question()

    def _tell(self, message: Prepare | Start | Stop) -> None:
        external = external_of(self._front)
        if external is not None:
            self._front.send(external, message)

    # -- questions ----------------------------------------------------------------------------------------------------

    @property
    def _is_asking(self) -> bool:
        return self._open is not None

    def _answered(self, message: JointDecide) -> None:
        try:
            self._answer = self._asking.answered(message, self._clock.now_s())
        except ProtocolError as error:
            if error.code == ErrorCode.BAD_MESSAGE:
                self._close_question()  # this was its answer
            raise
        self._open = None

    def _close_question(self) -> None:
        self._asking.withdraw()
        self._open = None

    def _event(self, kind: str, detail: dict[str, object]) -> None:
        self._simulated.event(kind, self._door.name, **detail)
