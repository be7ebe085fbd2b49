"""Random numbers that belong to an environment: whatever the batch, and as random as they should be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgebed.simulation.random_streams import named_keys, normals, stream_keys, uniforms, words


def mixed(word: int) -> int:
    """SplitMix64's finaliser in whole numbers."""
    mask = 2**64 - 1
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & mask
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & mask
    return word ^ (word >> 31)


def test_words_are_splitmix64_s() -> None:
    """The first outputs of its author's program for the state 1234567."""
    key = np.array([1234567], np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert words(key, 0, 5)[0].tolist() == expected
    assert expected[0] == mixed(1234567 + 0x9E3779B97F4A7C15)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
@pytest.mark.parametrize("batch", [2, 300, 20_000])
def test_a_stream_is_the_same_in_every_batch_and_from_every_position(batch: int, count: int) -> None:
    keys = stream_keys(np.arange(batch), "tasks")
    first = np.arange(batch, dtype=np.int64) % 7
    together = words(keys, first, count)
    for index in (0, batch - 1):
        alone = words(keys[index : index + 1], int(first[index]), count)
        assert (together[index] == alone[0]).all()
        longer = words(keys[index : index + 1], 0, count + 7)[0]
        assert (longer[first[index] : first[index] + count] == alone[0]).all()


def test_other_seeds_and_other_names_have_other_numbers() -> None:
    keys = np.concatenate([stream_keys(np.arange(1000), name) for name in ("tasks", "walk")])
    assert len(np.unique(keys)) == 2000
    first = uniforms(keys, 0, 1)[:, 0]
    assert abs(np.corrcoef(first[:1000], first[1000:])[0, 1]) < 4 / math.sqrt(1000)
    assert abs(np.corrcoef(first[:999], first[1:1000])[0, 1]) < 4 / math.sqrt(1000)


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniforms(stream_keys(np.arange(500), "x"), 3, 400)
    assert 0.0 <= numbers.min() < 1e-4 < 1 - 1e-4 < numbers.max() < 1.0
    counts = np.histogram(numbers, 50, (0, 1))[0]
    chi_square = float(((counts - numbers.size / 50) ** 2).sum() / (numbers.size / 50))
    assert chi_square < 49 + 4 * math.sqrt(2 * 49)


def test_normal_numbers_are_normal() -> None:
    numbers = normals(stream_keys(np.arange(400), "x"), 0, 500)
    n = numbers.size
    assert numbers.mean() == pytest.approx(0.0, abs=4 / math.sqrt(n))
    assert numbers.var() == pytest.approx(1.0, abs=4 * math.sqrt(2 / n))
    assert (numbers**4).mean() == pytest.approx(3.0, abs=4 * math.sqrt(96 / n))


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_keys_of_many_names_are_those_of_each(seed: int) -> None:
    names = [("testbed", "task", f"pi-{number}") for number in range(40)]
    each = [int(stream_keys([seed], *name)[0]) for name in names]
    assert named_keys(seed, names).tolist() == each
    assert named_keys(seed, []).tolist() == []
