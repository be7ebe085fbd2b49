"""The bound on recognition: exact where clips do not matter, honest where they do, on simulated clips."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from orchestrator.recognition import Recognition, design_effect, effective_frames, probability_of_so_few


def frames_alone(frames: int, correct: int) -> Recognition:
    return Recognition.of_clips("edge", [(1, 1)] * correct + [(1, 0)] * (frames - correct))


@pytest.mark.parametrize(
    ("frames", "correct", "accuracy", "expected"),
    [
        (1, 0, 0.9, 0.1),
        (2, 1, 0.5, 0.75),
        (3, 3, 0.2, 1.0),
        (10, 0, 0.5, 2**-10),
        (0, 0, 0.5, 1.0),
        (5, 5, 1.0, 1.0),
        (5, 4, 1.0, 0.0),
        (1000, 950, 0.97, float(binom.cdf(950, 1000, 0.97))),
    ],
)
def test_clips_of_one_frame_give_the_binomial_probability(
    frames: int, correct: int, accuracy: float, expected: float
) -> None:
    assert probability_of_so_few(frames_alone(frames, correct), accuracy) == pytest.approx(expected)


def test_clips_that_always_agree_count_as_one_frame_each() -> None:
    site = Recognition.of_clips("edge", [(8, 8)] * 190 + [(8, 0)] * 10)
    assert design_effect(site) == pytest.approx(8 * 200 / 199)
    assert effective_frames(site) == pytest.approx(200)
    assert probability_of_so_few(site, 0.97) == pytest.approx(float(binom.cdf(190, 200, 0.97)))


@pytest.mark.parametrize("clips", [[(8, 7)], [(8, 0), (8, 0), (8, 0)], [(3, 0), (5, 0)]])
def test_where_nothing_can_be_estimated_clips_are_taken_to_agree(clips: list[tuple[int, int]]) -> None:
    site = Recognition.of_clips("edge", clips)
    assert design_effect(site) is None
    assert effective_frames(site) == pytest.approx(site.frames**2 / sum(frames**2 for frames, _ in clips))


def test_many_clips_that_are_all_wrong_are_condemned_all_the_same() -> None:
    assert probability_of_so_few(Recognition.of_clips("edge", [(8, 0)] * 10), 0.985) < 1e-6


def simulated(rng: np.random.Generator, clips: int, accuracy: float, agreement: float) -> Recognition:
    """Clips of 1 to 12 frames; a clip has its own accuracy, beta-distributed: intraclass correlation ``agreement``."""
    frames = rng.integers(1, 13, clips)
    scale = (1 - agreement) / agreement
    correct = rng.binomial(frames, rng.beta(accuracy * scale, (1 - accuracy) * scale, clips))
    return Recognition.of_clips("edge", list(zip(frames.tolist(), correct.tolist(), strict=True)))


@pytest.mark.parametrize("agreement", [0.01, 0.3])
@pytest.mark.parametrize("clips", [20, 200])
def test_a_model_as_good_as_its_card_is_rarely_doubted_however_much_clips_agree(clips: int, agreement: float) -> None:
    rng, level, rounds = np.random.default_rng(3), 0.01, 1000
    sites = [simulated(rng, clips, 0.9, agreement) for _ in range(rounds)]
    doubted = sum(probability_of_so_few(site, 0.9, level) < level for site in sites)
    # Three standard errors of a share of 1 % over the rounds.
    assert doubted / rounds < level + 3 * (level * (1 - level) / rounds) ** 0.5
    as_if_independent = sum(float(binom.cdf(site.correct, site.frames, 0.9)) < level for site in sites)
    if agreement >= 0.2:
        assert as_if_independent / rounds > 3 * level, "frames counted one by one are what this guards against"


def test_a_worse_model_is_found_out_although_clips_agree() -> None:
    rng = np.random.default_rng(4)
    sites = [simulated(rng, 300, 0.8, 0.2) for _ in range(200)]
    assert all(probability_of_so_few(site, 0.97) < 1e-6 for site in sites)
