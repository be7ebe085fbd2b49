"""Replay of trajectories, and the n-step returns read off it, against returns written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.learning.replay import FINAL, RUNNING, TERMINATED, TRUNCATED, Replay, Trajectory
from edgebed.learning.returns import adaptive_returns, fixed_returns

GAMMA = 0.5


def episode(first: int, length: int, end: int, actions: list[int] | None = None) -> Trajectory:
    """Observations count up from ``first``; a step's reward is its observation; actions are 1 unless given."""
    seen = np.arange(first, first + length, dtype=np.float32)[:, None]
    kinds = np.full(length, RUNNING)
    kinds[-1] = end
    chosen = np.array(actions or [1] * length, np.int8)[:, None]
    return Trajectory.of_episode(seen, chosen, seen.copy(), kinds, np.array([first + length], np.float32))


def filled(*episodes: Trajectory, capacity: int = 100) -> Replay:
    replay = Replay(1, capacity)
    replay.append([Trajectory.joined(episodes)])
    return replay


def rows_of(replay: Replay, *observations: int) -> NDArray[np.int64]:
    seen = replay.observations[0, :, 0]
    found = [np.flatnonzero((seen == one) & (replay.kinds[0] != FINAL))[0] for one in observations]
    return np.array([found], np.int64)


def always(agree: bool) -> Any:
    return lambda outputs, stored: np.full(stored.shape, agree)


def nothing(observations: torch.Tensor) -> torch.Tensor:
    return observations.clone()


def test_a_return_over_n_steps_and_what_it_is_bootstrapped_from() -> None:
    replay = filled(episode(10, 5, TRUNCATED))
    found = fixed_returns(replay, rows_of(replay, 10), GAMMA, 3)
    assert found.sums[0, 0, 0] == 10 + 0.5 * 11 + 0.25 * 12
    assert (found.later[0, 0, 0], found.discounts[0, 0, 0], found.lengths[0, 0]) == (13, 0.125, 3)


@pytest.mark.parametrize(("end", "discount"), [(TRUNCATED, 0.25), (TERMINATED, 0.0)])
def test_a_time_limit_is_bootstrapped_over_and_an_end_is_not(end: int, discount: float) -> None:
    replay = filled(episode(10, 5, end), episode(90, 5, TRUNCATED))
    for found in (
        fixed_returns(replay, rows_of(replay, 13), GAMMA, 10),
        adaptive_returns(replay, rows_of(replay, 13), GAMMA, 10, nothing, always(agree=True), 1.0),
    ):
        assert found.sums[0, 0, 0] == 13 + 0.5 * 14  # nothing of the next episode
        assert (found.lengths[0, 0], found.discounts[0, 0, 0]) == (2, discount)
        assert found.later[0, 0, 0] == 15  # the observation after the last step, not the next episode's first


def test_one_step_where_nothing_agrees_and_all_steps_where_everything_does() -> None:
    replay = filled(episode(10, 20, TRUNCATED))
    rows = rows_of(replay, 10, 15)
    short = adaptive_returns(replay, rows, GAMMA, 10, nothing, always(agree=False), 1.0)
    long = adaptive_returns(replay, rows, GAMMA, 10, nothing, always(agree=True), 1.0)
    assert (short.lengths[0].tolist(), long.lengths[0].tolist()) == ([1, 1], [10, 10])
    np.testing.assert_allclose(long.sums, fixed_returns(replay, rows, GAMMA, 10).sums)
    assert (short.agreement[0], long.agreement[0]) == (0.0, 1.0)


def test_a_prefix_ends_before_the_first_step_that_the_policy_would_not_take() -> None:
    replay = filled(episode(10, 8, TRUNCATED, actions=[0, 1, 1, 0, 1, 1, 1, 1]))

    def wants_one(outputs: torch.Tensor, stored: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(stored == 1)

    found = adaptive_returns(replay, rows_of(replay, 10, 11, 14), GAMMA, 10, nothing, wants_one, 1.0)
    assert found.lengths[0].tolist() == [3, 2, 4]  # the first action is kept, whatever it is
    assert found.later[0, :, 0].tolist() == [13, 13, 18]
    assert found.later_outputs is not None
    assert found.later_outputs[0, :, 0].tolist() == [13, 13, 18]  # computed where it is bootstrapped from


def test_the_share_of_devices_that_must_agree() -> None:
    replay = Replay(1, 100)
    one = episode(10, 6, TRUNCATED)
    stored = np.tile(np.array([1, 1, 1, 0], np.int8), (7, 1))
    replay.append([Trajectory(one.observations, stored, one.rewards, one.kinds)])

    def wants_one(outputs: torch.Tensor, stored: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(stored == 1)

    for share, length in ((0.75, 5), (0.76, 1)):
        found = adaptive_returns(replay, rows_of(replay, 10), GAMMA, 5, nothing, wants_one, share)
        assert found.lengths[0, 0] == length
        assert found.agreement[0] == 0.75


def test_the_oldest_rows_make_room_and_no_return_crosses_the_seam() -> None:
    replay = Replay(1, 13)
    for first in (100, 200, 300, 400):
        replay.append([episode(first, 4, TRUNCATED)])  # 5 rows each
    seen = {replay.take("observations", np.array([[row]]))[0, 0, 0] for row in replay._playable[0]}
    assert {300, 301, 302, 303, 400, 401, 402, 403} <= seen
    assert 100 not in seen
    for start in sorted(seen):
        found = fixed_returns(replay, rows_of(replay, int(start)), GAMMA, 10)
        assert found.later[0, 0, 0] == start // 100 * 100 + 4


def test_every_row_is_sampled_and_no_final_one() -> None:
    replay = filled(episode(10, 3, TRUNCATED), episode(50, 2, TERMINATED))
    rows = replay.sample(np.linspace(0, 1, 50, endpoint=False)[None])
    assert sorted({int(one) for one in replay.take("observations", rows)[0, :, 0]}) == [10, 11, 12, 50, 51]
    assert replay.sizes.tolist() == [5]


def test_seeds_may_have_episodes_of_different_lengths() -> None:
    replay = Replay(2, 50)
    replay.append([episode(10, 3, TERMINATED), episode(20, 6, TRUNCATED)])
    assert replay.sizes.tolist() == [3, 6]
    rows = replay.sample(np.full((2, 4), 0.999))
    assert replay.take("observations", rows)[:, 0, 0].tolist() == [12, 25]


def test_rows_after_the_end_of_an_episode_are_left_out() -> None:
    seen = np.arange(5, dtype=np.float32)[:, None]
    kinds = np.array([RUNNING, TERMINATED, TERMINATED, TERMINATED, TERMINATED])
    one = Trajectory.of_episode(seen, seen.astype(np.int8), seen, kinds, np.array([9.0], np.float32))
    assert one.kinds.tolist() == [RUNNING, TERMINATED, FINAL]
    assert one.observations[:, 0].tolist() == [0, 1, 2]


def test_what_is_stored_is_taken_over() -> None:
    replay, other = filled(episode(10, 3, TRUNCATED)), Replay(1, 100)
    other.load_state("r", replay.state("r"))
    assert other.sizes.tolist() == [3]
    for one in (replay, other):
        one.append([episode(70, 2, TRUNCATED)])
    assert np.array_equal(replay.observations, other.observations)


def test_a_trajectory_that_does_not_fit_is_refused() -> None:
    replay = Replay(1, 4)
    with pytest.raises(BadInput, match=r"6 rows .* ring of 4"):
        replay.append([episode(10, 5, TRUNCATED)])
    one = episode(10, 2, TRUNCATED)
    with pytest.raises(BadInput, match="the last one final"):
        replay.append([Trajectory(one.observations[:2], one.actions[:2], one.rewards[:2], one.kinds[:2])])
    with pytest.raises(BadInput, match="at least 2"):
        Replay(1, 1)
