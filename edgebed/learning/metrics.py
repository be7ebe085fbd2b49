"""What a training has measured: ``metrics.jsonl``, and the same for TensorBoard.

A line of ``metrics.jsonl`` is a chunk of learning or an evaluation, without any wall-clock value: a training that was
interrupted and resumed has the same lines as one that was not. The event files for TensorBoard are made from it, one
run a seed, and made anew when a training is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgebed.errors import BadInput, MissingExtra
from edgebed.learning.base import Metrics

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of ``metrics.jsonl``.

    Attributes:
        steps: environment steps a seed, all cells together, when it was written.
        learning: what the learner measured in the chunk that ended there; one value a seed.
        evaluation: of the policies as they were then, without exploration; one value a seed.
    """

    steps: int
    learning: Metrics = {}
    evaluation: Metrics = {}


class MetricsFile:
    """``metrics.jsonl``, open for writing.

    Args:
        training: the training's folder.
        lines: how many of the lines there are kept; what follows was measured after the last checkpoint.

    Attributes:
        lines: how many there are.
    """

    def __init__(self, training: Path, lines: int = 0) -> None:
        self.path = training / METRICS_FILE
        self.lines = lines
        kept = self.path.read_bytes().splitlines(keepends=True)[:lines] if lines else []
        if len(kept) < lines:
            raise BadInput(
                f"{self.path}: has {len(kept)} lines; the checkpoint was written after {lines}: copy it again"
            )
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(sum(len(line) for line in kept))
        self._file = self.path.open("ab")

    def append(self, line: MetricLine) -> None:
        """Write a line, at once."""
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
        self.lines += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(training: Path) -> list[MetricLine]:
    """The lines of a training; one that was being written when its machine stopped is left out.

    Raises:
        BadInput: a line in the middle is damaged; its number is named.
    """
    path = training / METRICS_FILE
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    decoder = msgspec.json.Decoder(MetricLine)
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            if number == len(lines):
                break
            raise BadInput(
                f"{path}:{number}: is not a line of metrics: {error}; take another copy of the training"
            ) from None
    return found


class TensorBoardFiles:
    """Event files, ``tensorboard/seed-<k>/``; what is there is replaced.

    Raises:
        MissingExtra: the package tensorboard is not installed.
    """

    def __init__(self, training: Path, seeds: list[int], lines: list[MetricLine]) -> None:
        try:
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ModuleNotFoundError:
            raise MissingExtra("learning", "writing event files for TensorBoard") from None
        self._writers: list[Any] = []
        for seed in seeds:
            folder = training / TENSORBOARD_FOLDER / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            self._writers.append(RecordWriter((folder / "events.out.tfevents.0.edgebed").open("wb")))
            self._write(len(self._writers) - 1, 0, file_version="brain.Event:2")
        for line in lines:
            self.append(line)

    def append(self, line: MetricLine) -> None:
        """Add a line's numbers: ``learning/<name>`` and ``evaluation/<name>``."""
        for group, metrics in (("learning", line.learning), ("evaluation", line.evaluation)):
            for name, values in metrics.items():
                for index, value in enumerate(values):
                    if value is not None:
                        self._write(index, line.steps, tag=f"{group}/{name}", value=value)
        for writer in self._writers:
            writer.flush()

    def _write(self, index: int, step: int, tag: str = "", value: float = 0.0, file_version: str = "") -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        event = Event(wall_time=time.time(), step=step)
        if file_version:
            event.file_version = file_version
        else:
            event.summary.CopyFrom(Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
        self._writers[index].write(event.SerializeToString())

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()


def evaluations(lines: list[MetricLine]) -> Iterator[MetricLine]:
    """The lines that are evaluations."""
    return (line for line in lines if line.evaluation)
