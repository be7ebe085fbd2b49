"""Scenario `dc-drl`: anchors, its equations one by one, places, and what knows them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.base import Heuristic
from edgebed.simulation.evaluation import Evaluation, evaluate
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.scenarios.dc_drl import DcDrl
from edgebed.simulation.scenarios.dc_drl_heuristics import joint_costs
from edgebed.types import Site

FloatArray = NDArray[np.float64]


def made(**parameters: Any) -> DcDrl:
    scenario = make_scenario("dc-drl", parameters)
    assert isinstance(scenario, DcDrl)
    return scenario


def evaluated(policy: str, episodes: int = 50, options: dict[str, Any] | None = None, **parameters: Any) -> Evaluation:
    return evaluate(made(**parameters), lambda one: one.heuristics[policy](one, options), episodes=episodes)


class NearestThree(Heuristic):
    """The three devices nearest to the server offload, a channel each; nobody else does."""

    def act(self) -> NDArray[np.int32]:
        scenario: DcDrl = self.scenario
        distance_m = np.hypot(scenario.position_m[..., 0], scenario.position_m[..., 1])
        rank = distance_m.argsort(axis=1).argsort(axis=1)
        return np.where(rank < 3, rank + 1, 0).astype(np.int32)


# --- anchors ----------------------------------------------------------------------------------------------------------


def test_anchor_all_local() -> None:
    assert evaluated("all_local").cost_per_task_mean == pytest.approx(0.925, abs=0.002)


def test_anchor_the_three_nearest_offload_a_channel_each() -> None:
    assert evaluate(made(), NearestThree, episodes=50).cost_per_task_mean == pytest.approx(0.659, abs=0.002)


@pytest.mark.parametrize(
    ("n", "policy", "options", "cost"),
    [
        (5, "greedy_sampled", {"m": 100}, 0.030),
        (5, "coordinate_descent", None, 0.024),
        (5, "greedy_priced", None, 0.035),
        (5, "offload_late", None, 0.024),
        (10, "greedy_sampled", {"m": 100}, 0.114),
        (10, "greedy_sampled", {"m": 1000}, 0.061),
        (10, "coordinate_descent", None, 0.033),
        (10, "greedy_priced", None, 0.028),
        (10, "offload_late", None, 0.158),
        (20, "greedy_sampled", {"m": 100}, 0.553),
        (20, "greedy_sampled", {"m": 1000}, 0.579),
        (20, "offload_late", None, 0.461),
    ],
)
def test_informed_references(n: int, policy: str, options: dict[str, Any] | None, cost: float) -> None:
    """The costs that were found before, by another program; tails are heavy, so within a tenth."""
    found = evaluated(policy, 10, options, n=n).cost_per_task_mean
    assert found == pytest.approx(cost, rel=0.12, abs=0.002)


@pytest.mark.parametrize(
    ("policy", "returns"),
    [
        ("all_local", [-462.72733456291036, -461.71761806533783, -460.6958430161444]),
        ("uniform_random", [-602.6788302128017, -436.64760755658216, -530.1182221579281]),
        ("greedy_latency", [-617.2282890991324, -616.920306748574, -614.2224069108405]),
    ],
)
def test_seeds_mean_what_they_meant(policy: str, returns: list[float]) -> None:
    """What is kept and published names seeds: they must go on giving the same episodes."""
    assert evaluated(policy, 3).returns == pytest.approx(returns, rel=1e-9)


# --- the equations, one by one ----------------------------------------------------------------------------------------


def epoch_by_hand(
    scenario: DcDrl, actions: NDArray[np.integer], queues_s: list[float], server_s: float
) -> tuple[list[float], list[float], float]:
    """Costs and next queues of the first environment, in plain Python, as the equations are written."""
    settings, state = scenario.parameters, scenario.state
    cycles, sizes = state.cycles[0].tolist(), state.input_bytes[0].tolist()
    signal_w = [0.1 * max(math.hypot(x, y), 1.0) ** -4.0 for x, y in scenario.position_m[0].tolist()]
    costs, next_s, uploads = [0.0] * settings.n, list(queues_s), []
    for i, channel in enumerate(actions.tolist()):
        if channel == 0:
            time_s = cycles[i] / 0.8e9
            costs[i] = 0.025 * cycles[i] / 1e9 + (queues_s[i] + time_s > 2.0)
            next_s[i] = max(0.0, queues_s[i] + time_s - 0.6)
            continue
        others_w = sum(signal_w[j] for j, other in enumerate(actions) if other == channel and j != i)
        upload_s = 8 * sizes[i] / (5e6 * math.log2(1 + signal_w[i] / (1e-13 + others_w)))
        costs[i] = 0.05 * cycles[i] / 1e9 + 0.1 * 0.1 * upload_s
        next_s[i] = max(0.0, queues_s[i] - 0.6)
        if upload_s > 2.0:
            costs[i] += 1.0
        else:
            uploads.append((upload_s, i))
    free_s = server_s
    for upload_s, i in sorted(uploads):
        free_s = max(upload_s, free_s) + cycles[i] / 5e9
        costs[i] += free_s > 2.0
    return costs, next_s, max(0.0, server_s + sum(cycles[i] for _, i in uploads) / 5e9 - 0.6)


@pytest.mark.parametrize("n", [1, 5, 10, 23])
def test_every_epoch_is_as_the_equations_say(n: int) -> None:
    scenario = made(n=n)
    scenario.reset([n])
    rng = np.random.default_rng(n)
    queues_s, server_s = [0.0] * n, 0.0
    for _ in range(50):
        # Some epochs crowded, some not: so that queues grow and shrink.
        actions = rng.integers(1, 6, n) * (rng.random(n) < rng.random())
        costs, queues_s, server_s = epoch_by_hand(scenario, actions, queues_s, server_s)
        step = scenario.step(actions[None])
        np.testing.assert_allclose(step.costs[0], costs, rtol=1e-6)
        np.testing.assert_allclose(scenario.state.device_queue_s[0], queues_s, atol=1e-9)
        assert scenario.state.server_queue_s[0] == pytest.approx(server_s, abs=1e-9)
        assert step.reward[0] == pytest.approx(-sum(costs), rel=1e-6)


@pytest.mark.parametrize("n", [10, 33])
def test_an_environment_is_the_same_to_the_bit_in_a_large_batch(n: int) -> None:
    """Vector instructions, ways of adding up and of ordering differ with the size of arrays; results do not."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 6, (20, 700, n)) * rng.integers(0, 2, (20, 700, n))
    together = made(n=n)
    together.reset(np.arange(700))
    steps = [together.step(each) for each in actions]
    for low, high in ((0, 1), (699, 700), (3, 250)):
        apart = made(n=n)
        apart.reset(np.arange(low, high))
        for each, expected in zip(actions, steps, strict=True):
            found = apart.step(each[low:high])
            assert (found.costs == expected.costs[low:high]).all()
            assert (found.reward == expected.reward[low:high]).all()


def test_the_state_is_seven_numbers_a_device_and_three() -> None:
    scenario = made(n=4)
    scenario.reset([1, 2])
    assert scenario.observe().joint().shape == (2, 7 * 4 + 3)
    scenario.step(np.array([[0, 0, 1, 1]] * 2))
    seen, state = scenario.observe(), scenario.state
    names = {feature.name: index for index, feature in enumerate(scenario.device_features)}
    for name, values in (
        ("queue_s", state.device_queue_s),
        ("cycles", state.cycles),
        ("input_bytes", state.input_bytes),
    ):
        np.testing.assert_allclose(seen.devices[..., names[name]], values, rtol=1e-6)
    assert (seen.devices[..., names["cpu_hz"]] == np.float32(0.8e9)).all()
    assert (seen.devices[..., names["deadline_s"]] == 2.0).all()
    assert seen.shared[:, 2].tolist() == [1.0, 1.0]
    assert (seen.shared[:, 0] == np.float32(5e9)).all()


def test_decisions_in_the_product_s_terms() -> None:
    scenario = made(n=3)
    scenario.reset([1])
    decisions = scenario.decisions(np.array([[0, 1, 5]]))
    assert decisions.site.tolist() == [[Site.DEVICE, Site.EDGE, Site.EDGE]]
    assert decisions.channel.tolist() == [[0, 0, 4]]
    assert decisions.edge_fraction.tolist() == [[0.0, 1.0, 1.0]]


def test_metrics_count() -> None:
    scenario = made(n=2, steps=3)
    scenario.reset([4])
    costs = [scenario.step(np.array([action])).costs for action in ([0, 1], [0, 0], [2, 1])]
    metrics = scenario.metrics()
    assert metrics["cost_per_task"][0] == pytest.approx(float(np.sum(costs)) / 6)
    assert metrics["offload_rate"][0] == 0.5
    assert metrics["miss_rate"][0] == 0.0
    assert metrics["energy_j_per_task"][0] > 0.0


# --- parameters -------------------------------------------------------------------------------------------------------


def test_places_are_the_published_code_s() -> None:
    scenario = made()
    scenario.reset([0, 9])
    expected = np.random.RandomState(2020).randint(-50, 50, (10, 2))
    assert (scenario.position_m == expected).all()
    other = made(position_seed=1)
    other.reset([0])
    assert (other.position_m[0] != expected).any()


def test_every_episode_may_draw_its_own_places() -> None:
    scenario = made(own_positions=True, half_side_m=20)
    scenario.reset([0, 1])
    first = scenario.position_m.copy()
    assert (first[0] != first[1]).all()
    assert (np.abs(first) <= 20).all()
    scenario.reset([1, 0])
    assert (scenario.position_m == first[::-1]).all()


def test_devices_that_move_stay_in_the_square_and_their_signals_follow() -> None:
    scenario = made(speed_mps=20.0)
    scenario.reset([3])
    for _ in range(49):
        before = scenario.position_m.copy()
        scenario.step(np.zeros((1, 10), np.int64))
        stride_m = np.hypot(*np.moveaxis(scenario.position_m - before, 2, 0))
        inside = (np.abs(before) < 50 - 12).all(axis=2)
        np.testing.assert_allclose(stride_m[inside], 12.0)
        assert (np.abs(scenario.position_m) <= 50).all()
        distance_m = np.hypot(*np.moveaxis(scenario.position_m, 2, 0))
        np.testing.assert_allclose(scenario.state.received_w, 0.1 * np.maximum(distance_m, 1) ** -4.0)
        assert (scenario.observe().devices[..., 2:4] == scenario.position_m.astype(np.float32)).all()


def test_other_models_can_be_chosen() -> None:
    crowded = evaluated("all_edge", 5).metric_means
    split = evaluated("all_edge", 5, radio="orthogonal").metric_means
    ample = evaluated("all_edge", 5, radio="orthogonal", server="concurrent", bandwidth_hz=1e8).metric_means
    assert split["energy_j_per_task"] < crowded["energy_j_per_task"]
    assert ample["miss_rate"] == 0.0
    charged = evaluated("all_local", 5, energy="sending_and_computing").metric_means
    assert charged["energy_j_per_task"] == pytest.approx(1e-27 * 0.8e9**2 * 0.7e9, rel=0.02)
    weighted = evaluated("all_local", 5, cost="weighted_sum", delay_price=0.0, penalty=0.0)
    assert weighted.cost_per_task_mean == 0.0


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"cycles_min": 9e8}, "`cycles_min` is 9e[+]08, above `cycles_max`, 8e[+]08"),
        ({"radio": "loud"}, "radio: there is no model 'loud'; those that exist: "),
        ({"arrivals": "never"}, "arrivals: there is no model"),
        ({"server": "x"}, "compute: there is no model"),
        ({"energy": "x"}, "energy: there is no model"),
        ({"cost": "x"}, "cost: there is no model"),
        ({"devices": 3}, "unknown field `devices`; its parameters: n, channels"),
    ],
    ids=str,
)
def test_bad_parameters(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        made(**parameters)


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        (np.zeros((1, 10)), "actions are float64 of shape"),
        (np.zeros((2, 10), np.int64), "integers of shape \\[1, 10\\] are needed"),
        (np.full((1, 10), 6), "between 6 and 6; allowed: 0 .local. to 5"),
        (np.full((1, 10), -1), "between -1 and -1"),
    ],
)
def test_bad_actions(actions: NDArray[Any], text: str) -> None:
    scenario = made()
    scenario.reset([0])
    with pytest.raises(BadInput, match=text):
        scenario.step(actions)


# --- heuristics -------------------------------------------------------------------------------------------------------


def test_all_edge_goes_round_the_channels() -> None:
    scenario = made(n=7)
    scenario.reset([0, 1])
    assert scenario.heuristics["all_edge"](scenario).act().tolist() == [[1, 2, 3, 4, 5, 1, 2]] * 2


def test_uniform_random_offloads_half_over_any_channel() -> None:
    scenario = made()
    scenario.reset(np.arange(2000))
    actions = scenario.heuristics["uniform_random"](scenario).act()
    shares = np.bincount(actions.ravel(), minlength=6) / actions.size
    assert shares[0] == pytest.approx(0.5, abs=0.015)
    assert shares[1:] == pytest.approx(np.full(5, 0.1), abs=0.01)


def test_greedy_latency_prefers_the_faster_site() -> None:
    scenario = made(n=2)
    scenario.reset([0])
    policy = scenario.heuristics["greedy_latency"](scenario)
    scenario.state.device_queue_s[:] = [[30.0, 0.0]]
    scenario.state.server_queue_s[:] = 3.0
    assert policy.act().tolist() == [[1, 0]]
    scenario.state.server_queue_s[:] = 40.0
    assert policy.act().tolist() == [[0, 0]]


def test_more_samples_cost_less_in_this_epoch() -> None:
    scenario = made()
    scenario.reset(np.arange(20))
    few, many = (scenario.heuristics["greedy_sampled"](scenario, {"m": m}).act() for m in (1, 300))
    blind = scenario.heuristics["uniform_random"](scenario).act()
    assert (few == blind).all()
    costs = []
    for actions in (few, many):
        scenario.reset(np.arange(20))
        costs.append(scenario.step(actions).costs.sum(axis=1))
    assert (costs[1] <= costs[0]).all()


def test_coordinate_descent_ends_where_no_device_alone_can_do_better() -> None:
    scenario = made(n=5)
    scenario.reset([3])
    scenario.state.device_queue_s[:] = np.linspace(0.5, 2.5, 5)
    actions = scenario.heuristics["coordinate_descent"](scenario).act()
    reached = joint_costs(scenario, actions[:, None, :])[0, 0]
    for device in range(5):
        for choice in range(6):
            other = actions.copy()
            other[0, device] = choice
            assert joint_costs(scenario, other[:, None, :])[0, 0] >= reached


def test_options_of_a_heuristic_are_checked() -> None:
    scenario = made()
    with pytest.raises(BadInput, match="policy greedy_sampled: Expected `int` >= 1"):
        scenario.heuristics["greedy_sampled"](scenario, {"m": 0})
    with pytest.raises(BadInput, match=r"policy all_local: .*unknown field `m`; its parameters: none"):
        scenario.heuristics["all_local"](scenario, {"m": 3})
