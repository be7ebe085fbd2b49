"""Rendering a scan: pure, varied, of photographic size."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math

import numpy as np
import pytest
from PIL import Image

from workloads.digits import DigitsWorkload
from workloads.digits.render import Variation, draw_variation, encode, render

# Drawn with generator seed 2026.
GOLDEN_CHOICES = (214, 34, 0, (76, 116), 2, (72, 101))
GOLDEN_MEASURES = (
    294.76294418295765,
    0.37050052710804804,
    0.3549173343096512,
    0.15211499781773513,
    0.12154315100315219,
    0.9032059575469146,
)
GOLDEN_BLOCKS = [
    [217.42, 208.81, 196.95, 215.64, 232.74, 222.01, 209.12, 205.12],
    [219.27, 197.59, 156.05, 97.5, 200.81, 219.38, 211.93, 209.15],
    [209.4, 230.95, 155.85, 133.15, 139.77, 207.72, 195.72, 205.72],
    [229.2, 221.27, 166.57, 70.28, 159.61, 196.97, 200.64, 206.94],
    [219.88, 213.01, 218.87, 202.26, 213.89, 195.85, 210.87, 215.45],
    [218.72, 231.03, 228.39, 195.22, 198.34, 203.04, 230.74, 234.5],
]

RING = np.zeros((8, 8), np.uint8)
RING[1:7, 2:6] = 16
RING[3:5, 3:5] = 0

PLAIN = Variation(
    side_px=320,
    centre_x=0.5,
    centre_y=0.5,
    rotation_rad=0,
    shear=0,
    aspect=1,
    paper=200,
    ink=50,
    opacity=1,
    texture=0,
    texture_contrast=0,
    texture_offset=(0, 0),
    noise=0,
    noise_offset=(0, 0),
)


def _pixels(**changes: object) -> np.ndarray:
    return np.asarray(render(RING, dataclasses.replace(PLAIN, **changes)), float)


def _ink_centre(pixels: np.ndarray) -> tuple[float, float]:
    y, x = np.nonzero(pixels < 125)
    return float(x.mean()), float(y.mean())


def test_a_frame_is_grey_and_of_photographic_size() -> None:
    frame = render(RING, PLAIN)
    assert (frame.size, frame.mode) == ((640, 480), "L")


def test_ink_and_paper_have_their_levels() -> None:
    pixels = _pixels()
    assert pixels[20:60, 20:60].mean() == pytest.approx(200, abs=1)
    # Cell (2, 2) is ink; cell (3, 3), the hole, is paper. A cell is 40 pixels, the square begins at (160, 80).
    assert pixels[170:190, 250:270].mean() == pytest.approx(50, abs=8)
    assert pixels[235:245, 315:325].mean() > 150


@pytest.mark.parametrize(("centre_x", "centre_y", "where"), [(0, 0, (168, 168)), (1, 1, (472, 312))])
def test_position_moves_the_digit_and_keeps_it_in_the_frame(
    centre_x: float, centre_y: float, where: tuple[float, float]
) -> None:
    assert _ink_centre(_pixels(centre_x=centre_x, centre_y=centre_y)) == pytest.approx(where, abs=3)


def test_scale_changes_the_area_of_ink() -> None:
    small, large = ((_pixels(side_px=side) < 125).sum() for side in (160, 320))
    assert large / small == pytest.approx(4, rel=0.05)


def test_rotation_turns_counter_clockwise() -> None:
    bar = np.zeros((8, 8), np.uint8)
    bar[3:5, 4:8] = 16
    turned = np.asarray(render(bar, dataclasses.replace(PLAIN, rotation_rad=math.radians(15))), float)
    x, y = _ink_centre(turned)
    # The bar points right from the centre (320, 240); turned counter-clockwise, it points up.
    assert math.degrees(math.atan2(240 - y, x - 320)) == pytest.approx(15, abs=2)


def test_noise_has_its_standard_deviation() -> None:
    assert [_pixels(noise=index)[:60, :60].std() for index in range(3)] == pytest.approx([3.0, 4.5, 6.0], rel=0.05)


def test_drawing_is_a_pure_function_of_the_generator() -> None:
    first, second = draw_variation(np.random.default_rng(5)), draw_variation(np.random.default_rng(5))
    assert first == second
    assert render(RING, first).tobytes() == render(RING, second).tobytes()


def test_draws_are_the_ones_of_earlier_versions() -> None:
    drawn = draw_variation(np.random.default_rng(2026))
    exact = (drawn.paper, drawn.ink, drawn.texture, drawn.texture_offset, drawn.noise, drawn.noise_offset)
    assert exact == GOLDEN_CHOICES
    measures = (drawn.side_px, drawn.centre_x, drawn.centre_y, drawn.rotation_rad, drawn.shear, drawn.aspect)
    assert measures == pytest.approx(GOLDEN_MEASURES)


def test_pictures_are_the_ones_of_earlier_versions() -> None:
    # Means of blocks of 80 x 80, not a hash of the pixels: Pillow's resampling may differ in the last bit from one
    # version or processor to the next, and a picture that differs by that is the same picture.
    frame = np.asarray(render(RING, draw_variation(np.random.default_rng(2026))), float)
    assert frame.reshape(6, 80, 8, 80).mean(axis=(1, 3)) == pytest.approx(np.array(GOLDEN_BLOCKS), abs=0.5)


def test_encoded_sizes_are_those_of_camera_frames() -> None:
    task = DigitsWorkload().generate(np.random.default_rng(0), "sizes", 40)
    sizes = [len(frame) for frame in task.frames]
    assert min(sizes) > 20_000
    assert max(sizes) < 70_000
    assert len(set(sizes)) > 30


def test_a_frame_is_a_baseline_jpeg() -> None:
    with Image.open(io.BytesIO(encode(render(RING, PLAIN)))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (640, 480), "L")
        assert "progressive" not in image.info


def test_fewer_frames_are_a_prefix_of_more() -> None:
    workload = DigitsWorkload()
    few = workload.generate(np.random.default_rng(9), "c", 2)
    many = workload.generate(np.random.default_rng(9), "c", 5)
    assert many.frames[:2] == few.frames
    assert len({hashlib.sha256(frame).digest() for frame in many.frames}) == 5
