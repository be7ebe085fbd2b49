"""A learner's program, and the two pipes to it. Nothing here ever waits for it.

Rows that it does not take in time are dropped and counted: learning from less is better than a run that stands still.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgebed.errors import EdgebedError
from edgebed.learning.online_messages import FromLearner, Rows, ToLearner, read_message, write_message

COMMAND: tuple[str, ...] = (sys.executable, "-m", "edgebed.learning.online")
WAITING_MESSAGES = 256
"""So many messages may wait for the learner; with a message every tenth of a second that is half a minute."""


class LearnerProcess:
    """One learner's program.

    Args:
        log: where its standard error goes, appended.
        command: what is started.

    Attributes:
        dropped: messages with rows that it had no room for.
        is_over: has it ended, or will it take nothing more?
    """

    def __init__(self, log: Path, command: Sequence[str] = COMMAND) -> None:
        self.dropped = 0
        self.is_over = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            # A session of its own: Ctrl-C is for the orchestrator, which ends it in order.
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self._outbox: queue.Queue[ToLearner | None] = queue.Queue(WAITING_MESSAGES)
        self._inbox: queue.SimpleQueue[FromLearner] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Of the program."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def send(self, message: ToLearner) -> None:
        """Give it a message, unless too many wait already."""
        try:
            self._outbox.put_nowait(message)
        except queue.Full:
            self.dropped += isinstance(message, Rows)

    def received(self) -> Iterator[FromLearner]:
        """What it has said, without waiting."""
        with suppress(queue.Empty):
            while True:
                yield self._inbox.get_nowait()

    def _send(self) -> None:
        stream: Any = self._process.stdin
        with suppress(OSError, ValueError):  # it has ended
            while (message := self._outbox.get()) is not None:
                write_message(stream, message)
        with suppress(OSError):
            stream.close()

    def _receive(self) -> None:
        stream: Any = self._process.stdout
        with suppress(EdgebedError, OSError, ValueError):
            while (message := read_message(stream, FromLearner)) is not None:
                self._inbox.put(message)
        self.is_over = True

    def close(self, patience_s: float = 2.0) -> None:
        """End it: what it is doing now may take so long, then it is killed."""
        with suppress(queue.Full):
            self._outbox.put_nowait(None)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._outbox.full():  # the sender has not seen the end
            with suppress(queue.Empty):
                self._outbox.get_nowait()
            with suppress(queue.Full):
                self._outbox.put_nowait(None)
        for thread in self._threads:
            thread.join(patience_s)
        assert self._process.stdout is not None
        self._process.stdout.close()
