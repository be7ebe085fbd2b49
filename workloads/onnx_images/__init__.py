"""Workload ``onnx_images``: the user's own ONNX classifier on the user's own images.

``docs/workloads.md`` says what a model and a folder have to look like. All of it is checked when the experiment is
read; hosts get the model as it is and the images as one file, both named by their checksum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.errors import BadInput
from workloads.base import Demand, Payload, Result, Task, unpack_clip

if TYPE_CHECKING:
    import numpy as np

    from workloads.files import Packed
    from workloads.onnx_images.library import Library
    from workloads.onnx_images.recognise import Preparation, Recogniser

__all__ = ["WORKLOAD", "OnnxImages"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a run's manifest says of the model."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """As other workloads with a model have one; nobody promises an accuracy here."""

    model: ModelFacts


class OnnxImages:
    """Your own ONNX classifier, on a folder of your own JPEG or PNG images.

    Args:
        model: path of the ONNX file: one image in, one score a class out.
        images: path of the folder; or of the one file that hosts get.
        labels: path of a CSV file with the columns ``file`` and ``label``. Without it the folder's sub-folders are the
            classes; with neither, the truth is unknown.
        classes: path of a text file with the name of a class a line, in the order of the model's scores.
        mean, std: what is taken from each pixel (0 to 1) and what it is divided by then; one number, or one a colour.
        fit: ``stretch`` an image to the model's size, or ``crop``: scale its shorter side and take the middle.
        size: [height, width] for a model that leaves them open.
        cycles_per_frame: CPU cycles to decode and recognise an image; estimated from the model unless given.
        bytes_per_frame: mean size of an image; set when the images are packed.

    Raises:
        BadInput: an option is out of range.
    """

    name = "onnx_images"

    def __init__(
        self,
        model: str,
        images: str,
        labels: str | None = None,
        classes: str | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        fit: str = "stretch",
        size: Sequence[int] | None = None,
        cycles_per_frame: float | None = None,
        bytes_per_frame: float | None = None,
    ) -> None:
        self._model, self._images = _path("model", model), _path("images", images)
        self._labels = None if labels is None else Path(_path("labels", labels))
        self._classes = None if classes is None else Path(_path("classes", classes))
        self._mean = _numbers("mean", mean)
        self._std = _numbers("std", std)
        if 0.0 in self._std:
            raise BadInput("workload onnx_images: std is 0; it is divided by")
        if fit not in ("stretch", "crop"):
            raise BadInput(f"workload onnx_images: fit is {fit!r}; allowed: stretch, crop")
        self._fit = fit
        self._size = None if size is None else _size(size)
        self._cycles = _positive("cycles_per_frame", cycles_per_frame)
        self._bytes = _positive("bytes_per_frame", bytes_per_frame)

    @classmethod
    def pack(cls, options: Mapping[str, Any], folder: Path) -> Packed:
        """Check model and images, and pack them for hosts; see `workloads.files.NeedsFiles`.

        Raises:
            BadInput: with everything that is wrong with them.
        """
        from workloads.onnx_images.packing import pack

        return pack(cls, options, folder)

    @property
    def preparation(self) -> Preparation:
        """How an image becomes the model's input."""
        from workloads.onnx_images.recognise import Preparation

        return Preparation(self._mean, self._std, self._fit, self._size)

    @property
    def demand(self) -> Demand:
        """What a frame costs; on hosts the options say it. From paths alone, model and images are read for it.

        Raises:
            BadInput: they cannot be read.
        """
        if self._cycles is not None and self._bytes is not None:
            return Demand(self._cycles, self._bytes)
        from workloads.onnx_images.recognise import estimated_cycles, read_model

        library = self._library
        cycles = self._cycles or estimated_cycles(read_model(Path(self._model)), self._recogniser, library.frame(0))
        return Demand(cycles, self._bytes or library.mean_bytes)

    @cached_property
    def manifest(self) -> Manifest:
        """The model's name and checksum.

        Raises:
            BadInput: the model cannot be read.
        """
        from workloads.files import is_reference, reference_to
        from workloads.onnx_images.recognise import read_model

        path = self._model
        # Where the run is planned and sealed, the option is a checksum already, and the file may be gone.
        reference = path if is_reference(path) else reference_to(read_model(Path(path)))
        return Manifest(ModelFacts(file="model.onnx", sha256=reference.removeprefix("sha256:")))

    def generate(self, rng: np.random.Generator, content_id: str, frames: int) -> Task:
        """Draw images, with replacement; fewer frames are a prefix of more.

        Raises:
            BadInput: ``frames`` is not positive, or the images cannot be read.
        """
        if frames < 1:
            raise BadInput(f"onnx_images: a clip of {frames} frames; at least 1 is needed")
        library = self._library
        chosen = [int(rng.integers(len(library))) for _ in range(frames)]
        labels = tuple(library.labels[index] for index in chosen) if library.labels else ()
        return Task(content_id, tuple(library.frame(index) for index in chosen), labels)

    def load(self) -> None:
        """Load the model and run it once.

        Raises:
            BadInput: it cannot be read, or is none that this workload can run.
        """
        _ = self._recogniser

    def execute(self, payload: Payload) -> Result:
        """The class with the highest score, for each image of a packed clip, one at a time.

        Raises:
            ProtocolError: the payload is not a clip of JPEG or PNG images.
        """
        recogniser = self._recogniser
        return Result(tuple(recogniser.recognise(frame) for frame in unpack_clip(payload)))

    @cached_property
    def _library(self) -> Library:
        from workloads.onnx_images.library import open_library

        return open_library(Path(self._images), self._labels, self._classes)

    @cached_property
    def _recogniser(self) -> Recogniser:
        from workloads.onnx_images.recognise import Recogniser, shared_session

        return Recogniser(shared_session(Path(self._model)), self.preparation)


def _path(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput(f"workload onnx_images: {key} is {value!r}; expected a path")
    return value


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    """One number, or three."""
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    good = all(isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < 1e9 for each in numbers)
    if not good or len(numbers) not in (1, 3):
        raise BadInput(f"workload onnx_images: {key} is {value!r}; expected a number, or three in the order R, G, B")
    return tuple(float(each) for each in numbers)


def _size(value: Any) -> tuple[int, int]:
    good = isinstance(value, list | tuple) and len(value) == 2
    if not good or not all(type(each) is int and 1 <= each <= 4096 for each in value):
        raise BadInput(f"workload onnx_images: size is {value!r}; expected [height, width], each 1 to 4096")
    return value[0], value[1]


def _positive(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BadInput(f"workload onnx_images: {key} is {value!r}; expected a positive number")
    return float(value)


WORKLOAD = OnnxImages
