"""A run's connection to its hosts: programs brought up, one cell after the other run on them, every row collected.

One thread owns a session. It looks at the clock, the link and the hosts in `Session.turn`; all waiting is a loop of
turns, so that heartbeats, rows and Ctrl-C are dealt with whatever is being waited for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import zmq

from edgebed.clock import Clock
from edgebed.configuration import Liveness
from edgebed.errors import EdgebedError, RemoteError, WorkFailed
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Error, Members, Ready, Records, Role
from orchestrator.backends.control import ControlLink
from orchestrator.backends.watch import CellWatch
from orchestrator.collect import Collector
from orchestrator.interrupts import Interrupted, Interrupts
from orchestrator.journal import Journal
from orchestrator.provision.deployment import Deployment
from orchestrator.provision.layout import Member
from orchestrator.provision.lease import RENEW_EVERY_S
from orchestrator.provision.supervision import ProgramState
from orchestrator.retrieve import Recovered, fetch_outbox

if TYPE_CHECKING:
    from orchestrator.faults.driver import FaultDriver
    from orchestrator.online.driver import LearningDriver

T = TypeVar("T")

NEXT_TO_NOTHING_S = 0.02


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the orchestrator waits, in seconds.

    Attributes:
        start_delay_s: from telling everyone to the start itself.
        connect_s: for the controller's first welcome.
        silence_s: after it a member's program is looked at on its host, every ``look_s``.
        grace_s: for a cell's end, beyond its horizon and its tasks' time-out.
        lift_s: for the hosts' faults to be lifted. reboot_s: for hosts that a fault has rebooted to be back.
        drain_s: for a member to send what it has, after a stop. learner_s: for an online learner to have loaded.
    """

    start_delay_s: float = 0.1
    connect_s: float = 15.0
    silence_s: float = 3.0
    look_s: float = 1.0
    grace_s: float = 5.0
    lift_s: float = 10.0
    reboot_s: float = 60.0
    drain_s: float = 10.0
    take_over_s: float = 3.0
    learner_s: float = 60.0


class Session:
    """See the module; `orchestrator.backends.conductor` leads cells over it.

    Args:
        deployment: the hosts, brought up by `open` or `adopt`.
        on_turn: called about every 0.1 s, for whoever shows how things go.
        faults: what is done to the hosts while cells run; None when nothing is.
        learning: what learns while cells run; None when nothing does.

    Attributes:
        watch: the members of the current or last cell.
        heard_ever: every member that has said anything.
        facts: what members said of themselves when they got ready, by name.
        doing: what is being done, in a word or two.
    """

    def __init__(
        self,
        deployment: Deployment,
        collector: Collector,
        journal: Journal,
        clock: Clock,
        interrupts: Interrupts,
        *,
        limits: Liveness | None = None,
        patience: Patience | None = None,
        on_turn: Callable[[Session], None] = lambda session: None,
        faults: FaultDriver | None = None,
        learning: LearningDriver | None = None,
    ) -> None:
        self.deployment = deployment
        self.patience = patience or Patience()
        self.watch: CellWatch | None = None
        self.facts: dict[str, dict[str, object]] = {}
        self.clock = clock
        self.interrupts = interrupts
        self.limits = limits or Liveness()
        self.on_turn = on_turn
        self.faults = faults
        self.learning = learning
        if learning is not None:
            collector.on_record = learning.hear
        self.collector = collector
        self.journal = journal
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control: ControlLink | None = None
        self.poller = zmq.Poller()
        self.poller.register(interrupts.read_fd, zmq.POLLIN)
        self._members: Members | None = None
        self.heard_ever: set[str] = set()
        self._looking: Future[dict[str, ProgramState | None]] | None = None
        self._look_due_s = 0.0
        self._renewing: Future[list[str]] | None = None
        self._renew_due_s = clock.now_s() + RENEW_EVERY_S
        self._broken: list[str] = []
        self.doing = ""

    # -- opening and closing ------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Is there a link to a controller?"""
        return self._control is not None

    @property
    def control(self) -> ControlLink:
        """The link to the controller."""
        assert self._control is not None, "the session is not open"
        return self._control

    def open(self) -> None:
        """Bring the programs up and connect to them.

        Raises:
            WorkFailed: a program could not be started, or the controller does not answer.
            Interrupted: someone has asked to stop.
        """
        self.doing = "starting programs"
        if self.learning is not None:
            self.learning.wake()
        self._set_up(self.deployment.bring_up)
        self.collector.forget()
        self._connect()

    def adopt(self) -> bool:
        """Connect to the programs of an earlier session; False when they are not there to be adopted.

        Raises:
            WorkFailed: a host could not be reached, or the controller does not answer.
            Interrupted: someone has asked to stop.
        """
        self.doing = "looking for programs"
        if not self._set_up(self.deployment.adopt):
            return False
        self.collector.remember()
        self._connect()
        return True

    def _set_up(self, work: Callable[[], T]) -> T:
        try:
            found = self.wait_for(self.deployment.in_background(work))
        except WorkFailed:
            self.check_interrupts()  # an interrupt makes it fail
            raise
        self.check_interrupts()
        return found

    def wait_for(self, work: Future[T]) -> T:
        """The result of what a thread does on hosts; meanwhile everything goes on.

        Raises:
            Whatever the work raised.
        """
        while not work.done():
            if self.interrupts.count:
                self.deployment.cancelled.set()
            self.turn(NEXT_TO_NOTHING_S)
        return work.result()

    def _connect(self) -> None:
        credentials = self.deployment.credentials
        self._control = ControlLink(
            self.context,
            self.deployment.controller,
            credentials.orchestrator,
            credentials.public.orchestrator,
            Role.ORCHESTRATOR,
            self.deployment.plan.plan_hash,
            self.clock,
            self.limits,
        )
        self._control.register(self.poller)
        give_up_s = self.clock.now_s() + self.patience.connect_s
        while not self._control.is_up:
            if self.clock.now_s() > give_up_s:
                controller = self.deployment.members[0]
                raise WorkFailed(
                    f"the controller at {self.deployment.controller.endpoint} does not answer "
                    f"within {self.patience.connect_s:g} s; its log ends with:\n{self.log_tail(controller)}"
                )
            self.turn()
            self.check_interrupts()

    def close(self) -> None:
        """Let go of the link. The programs go on; whoever wants them ended ends them first."""
        if self._control is not None:
            self._control.close()
            self._control = None
        self.context.destroy(linger=0)
        if self.learning is not None:
            self.learning.close()

    # -- one turn -----------------------------------------------------------------------------------------------------

    def turn(self, timeout_s: float = 0.1) -> None:
        """Wait a little for messages, deal with them, acknowledge rows, and look after silent members."""
        if self.poller.poll(int(timeout_s * 1000)):
            self.interrupts.drain()
        if self._control is not None:
            for message, payload in self._control.receive():
                self._handle(message, payload)
            for acknowledgement in self.collector.acknowledgements(self.clock.now_s()):
                self._control.send(acknowledgement)
            if self._control.is_up and self.watch is not None:
                self.watch.hear_controller(self.clock.now_s())
            if self.learning is not None:
                self.learning.turn(self._control)
        self._look_at_programs()
        if self.faults is not None:
            self.faults.turn()
        self.on_turn(self)

    def _handle(self, message: msgspec.Struct, payload: bytes | None) -> None:
        now_s = self.clock.now_s()
        member = getattr(message, "member", None)
        if isinstance(member, str):
            self.heard_ever.add(member)
        if isinstance(message, Records):
            self.collector.receive(message, payload or b"")
        elif isinstance(message, Ready) and message.ok and message.facts:
            self.facts[message.member] = message.facts
        elif isinstance(message, Members):
            self._members = message
        elif isinstance(message, Error):
            self.journal.note("controller_refused", code=message.code, detail=message.detail)
        if self.watch is not None:
            self.watch.hear(message, now_s)

    def _look_at_programs(self) -> None:
        """Ask hosts how the programs of silent members stand; the answer comes in a later turn."""
        if self._looking is not None and self._looking.done():
            if self.watch is not None:
                self.watch.note_programs(self._looking.result())
            self._looking = None
        now_s = self.clock.now_s()
        if self.watch is None or self._looking is not None or now_s < self._look_due_s:
            return
        if self.watch.silent(now_s, self.patience.silence_s):
            self._look_due_s = now_s + self.patience.look_s
            self._looking = self.deployment.in_background(self.deployment.states)

    def lift_faults(self, patience_s: float) -> None:
        """End the faults of the current cell; those that a host does not end in this time are left to its own timer."""
        if self.faults is None:
            return
        self.faults.end()
        give_up_s = self.clock.now_s() + patience_s
        while self.faults.is_lifting and self.clock.now_s() < give_up_s and self.interrupts.count < 2:
            self.turn(NEXT_TO_NOTHING_S)

    def await_reboots(self, patience_s: float) -> None:
        """Wait until hosts that a fault has rebooted are back, so that their rows can be fetched."""
        give_up_s = self.clock.now_s() + patience_s
        while self.faults is not None and self.faults.is_rebooting and self.clock.now_s() < give_up_s:
            if self.interrupts.count > 1:
                return
            self.turn()

    def _keep_leases(self) -> None:
        """Renew the leases on the hosts; what comes of it is known in a later turn."""
        if self._renewing is not None and self._renewing.done():
            self._broken += self._renewing.result()
            self._renewing = None
        now_s = self.clock.now_s()
        if self._renewing is None and now_s >= self._renew_due_s and self.deployment.holds_leases:
            self._renew_due_s = now_s + RENEW_EVERY_S
            self._renewing = self.deployment.in_background(self.deployment.renew_leases)

    def check_interrupts(self) -> None:
        """Has someone asked to stop, or taken a host?

        Raises:
            Interrupted: someone has asked to stop.
            WorkFailed: someone has taken a host.
        """
        if self.interrupts.count:
            raise Interrupted
        if self._broken:
            raise WorkFailed("\n".join(self._broken))

    def enter(self, spec: CellSpec) -> CellWatch:
        """Watch the members of a cell from now on."""
        self.watch = CellWatch(spec, self.deployment.members[0].name)
        if self._members is not None:
            self.watch.hear(self._members, self.clock.now_s())
        self.control.serial = spec.serial
        return self.watch

    # -- files of the hosts -------------------------------------------------------------------------------------------

    def recover(self, members: Iterable[Member]) -> dict[str, Recovered]:
        """Fetch what lies in the outboxes of members, on their hosts.

        Returns:
            For each member what was found; one whose host does not answer is missing.
        """
        found: dict[str, Recovered] = {}
        with tempfile.TemporaryDirectory(prefix="edgebed-collect-") as folder:
            copies = {
                member.name: self.deployment.in_background(partial(fetch_outbox, self.deployment, member, Path(folder)))
                for member in members
                if self.deployment.folder(member.host.name) is not None
            }
            for name, copy in copies.items():
                try:
                    path = self.wait_for(copy)
                except RemoteError as error:
                    self.collector.complain(f"rows of {name} could not be fetched: {error}")
                    continue
                found[name] = self.collector.take_outbox(name, path) if path else Recovered(0, None)
        return found

    def log_tail(self, member: Member) -> str:
        """The last lines that a program has logged; why not, when its host does not answer."""
        try:
            return self.deployment.log_tail(member)
        except EdgebedError as error:
            return f"(it could not be read: {error})"
