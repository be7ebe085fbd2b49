"""How every program of a host starts and is asked to end."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from edgebed.configuration import HostConfig, read_config
from edgebed.errors import EXIT_BAD_INPUT, EXIT_DONE, BadInput

C = TypeVar("C", bound=HostConfig)


def run_program(name: str, description: str, settings: type[C], run: Callable[[C], None]) -> int:
    """Read the settings that ``--config`` names, run, and say how it ended.

    Returns:
        The exit status: 0 when it was asked to end, 2 for wrong settings. A crash is left to the interpreter.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--config", type=Path, required=True, help="settings, written by the orchestrator")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        run(read_config(arguments.config, settings))
    except BadInput as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return EXIT_DONE


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` when someone asks the program to end (SIGTERM, SIGINT)."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
