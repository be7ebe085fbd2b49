"""What the shipped files achieve and cost, measured through the very path that devices run.

    python -m workloads.digits.training.measure

measures the shipped weights again, without training, and rewrites manifest and card. It needs no torch.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from pathlib import Path

import msgspec
import numpy as np

from edgebed.randomness import stream
from workloads.digits.manifest import FOLDER, Accuracy, Cost, read_checked, read_manifest, write_manifest
from workloads.digits.recognise import Recogniser, shared_session
from workloads.digits.render import draw_variation, encode, render
from workloads.digits.scans import Part, ScanSet, read_part
from workloads.digits.training.card import write_card

Z95 = 1.959964
SEED = 0
RENDERINGS = 20
COST_FRAMES = 500


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Interval for a probability (Wilson 1927): right also near 1, where the normal one is not."""
    fraction = successes / trials
    centre = (fraction + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(fraction * (1 - fraction) / trials + (z / (2 * trials)) ** 2)
    return centre - half, centre + half


def measure_accuracy(recogniser: Recogniser, scans: ScanSet, renderings: int, seed: int) -> Accuracy:
    """Recognise each scan ``renderings`` times."""
    rng = stream(seed, "digits", "accuracy")
    right = np.zeros((len(scans), renderings), bool)
    for index, (image, label) in enumerate(zip(scans.images, scans.labels, strict=True)):
        for repeat in range(renderings):
            frame = encode(render(image, draw_variation(rng)))
            right[index, repeat] = recogniser.recognise(frame) == label
    scans_right = int((right.mean(axis=1) > 0.5).sum())
    low, high = wilson_interval(int(right.sum()), right.size)
    scans_low, scans_high = wilson_interval(scans_right, len(scans))
    return Accuracy(
        scans=len(scans),
        renderings=renderings,
        frames=right.size,
        correct=int(right.sum()),
        low=low,
        high=high,
        scans_right=scans_right,
        scans_low=scans_low,
        scans_high=scans_high,
        by_digit=tuple(float(right[scans.labels == digit].mean()) for digit in range(10)),
    )


def measure_cost(recogniser: Recogniser, scans: ScanSet, frames: int, seed: int) -> Cost:
    """CPU time of this thread for rendering, and for decoding and recognising, ``frames`` frames one by one."""
    rng = stream(seed, "digits", "cost")
    chosen = scans.images[rng.integers(len(scans), size=frames)]
    started_s = time.thread_time()
    pictures = [encode(render(image, draw_variation(rng))) for image in chosen]
    render_s = (time.thread_time() - started_s) / frames
    recognise_s = []
    for picture in pictures:
        started_s = time.thread_time()
        recogniser.recognise(picture)
        recognise_s.append(time.thread_time() - started_s)
    sizes = [len(picture) for picture in pictures]
    processor, nominal_hz = describe_processor()
    return Cost(
        cpu_s_per_frame=statistics.median(recognise_s),
        nominal_hz=nominal_hz,
        bytes_per_frame=statistics.fmean(sizes),
        bytes_low=min(sizes),
        bytes_high=max(sizes),
        render_s_per_frame=render_s,
        processor=processor,
    )


def describe_processor(cpuinfo: str | None = None) -> tuple[str, float]:
    """Name and nominal clock in Hz of this processor: the clock in its name where there is one, else the current one.

    Raises:
        LookupError: the system states no clock.
    """
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if cpuinfo is None else cpuinfo
    name = re.search(r"model name\s*:\s*(.+)", text)
    stated = re.search(r"@\s*([\d.]+)\s*GHz", text)
    current = re.search(r"cpu MHz\s*:\s*([\d.]+)", text)
    if stated is None and current is None:
        raise LookupError("/proc/cpuinfo states no clock, so CPU time cannot be told in cycles")
    hertz = float(stated[1]) * 1e9 if stated else float(current[1]) * 1e6 if current else math.nan
    return (name[1].strip() if name else "unnamed processor"), hertz


def measure_again(folder: Path) -> None:
    """Measure the weights in ``folder`` and rewrite what its manifest and card say of accuracy and cost."""
    manifest = read_manifest(folder)
    scans = read_part(read_checked(folder, manifest.scans.file, manifest.scans.sha256), Part.TEST)
    recogniser = Recogniser(shared_session(folder))
    manifest = msgspec.structs.replace(
        manifest,
        accuracy=measure_accuracy(recogniser, scans, RENDERINGS, SEED),
        cost=measure_cost(recogniser, scans, COST_FRAMES, SEED),
    )
    write_manifest(manifest, folder)
    write_card(manifest, folder)


if __name__ == "__main__":
    measure_again(FOLDER)
