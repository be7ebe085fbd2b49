"""Prioritised replay: what is drawn, how often, what it counts, and that a copy draws the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebed.learning.noise import Counted
from edgebed.learning.priorities import LEAST_ERROR, Priorities
from edgebed.learning.replay import FINAL, RUNNING, TRUNCATED, Replay, Trajectory

SEEDS, CAPACITY = 3, 37


def episode(first: int, length: int) -> Trajectory:
    seen = np.arange(first, first + length, dtype=np.float32)[:, None]
    kinds = np.array([RUNNING] * (length - 1) + [TRUNCATED])
    return Trajectory.of_episode(seen, seen.astype(np.int16), seen, kinds, np.array([first + length], np.float32))


def known(power: float = 1.0) -> tuple[Priorities, NDArray[Any]]:
    """Priorities whose errors are known, other ones for each seed."""
    errors = np.random.default_rng(5).exponential(size=(SEEDS, CAPACITY))
    found = Priorities(SEEDS, CAPACITY, power)
    found.learned(np.tile(np.arange(CAPACITY), (SEEDS, 1)), errors)
    values = (errors + LEAST_ERROR) ** power
    return found, values / values.sum(axis=1, keepdims=True)


def counts_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([np.bincount(one, minlength=CAPACITY) for one in rows])


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_a_batch_holds_every_row_as_often_as_its_priority_says_to_within_two(power: float) -> None:
    priorities, expected = known(power)
    uniform = Counted(range(SEEDS), "rows").uniform(0, 1000)
    # A row's share of the sum covers its part of the 1000 equal pieces, two of them perhaps not whole.
    assert np.abs(counts_of(priorities.draw(uniform)) - 1000 * expected).max() < 2.0


def test_small_batches_hold_them_so_often_in_the_mean() -> None:
    priorities, expected = known()
    stream, batches, size = Counted(range(SEEDS), "rows"), 500, 8
    found = counts_of(np.concatenate([priorities.draw(stream.uniform(k, size)) for k in range(batches)], axis=1))
    draws = batches * size
    deviation = np.sqrt(expected * (1.0 - expected) / draws)  # of independent draws; those of a batch vary less
    assert (np.abs(found / draws - expected) < 5.0 * deviation).all()


def test_weights_undo_the_sampling_s_bias() -> None:
    priorities, expected = known()
    rows = np.tile(np.arange(CAPACITY), (SEEDS, 1))
    np.testing.assert_allclose(priorities.probabilities(rows), expected, rtol=1e-12)
    sizes = np.full(SEEDS, CAPACITY)
    whole = priorities.weights(rows, sizes, 1.0)
    np.testing.assert_allclose(whole * expected, (whole * expected)[:, :1] * np.ones(CAPACITY), rtol=1e-12)
    half = priorities.weights(rows, sizes, 0.5)
    np.testing.assert_allclose(half, np.sqrt(whole), rtol=1e-12)
    assert (priorities.weights(rows, sizes, 0.0) == 1.0).all()
    assert (whole.max(axis=1) == 1.0).all()


def test_a_row_that_is_drawn_twice_has_the_last_error() -> None:
    priorities = Priorities(1, 4, 1.0)
    priorities.learned(np.array([[0, 1, 0]]), np.array([[9.0, 1.0, 1.0]]))
    np.testing.assert_allclose(priorities.probabilities(np.array([[0, 1, 2, 3]])), [[0.5, 0.5, 0.0, 0.0]])


@pytest.mark.parametrize("capacity", [1, 2, 3, 8, 13])
def test_what_has_no_priority_is_never_drawn_not_even_at_the_very_ends(capacity: int) -> None:
    priorities = Priorities(1, capacity, 1.0)
    only = capacity // 2
    priorities.learned(np.array([[only]]), np.array([[0.1]]))
    rows = priorities.draw(np.array([[0.0, 0.3, 1.0 - 2.0**-53]]))
    assert rows.tolist() == [[only] * 3]


def test_new_rows_come_first_and_final_ones_never() -> None:
    replay = Replay(1, 30, priority_power=1.0)
    replay.append([episode(0, 9)])
    rows = np.arange(9)[None]
    replay.learned(rows, np.where(rows == 4, 3.0, 0.0).astype(np.float32))
    replay.append([episode(100, 5)])
    probabilities = replay._priorities.probabilities(np.arange(30)[None])[0]  # type: ignore[union-attr]
    assert probabilities[replay.kinds[0] == FINAL].tolist() == [0.0] * 16
    np.testing.assert_allclose(probabilities[10:15], probabilities[4])
    assert probabilities[:4].max() < 1e-3 * probabilities[4]
    drawn = replay.take("observations", replay.sample(np.full((1, 600), 0.5)))
    assert set(drawn[0, :, 0].astype(int)) >= {4, 100, 101, 102, 103, 104}


def test_a_row_that_is_written_over_loses_its_old_priority() -> None:
    replay = Replay(1, 12, priority_power=1.0)
    replay.append([episode(0, 5)])
    replay.append([episode(10, 5)])
    replay.learned(np.arange(5)[None], np.zeros((1, 5), np.float32))
    replay.append([episode(20, 3)])  # over the first four rows; the fifth and its final one are as they were
    found = replay._priorities.probabilities(np.arange(12)[None])[0]  # type: ignore[union-attr]
    expected = np.array([1.0] * 3 + [0.0, LEAST_ERROR, 0.0] + [1.0] * 5 + [0.0])
    np.testing.assert_allclose(found, expected / expected.sum())


def test_seeds_do_not_touch_each_other() -> None:
    together, errors = Replay(2, 40, priority_power=0.6), np.random.default_rng(1).uniform(0, 3, (2, 6))
    alone = [Replay(1, 40, priority_power=0.6) for _ in range(2)]
    uniform = Counted([4, 9], "rows").uniform(0, 6)
    for replay, part in ((together, slice(0, 2)), (alone[0], slice(0, 1)), (alone[1], slice(1, 2))):
        replay.append([episode(0, 9), episode(0, 17)][part])
        replay.learned(replay.sample(uniform[part]), errors[part].astype(np.float32))
    rows = together.sample(uniform)
    for index, one in enumerate(alone):
        assert np.array_equal(one.sample(uniform[index : index + 1]), rows[index : index + 1])
        mine, other = one.weights(rows[index : index + 1], 0.4), together.weights(rows, 0.4)
        assert mine is not None
        assert other is not None
        assert np.array_equal(mine[0], other[index])


def test_a_copy_draws_the_same_rows_for_ever() -> None:
    stream, replay = Counted([4, 9], "rows"), Replay(2, 100, priority_power=0.6)

    def go_on(one: Replay, first: int) -> list[NDArray[Any]]:
        drawn = []
        for step in range(first, first + 30):
            if step % 3 == 0:
                one.append([episode(10 * step, 7), episode(10 * step, 5)])
            rows = one.sample(stream.uniform(step, 16))
            one.learned(rows, np.abs(np.sin(one.take("rewards", rows)[..., 0] + step)))
            drawn.append(rows)
        return drawn

    go_on(replay, 0)
    other = Replay(2, 100, priority_power=0.6)
    other.load_state("r", replay.state("r"))
    for mine, copied in zip(go_on(replay, 30), go_on(other, 30), strict=True):
        assert np.array_equal(mine, copied)
    assert np.array_equal(replay.state("r")["r.priorities"], other.state("r")["r.priorities"])
