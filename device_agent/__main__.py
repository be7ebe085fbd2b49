"""``python -m device_agent --config FILE``: start the device agent."""

from __future__ import annotations

import secrets
import signal
import sys
from pathlib import Path

import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import DeviceConfig
from edgebed.garbage import loading
from edgebed.program import on_stop_signal, run_program
from edgebed.protocol.front import Context
from edgebed.protocol.security import read_key_pair


def run(config: DeviceConfig) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        BadInput: the settings or the key are wrong.
    """
    with loading():
        from device_agent.agent import Agent
    keys = read_key_pair(Path(config.secret_key_file))
    context: Context = zmq.Context()
    agent = Agent(config, keys, context, MonotonicClock(), secrets.token_hex(8))
    signal.set_wakeup_fd(agent.waker.write_fd, warn_on_full_buffer=False)
    on_stop_signal(agent.stop)
    try:
        agent.run()
    finally:
        signal.set_wakeup_fd(-1)
    context.term()


if __name__ == "__main__":
    sys.exit(run_program("device_agent", "The device agent of a testbed.", DeviceConfig, run))
