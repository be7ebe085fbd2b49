"""The program that learns while an experiment runs: rows come in by one pipe, weights go out by another.

``python -m edgebed.learning.online`` is started by `edgebed run` for policies with ``learn: online``. It yields to
everything else on its machine. What it says of itself goes to standard error, which the run folder keeps.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

import msgspec
import torch

from edgebed.errors import EdgebedError
from edgebed.learning.experience import Experience
from edgebed.learning.online_agent import OnlineAgent
from edgebed.learning.online_config import read_online_config
from edgebed.learning.online_messages import (
    Awake,
    Begin,
    End,
    FromLearner,
    Learned,
    Rows,
    ToLearner,
    Troubled,
    read_message,
    write_message,
)
from edgebed.policies.policy_file import load_policy, pack_policy, save_policy
from edgebed.trace.schema import EpochRecord, TaskRecord
from edgebed.types import ObservationSpec

_NICENESS = 10
_decode_task = msgspec.msgpack.Decoder(TaskRecord).decode
_decode_epoch = msgspec.msgpack.Decoder(EpochRecord).decode


class CellLearning:
    """What is learned in one cell.

    Args:
        begin: the cell.
        now_s: monotonic.
    """

    def __init__(self, begin: Begin, now_s: float) -> None:
        policy = load_policy(begin.weights)
        config = read_online_config(begin.options)
        spec = ObservationSpec(tuple(begin.slots), tuple(begin.servers), begin.channels)
        self.serial = begin.serial
        self._base = policy.version
        self._agent = OnlineAgent(policy, begin.seed, config)
        self._experience = Experience(spec, begin.tasks, begin.patience_epochs)
        self._publish_s = config.publish_s
        self._published_s = now_s
        self._published_updates = self._agent.updates
        self._losses: dict[str, float] = {}
        self._seconds = 0.0

    def hear(self, rows: Rows) -> None:
        """Take rows, and learn from what has become whole by them.

        Raises:
            EdgebedError: it cannot go on.
        """
        started_s = time.perf_counter()
        self.learn_from(map(_decode_task, rows.tasks), map(_decode_epoch, rows.epochs))
        self._seconds += time.perf_counter() - started_s

    def learn_from(self, tasks: Iterable[TaskRecord], epochs: Iterable[EpochRecord]) -> None:
        """The same with rows that nobody has packed.

        Raises:
            EdgebedError: it cannot go on.
        """
        for task in tasks:
            self._experience.add_task(task)
        for epoch in epochs:
            self._experience.add_epoch(epoch)
        for transition in self._experience.take():
            self._agent.observe(transition)
        self._losses = self._agent.learn() or self._losses

    def due(self, now_s: float) -> Learned | None:
        """New weights, when there are some and the last ones are old enough."""
        agent = self._agent
        if agent.updates == self._published_updates or now_s < self._published_s + self._publish_s:
            return None
        self._published_s, self._published_updates = now_s, agent.updates
        version = f"{self._base}+{agent.updates}"
        with tempfile.TemporaryDirectory(prefix="edgebed-") as folder:
            save_policy(folder, agent.policy(version))
            content = pack_policy(folder)
        seconds, self._seconds = self._seconds, 0.0
        return Learned(self.serial, version, content, agent.transitions, agent.updates, seconds, self._losses)


def use_one_thread() -> None:
    """From now on torch computes in one thread: the processors are for what is measured, and sums keep their order."""
    torch.set_num_threads(1)


def learn(source: BinaryIO, sink: BinaryIO) -> None:
    """Serve until the source ends or nobody reads the sink."""
    inbox: queue.Queue[ToLearner | None] = queue.Queue()

    def receive() -> None:
        with suppress(EdgebedError, OSError):  # whoever wrote is gone, perhaps in the middle of a message
            while (message := read_message(source, ToLearner)) is not None:
                inbox.put(message)
        inbox.put(None)

    threading.Thread(target=receive, daemon=True).start()
    write_message(sink, Awake())
    cell: CellLearning | None = None
    while (message := inbox.get()) is not None:
        answer: FromLearner | None = None
        try:
            if isinstance(message, Begin):
                cell = CellLearning(message, time.monotonic())
                answer = Awake(message.serial)
            elif isinstance(message, End):
                cell = None
            elif cell is not None and message.serial == cell.serial:
                cell.hear(message)
                answer = cell.due(time.monotonic())
        except (EdgebedError, msgspec.MsgspecError) as error:
            cell, answer = None, Troubled(message.serial, str(error))
        if answer is not None:
            write_message(sink, answer)


def main() -> int:
    """The program."""
    os.nice(_NICENESS)
    use_one_thread()
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to standard error and not between messages
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the experiment is over
        learn(source, sink)
    return 0


if __name__ == "__main__":
    sys.exit(main())
