"""Train the network, export it, measure it, and write manifest and model card: one command, seeded.

    python -m workloads.digits.training.train

Every training frame is rendered anew and passes through JPEG, as at run time. Weights and recipe are chosen on the
validation scans. The test scans are measured at the end; whoever changes the recipe after that adds what was measured
to `EARLIER_TEST_ACCURACIES`, and the card says so.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgebed.randomness import stream
from workloads.digits.manifest import FOLDER, SCHEMA_VERSION, Manifest, Model, Training, write_manifest
from workloads.digits.recognise import Recogniser, decode, open_session
from workloads.digits.render import draw_variation, encode, render
from workloads.digits.scans import CELLS, DARKEST, SCANS_NAME, Part, ScanSet, read_part
from workloads.digits.training.card import write_card
from workloads.digits.training.make_scans import describe_scans
from workloads.digits.training.measure import COST_FRAMES, RENDERINGS, SEED, measure_accuracy, measure_cost
from workloads.digits.training.network import DigitNetwork, count_multiply_adds, to_onnx

MODEL_NAME = "model.onnx"
# Six small rounds of ten, no averaging of weights, scans bent by 0.35 instead of 0.4.
EARLIER_TEST_ACCURACIES = (0.9864,)
COMMAND = "python -m workloads.digits.training.train"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "pillow", "numpy")


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults made the shipped weights.

    Attributes:
        small_rounds: first rounds, on frames of half the width and height, which cost a quarter.
        rounds: all rounds; one is ``batches_per_round`` batches, a validation follows it.
        peak_rate: highest learning rate of the one cycle.
        averaging: decay, a step, of the running mean of the weights, which is what is kept.
    """

    seed: int = 0
    small_rounds: int = 8
    rounds: int = 16
    batches_per_round: int = 160
    batch_size: int = 32
    peak_rate: float = 3e-3
    weight_decay: float = 0.02
    averaging: float = 0.99
    label_smoothing: float = 0.05
    threads: int = 2
    validation_renderings: int = 4


@dataclass(frozen=True, slots=True)
class Trained:
    """The chosen weights and how they were chosen."""

    network: nn.Module
    best_round: int
    validation_accuracy: float


def bend(scan: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another writer's version of a scan: cells shifted smoothly by up to about one cell, ink varied a little.

    Args:
        scan: [8, 8] uint8, 0 to 16.
        rng: where the shifts come from.
    """
    coarse = rng.normal(0, 0.4, (2, 3, 3)).astype(np.float32)
    shift = [np.asarray(Image.fromarray(plane).resize((CELLS, CELLS), Image.Resampling.BICUBIC)) for plane in coarse]
    rows, columns = np.indices((CELLS, CELLS), np.float32)
    y, x = rows + shift[0] + 1, columns + shift[1] + 1
    y, x = np.clip(y, 0, CELLS), np.clip(x, 0, CELLS)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    ink = np.pad(scan.astype(np.float32), 1)
    bent = (1 - down) * ((1 - right) * ink[top, left] + right * ink[top, left + 1])
    bent += down * ((1 - right) * ink[top + 1, left] + right * ink[top + 1, left + 1])
    bent += (bent > 1) * rng.normal(0, 1, bent.shape)
    cells: NDArray[np.uint8] = np.clip(np.rint(bent), 0, DARKEST).astype(np.uint8)
    return cells


def render_batch(scans: ScanSet, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [size, 1, 120, 160] uint8 and labels [size] of bent scans, after JPEG."""
    chosen = rng.integers(len(scans), size=size)
    pixels = [decode(encode(render(bend(scans.images[index], rng), draw_variation(rng)))) for index in chosen]
    return torch.from_numpy(np.stack(pixels)[:, np.newaxis]), torch.from_numpy(scans.labels[chosen].astype(np.int64))


def batches(scans: ScanSet, recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All batches of a training, each rendered in another thread while the one before is learnt from."""

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return render_batch(scans, recipe.batch_size, stream(recipe.seed, "digits", "train", step))

    steps = recipe.rounds * recipe.batches_per_round
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(batch, 0)
        for step in range(1, steps + 1):
            current = upcoming.result()
            if step < steps:
                upcoming = pool.submit(batch, step)
            yield current


def render_each(scans: ScanSet, renderings: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each scan ``renderings`` times, not bent: pixels [N, 1, 120, 160] uint8 and labels [N]."""
    rng = stream(seed, "digits", "validation")
    pixels = [decode(encode(render(image, draw_variation(rng)))) for image in scans.images for _ in range(renderings)]
    labels = torch.from_numpy(scans.labels.astype(np.int64)).repeat_interleave(renderings)
    return torch.from_numpy(np.stack(pixels)[:, np.newaxis]), labels


def evaluate(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Accuracy, and mean cross-entropy, which decides between rounds of equal accuracy."""
    with torch.no_grad():
        scores = torch.cat([network.eval()(part) for part in torch.split(pixels, 64)])
    accuracy = (scores.argmax(1) == labels).double().mean().item()
    return accuracy, nn.functional.cross_entropy(scores, labels).item()


def train(scans: ScanSet, validation: ScanSet, recipe: Recipe) -> Trained:
    """Train for ``recipe.rounds`` and return the weights of the round that recognises ``validation`` best."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = DigitNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), recipe.peak_rate, weight_decay=recipe.weight_decay)
    steps = recipe.rounds * recipe.batches_per_round
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.peak_rate, steps, pct_start=0.2)
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    decayed = get_ema_multi_avg_fn(recipe.averaging)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=decayed, use_buffers=True)
    check = render_each(validation, recipe.validation_renderings, recipe.seed)
    best, best_standing = Trained(network, 0, 0.0), (0.0, 0.0)
    for step, (pixels, labels) in enumerate(batches(scans, recipe)):
        number = 1 + step // recipe.batches_per_round
        is_small = number <= recipe.small_rounds
        loss = loss_of(network.train()(halve(pixels) if is_small else pixels), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        if (step + 1) % recipe.batches_per_round == 0 and not is_small:
            accuracy, entropy = evaluate(average.module, *check)
            print(f"round {number}: loss {loss.item():.3f}, validation {accuracy:.4f}, {entropy:.4f}", flush=True)
            if (accuracy, -entropy) > best_standing:
                best, best_standing = Trained(copy.deepcopy(average.module), number, accuracy), (accuracy, -entropy)
    return best


def halve(pixels: torch.Tensor) -> torch.Tensor:
    """[B, 1, H, W] uint8 to [B, 1, H / 2, W / 2]."""
    return nn.functional.avg_pool2d(pixels.float(), 2).round().to(torch.uint8)


def export(trained: Trained, folder: Path) -> Model:
    """Write the ONNX file to ``folder`` and describe it."""
    content = to_onnx(trained.network)
    (folder / MODEL_NAME).write_bytes(content)
    return Model(
        file=MODEL_NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        multiply_adds=count_multiply_adds(trained.network),
        parameters=sum(weights.numel() for weights in trained.network.parameters()),
        file_bytes=len(content),
    )


def make(folder: Path, recipe: Recipe) -> Manifest:
    """Train on the scans in ``folder`` and write model, manifest and card beside them."""
    started_s = time.monotonic()
    content = (folder / SCANS_NAME).read_bytes()
    parts = {part: read_part(content, part) for part in Part}
    trained = train(parts[Part.TRAIN], parts[Part.VALIDATION], recipe)
    model = export(trained, folder)
    recogniser = Recogniser(open_session((folder / MODEL_NAME).read_bytes()))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        scans=describe_scans(folder),
        model=model,
        training=Training(
            command=COMMAND,
            seed=recipe.seed,
            rounds=recipe.rounds,
            frames=recipe.rounds * recipe.batches_per_round * recipe.batch_size,
            best_round=trained.best_round,
            validation_accuracy=trained.validation_accuracy,
            duration_s=round(time.monotonic() - started_s, 1),
            earlier_test_accuracies=EARLIER_TEST_ACCURACIES,
            packages={name: version(name) for name in PACKAGES},
        ),
        accuracy=measure_accuracy(recogniser, parts[Part.TEST], RENDERINGS, SEED),
        cost=measure_cost(recogniser, parts[Part.TEST], COST_FRAMES, SEED),
    )
    write_manifest(manifest, folder)
    write_card(manifest, folder)
    return manifest


def main() -> None:
    """Read the options and make the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="holds scans.npz; the model is written here")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args()
    manifest = make(options.folder, Recipe(seed=options.seed))
    print(f"test accuracy {manifest.accuracy.fraction:.4f}, model {manifest.model.sha256}")


if __name__ == "__main__":
    main()
