"""Images and what they show: read from the user's folder, or from the one file that hosts get.

The file (little endian): ``edgebed images 1`` and a line feed | u32 length of the header | the header, MessagePack:
the label and the length of each image | the images, one after another. Only the header is kept in memory.
"""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edgebed.errors import BadInput, Problem
from workloads.base import MAX_FRAME_BYTES

MAX_IMAGES = 4096
MAX_TOTAL_BYTES = 256 << 20
MAX_CLASSES = 1_000_000
SUFFIXES = (".jpg", ".jpeg", ".png")
LABELS_NAME = "labels.csv"

_MAGIC = b"edgebed images 1\n"
_MOST_PROBLEMS = 20


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """What a file of images begins with; ``labels`` is empty when the truth is unknown."""

    labels: Annotated[list[Annotated[int, Meta(ge=0, lt=MAX_CLASSES)]], Meta(max_length=MAX_IMAGES)]
    lengths: Annotated[list[Annotated[int, Meta(ge=1, le=MAX_FRAME_BYTES)]], Meta(min_length=1, max_length=MAX_IMAGES)]


@dataclass(frozen=True, slots=True)
class Library:
    """Images in a fixed order.

    Attributes:
        labels: the class of each; empty when the truth is unknown.
        lengths: bytes of each.
        places: where each one begins: a file, and how far into it.
    """

    labels: tuple[int, ...]
    lengths: tuple[int, ...]
    places: tuple[tuple[Path, int], ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def mean_bytes(self) -> float:
        """Mean size of an image, in bytes."""
        return sum(self.lengths) / len(self.lengths)

    def frame(self, index: int) -> bytes:
        """The bytes of an image.

        Raises:
            BadInput: its file is gone, or was cut off.
        """
        path, offset = self.places[index]
        try:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(self.lengths[index])
        except OSError as error:
            raise BadInput(f"{path}: an image cannot be read: {error.strerror}") from None
        if len(content) != self.lengths[index]:
            raise BadInput(f"{path}: is shorter than it was; start the run again")
        return content

    def packed(self) -> bytes:
        """All of it as one file for hosts."""
        header = msgspec.msgpack.encode(_Header(list(self.labels), list(self.lengths)))
        images = (self.frame(index) for index in range(len(self)))
        return b"".join((_MAGIC, struct.pack("<I", len(header)), header, *images))


def open_library(images: Path, labels: Path | None = None, classes: Path | None = None) -> Library:
    """The images of a folder, or of a file made by `Library.packed`.

    Args:
        images: the folder or file.
        labels: CSV with the columns ``file`` and ``label``; only for a folder.
        classes: a class's name a line; only for a folder.

    Raises:
        BadInput: with everything that is wrong with names, sizes and labels. No pixel is looked at.
    """
    if images.is_file():
        return _read_packed(images)
    if not images.is_dir():
        raise BadInput(Problem("is no folder of images; say where they are", file=str(images)))
    skipped = {path.resolve() for path in (images / LABELS_NAME, labels, classes) if path is not None}
    paths = sorted(path for path in images.rglob("*") if path.is_file() and path.resolve() not in skipped)
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(images).parts)]
    lengths = [path.stat().st_size for path in paths]
    _check_files(images, paths, lengths)
    if labels is None and (images / LABELS_NAME).is_file():
        labels = images / LABELS_NAME
    names = _class_names(classes)
    found = _labels_of_file(labels, images, paths, names) if labels else _labels_of_folders(images, paths, names)
    return Library(tuple(found), tuple(lengths), tuple((path, 0) for path in paths))


def _read_packed(path: Path) -> Library:
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + 4)
            (size,) = struct.unpack_from("<I", start, len(_MAGIC)) if len(start) == len(_MAGIC) + 4 else (0,)
            if not start.startswith(_MAGIC) or size > MAX_IMAGES * 16 + 64:
                raise BadInput(f"{path}: is neither a folder of images nor a file made of one")
            header = msgspec.msgpack.decode(file.read(size), type=_Header)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path}: is not a file of images: {error}") from None
    if header.labels and len(header.labels) != len(header.lengths):
        raise BadInput(f"{path}: has {len(header.labels)} labels for {len(header.lengths)} images")
    starts = accumulate(header.lengths[:-1], initial=len(_MAGIC) + 4 + size)
    return Library(tuple(header.labels), tuple(header.lengths), tuple((path, start) for start in starts))


def _check_files(images: Path, paths: Sequence[Path], lengths: Sequence[int]) -> None:
    problems = []
    if not 1 <= len(paths) <= MAX_IMAGES:
        problems.append(Problem(f"has {len(paths)} images; allowed: 1 to {MAX_IMAGES}", file=str(images)))
    if sum(lengths) > MAX_TOTAL_BYTES:
        text = f"has {sum(lengths)} bytes of images; at most {MAX_TOTAL_BYTES} are sent to a host; scale them down"
        problems.append(Problem(text, file=str(images)))
    for path, length in zip(paths, lengths, strict=True):
        if path.suffix.lower() not in SUFFIXES:
            problems.append(Problem(f"is no image; allowed in this folder: {', '.join(SUFFIXES)}", file=str(path)))
        elif not 1 <= length <= MAX_FRAME_BYTES:
            problems.append(Problem(f"has {length} bytes; allowed: 1 to {MAX_FRAME_BYTES}", file=str(path)))
    if problems:
        raise BadInput(problems[:_MOST_PROBLEMS])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(Problem(f"cannot be read: {error}", file=str(path))) from None


def _class_names(path: Path | None) -> dict[str, int]:
    """The number of each class, by its name."""
    if path is None:
        return {}
    lines = [line.strip() for line in _text(path).splitlines()]
    names = [line for line in lines if line]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or len(names) < 2:
        text = (
            f"has {', '.join(twice[:5])} more than once" if twice else "has fewer than 2 names of classes, one a line"
        )
        raise BadInput(Problem(text, file=str(path)))
    return {name: number for number, name in enumerate(names)}


def _number(text: str, names: dict[str, int]) -> int | None:
    """A class by its name or number; None when it is neither."""
    if text in names:
        return names[text]
    return int(text) if text.isascii() and text.isdigit() and int(text) < MAX_CLASSES else None


def _labels_of_file(file: Path, images: Path, paths: Sequence[Path], names: dict[str, int]) -> list[int]:
    reader = csv.DictReader(io.StringIO(_text(file)))
    if not {"file", "label"} <= set(reader.fieldnames or ()):
        columns = ", ".join(reader.fieldnames or ()) or "none"
        raise BadInput(Problem(f"has the columns {columns}; expected file,label", file=str(file), line=1))
    known = {path.relative_to(images).as_posix() for path in paths}
    found: dict[str, int] = {}
    problems = []
    for row in reader:
        name, label = (row["file"] or "").strip(), (row["label"] or "").strip()
        number = _number(label, names)
        if name not in known:
            text = f"{name!r} is no image in {images}"
        elif name in found:
            text = f"{name!r} is here twice"
        elif number is None:
            text = f"the label {label!r} is neither a number nor {'in `classes`' if names else 'a name: say `classes`'}"
        else:
            found[name] = number
            continue
        problems.append(Problem(text, file=str(file), line=reader.line_num))
    if not problems:
        missing = sorted(known - found.keys())
        problems += [Problem(f"has no label for {name!r}", file=str(file)) for name in missing]
    if problems:
        raise BadInput(problems[:_MOST_PROBLEMS])
    return [found[path.relative_to(images).as_posix()] for path in paths]


def _labels_of_folders(images: Path, paths: Sequence[Path], names: dict[str, int]) -> list[int]:
    """The sub-folders as classes; nothing when the images lie in none."""
    parents = [path.relative_to(images).parts[:-1] for path in paths]
    if not any(parents):
        return []
    problems = [
        Problem("lies in no sub-folder, or in one of another; each sub-folder is a class", file=str(path))
        for path, parent in zip(paths, parents, strict=True)
        if len(parent) != 1
    ]
    folders = sorted({parent[0] for parent in parents if len(parent) == 1})
    numbers = {folder: _number(folder, names) for folder in folders}
    if not names and None in numbers.values():
        numbers = {folder: number for number, folder in enumerate(folders)}
    problems += [
        Problem(f"the sub-folder {folder!r} is no class in `classes`", file=str(images))
        for folder, number in numbers.items()
        if number is None
    ]
    if problems:
        raise BadInput(problems[:_MOST_PROBLEMS])
    return [number for parent in parents if (number := numbers[parent[0]]) is not None]
