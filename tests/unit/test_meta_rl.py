"""Scenario `meta-rl`: closed forms, enumeration, and the score of the greedy rule."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput
from edgebed.simulation.cost.weighted_delay import (
    Delays,
    best_sets,
    candidates_delay,
    descended,
    every_set,
    per_device,
    weighted_delay,
)
from edgebed.simulation.radio.log_distance import faded_gains, path_loss_db
from edgebed.simulation.random_streams import FloatArray
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.scenarios.meta_rl import (
    MetaRl,
    MetaRlParameters,
    TaskScenario,
    best_decisions,
    delays_of,
    draw_gains,
    draw_scenarios,
    greedy_decisions,
)


def made(**parameters: Any) -> MetaRl:
    scenario = make_scenario("meta-rl", parameters)
    assert isinstance(scenario, MetaRl)
    return scenario


def scored(policy: str, episodes: int, **parameters: Any) -> FloatArray:
    scenario = made(**parameters)
    scenario.reset(np.arange(episodes))
    rule = scenario.heuristics[policy](scenario)
    for _ in range(scenario.steps):
        scenario.step(rule.act())
    return scenario.metrics()["score"]


class TestScore:
    def test_greedy_scores_as_in_the_paper(self) -> None:
        """The paper's Greedy is at 0.9159; ours, over 40 task scenarios, within what they differ by."""
        score = scored("greedy_latency", 40)
        assert score.mean() == pytest.approx(0.917, abs=3 * score.std() / np.sqrt(40))
        assert score.mean() == pytest.approx(0.917, abs=0.01)

    def test_optimal_scores_one_and_the_others_less(self) -> None:
        assert scored("optimal", 5, samples=20) == pytest.approx(1.0)
        for name in ("all_local", "all_edge", "uniform_random", "greedy_latency"):
            assert scored(name, 5, samples=20).mean() < 0.97


def two_devices(**changes: Any) -> tuple[MetaRlParameters, TaskScenario, FloatArray]:
    """Rates 10 MHz x log2(1 + snr) with snr = 1 and 3: 10 and 20 Mbit/s. Weights 1 and 2, inputs of 1 and 2 Mbit."""
    settings = MetaRlParameters(n=2, transmit_dbm=30.0, noise_dbm=-70.0, **changes)
    scenario = TaskScenario(np.zeros((1, 2)), np.array([[1.0, 2.0]]), np.array([[1e6, 2e6]]))
    return settings, scenario, np.array([[1e-10, 3e-10]])


class TestByHand:
    local = np.array([165e6 / 2.84e9, 2 * 330e6 / 2.84e9])
    link = np.array([1.1e6 / 10e6, 2 * 2.2e6 / 20e6])
    server = np.array([165e6 / 1e11, 2 * 330e6 / 1e11])

    def test_what_each_would_take(self) -> None:
        settings, scenario, gains = two_devices()
        delays = delays_of(settings, gains, scenario)
        assert delays.local[0] == pytest.approx(self.local)
        assert delays.link[0] == pytest.approx(self.link)
        assert delays.server[0] == pytest.approx(self.server)

    def test_every_decision_of_two_devices(self) -> None:
        settings, scenario, gains = two_devices()
        both = np.sqrt(self.link).sum() ** 2 + np.sqrt(self.server).sum() ** 2
        wanted = [
            self.local.sum(),
            self.local[1] + self.link[0] + self.server[0],
            self.local[0] + self.link[1] + self.server[1],
            both,
        ]
        assert every_set(delays_of(settings, gains, scenario))[0] == pytest.approx(wanted)

    def test_an_equal_split_takes_twice_as_long_for_each_of_two(self) -> None:
        settings, scenario, gains = two_devices(equal_split=True)
        delays = delays_of(settings, gains, scenario)
        assert every_set(delays)[0, 3] == pytest.approx(2 * (self.link + self.server).sum())
        assert every_set(delays)[0, 3] > every_set(delays_of(*_unsplit()))[0, 3]

    def test_the_shares_that_q_assumes_are_the_best(self) -> None:
        """Weighted delay of two uploads for every share of the link: its least is Q's link part."""
        share = np.linspace(0.001, 0.999, 9981)
        total = self.link[0] / share + self.link[1] / (1 - share)
        assert total.min() == pytest.approx(np.sqrt(self.link).sum() ** 2, rel=1e-6)


def _unsplit() -> tuple[MetaRlParameters, FloatArray, TaskScenario]:
    settings, scenario, gains = two_devices()
    return settings, gains, scenario


def some_delays(devices: int, rows: int = 30, equal_split: bool = False) -> Delays:
    rng = np.random.default_rng(devices)
    local, link, server = (scale * rng.exponential(1.0, (rows, devices)) for scale in (1.0, 0.3, 0.05))
    return Delays(local, link, server, equal_split)


@pytest.mark.parametrize("equal_split", [False, True])
class TestWeightedDelay:
    def test_every_set_is_the_formula_for_each(self, equal_split: bool) -> None:
        delays = some_delays(4, equal_split=equal_split)
        total = every_set(delays)
        for number, bits in enumerate(itertools.product([False, True], repeat=4)):
            offloads = np.tile(np.array(bits[::-1]), (30, 1))
            assert total[:, number] == pytest.approx(weighted_delay(delays, offloads))

    def test_enumeration_finds_the_least_of_all_in_several_goes(
        self, equal_split: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edgebed.simulation.cost.weighted_delay._SETS_AT_ONCE", 7 * 2**6)
        delays = some_delays(6, equal_split=equal_split)
        offloads, best = best_sets(delays)
        assert best == pytest.approx(every_set(delays).min(axis=1))
        assert weighted_delay(delays, offloads) == pytest.approx(best)

    def test_descent_ends_where_no_flip_helps(self, equal_split: bool) -> None:
        delays = some_delays(8, equal_split=equal_split)
        offloads, total = descended(delays)
        flips = offloads[:, None] ^ np.eye(8, dtype=bool)
        assert weighted_delay(delays, offloads) == pytest.approx(total)
        assert (candidates_delay(delays, flips) >= total[:, None] - 1e-12).all()
        assert (total >= best_sets(delays)[1] - 1e-12).all()

    def test_parts_of_devices_add_up(self, equal_split: bool) -> None:
        delays = some_delays(5, equal_split=equal_split)
        offloads = np.random.default_rng(0).random((30, 5)) < 0.5
        assert per_device(delays, offloads).sum(axis=1) == pytest.approx(
            candidates_delay(delays, offloads[:, None])[:, 0]
        )

    def test_greedy_stops_at_the_first_rise(self, equal_split: bool) -> None:
        delays = some_delays(5, equal_split=equal_split)
        gains = np.random.default_rng(1).random((30, 5))
        chosen = greedy_decisions(gains, delays)
        for row in range(30):
            one = Delays(*(part[row : row + 1] for part in (delays.local, delays.link, delays.server)), equal_split)
            offloads = np.zeros((1, 5), bool)
            for device in np.argsort(-gains[row]):
                tried = offloads.copy()
                tried[0, device] = True
                if weighted_delay(one, tried)[0] >= weighted_delay(one, offloads)[0]:
                    break
                offloads = tried
            assert chosen[row].tolist() == offloads[0].tolist()


def test_too_many_devices_are_not_enumerated() -> None:
    with pytest.raises(BadInput, match="at most 20 devices; there are 21"):
        best_sets(some_delays(21, rows=1))
    assert best_decisions(some_delays(21, rows=2))[0].shape == (2, 21)


class TestDrawing:
    def test_devices_are_uniform_in_the_ring(self) -> None:
        settings = MetaRlParameters()
        drawn = draw_scenarios(settings, np.arange(4000))
        distance_m = 1000 * 10 ** ((drawn.loss_db - 103.8) / 20.9)
        radius_m = np.sqrt(10 / 3e-4 / np.pi)
        assert distance_m.min() >= 10.0 - 1e-9
        assert distance_m.max() <= radius_m
        assert np.mean(distance_m < radius_m / 2) == pytest.approx(0.25, abs=0.01)
        assert drawn.weight.mean() == pytest.approx(1.1, abs=0.01)
        assert (drawn.input_bits.min(), drawn.input_bits.max()) == pytest.approx((0.2e6, 2e6), rel=0.01)

    def test_gains_have_the_fading_and_shadowing_that_they_should(self) -> None:
        """In dB: shadowing of 10, and the logarithm of an exponential number: mean -2.507, deviation 5.570."""
        settings = MetaRlParameters()
        seeds = np.arange(400)
        scenario = draw_scenarios(settings, seeds)
        gains = np.stack([draw_gains(settings, scenario, seeds, sample) for sample in range(50)])
        relative_db = 10 * np.log10(gains) + scenario.loss_db
        assert relative_db.mean() == pytest.approx(-2.507, abs=0.1)
        assert relative_db.std() == pytest.approx(np.hypot(10.0, 5.570), rel=0.01)
        assert np.corrcoef(relative_db[0].ravel(), relative_db[1].ravel())[0, 1] == pytest.approx(0, abs=0.05)

    def test_many_samples_at_once_are_the_same_delays(self) -> None:
        settings, seeds = MetaRlParameters(n=4), np.arange(3)
        scenario = draw_scenarios(settings, seeds)
        gains = np.stack([draw_gains(settings, scenario, seeds, sample) for sample in range(5)], axis=1)
        together = delays_of(settings, gains, scenario)
        for sample in range(5):
            alone = delays_of(settings, gains[:, sample], scenario)
            assert (together.link.reshape(3, 5, 4)[:, sample] == alone.link).all()
            assert (together.local.reshape(3, 5, 4)[:, sample] == alone.local).all()

    def test_an_episode_keeps_its_task_scenario_and_draws_its_samples(self) -> None:
        settings, scenario = MetaRlParameters(), made()
        scenario.reset([7, 8])
        for sample in range(3):
            assert (scenario.task_scenario.weight == draw_scenarios(settings, np.array([7, 8])).weight).all()
            wanted = draw_gains(settings, scenario.task_scenario, np.array([7, 8]), sample)
            assert (scenario.gains == wanted).all()
            scenario.step(np.zeros((2, 10), np.int64))


def test_path_loss_and_gain_in_closed_form() -> None:
    loss_db = path_loss_db(np.array([1000.0, 100.0]), 103.8, 20.9)
    assert loss_db == pytest.approx([103.8, 82.9])
    assert faded_gains(loss_db, np.array([0.0, 10.0]), np.array([1.0, 0.5])) == pytest.approx(
        [10**-10.38, 0.5 * 10**-7.29]
    )


def test_reward_is_minus_the_delays_of_all() -> None:
    scenario = made()
    scenario.reset([3])
    delays = scenario.delays
    actions = np.array([[1, 0] * 5])
    step = scenario.step(actions)
    assert step.reward == pytest.approx(-weighted_delay(delays, actions == 1))
    assert step.costs.sum() == pytest.approx(-step.reward[0])


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"weight_min": 3.0}, "`weight_min` is 3, above `weight_max`, 2"),
        (
            {"distance_min_m": 200.0},
            "`distance_min_m` is 200, but 10 devices at 0.0003 a square metre lie within",
        ),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make_scenario("meta-rl", parameters)
