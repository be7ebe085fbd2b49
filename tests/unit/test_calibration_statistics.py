"""The statistics of calibration and validation, against closed forms and made-up data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgebed.simulation.testbed.profile import draw
from orchestrator.calibration.comparison import METRICS, Policy, Tasks, compare, repeat_difference
from orchestrator.calibration.distributions import WeightedSample, kolmogorov_smirnov, wasserstein
from orchestrator.calibration.fitting import fit_line, fit_proportional, stored_quantiles
from orchestrator.calibration.ranking import ordered_pairs


class TestDistributions:
    def test_a_shift_is_its_own_wasserstein_distance(self) -> None:
        values = np.random.default_rng(0).exponential(1.0, 500)
        assert wasserstein(values, values + 0.25) == pytest.approx(0.25)
        assert wasserstein(values, values) == 0.0

    def test_distances_of_two_point_masses(self) -> None:
        assert wasserstein([1.0], [3.0, 3.0]) == pytest.approx(2.0)
        assert kolmogorov_smirnov([1.0], [3.0, 3.0]) == 1.0
        assert kolmogorov_smirnov([1.0, 2.0], [1.0, 2.0, 3.0, 3.0]) == pytest.approx(0.5)

    def test_weights_count_how_often_a_unit_was_drawn(self) -> None:
        sample = WeightedSample([5.0, 1.0, 3.0], [0, 1, 2])
        assert sample.quantile(0.5, np.array([1.0, 1.0, 1.0])) == 3.0
        assert sample.quantile(0.5, np.array([3.0, 1.0, 1.0])) == 5.0
        assert sample.mean(np.array([2.0, 0.0, 1.0])) == pytest.approx(13 / 3)
        assert np.isnan(sample.mean(np.zeros(3)))
        assert np.isnan(sample.quantile(0.5, np.zeros(3)))


class TestFits:
    def test_a_line_is_found_through_noise_that_grows_with_it(self) -> None:
        rng = np.random.default_rng(1)
        frames = rng.integers(1, 9, 4000).astype(float)
        duration_s = (0.004 + 0.05 * frames) * rng.lognormal(0.0, 0.2, 4000)
        fit = fit_line(frames, duration_s)
        mean_ratio = np.exp(0.02)
        assert fit.slope == pytest.approx(0.05 * mean_ratio, rel=0.02)
        assert fit.overhead_s == pytest.approx(0.004 * mean_ratio, abs=0.002)
        assert fit.ratios.mean() == pytest.approx(1.0, abs=0.01)
        assert fit.relative_rms == pytest.approx(0.2, abs=0.02)

    @pytest.mark.parametrize(
        ("size", "duration_s", "overhead_s", "slope"),
        [
            ([4.0, 4.0, 4.0], [0.2, 0.2, 0.2], 0.0, 0.05),  # one size: the whole is proportional
            ([1.0, 8.0], [0.5, 0.1], 0.0, 0.3 / 4.5),  # more work in less time: noise, no negative slope
            ([1.0, 2.0], [0.01, 0.04], 0.0, None),  # a line through less than nothing: no negative overhead
        ],
    )
    def test_coefficients_are_never_negative(
        self, size: list[float], duration_s: list[float], overhead_s: float, slope: float | None
    ) -> None:
        fit = fit_line(np.array(size), np.array(duration_s))
        assert fit.overhead_s == overhead_s
        assert fit.slope > 0
        if slope is not None and len(set(duration_s)) == 1:
            assert fit.slope == pytest.approx(slope)

    def test_joules_are_split_among_their_causes(self) -> None:
        rng = np.random.default_rng(2)
        busy_s, air_s = rng.uniform(0, 1, 200), rng.uniform(0, 0.1, 200)
        (per_busy, per_air), error = fit_proportional(1.1 * busy_s + 0.9 * air_s, busy_s, air_s)
        assert (per_busy, per_air) == pytest.approx((1.1, 0.9))
        assert error < 1e-9
        (per_busy, never), _ = fit_proportional(1.1 * busy_s, busy_s, np.zeros(200))
        assert (per_busy, never) == pytest.approx((1.1, 0.0))

    def test_a_few_slow_tasks_do_not_make_many(self) -> None:
        values = np.concatenate([np.full(999, 1.0), [30.0]])
        stored = stored_quantiles(values)
        drawn = draw(stored, np.random.default_rng(3).random(200_000))
        assert drawn.mean() == pytest.approx(values.mean(), rel=0.01)
        assert (drawn > 2.0).mean() < 0.02
        assert stored == sorted(stored)

    def test_one_value_is_a_constant(self) -> None:
        assert set(stored_quantiles([0.25])) == {0.25}


def _tasks(latency_s: np.ndarray, seeds: int = 5, missed: np.ndarray | None = None) -> Tasks:
    n = len(latency_s)
    unit = np.arange(n) % seeds
    return Tasks(unit, latency_s, np.zeros(n) if missed is None else missed, latency_s * 2.0)


class TestErrors:
    def test_a_simulation_that_is_a_tenth_slow_has_an_error_of_a_tenth(self) -> None:
        latency_s = np.random.default_rng(4).lognormal(-1, 0.4, 2000)
        (found,), overall = compare([Policy("p", _tasks(latency_s), [_tasks(1.1 * latency_s)])], units=5)
        for metric in ("median_latency", "p95_latency", "energy"):
            error = found.errors[metric]
            assert error.value == pytest.approx(0.1)
            assert error.low <= error.value <= error.high
            assert error.low == pytest.approx(0.1), "both sides are drawn alike"
            assert overall[metric].value == pytest.approx(0.1)
        assert found.errors["miss_rate"].value == 0.0

    def test_errors_of_both_signs_do_not_cancel(self) -> None:
        latency_s = np.linspace(0.1, 1.0, 100)
        policies = [Policy(f"p{factor}", _tasks(latency_s), [_tasks(factor * latency_s)]) for factor in (0.8, 1.2)]
        compared, overall = compare(policies, units=5)
        assert [each.errors["energy"].value for each in compared] == pytest.approx([-0.2, 0.2])
        assert overall["energy"].value == pytest.approx(0.2)

    def test_the_interval_of_unequal_seeds_holds_the_truth(self) -> None:
        rng = np.random.default_rng(5)
        level = 1.0 + 0.2 * rng.standard_normal(20)
        unit = np.repeat(np.arange(20), 50)
        measured = Tasks(unit, level[unit], np.zeros(1000), level[unit])
        simulated = Tasks(unit, np.ones(1000), np.zeros(1000), np.ones(1000))
        (found,), _ = compare([Policy("p", measured, [simulated])], units=20)
        error = found.errors["energy"]
        assert error.low < 1.0 / level.mean() - 1.0 < error.high
        assert 0.02 < error.high - error.low < 0.4

    def test_misses_are_compared_in_points(self) -> None:
        latency_s = np.ones(100)
        some, more = (np.arange(100) < 10).astype(float), (np.arange(100) < 25).astype(float)
        policy = Policy("p", _tasks(latency_s, missed=some), [_tasks(latency_s, missed=more)])
        (found,), _ = compare([policy], units=5)
        assert found.errors["miss_rate"].value == pytest.approx(0.15)

    def test_nothing_done_is_no_error_and_no_crash(self) -> None:
        nobody = Tasks(np.arange(5), np.full(5, np.nan), np.ones(5), np.full(5, np.nan))
        (found,), overall = compare([Policy("p", nobody, [nobody])], units=5)
        assert set(found.errors) == {"miss_rate"} == set(overall)
        assert found.ks is None

    def test_repeats_are_measured_where_there_are_some(self) -> None:
        latency_s = np.full(50, 1.0)
        repeats = [[_tasks(latency_s), _tasks(1.2 * latency_s)]]
        policy = Policy("p", _tasks(latency_s), [_tasks(latency_s), _tasks(1.02 * latency_s)], repeats)
        found, is_measured = repeat_difference("median_latency", policy)
        assert found == pytest.approx(0.2 / 1.1)
        assert is_measured
        alone = Policy("p", policy.measured, policy.replicas)
        found, is_measured = repeat_difference("median_latency", alone)
        assert found == pytest.approx(0.02 / 1.01)
        assert not is_measured

    def test_every_error_is_a_number(self) -> None:
        latency_s = np.random.default_rng(6).exponential(1.0, 60)
        _, overall = compare([Policy("p", _tasks(latency_s, seeds=1), [_tasks(latency_s[::-1], seeds=1)])], units=1)
        assert set(overall) == set(METRICS)
        for error in overall.values():
            assert np.isfinite([error.value, error.low, error.high, error.repeat]).all()


class TestRanking:
    def test_only_orders_that_were_measured_count(self) -> None:
        seeds = range(5)
        measured = {
            "slow": {"latency_s": {seed: 2.0 + 0.01 * seed for seed in seeds}},
            "fast": {"latency_s": {seed: 1.0 - 0.01 * seed for seed in seeds}},
            "like fast": {"latency_s": {seed: 1.0 + 0.5 * (-1) ** seed for seed in seeds}},
        }
        kept = ordered_pairs(measured, measured)
        assert {(pair.first, pair.second) for pair in kept} == {("fast", "slow"), ("like fast", "slow")}
        assert all(pair.is_kept for pair in kept)
        turned = {**measured, "slow": measured["fast"], "fast": measured["slow"]}
        broken = [pair for pair in ordered_pairs(measured, turned) if not pair.is_kept]
        assert ("fast", "slow") in {(pair.first, pair.second) for pair in broken}
