"""The controller's socket of a run without a controller: there a program outside comes in to decide simulated cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import zmq

from edge_server.controller.asking import none_open
from edge_server.controller.senders import check_sender
from edgebed.clock import Clock
from edgebed.configuration import ControllerConfig
from edgebed.errors import ProtocolError
from edgebed.protocol.codec import control_headers
from edgebed.protocol.front import Context, Front, Session
from edgebed.protocol.listening import listen
from edgebed.protocol.messages import ControlMessage, JointDecide, Role
from orchestrator.door import make_door_folder, put_up, take_down
from orchestrator.plan_file import Plan
from orchestrator.provision.addresses import LOOPBACK, endpoint
from orchestrator.provision.credentials import make_credentials
from orchestrator.provision.layout import CONTROLLER, members_of

ROLES = frozenset({Role.EXTERNAL})


class SimulatedDoor:
    """Listens on this machine only, with new keys, and lets nobody in but the decider of its run.

    Args:
        run: the run's folder.
        plan: that in it.
        clock: monotonic.
        wake_fd: a descriptor that ends waiting when it becomes readable.

    Attributes:
        name: what the controller is called.
        liveness: how long a peer may be gone that comes back.

    Raises:
        BadInput: nothing can be listened on.
    """

    def __init__(self, run: Path, plan: Plan, clock: Clock, wake_fd: int) -> None:
        controller = members_of(plan)[0]
        self.name = controller.name
        self._folder = make_door_folder(run, plan)
        credentials = make_credentials(plan, [controller])
        config = ControllerConfig(
            name=self.name,
            run_id=plan.run_id,
            plan_hash=plan.plan_hash,
            state_dir=str(self._folder),
            secret_key_file="",  # the key never leaves this process
            bind=endpoint(LOOPBACK, "0"),
            allow=credentials.public.allowed([], ROLES),
        )
        self.liveness, self._plan_hash = config.liveness, plan.plan_hash
        self._context: Context = zmq.Context()
        front, self._gatekeeper = listen(
            config, CONTROLLER, control_headers, ROLES, self._context, credentials.secrets[self.name], clock
        )
        self.front: Front[ControlMessage] = front
        self.vacate()
        self._poller = zmq.Poller()
        self._poller.register(self.front.socket, zmq.POLLIN)
        self._poller.register(wake_fd, zmq.POLLIN)
        put_up(self._folder, plan, credentials, self.front.endpoint)

    def occupy(
        self,
        serial: int,
        joined: Callable[[Session, Session | None], None],
        left: Callable[[Session, str], None],
        answered: Callable[[JointDecide], None],
    ) -> None:
        """From now on it is this cell that somebody who comes decides.

        Args:
            serial: of the cell.
            joined: told of who has come, and of whose place that is.
            left: told of who has gone, and why.
            answered: told of answers; raises a `ProtocolError` for one that is not taken.
        """
        self.front.introduction = lambda: (self._plan_hash, serial)
        self.front.on_joined, self.front.on_left, self._answered = joined, left, answered

    def vacate(self) -> None:
        """There is no cell to be decided now."""
        self.occupy(0, lambda session, old: None, lambda session, reason: None, _nothing_open)

    def turn(self, timeout_s: float = 0.0) -> None:
        """Wait a little for messages, and deal with them."""
        self._poller.poll(int(1000 * timeout_s))
        for session, message, _ in self.front.receive():
            try:
                check_sender(session, message)
                assert isinstance(message, JointDecide), "nobody else is let in"
                self._answered(message)
            except ProtocolError as error:
                self.front.reply_error(session.identity, error)

    def close(self) -> None:
        """Say good-bye, and leave no key behind."""
        self.front.close("the run has ended")
        self._gatekeeper.close()
        self._context.term()
        take_down(self._folder)


def _nothing_open(message: JointDecide) -> None:
    raise none_open(message)
