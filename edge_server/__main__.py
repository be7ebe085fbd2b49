"""``python -m edge_server --config FILE``: start an edge server."""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import sys
from pathlib import Path
from types import FrameType

import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import ServerConfig, read_config
from edgebed.errors import EXIT_BAD_INPUT, BadInput
from edgebed.protocol.codec import control_headers, task_headers
from edgebed.protocol.endpoint import remembered_bind, write_endpoint
from edgebed.protocol.front import Context, Front
from edgebed.protocol.link import Link
from edgebed.protocol.messages import ControlMessage, Role, TaskMessage
from edgebed.protocol.security import AllowList, Gatekeeper, KeyPair, read_key_pair
from edgebed.protocol.waker import Waker

PROGRAM = "edge_server"


def main() -> int:
    """Run the edge server; returns its exit status."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="An edge server of a testbed.")
    parser.add_argument("--config", type=Path, required=True, help="settings, written by the orchestrator")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        run(read_config(arguments.config, ServerConfig))
    except BadInput as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def run(config: ServerConfig) -> None:
    """Listen, then load the rest, then serve until SIGTERM."""
    context: Context = zmq.Context()
    keys = read_key_pair(Path(config.secret_key_file))
    allow = AllowList.from_config(config.allow)
    instance, clock = secrets.token_hex(8), MonotonicClock()
    gatekeeper = Gatekeeper(context, allow)
    endpoint_file = Path(config.state_dir) / f"{PROGRAM}.endpoint"
    front: Front[TaskMessage] = Front(
        context=context,
        bind=remembered_bind(config.bind, endpoint_file),
        keys=keys,
        allow=allow,
        decoder=task_headers,
        clock=clock,
        limits=config.liveness,
        name=config.name,
        instance=instance,
        roles=frozenset({Role.DEVICE}),
    )
    write_endpoint(endpoint_file, front.endpoint)
    # Whoever waits for the endpoint file can go on now; numpy and the rest are loaded after it.
    from edge_server.server import EdgeServer
    from edgebed.trace.outbox import Outbox

    outbox = Outbox(Path(config.state_dir) / f"{PROGRAM}.outbox.sqlite", clock)
    waker = Waker()
    link = _control_link(config, context, keys, instance, clock)
    server = EdgeServer(config, clock, front, link, outbox, waker)

    def stop(number: int, frame: FrameType | None) -> None:
        server.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run()
    outbox.close()
    gatekeeper.close()
    context.term()
    waker.close()


def _control_link(
    config: ServerConfig, context: Context, keys: KeyPair, instance: str, clock: MonotonicClock
) -> Link[ControlMessage] | None:
    if config.controller is None:
        return None
    return Link(
        context=context,
        address=config.controller,
        keys=keys,
        name=config.name,
        role=Role.SERVER,
        instance=instance,
        decoder=control_headers,
        clock=clock,
        limits=config.liveness,
        spread=secrets.randbelow(1000) / 1000,
    )


if __name__ == "__main__":
    sys.exit(main())
