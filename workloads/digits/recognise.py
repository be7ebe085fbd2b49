"""From a JPEG frame to a digit: what devices and edge servers execute.

Frames come from the network, so size, mode and coding are checked in the header, before any pixel is decoded.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from edgebed.errors import ProtocolError
from workloads._onnxruntime import onnxruntime
from workloads.base import Payload
from workloads.digits.manifest import read_checked, read_manifest
from workloads.digits.render import FRAME_HEIGHT, FRAME_WIDTH, encode

# The JPEG decoder itself shrinks by 4 while it decodes, which saves about a third of the time.
INPUT_WIDTH = FRAME_WIDTH // 4
INPUT_HEIGHT = FRAME_HEIGHT // 4
# Three times the raw pixels: no honest JPEG of them is larger, and decoding time grows with the bytes.
LARGEST_FRAME_BYTES = 3 * FRAME_WIDTH * FRAME_HEIGHT

_SESSIONS: dict[str, onnxruntime.InferenceSession] = {}
_SESSIONS_LOCK = threading.Lock()


def decode(frame: Payload) -> NDArray[np.uint8]:
    """Decode a frame at a quarter of its size.

    Args:
        frame: a grey baseline JPEG of 640 x 480.

    Returns:
        [120, 160] uint8.

    Raises:
        ProtocolError: the bytes are anything else.
    """
    if len(frame) > LARGEST_FRAME_BYTES:
        raise ProtocolError("bad_payload", f"a frame of {len(frame)} bytes; at most {LARGEST_FRAME_BYTES} are allowed")
    try:
        # Not Image.open: it would try other formats and follow what a JPEG's metadata claims about further images.
        with JpegImageFile(io.BytesIO(frame)) as image:
            _check_header(image)
            image.draft("L", (INPUT_WIDTH, INPUT_HEIGHT))
            _check_size(image, (INPUT_WIDTH, INPUT_HEIGHT), "after draft decoding")
            return np.asarray(image)
    except ProtocolError:
        raise
    except Exception as error:  # Pillow answers hostile bytes with many kinds of exception, some undocumented
        raise ProtocolError("bad_payload", f"a frame is not a JPEG that can be decoded: {error}") from error


def _check_header(image: JpegImageFile) -> None:
    _check_size(image, (FRAME_WIDTH, FRAME_HEIGHT), "in the header")
    if image.mode != "L":
        raise ProtocolError("bad_payload", f"a frame has colour mode {image.mode}; L (grey) is expected")
    # A progressive file of a few KB can ask for thousands of passes over the picture.
    if "progressive" in image.info:
        raise ProtocolError("bad_payload", "a frame is a progressive JPEG; baseline is expected")


def _check_size(image: Image.Image, expected: tuple[int, int], where: str) -> None:
    if image.size != expected:
        raise ProtocolError("bad_payload", f"a frame is {image.size} pixels {where}; {expected} is expected")


class Recogniser:
    """A network in ONNX Runtime, run by the calling thread alone.

    Args:
        session: from `open_session` or `shared_session`; may be shared by several threads.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input_name = session.get_inputs()[0].name
        # The first frame pays for what later ones find ready.
        self.recognise(encode(Image.new("L", (FRAME_WIDTH, FRAME_HEIGHT))))

    def recognise(self, frame: Payload) -> int:
        """The digit that a frame shows.

        Raises:
            ProtocolError: it is not a grey baseline JPEG of 640 x 480.
        """
        pixels = decode(frame)[np.newaxis, np.newaxis]
        (scores,) = self._session.run(None, {self._input_name: pixels})
        return int(scores.argmax())


def shared_session(folder: Path) -> onnxruntime.InferenceSession:
    """The process's one session of the model in ``folder``.

    Raises:
        BadInput: the model is missing or is not the one that the manifest names.
    """
    model = read_manifest(folder).model
    with _SESSIONS_LOCK:
        if model.sha256 not in _SESSIONS:
            _SESSIONS[model.sha256] = open_session(read_checked(folder, model.file, model.sha256))
        return _SESSIONS[model.sha256]


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """A session that uses one thread, the caller's, and holds little memory between frames."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
