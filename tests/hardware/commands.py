"""The real ``edgebed`` commands, each in a process of its own; text for people goes through to the terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgebed.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, BadInput


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended.

    Attributes:
        json: what it answered; empty when it did not come so far.
        seconds: how long it took, start of the process included.
    """

    status: int
    json: dict[str, Any]
    seconds: float


def edgebed(*arguments: str) -> Answer:
    """Run a command with ``--json``.

    Raises:
        BadInput: it says that what it was given is wrong; it has told on standard error what.
        KeyboardInterrupt: it was interrupted, and has collected what there was.
    """
    command = [sys.executable, "-m", "orchestrator", *arguments, "--json"]
    print(f"\n$ edgebed {' '.join(arguments)}", file=sys.stderr, flush=True)
    began_s = time.monotonic()
    process, is_interrupted = _begun(command)
    with process:
        output, is_interrupted = _wait(process, is_interrupted)
    if is_interrupted or process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode == EXIT_BAD_INPUT:
        raise BadInput(f"`edgebed {arguments[0]}` refused its input; see above")
    return Answer(process.returncode, _last_line(output), time.monotonic() - began_s)


def _begun(command: Sequence[str]) -> tuple[subprocess.Popen[str], bool]:
    """Start a command; an interrupt that comes meanwhile is for it, and told."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        # In a session of its own, so that an interrupt reaches it once: through us.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        process.send_signal(signal.SIGINT)
    return process, bool(interrupts)


def _wait(process: subprocess.Popen[str], is_interrupted: bool) -> tuple[str, bool]:
    while True:
        try:
            return process.communicate()[0], is_interrupted
        except KeyboardInterrupt:
            is_interrupted = True
            process.send_signal(signal.SIGINT)


def _last_line(output: str) -> dict[str, Any]:
    try:
        found = json.loads(output.rstrip().rpartition("\n")[2])
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
