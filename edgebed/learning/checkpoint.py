"""Checkpoints: all that a training needs to go on, in one ``.npz`` that holds no pickled object.

A checkpoint is written beside its place and moved there, so that one that has its name is whole, and the one before is
kept for the case that the disk has other ideas. Its ``meta`` says which training it belongs to.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from edgebed.errors import BadInput, RunConflict
from edgebed.learning.base import State

FOLDER = "checkpoints"
KEPT = 2

_META = "meta"
_DRIVER = "driver"
_CELL = "cell"
_NAME = re.compile(r"step-(\d+)\.npz")


class CheckpointMeta(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint belongs to.

    Attributes:
        plan_hash: of its training.
        learner, scenario: for people.
        steps: environment steps a seed.
        metric_lines: lines of ``metrics.jsonl`` that were written before it.
        next_evaluation_steps: when the next evaluation is due.
        cells: how many there are.
    """

    plan_hash: str
    learner: str
    scenario: str
    steps: int
    metric_lines: int
    next_evaluation_steps: int
    cells: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training at one moment.

    Attributes:
        driver: of the learner. cell_states: of each cell.
    """

    meta: CheckpointMeta
    driver: State
    cell_states: Sequence[State] = ()


def save_checkpoint(training: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and remove all but the last `KEPT`; after a crash there is the new one or there is not.

    Raises:
        BadInput: a state has an array of Python objects; its name is in the text.
    """
    folder = training / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{checkpoint.meta.steps:012d}.npz"
    fresh = folder / f".{path.name}.new"
    with fresh.open("wb") as file:
        _write(file, checkpoint)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_folder(folder)
    for old in checkpoint_paths(training)[:-KEPT]:
        old.unlink()
    return path


def _write(file: IO[bytes], checkpoint: Checkpoint) -> None:
    arrays: State = {_META: np.frombuffer(msgspec.json.encode(checkpoint.meta), np.uint8)}
    arrays |= _prefixed(_DRIVER, checkpoint.driver)
    for index, state in enumerate(checkpoint.cell_states):
        arrays |= _prefixed(f"{_CELL}:{index}", state)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _prefixed(prefix: str, state: State) -> State:
    found: State = {}
    for name, array in state.items():
        found[f"{prefix}:{name}"] = np.asarray(array)
        if ":" in name or found[f"{prefix}:{name}"].dtype.hasobject:
            raise BadInput(f"checkpoint: {prefix}: {name!r} must be an array without objects, its name without colons")
    return found


def checkpoint_paths(training: Path) -> list[Path]:
    """The checkpoints of a training, the oldest first."""
    return sorted(path for path in (training / FOLDER).glob("step-*.npz") if _NAME.fullmatch(path.name))


def load_checkpoint(path: Path, plan_hash: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: of the ``.npz``.
        plan_hash: of the training that is to go on.

    Raises:
        BadInput: it is damaged, or holds pickled objects.
        RunConflict: it belongs to another training; both are named.
    """
    meta, driver, cells = None, State(), dict[int, State]()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as entry:
                    array = np.lib.format.read_array(entry, allow_pickle=False)
                    entry.read()  # to the end, where the checksum is compared
                kind, _, rest = name.partition(":")
                if kind == _META:
                    meta = msgspec.json.decode(array.tobytes(), type=CheckpointMeta)
                elif kind == _DRIVER:
                    driver[rest] = array
                else:
                    index, _, inner = rest.partition(":")
                    cells.setdefault(int(index), State())[inner] = array
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, msgspec.MsgspecError) as error:
        raise BadInput(_unreadable(path, error)) from None
    if meta is None:
        raise BadInput(f"{path}: is not a checkpoint: it does not say which training it belongs to")
    if meta.plan_hash != plan_hash:
        raise RunConflict(
            f"{path}: belongs to the training {meta.plan_hash[:12]} ({meta.learner} in {meta.scenario}), and this is "
            f"{plan_hash[:12]}: settings differ. Put back the training's own checkpoint, or start anew"
        )
    return Checkpoint(meta, driver, [cells.get(index, {}) for index in range(meta.cells)])


def _unreadable(path: Path, error: Exception) -> str:
    if "allow_pickle" in str(error) or "Object arrays" in str(error):
        return (
            f"{path}: holds pickled Python objects, and is refused: reading them runs whatever code is in them. "
            "edgebed's checkpoints hold none; use one that edgebed has written"
        )
    return f"{path}: is not a checkpoint, or is damaged: {error}"


def latest_checkpoint(training: Path, plan_hash: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be read, and what is wrong with newer ones.

    Raises:
        BadInput: it holds pickled objects, which nothing here writes.
        RunConflict: it belongs to another training.
    """
    problems: list[str] = []
    for path in reversed(checkpoint_paths(training)):
        try:
            return load_checkpoint(path, plan_hash), problems
        except BadInput as error:
            if "pickled" in str(error):
                raise
            problems.append(str(error))
    return None, problems


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, where the system allows it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
