"""``python -m device_agent --config FILE``: start the device agent."""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import sys
from pathlib import Path
from types import FrameType

import zmq

from device_agent.agent import Agent
from edgebed.clock import MonotonicClock
from edgebed.configuration import DeviceConfig, read_config
from edgebed.errors import EXIT_BAD_INPUT, EXIT_DONE, BadInput
from edgebed.protocol.security import read_key_pair


def main() -> int:
    """Run the agent; returns its exit status."""
    parser = argparse.ArgumentParser(prog="device_agent", description="The device agent of a testbed.")
    parser.add_argument("--config", type=Path, required=True, help="settings, written by the orchestrator")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        run(read_config(arguments.config, DeviceConfig))
    except BadInput as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return EXIT_DONE


def run(config: DeviceConfig) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        BadInput: the settings or the key are wrong.
    """
    keys = read_key_pair(Path(config.secret_key_file))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    agent = Agent(config, keys, context, MonotonicClock(), secrets.token_hex(8))

    def stop(number: int, frame: FrameType | None) -> None:
        agent.is_ending = True

    signal.set_wakeup_fd(agent.waker.write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        agent.run()
    finally:
        signal.set_wakeup_fd(-1)
    context.term()


if __name__ == "__main__":
    sys.exit(main())
