"""From the bytes of an image to a class: the model, checked, and how an image becomes its input."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from edgebed.errors import BadInput, ProtocolError
from workloads._onnxruntime import onnxruntime
from workloads.base import Payload

MAX_MODEL_BYTES = 256 << 20
MAX_PIXELS = 40_000_000
"""Of one image. Its pixels are in memory while it is scaled, so this bounds what a frame from the wire can take."""

CYCLES_PER_MULTIPLY_ADD = 0.15
"""About what the shipped digits network takes on x86-64 with one thread; small boards are in the same range."""
CYCLES_PER_PIXEL = 18.0
"""To decode a JPEG: 2.2 ms for 640 x 480 at 2.5 GHz."""

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}

_SESSIONS: dict[str, onnxruntime.InferenceSession] = {}
_SESSIONS_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an image becomes a model's input; see `workloads.onnx_images.OnnxImages`."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    fit: str = "stretch"
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """What a model takes: one image.

    Attributes:
        is_last: colours are the last dimension, else the one after the batch.
    """

    name: str
    type: type[np.generic]
    height: int
    width: int
    colours: int
    is_last: bool


def read_model(path: Path) -> bytes:
    """The bytes of a model's file.

    Raises:
        BadInput: it cannot be read, or is too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise BadInput(f"{path}: has {size} bytes; at most {MAX_MODEL_BYTES} are allowed for a model")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: the model cannot be read: {error.strerror}") from None


def shared_session(path: Path) -> onnxruntime.InferenceSession:
    """The process's one session of a model.

    Raises:
        BadInput: it cannot be read, or is no model.
    """
    content = read_model(path)
    digest = hashlib.sha256(content).hexdigest()
    with _SESSIONS_LOCK:
        if digest not in _SESSIONS:
            _SESSIONS[digest] = open_session(content, str(path))
        return _SESSIONS[digest]


def open_session(
    model: bytes, name: str, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session that uses one thread, the caller's.

    Raises:
        BadInput: it is no model; ``name`` says which.
    """
    options = options or onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen kinds of its own, derived from Exception alone
        hint = "; save it as one file" if "external" in str(error).lower() else ""
        raise BadInput(f"{name}: ONNX Runtime cannot load it: {_first_line(error)}{hint}") from None


def input_of(session: onnxruntime.InferenceSession, size: tuple[int, int] | None) -> Input:
    """What a model takes.

    Raises:
        BadInput: it is not one image; the text says what the model has instead.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BadInput(f"the model has {len(inputs)} inputs; expected one, an image")
    (found,) = inputs
    shape, kind = list(found.shape), _TYPES.get(found.type)
    if kind is None:
        raise BadInput(f"the model's input {found.name} is {found.type}; allowed: {', '.join(_TYPES)}")
    if len(shape) != 4:
        raise BadInput(f"the model's input {found.name} has the shape {shape}; expected 4 dimensions: batch and image")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise BadInput(f"the model takes batches of {shape[0]}; export it with a batch of 1 or an open one")
    is_last = shape[1] not in (1, 3) and shape[3] in (1, 3)
    if not is_last and shape[1] not in (1, 3):
        raise BadInput(f"the model's input {found.name} has the shape {shape}; expected 1 or 3 colours, first or last")
    colours, *sides = (shape[3], *shape[1:3]) if is_last else (shape[1], *shape[2:4])
    fixed = [side if isinstance(side, int) else None for side in sides]
    if size is None and None in fixed:
        raise BadInput(f"the model's input {found.name} leaves its size open, {shape}; say size: [height, width]")
    if size is not None and any(side is not None and side != asked for side, asked in zip(fixed, size, strict=True)):
        raise BadInput(f"size is {list(size)}, but the model takes {fixed}")
    height, width = size or (fixed[0], fixed[1])
    assert height is not None
    assert width is not None
    return Input(found.name, kind, height, width, colours, is_last)


class Recogniser:
    """A model and how images become its input, run by the calling thread alone.

    Args:
        session: may be shared by several threads.
        preparation: of the images.

    Raises:
        BadInput: the model takes or gives something else than this workload is for.
    """

    def __init__(self, session: onnxruntime.InferenceSession, preparation: Preparation) -> None:
        self._session = session
        self.input = input_of(session, preparation.size)
        self._preparation = preparation
        colours = self.input.colours
        if colours == 1 and (len(preparation.mean) == 3 or len(preparation.std) == 3):
            raise BadInput("the model takes grey images; mean and std are one number each then")
        self._mean = np.asarray(preparation.mean, np.float32)
        self._std = np.asarray(preparation.std, np.float32)
        # The first run pays for what later ones find ready; and it shows what the model gives.
        blank = np.zeros((self.input.height, self.input.width, colours), np.uint8)
        self.classes = self._scores(self.as_input(blank)).size

    def recognise(self, frame: Payload) -> int:
        """The class with the highest score.

        Raises:
            ProtocolError: the bytes are not a JPEG or PNG image within the bounds.
        """
        return int(self._scores(self.as_input(self.fitted(frame))).argmax())

    def _scores(self, pixels: NDArray[Any]) -> NDArray[Any]:
        try:
            first = self._session.run([self._session.get_outputs()[0].name], {self.input.name: pixels})[0]
        except Exception as error:
            raise BadInput(
                f"the model fails on an image of {pixels.shape} {pixels.dtype}: {_first_line(error)}"
            ) from None
        scores = np.asarray(first)
        if scores.size < 2 or scores.size != max(scores.shape) or scores.dtype.kind not in "fiu":
            raise BadInput(
                f"the model's first output has the shape {list(scores.shape)}; expected [1, classes], 2 classes or more"
            )
        return scores.reshape(-1)

    def fitted(self, frame: Payload) -> NDArray[np.uint8]:
        """The pixels of an image at the model's size, [height, width, colours]."""
        height, width = self.input.height, self.input.width
        image = decode(frame, "L" if self.input.colours == 1 else "RGB", (width, height))
        if image.size != (width, height):
            box = (0.0, 0.0, float(image.width), float(image.height))
            if self._preparation.fit == "crop":
                box = _middle(image.size, width / height)
            image = image.resize((width, height), Image.Resampling.BILINEAR, box)
        return np.asarray(image).reshape(height, width, self.input.colours)

    def as_input(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels as the model takes them: bytes as they are for a model of bytes, else scaled."""
        prepared: NDArray[Any] = pixels
        if self.input.type is not np.uint8:
            prepared = ((pixels.astype(np.float32) / 255.0 - self._mean) / self._std).astype(self.input.type)
        if not self.input.is_last:
            prepared = prepared.transpose(2, 0, 1)
        return np.ascontiguousarray(prepared[np.newaxis])


def decode(frame: Payload, mode: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image.

    Args:
        frame: a JPEG or PNG file.
        mode: ``RGB`` or ``L``.
        size: (width, height) that it is wanted at: a JPEG is decoded not much larger than this.

    Raises:
        ProtocolError: the bytes are anything else, or have more than `MAX_PIXELS`.
    """
    content = bytes(frame)
    # Not Image.open: it would try other formats and follow what a JPEG's metadata claims about further images.
    kind = JpegImageFile if content[:2] == b"\xff\xd8" else PngImageFile
    try:
        with kind(io.BytesIO(content)) as image:
            _check_pixels(image)
            if size is not None:
                image.draft(mode, size)
            return image.convert(mode)
    except ProtocolError:
        raise
    except Exception as error:  # Pillow answers hostile bytes with many kinds of exception, some undocumented
        raise ProtocolError("bad_payload", f"an image is no JPEG or PNG that can be decoded: {error}") from error


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ProtocolError("bad_payload", f"an image has {size} pixels; {MAX_PIXELS} are allowed")


def _middle(size: tuple[int, int], ratio: float) -> tuple[float, float, float, float]:
    """The largest box of this width : height in the middle of an image."""
    width, height = size
    wide, high = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - wide) / 2, (height - high) / 2
    return left, top, left + wide, top + high


def estimated_cycles(model: bytes, recogniser: Recogniser, frame: Payload) -> float:
    """CPU cycles to decode and recognise an image, about: from the model's multiply-adds and the image's pixels."""
    image = decode(frame, "L")
    with tempfile.TemporaryDirectory(prefix="edgebed-model-") as folder:
        multiply_adds = _multiply_adds(model, recogniser, Path(folder))
    cycles = CYCLES_PER_MULTIPLY_ADD * multiply_adds + CYCLES_PER_PIXEL * image.width * image.height
    return float(f"{cycles:.2g}")


def _multiply_adds(model: bytes, recogniser: Recogniser, folder: Path) -> int:
    """Of one run, as ONNX Runtime's profile shows the shapes; convolutions and matrix products only."""
    with_profile = onnxruntime.SessionOptions()
    with_profile.enable_profiling = True
    with_profile.profile_file_prefix = str(folder / "run")
    with_profile.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    profiled = open_session(model, "the model", with_profile)
    height, width, colours = recogniser.input.height, recogniser.input.width, recogniser.input.colours
    blank = recogniser.as_input(np.zeros((height, width, colours), np.uint8))
    profiled.run(None, {recogniser.input.name: blank})
    events = json.loads(Path(profiled.end_profiling()).read_text())
    return sum(_of_node(event.get("args", {})) for event in events)


def _of_node(node: dict[str, Any]) -> int:
    if node.get("op_name") not in ("Conv", "MatMul", "Gemm", "FusedConv", "ConvTranspose"):
        return 0
    shapes: list[list[int]] = [next(iter(each.values())) for each in node.get("input_type_shape", [])]
    outputs: list[list[int]] = [next(iter(each.values())) for each in node.get("output_type_shape", [])]
    if len(shapes) < 2 or not outputs:
        return 0
    if "Conv" in node["op_name"]:
        return math.prod(outputs[0]) * math.prod(shapes[1][1:])
    return math.prod(outputs[0]) * (shapes[0][-1] if shapes[0] else 1)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]
