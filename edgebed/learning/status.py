"""How a training stands: ``status.json``, and ``log.jsonl`` of what happened to it. Both tell times; results do not."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from edgebed import __version__
from edgebed.errors import BadInput
from edgebed.learning.base import Executor
from edgebed.replacing import replace_file

STATUS_FILE = "status.json"
LOG_FILE = "log.jsonl"
PACKAGES = ("numpy", "torch", "stable-baselines3", "sb3-contrib", "ray")

State = Literal["planned", "running", "complete", "interrupted", "failed"]


class TrainingStatus(msgspec.Struct, kw_only=True):
    """``status.json``.

    Attributes:
        started, updated: UTC as ISO 8601.
        problem: why it failed.
        executor: class that ran it last. restarts: dead workers that were made again, in all invocations.
        software: versions by name.
    """

    state: State = "planned"
    started: str = ""
    updated: str = ""
    problem: str = ""
    executor: str = ""
    restarts: int = 0
    software: Mapping[str, str] = {}


def read_status(folder: Path) -> TrainingStatus:
    """How a training stands; planned where nothing has been written yet.

    Raises:
        BadInput: the file is damaged.
    """
    path = folder / STATUS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainingStatus)
    except FileNotFoundError:
        return TrainingStatus()
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput(f"{path}: is not the status of a training: {error}; remove it and resume") from None


def write_status(folder: Path, state: State, *, executor: Executor, problem: str = "") -> None:
    """Replace the status; a reader sees the old or the new one."""
    before = read_status(folder)
    status = TrainingStatus(
        state=state,
        started=before.started or _now(),
        updated=_now(),
        problem=problem,
        executor=type(executor).__name__,
        restarts=before.restarts + (executor.restarts if state != "running" else 0),
        software=_software(),
    )
    replace_file(folder / STATUS_FILE, msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n")


class TrainingLog(logging.Handler):
    """Writes what happens to ``log.jsonl``: notes of the trainer, and warnings of learners and executors.

    Args:
        folder: the training's.
        on_warning: is shown the warnings as well.
    """

    def __init__(self, folder: Path, on_warning: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_warning = on_warning
        self._path = folder / LOG_FILE
        self._logger = logging.getLogger("edgebed.learning")

    def note(self, kind: str, detail: str) -> None:
        """Write a line."""
        line = msgspec.json.encode({"at": _now(), "kind": kind, "detail": detail})
        with self._path.open("ab") as file:
            file.write(line + b"\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a warning."""
        self.note(record.levelname.lower(), record.getMessage())
        self._on_warning(record.getMessage())

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._logger.removeHandler(self)
        self.note("ended", "" if error is None else f"{type(error).__name__}: {error}")
        self.close()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _software() -> dict[str, str]:
    found = {"edgebed": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
