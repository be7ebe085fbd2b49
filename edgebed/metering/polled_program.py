"""A program that is asked now and then, by a loop that must not wait for it."""

from __future__ import annotations

import os
import subprocess

from edgebed.clock import Clock

_MOST_BYTES = 65536


class PolledProgram:
    """Starts a program when it is due and collects its output at a later `poll`; no call ever waits for it.

    A program that has not ended when it is due again is killed, and its answer is unknown.

    Args:
        command: program and arguments; no shell.
        period_s: from start to start.
        first_after_s: from now until the first start.
    """

    def __init__(self, clock: Clock, command: tuple[str, ...], period_s: float, first_after_s: float = 0.0) -> None:
        self.command = command
        self._clock = clock
        self._period_s = period_s
        self._due_s = clock.now_s() + first_after_s
        self._running: subprocess.Popen[bytes] | None = None
        self._answer: str | None = None

    @property
    def answer(self) -> str | None:
        """What the program printed last; None while nothing is known, or when the last try failed."""
        return self._answer

    def poll(self) -> None:
        """Collect the answer if there is one, and ask again when it is time."""
        now_s = self._clock.now_s()
        if self._running is not None:
            self._collect(self._running, is_late=now_s >= self._due_s)
        if self._running is None and now_s >= self._due_s:
            self._start()
            self._due_s = now_s + self._period_s

    def _start(self) -> None:
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        try:
            self._running = subprocess.Popen(self.command, stdin=nothing, stdout=pipe, stderr=nothing)
        except OSError:
            self._answer = None

    def _collect(self, process: subprocess.Popen[bytes], *, is_late: bool) -> None:
        status = process.poll()
        if status is None and not is_late:
            return
        if status is None:
            process.kill()
            process.wait()
        text = _output(process)
        self._running = None
        self._answer = text if status == 0 and text else None

    def close(self) -> None:
        """End the program if it is running."""
        if self._running is not None:
            self._collect(self._running, is_late=True)


def _output(process: subprocess.Popen[bytes]) -> str:
    """What a process that has ended left in its pipe."""
    assert process.stdout is not None
    with process.stdout as stream:
        # Something that it started may still hold the pipe open: never wait for that.
        os.set_blocking(stream.fileno(), False)
        try:
            return os.read(stream.fileno(), _MOST_BYTES).decode(errors="replace").strip()
        except BlockingIOError:
            return ""
