"""``python -m edge_server.controller --config FILE``: start the controller."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from types import FrameType

import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import ControllerConfig, read_config
from edgebed.errors import EXIT_BAD_INPUT, BadInput
from edgebed.protocol.codec import control_headers
from edgebed.protocol.endpoint import remembered_bind, write_endpoint
from edgebed.protocol.front import Front
from edgebed.protocol.messages import ControlMessage, Role
from edgebed.protocol.security import AllowList, Gatekeeper, read_key_pair

PROGRAM = "controller"
ROLES = frozenset({Role.DEVICE, Role.SERVER, Role.ORCHESTRATOR, Role.EXTERNAL})


def main() -> int:
    """Run the controller; returns its exit status."""
    parser = argparse.ArgumentParser(prog="edge_server.controller", description="The controller of a testbed.")
    parser.add_argument("--config", type=Path, required=True, help="settings, written by the orchestrator")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        run(read_config(arguments.config, ControllerConfig))
    except BadInput as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def run(config: ControllerConfig) -> None:
    """Listen, then load the rest, then serve until SIGTERM."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    allow = AllowList.from_config(config.allow)
    keys = read_key_pair(Path(config.secret_key_file))
    gatekeeper = Gatekeeper(context, allow)
    endpoint_file = Path(config.state_dir) / f"{PROGRAM}.endpoint"
    clock = MonotonicClock()
    front: Front[ControlMessage] = Front(
        context=context,
        bind=remembered_bind(config.bind, endpoint_file),
        keys=keys,
        allow=allow,
        decoder=control_headers,
        clock=clock,
        limits=config.liveness,
        name=config.name,
        instance=secrets.token_hex(8),
        roles=ROLES,
    )
    write_endpoint(endpoint_file, front.endpoint)
    # Whoever waits for the endpoint file can go on now; numpy and the policies are loaded after it.
    from edge_server.controller.controller import Controller
    from edgebed.trace.outbox import Outbox

    outbox = Outbox(Path(config.state_dir) / f"{PROGRAM}.outbox.sqlite", clock)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    outbox.on_commit = lambda: _wake(wake_write)
    controller = Controller(config, clock, outbox, front, wake_read)

    def stop(number: int, frame: FrameType | None) -> None:
        controller.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    controller.run()
    outbox.close()
    gatekeeper.close()
    context.term()


def _wake(descriptor: int) -> None:
    try:
        os.write(descriptor, b"x")
    except BlockingIOError:
        return  # full of earlier calls to wake up: one is enough


if __name__ == "__main__":
    sys.exit(main())
