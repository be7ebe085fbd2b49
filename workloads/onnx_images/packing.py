"""The user's model and images, checked all together when the experiment is read, and packed for hosts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.errors import BadInput, Problem, ProtocolError
from workloads.files import Packed, reference_to
from workloads.onnx_images.library import Library, open_library
from workloads.onnx_images.recognise import Recogniser, estimated_cycles, open_session, read_model

if TYPE_CHECKING:
    from workloads.onnx_images import OnnxImages

PATHS = ("model", "images", "labels", "classes")
_MOST_PROBLEMS = 20


def pack(kind: type[OnnxImages], options: Mapping[str, Any], folder: Path) -> Packed:
    """See `workloads.files.NeedsFiles`.

    Raises:
        BadInput: with everything that is wrong with options, model, images and labels.
    """
    given: dict[str, Any] = {
        key: str(folder / value) if key in PATHS and isinstance(value, str) and value else value
        for key, value in options.items()
    }
    try:
        inspect.signature(kind).bind(**given)
    except TypeError as error:
        raise BadInput(f"workload onnx_images: {error}") from None
    workload = kind(**given)
    problems: list[Problem] = []
    model, library, recogniser = b"", None, None
    try:
        model = read_model(Path(given["model"]))
        recogniser = _recogniser(model, given["model"], workload)
    except BadInput as error:
        problems += error.problems
    try:
        optional = [Path(given[key]) if given.get(key) else None for key in ("labels", "classes")]
        library = open_library(Path(given["images"]), *optional)
    except BadInput as error:
        problems += error.problems
    if recogniser is not None and library is not None:
        problems += _image_problems(recogniser, library)
        problems += _label_problems(recogniser, library, given)
    if problems or recogniser is None or library is None:
        raise BadInput(problems[:_MOST_PROBLEMS])
    images = library.packed()
    small = {key: value for key, value in options.items() if key not in PATHS}
    small.setdefault("cycles_per_frame", estimated_cycles(model, recogniser, library.frame(0)))
    small["bytes_per_frame"] = round(library.mean_bytes, 1)
    return Packed(
        small | {"model": reference_to(model), "images": reference_to(images)},
        {reference_to(model): model, reference_to(images): images},
    )


def _recogniser(model: bytes, path: str, workload: OnnxImages) -> Recogniser:
    """The model, run once.

    Raises:
        BadInput: it cannot be; the text names its file.
    """
    session = open_session(model, path)
    try:
        return Recogniser(session, workload.preparation)
    except BadInput as error:
        raise BadInput(Problem(problem.message, file=path) for problem in error.problems) from None


def _image_problems(recogniser: Recogniser, library: Library) -> Iterator[Problem]:
    for index, (path, _) in enumerate(library.places):
        try:
            recogniser.fitted(library.frame(index))
        except ProtocolError as error:
            yield Problem(error.detail, file=str(path))
        except BadInput as error:
            yield from error.problems


def _label_problems(recogniser: Recogniser, library: Library, given: Mapping[str, Any]) -> Iterator[Problem]:
    classes = recogniser.classes
    beyond = sorted({label for label in library.labels if label >= classes})
    if beyond:
        text = f"has the class {', '.join(map(str, beyond[:5]))}; the model gives scores for 0 to {classes - 1}"
        yield Problem(text, file=str(given["images"]))
    folders = {path.parent for path, _ in library.places if path.parent != Path(given["images"])}
    by_order = library.labels and not given.get("labels") and not given.get("classes") and folders
    if by_order and not all(each.name.isdigit() for each in folders) and len(folders) != classes:
        text = (
            f"has {len(folders)} sub-folders and the model {classes} classes, so which is which is not known; "
            "call the sub-folders by the classes' numbers, or say `classes: FILE` with a name a line"
        )
        yield Problem(text, file=str(given["images"]))
