"""From a scan to what a camera would have sent: a grey JPEG frame of 640 x 480.

`draw_variation` turns random numbers into a description of the picture, `render` draws that description, `encode`
compresses it. The first two are pure; encoded bytes may differ between versions of the JPEG library.

Everything per pixel happens in Pillow's C code, on textures and noise that are made once, because hundreds of frames
are rendered before each cell.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from edgebed.randomness import stream
from workloads.digits.scans import CELLS, DARKEST

FRAME_WIDTH = 640
FRAME_HEIGHT = 480
JPEG_QUALITY = 80
TEXTURES = 4
NOISE_SIGMAS = (3.0, 4.5, 6.0)

# Backgrounds are larger than a frame, so that each frame can lie elsewhere on them; small, for a device's memory.
_TILE_WIDTH = 896
_TILE_HEIGHT = 640
_TEXTURE_SEED = 1797
_TEXTURE_SIGMA = 24.0
_OCTAVES = 6
_MARGIN_PX = 8
# The scan is turned on a small canvas, where that is cheap, and enlarged afterwards: it has no finer detail to lose.
_CANVAS = 64
# The canvas shows 12 cells, more than the diagonal of 8, so that a turned digit is never cut off.
_CANVAS_CELLS = 12
_BORDER = (_CANVAS_CELLS - CELLS) // 2


@dataclass(frozen=True, slots=True)
class Variation:
    """All that differs between two pictures of the same scan.

    Attributes:
        side_px: side of the square that the 8 x 8 cells cover, in pixels of the frame.
        centre_x: the digit's centre, as a fraction (0 to 1) of where it still fits.
        centre_y: likewise, downwards.
        rotation_rad: counter-clockwise.
        shear: horizontal cells per vertical cell.
        aspect: width over height.
        paper: grey level of the background, 0 (black) to 255.
        ink: grey level of the digit.
        opacity: how much of the background the ink hides, 0 to 1.
        texture: which background, 0 to `TEXTURES` - 1.
        texture_contrast: strength of its pattern.
        texture_offset: where in the background the frame lies, (x, y) pixels.
        noise: which sensor noise, an index into `NOISE_SIGMAS`.
        noise_offset: where in the noise the frame lies, (x, y) pixels.
    """

    side_px: float
    centre_x: float
    centre_y: float
    rotation_rad: float
    shear: float
    aspect: float
    paper: int
    ink: int
    opacity: float
    texture: int
    texture_contrast: float
    texture_offset: tuple[int, int]
    noise: int
    noise_offset: tuple[int, int]


def draw_variation(rng: np.random.Generator) -> Variation:
    """Draw how the next picture looks; takes a fixed number of draws from ``rng``."""
    light, dark = int(rng.integers(150, 226)), int(rng.integers(25, 76))
    chalk = rng.random() < 0.3
    return Variation(
        side_px=float(rng.uniform(220, 380)),
        centre_x=float(rng.random()),
        centre_y=float(rng.random()),
        rotation_rad=math.radians(float(rng.uniform(-15, 15))),
        shear=float(rng.uniform(-0.15, 0.15)),
        aspect=float(rng.uniform(0.85, 1.15)),
        paper=dark if chalk else light,
        ink=light if chalk else dark,
        opacity=float(rng.uniform(0.75, 1.0)),
        texture=int(rng.integers(TEXTURES)),
        texture_contrast=float(rng.uniform(0.3, 0.9)),
        texture_offset=_draw_offset(rng),
        noise=int(rng.integers(len(NOISE_SIGMAS))),
        noise_offset=_draw_offset(rng),
    )


def render(scan: NDArray[np.uint8], variation: Variation) -> Image.Image:
    """Draw a scan.

    Args:
        scan: [8, 8] uint8, ink in each cell, 0 to 16.
        variation: how.

    Returns:
        A grey image of 640 x 480.
    """
    frame = _crop(_texture(variation.texture), variation.texture_offset)
    levels = variation.paper + (np.arange(256) - 128) * variation.texture_contrast
    frame = frame.point(np.clip(levels, 0, 255).astype(np.uint8).tolist())
    stroke = _stroke(scan, variation)
    frame.paste(variation.ink, _corner(stroke.width, variation), stroke)
    return ImageChops.add(frame, _crop(_noises()[variation.noise], variation.noise_offset), 1.0, -128)


def encode(frame: Image.Image) -> bytes:
    """Compress a frame as baseline JPEG."""
    buffer = io.BytesIO()
    frame.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _stroke(scan: NDArray[np.uint8], variation: Variation) -> Image.Image:
    """The turned and enlarged digit, as a mask: 0 shows the paper, 255 the ink."""
    ink = np.pad(scan.astype(np.uint16) * 255 // DARKEST, _BORDER).astype(np.uint8)
    canvas = Image.fromarray(ink).transform(
        (_CANVAS, _CANVAS), Image.Transform.AFFINE, _canvas_to_cells(variation), Image.Resampling.BICUBIC
    )
    # A pen's edge is sharper than 8 x 8 cells can show: cut off the faint, saturate the rest.
    levels = np.clip((np.arange(256) - 24) * 1.2, 0, 255) * variation.opacity
    canvas = canvas.point(levels.astype(np.uint8).tolist())
    side_px = round(variation.side_px * _CANVAS_CELLS / CELLS)
    return canvas.resize((side_px, side_px), Image.Resampling.BILINEAR)


def _canvas_to_cells(variation: Variation) -> tuple[float, float, float, float, float, float]:
    """Where in the padded scan each point of the canvas lies, as Pillow's (a, b, c, d, e, f)."""
    scale = _CANVAS_CELLS / _CANVAS
    cos, sin = math.cos(variation.rotation_rad) * scale, math.sin(variation.rotation_rad) * scale
    a, b = cos / variation.aspect + variation.shear * sin, -sin / variation.aspect + variation.shear * cos
    d, e = sin, cos
    centre, half = _CANVAS_CELLS / 2, _CANVAS / 2
    return a, b, centre - (a + b) * half, d, e, centre - (d + e) * half


def _corner(mask_px: int, variation: Variation) -> tuple[int, int]:
    """Upper left corner of a mask of ``mask_px`` squared; the mask may overhang the frame, the digit does not."""
    half = variation.side_px / 2 + _MARGIN_PX
    x = half + variation.centre_x * (FRAME_WIDTH - 2 * half)
    y = half + variation.centre_y * (FRAME_HEIGHT - 2 * half)
    return round(x - mask_px / 2), round(y - mask_px / 2)


def _draw_offset(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(_TILE_WIDTH - FRAME_WIDTH)), int(rng.integers(_TILE_HEIGHT - FRAME_HEIGHT))


def _crop(tile: Image.Image, offset: tuple[int, int]) -> Image.Image:
    x, y = offset
    return tile.crop((x, y, x + FRAME_WIDTH, y + FRAME_HEIGHT))


@cache
def _texture(index: int) -> Image.Image:
    """A cloud-like background: noise of several scales, stretched sideways by 2 to the power of ``index``."""
    rng = stream(_TEXTURE_SEED, "texture", index)
    rows, columns, levels = 4, max(1, 4 >> index), np.zeros((4, 4), np.float32)
    for octave in range(_OCTAVES):
        rows, columns = 2 * rows, 2 * columns
        levels = _enlarge(levels, rows, columns)
        levels += rng.standard_normal((rows, columns), np.float32) * 0.8**octave
    return _tile(_enlarge(levels, _TILE_HEIGHT, _TILE_WIDTH), _TEXTURE_SIGMA)


def _enlarge(levels: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    return np.array(Image.fromarray(levels).resize((columns, rows), Image.Resampling.BICUBIC))


@cache
def _noises() -> tuple[Image.Image, ...]:
    """Sensor noise, one tile for each of `NOISE_SIGMAS`."""
    rng = stream(_TEXTURE_SEED, "noise")
    shape = (_TILE_HEIGHT, _TILE_WIDTH)
    return tuple(_tile(rng.standard_normal(shape, np.float32), sigma) for sigma in NOISE_SIGMAS)


def _tile(levels: NDArray[np.float32], sigma: float) -> Image.Image:
    """Grey levels with mean 128 and standard deviation ``sigma``; overwrites ``levels`` to spare memory."""
    levels -= levels.mean()
    levels *= sigma / levels.std()
    levels += 128.5
    np.clip(levels, 0, 255, out=levels)
    return Image.fromarray(levels.astype(np.uint8))
