"""The CCM-MADRL scenarios: against a plain loop over devices, worked by hand, and the published anchor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput
from edgebed.simulation.random_streams import FloatArray
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.scenarios.ccm import Ccm
from edgebed.types import Site

VARIANTS = ("ccm-s10", "ccm-s100", "ccm-s100-lambda5")


def made(name: str = "ccm-s10", **parameters: Any) -> Ccm:
    scenario = make_scenario(name, parameters)
    assert isinstance(scenario, Ccm)
    return scenario


def episodes(scenario: Ccm, name: str, seeds: range) -> FloatArray:
    scenario.reset(np.asarray(seeds))
    policy = scenario.heuristics[name](scenario)
    return np.sum([scenario.step(policy.act()).reward for _ in range(scenario.steps)], axis=0)


class TestAnchor:
    def test_all_local_at_full_frequency_scores_what_was_published(self) -> None:
        returns = episodes(made(), "all_local", range(50))
        assert returns.mean() == pytest.approx(-35.03, abs=0.005)

    def test_the_other_streams_have_the_same_distributions(self) -> None:
        returns = episodes(made(streams="counter"), "all_local", range(300))
        assert returns.mean() == pytest.approx(-35.03, abs=4 * returns.std() / math.sqrt(300))

    def test_batteries_that_are_nearly_empty_are_what_energy_costs(self) -> None:
        """With the physical exponent, computing at full frequency empties the small batteries of ccm-s100."""
        assert episodes(made("ccm-s100"), "all_local", range(4)).mean() == pytest.approx(-350, abs=15)
        assert episodes(made("ccm-s100", energy_exponent=2.0), "all_local", range(4)).mean() < -10_000


class PlainLoop:
    """The same equations in plain Python, one device after the other, as the published code goes through them."""

    def __init__(self, scenario: Ccm) -> None:
        self.set = scenario.parameters
        draw = np.random.RandomState(37).uniform
        low = (self.set.power_min_dbm, self.set.battery_min_mj, self.set.gain_min_db, self.set.cpu_min_ghz)
        high = (self.set.power_max_dbm, self.set.battery_max_mj, self.set.gain_max_db, self.set.cpu_max_ghz)
        self.constants = [[draw(*ends) for ends in zip(low, high, strict=True)] for _ in range(self.set.n)]

    def reset(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.battery = [constants[1] for constants in self.constants]
        self.draw_tasks()

    def draw_tasks(self) -> None:
        uniform = self.random.uniform
        self.tasks = [(uniform(1, 50), uniform(300, 737.5), uniform(0.1, 0.9)) for _ in range(self.set.n)]

    def admitted(self, actions: Any) -> list[int]:
        offers = [device for device in range(self.set.n) if actions[device][0] >= 0]
        if len(offers) <= self.set.channels and sum(self.tasks[device][0] for device in offers) <= self.set.storage_kib:
            return offers
        taken: list[int] = []
        for device in sorted(offers, key=lambda device: -actions[device][3]):
            used = sum(self.tasks[other][0] for other in taken)
            if len(taken) < self.set.channels and used + self.tasks[device][0] < self.set.storage_kib:
                taken.append(device)
        return taken

    def finished(self, upload: dict[int, float]) -> dict[int, float]:
        order = sorted(upload, key=lambda device: upload[device])
        work = {device: self.tasks[device][0] * 8192 * self.tasks[device][1] / self.set.unit_hz for device in order}
        free = [0.0] * self.set.units
        finish = {}
        for rank, device in enumerate(order):
            if rank >= self.set.units and self.set.server_counting == "published":
                for earlier in order[:rank]:
                    free[free.index(min(free))] += work[earlier]
            finish[device] = max(upload[device], min(free)) + work[device]
            free[free.index(min(free))] = finish[device]
        return finish

    def step(self, actions: Any) -> list[float]:
        chosen = self.admitted(actions)
        upload, energy, time = {}, {}, {}
        rate_hz = self.set.bandwidth_hz / self.set.channels
        for device, (power, _, gain, cpu) in enumerate(self.constants):
            bits, per_bit = self.tasks[device][0] * 8 * 1024, self.tasks[device][1]
            share = [0.01 + (actions[device][number] + 1) * 0.99 / 2 for number in (1, 2)]
            if device in chosen:
                watts = 10 ** ((power - 30) / 10) * share[1]
                upload[device] = bits / (rate_hz * math.log2(1 + watts * 10 ** (gain / 10)))
                energy[device] = watts * upload[device]
            else:
                hertz = cpu * 1e9 * share[0]
                time[device] = bits * per_bit / hertz
                energy[device] = 5e-27 * bits * per_bit * hertz**self.set.energy_exponent
        time |= self.finished(upload)
        costs = [self.cost(device, time[device], energy[device]) for device in range(self.set.n)]
        self.random.normal(0.001, 0, size=self.set.n)
        self.draw_tasks()
        return costs

    def cost(self, device: int, time: float, energy: float) -> float:
        time = min(time, 1.0)
        charge = self.battery[device] - energy * 1e-6 + 0.001e-6
        self.battery[device] = charge = min(max(charge, 0.0), self.set.battery_max_mj)
        time = 1.0 if charge <= 0 else time
        late, lacking = max(time - self.tasks[device][2], 0.0), max(0.5 - charge, 0.0) * 1e6
        return self.set.energy_weight * (energy + lacking) + self.set.time_weight * (time + late)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *((name, {}) for name in VARIANTS),
        ("ccm-s10", {"server_counting": "corrected"}),
        ("ccm-s10", {"energy_exponent": 2.0}),
        ("ccm-s10", {"n": 7, "units": 2, "channels": 4, "storage_kib": 90.0}),
    ],
    ids=str,
)
def test_equals_a_plain_loop_over_devices(name: str, parameters: dict[str, Any]) -> None:
    """Few offers, so many that the master ranks them, and everything in between."""
    scenario = made(name, **parameters)
    loop = PlainLoop(scenario)
    rng = np.random.default_rng(1)
    seeds, steps = range(3), 8
    actions = rng.uniform(-1, 1, (steps, len(seeds), scenario.devices, 4))
    actions[::2, :, 11:, 0] = -1.0
    actions[1, :, 9:, 0] = -1.0
    scenario.reset(np.asarray(seeds))
    costs = np.array([scenario.step(now).costs for now in actions])
    for at, seed in enumerate(seeds):
        loop.reset(seed)
        assert costs[:, at] == pytest.approx(np.array([loop.step(now[at].tolist()) for now in actions]), rel=1e-9)


class TestByHand:
    """Two devices: one offers, the other computes."""

    def test_one_uploads_and_one_computes(self) -> None:
        scenario = made(n=2)
        scenario.reset([5])
        (bits, other_bits), (cycles, other_cycles) = scenario.size_kib[0] * 8192, scenario.cycles[0]
        deadline_s = scenario.deadline_s[0].copy()
        step = scenario.step(np.array([[[1.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 1.0, 0.0]]]))
        power_w = 10 ** ((scenario.constants.power_dbm[0] - 30) / 10)
        upload_s = bits / (4e6 * np.log2(1 + power_w * 10 ** (scenario.constants.gain_db[0] / 10)))
        first_s = min(1.0, upload_s + cycles / 4e9)
        second_s = other_cycles / (scenario.constants.cpu_ghz[1] * 1e9 * (0.01 + 0.99 / 2))
        assert bits != other_bits
        late_s = np.maximum(np.array([first_s, second_s]) - deadline_s, 0)
        assert step.costs[0, 0] == pytest.approx(0.5 * (power_w * upload_s + first_s + late_s[0]))
        assert step.costs[0, 1] == pytest.approx(0.5 * (second_s + late_s[1]), rel=1e-6)
        assert step.reward == pytest.approx(-step.costs.sum())

    def test_constants_are_drawn_device_by_device(self) -> None:
        draw = np.random.RandomState(37)
        wanted = [[draw.uniform(*ends) for ends in ((1, 24), (0.5, 3.2), (5, 14), (0.4, 1.5))] for _ in range(3)]
        constants = made().constants
        drawn = [constants.power_dbm, constants.battery_mj, constants.gain_db, constants.cpu_ghz]
        assert np.array([one[:3] for one in drawn]).T.tolist() == wanted


class TestActions:
    def test_the_rank_may_be_left_out(self) -> None:
        actions = np.random.default_rng(0).uniform(-1, 1, (2, 50, 3))
        first, second = made(), made()
        for scenario in (first, second):
            scenario.reset([0, 1])
        ranked = np.concatenate([actions, np.zeros((2, 50, 1))], axis=2)
        assert (first.step(actions).costs == second.step(ranked).costs).all()

    def test_what_is_not_admitted_is_computed_locally(self) -> None:
        scenario = made()
        scenario.reset([0])
        offers = np.ones((1, 50, 4))
        offers[..., 3] = np.linspace(1, -1, 50)
        decided = scenario.decisions(offers)
        edge = np.flatnonzero(decided.site[0] == Site.EDGE)
        assert edge.tolist() == list(range(10))
        assert decided.channel[0, edge].tolist() == list(range(10))
        alone = scenario.decisions(-offers)
        assert not alone.site.any()
        assert alone.cpu_fraction == pytest.approx(0.01)

    def test_slower_and_weaker_take_longer(self) -> None:
        costs = []
        for share in (1.0, 0.0):
            scenario = made()
            scenario.reset([0])
            actions = np.full((1, 50, 4), share)
            actions[..., 0] = -1.0
            costs.append(scenario.step(actions).costs.sum())
        assert costs[1] > costs[0] * 1.5


class TestHeuristics:
    def test_time_gain_fills_the_units_with_those_that_gain_most(self) -> None:
        scenario = made()
        scenario.reset([0])
        policy = scenario.heuristics["greedy_time_gain"](scenario)
        offers = np.flatnonzero(policy.act()[0, :, 0] >= 0)
        gain_s = policy.gain_s()[0]  # type: ignore[attr-defined]
        assert len(offers) == 8
        assert gain_s[offers].min() >= np.delete(gain_s, offers).max()
        assert gain_s[offers].min() > 0

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("deadline_size_first", lambda scenario: scenario.deadline_s[0] / scenario.size_kib[0]),
            ("offload_time_first", lambda scenario: scenario.heuristics["offload_time_first"](scenario).upload_s()[0]),
        ],
    )
    def test_sorted_ones_rank_by_their_key(self, name: str, key: Any) -> None:
        scenario = made()
        scenario.reset([0])
        actions = scenario.heuristics[name](scenario).act()[0]
        assert (actions[:, :3] == 1.0).all()
        assert np.argsort(-actions[:, 3]).tolist() == np.argsort(key(scenario)).tolist()

    def test_their_order_on_the_evaluation_seeds(self) -> None:
        """Offloading a few at a gain beats computing all locally; letting in by deadline and size does not."""
        mean = {name: episodes(made(), name, range(50)).mean() for name in made().heuristics}
        assert mean["greedy_latency"] > mean["offload_time_first"] > mean["all_local"] > mean["deadline_size_first"]
        assert mean["greedy_time_gain"] > mean["all_local"]
        assert mean["uniform_random"] < mean["all_edge"]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"size_min_kib": 60.0}, "`size_min_kib` is 60, above `size_max_kib`, 50"),
        ({"battery_max_mj": 0.4}, "`battery_min_mj` is 0.5, above `battery_max_mj`, 0.4"),
        ({"streams": "mine"}, "streams"),
        ({"n": 0}, "n"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make_scenario("ccm-s10", parameters)


def test_seeds_that_the_legacy_generator_does_not_take_are_refused() -> None:
    with pytest.raises(BadInput, match="seeds up to 4294967295, not 4294967296; take smaller ones, or set streams"):
        made().reset([0, 2**32])
    made(streams="counter").reset([0, 2**32])
