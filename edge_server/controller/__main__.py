"""``python -m edge_server.controller --config FILE``: start the controller."""

from __future__ import annotations

import sys
from pathlib import Path

import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import ControllerConfig
from edgebed.garbage import loading
from edgebed.program import on_stop_signal, run_program
from edgebed.protocol.codec import control_headers
from edgebed.protocol.front import Context
from edgebed.protocol.listening import listen
from edgebed.protocol.messages import Role
from edgebed.protocol.security import read_key_pair
from edgebed.protocol.waker import Waker

PROGRAM = "controller"
ROLES = frozenset({Role.DEVICE, Role.SERVER, Role.ORCHESTRATOR, Role.EXTERNAL})


def run(config: ControllerConfig) -> None:
    """Listen, then load the rest, then serve until SIGTERM."""
    context: Context = zmq.Context()
    clock = MonotonicClock()
    keys = read_key_pair(Path(config.secret_key_file))
    front, gatekeeper = listen(config, PROGRAM, control_headers, ROLES, context, keys, clock)
    # Whoever waits for the endpoint file can go on now; numpy and the policies are loaded after it.
    with loading():
        from edge_server.controller.controller import Controller
        from edgebed.trace.outbox import Outbox

    outbox = Outbox(Path(config.state_dir) / f"{PROGRAM}.outbox.sqlite", clock)
    waker = Waker()
    controller = Controller(config, clock, outbox, front, waker)
    on_stop_signal(controller.stop)
    controller.run()
    outbox.close()
    gatekeeper.close()
    context.term()
    waker.close()


if __name__ == "__main__":
    sys.exit(run_program("edge_server.controller", "The controller of a testbed.", ControllerConfig, run))
