"""A small ONNX classifier and a folder of images for it, made on the spot; needs the extra [dev].

The model says which of red, green and blue an image has most of: so every answer is known, however the image is scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

COLOURS = ("red", "green", "blue")


def colour_model(
    shape: Sequence[int | str] = (1, 3, 8, 8), kind: int = TensorProto.FLOAT, classes: int = 3, nodes: Any = None
) -> bytes:
    """A model whose scores are the means of the colours.

    Args:
        shape: of its input; three colours, first or last, text for a dimension left open.
        kind: element type of its input.
        classes: how many scores; those beyond the colours are 0.
        nodes: other operations instead, from ``image`` to ``scores`` of the same shape.
    """
    is_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    weights = np.zeros((3, classes), np.float32)
    weights[:, :3] = np.eye(3)
    steps = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["means"], axes=[1, 2] if is_last else [2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["scores"]),
    ]
    scores: list[str | int | None] = ["batch", "classes"] if nodes is None else list(shape)
    graph = helper.make_graph(
        nodes or steps,
        "colours",
        [helper.make_tensor_value_info("image", kind, list(shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, scores)],
        [helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.reshape(-1).tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def save_image(path: Path, colour: int, seed: int, size: tuple[int, int] = (64, 48)) -> None:
    """A noisy image of one colour; the suffix says how it is coded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (size[1], size[0], 3), np.uint8)
    pixels[:, :, colour] += 120
    Image.fromarray(pixels).save(path)


def own_files(folder: Path, each: int = 5, suffix: str = ".jpg") -> dict[str, str]:
    """``model.onnx`` and ``images/`` with a sub-folder for each class, by its number; the options that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(colour_model())
    for colour in range(3):
        for number in range(each):
            save_image(folder / "images" / str(colour) / f"{number}{suffix}", colour, 10 * colour + number)
    return {"model": "model.onnx", "images": "images"}
