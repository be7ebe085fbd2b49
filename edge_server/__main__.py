"""``python -m edge_server --config FILE``: start an edge server."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import ServerConfig
from edgebed.garbage import loading
from edgebed.program import on_stop_signal, run_program
from edgebed.protocol.codec import control_headers, task_headers
from edgebed.protocol.front import Context
from edgebed.protocol.link import Link
from edgebed.protocol.listening import listen
from edgebed.protocol.messages import CHUNK_BYTES, MAX_HEADER_BYTES, WINDOW_CHUNKS, ControlMessage, Role
from edgebed.protocol.security import KeyPair, read_key_pair
from edgebed.protocol.waker import Waker

PROGRAM = "edge_server"
MOST_BYTES = max(MAX_HEADER_BYTES, CHUNK_BYTES * WINDOW_CHUNKS)
"""The longest frame that a device has reason to send."""


def run(config: ServerConfig) -> None:
    """Listen, then load the rest, then serve until SIGTERM."""
    context: Context = zmq.Context()
    clock = MonotonicClock()
    keys = read_key_pair(Path(config.secret_key_file))
    roles = frozenset({Role.DEVICE})
    front, gatekeeper = listen(config, PROGRAM, task_headers, roles, context, keys, clock, most_bytes=MOST_BYTES)
    # Whoever waits for the endpoint file can go on now; numpy and the rest are loaded after it.
    with loading():
        from edge_server.server import EdgeServer
        from edgebed.trace.outbox import Outbox

    outbox = Outbox(Path(config.state_dir) / f"{PROGRAM}.outbox.sqlite", clock)
    waker = Waker()
    link = _control_link(config, context, keys, front.instance, clock)
    server = EdgeServer(config, clock, front, link, outbox, waker)
    on_stop_signal(server.stop)
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
    sys.exit(run_program(PROGRAM, "An edge server of a testbed.", ServerConfig, run))
