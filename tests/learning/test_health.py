"""Training health, on networks that are made to saturate, to stop and to explode, and on healthy ones."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from edgebed.learning.health import Health, single, single_gradients

SEEDS = (7, 8, 9)


def layers(*sizes: int, scale: float = 0.3) -> list[Tensor]:
    """Weight and bias of each layer, ``[S, ...]``."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for inputs, outputs in itertools.pairwise(sizes):
        found.append(scale * torch.randn((len(SEEDS), inputs, outputs), generator=generator))
        found.append(torch.zeros(len(SEEDS), 1, outputs))
    return [one.requires_grad_() for one in found]


def outputs_of(tensors: list[Tensor], x: Tensor) -> Tensor:
    weight, bias, last_weight, last_bias = tensors
    return torch.baddbmm(last_bias, torch.baddbmm(bias, x, weight).relu(), last_weight)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was warned of so far."""
    caplog.set_level(logging.WARNING, "edgebed.learning.health")
    return lambda: caplog.messages


def test_gradient_norms_of_each_layer_and_seed() -> None:
    actor, critic = layers(3, 4, 2), layers(5, 4, 1)
    health = Health(actor, critic, SEEDS)
    first = [torch.full_like(one, 1.0) for one in actor]
    second = [torch.full_like(one, 3.0) for one in actor]
    second[2][1] = 0.0
    second[3][1] = 0.0  # the second seed's last layer
    health.gradients(actor=first, critic=[torch.full_like(one, 0.5) for one in critic])
    health.gradients(actor=second)
    found = health.report(10)
    assert found["health/actor_gradient_0"] == pytest.approx([2 * math.sqrt(3 * 4 + 4)] * 3)
    one, last = math.sqrt(4 * 2 + 2), 2 * math.sqrt(4 * 2 + 2)
    assert found["health/actor_gradient_1"] == pytest.approx([last, one / 2, last])
    assert found["health/critic_gradient_0"] == pytest.approx([0.5 * math.sqrt(5 * 4 + 4)] * 3)
    actor_norm = math.hypot(2 * math.sqrt(16), last)
    assert found["health/gradient_ratio"][0] == pytest.approx(actor_norm / (0.5 * math.sqrt(24 + 5)))


def test_pre_activations_and_saturation() -> None:
    actor = layers(3, 4, 2)
    health = Health(actor, layers(5, 4, 1), SEEDS)
    x = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, -2.0, 2.0, -2.0], [1.0, 2.0, 3.0, 4.0]])
    edge = math.atanh(0.9)
    health.outputs(x)
    health.outputs(torch.tensor([[edge - 1e-3] * 2, [edge + 1e-3] * 2, [5.0, 0.0]]))
    found = health.report(10)
    assert found["health/saturated_share"] == pytest.approx([0.0, 1.0, 4 / 6])
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])
    assert found["health/pre_activation_mean"][2] == pytest.approx(values.mean())
    assert found["health/pre_activation_spread"][2] == pytest.approx(values.std())


def test_without_tanh_nothing_saturates() -> None:
    health = Health(layers(3, 4, 2), layers(5, 4, 1), SEEDS, has_tanh=False)
    health.outputs(torch.full((3, 4), 100.0))
    assert "health/saturated_share" not in health.report(10)


def test_a_healthy_training_is_not_complained_about(warnings: Callable[[], list[str]]) -> None:
    actor, critic = layers(3, 16, 2), layers(5, 16, 1)
    optimiser = torch.optim.Adam([*actor, *critic], 1e-3)
    health = Health(actor, critic, SEEDS)
    x = torch.randn((3, 64, 3), generator=torch.Generator().manual_seed(1))
    for _ in range(20):
        raw = outputs_of(actor, x)
        values = outputs_of(critic, torch.cat([x, raw.tanh()], dim=2))
        optimiser.zero_grad()
        ((values - 0.3).square().mean() + 0.1 * raw.tanh().square().mean()).backward()
        health.gradients(actor=grads(actor), critic=grads(critic))
        health.outputs(raw)
        optimiser.step()
    found = health.report(1000)
    assert found["health/actor_stopped"] == found["health/critic_stopped"] == [0.0] * 3
    assert max(found["health/saturated_share"]) < 0.2  # type: ignore[type-var]
    assert warnings() == []


def test_an_actor_that_saturates_stops_and_is_told_of(warnings: Callable[[], list[str]]) -> None:
    """One seed's actor begins so far out that single precision knows no slope there; the others go on."""
    actor, critic = layers(3, 16, 2), layers(5, 16, 1)
    with torch.no_grad():
        actor[3][1] = 1000.0
    optimiser = torch.optim.SGD(actor, 1e-2)
    health = Health(actor, critic, SEEDS)
    x = torch.randn((3, 64, 3), generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        raw = outputs_of(actor, x)
        optimiser.zero_grad()
        raw.tanh().square().mean((1, 2)).sum().backward()
        health.gradients(actor=grads(actor), critic=[torch.ones_like(one) for one in critic])
        health.outputs(raw)
        optimiser.step()
    found = health.report(500)
    assert found["health/actor_stopped"] == [0.0, 1.0, 0.0]
    assert found["health/saturated_share"][1] == 1.0
    assert found["health/gradient_ratio"][1] == 0.0
    assert len(warnings()) == 4 + 2  # three about this actor, and the critic that nobody trains, of each seed
    assert [text for text in warnings() if "actor" in text and not text.startswith("seed 8, step 500: ")] == []
    stopped = next(text for text in warnings() if "the actor has stopped" in text)
    assert "(100% of its outputs are saturated): lower the actor's learning rate" in stopped


def test_a_stopped_network_is_one_that_was_updated(warnings: Callable[[], list[str]]) -> None:
    health = Health(layers(3, 4, 2), layers(5, 4, 1), SEEDS)
    assert "health/actor_stopped" not in health.report(10)
    assert warnings() == []


@pytest.mark.parametrize(("change", "is_stopped"), [(0.9e-8, 1.0), (1.1e-8, 0.0)])
def test_the_limit_of_stopped_weights(change: float, is_stopped: float) -> None:
    actor = [torch.zeros(3, 2, 2, dtype=torch.float64), torch.zeros(3, 1, 2, dtype=torch.float64)]
    health = Health(actor, layers(5, 4, 1), SEEDS)
    actor[0][:, 1, 1] += change
    health.gradients(actor=actor)
    assert health.report(1)["health/actor_stopped"] == [is_stopped] * 3


def test_the_same_is_said_once_and_again_after_it_was_well(warnings: Callable[[], list[str]]) -> None:
    health = Health(layers(3, 4, 2), layers(5, 4, 1), SEEDS)
    for step, x in enumerate((9.0, 9.0, 0.1, 9.0)):
        health.outputs(torch.full((3, 4), x))
        health.report(step)
    assert [text.split(":")[0] for text in warnings()] == [
        f"seed {seed}, step {step}" for step in (0, 3) for seed in SEEDS
    ]


def test_a_gradient_that_explodes(warnings: Callable[[], list[str]]) -> None:
    critic = layers(5, 4, 1)
    health = Health(layers(3, 4, 2), critic, SEEDS)
    with torch.no_grad():
        critic[0] += 1.0
    health.gradients(critic=[torch.full_like(one, 1e5) for one in critic])
    health.report(3)
    assert len(warnings()) == 3
    assert (
        "the critic's gradient has the norm 5.4e+05: lower its learning rate, scale the rewards down" in warnings()[0]
    )


def test_a_seed_in_a_batch_is_seen_as_alone() -> None:
    actor, critic = layers(3, 4, 2), layers(5, 4, 1)
    x = torch.randn((3, 8), generator=torch.Generator().manual_seed(1))

    def seen(rows: slice) -> dict[str, list[float | None]]:
        health = Health([one[rows].detach() for one in actor], [one[rows].detach() for one in critic], SEEDS[rows])
        health.gradients(actor=[one[rows].detach() for one in actor], critic=[one[rows].detach() for one in critic])
        health.outputs(x[rows])
        return health.report(1)

    together = seen(slice(0, 3))
    for index in range(3):
        assert seen(slice(index, index + 1)) == {name: [values[index]] for name, values in together.items()}


def test_state_goes_back_in() -> None:
    actor, critic = layers(3, 4, 2), layers(5, 4, 1)

    def fed(health: Health, scale: float) -> Health:
        health.gradients(actor=[one.detach() * scale for one in actor], critic=[one.detach() for one in critic])
        health.outputs(torch.full((3, 4), scale))
        return health

    health = fed(Health(actor, critic, SEEDS), 0.5)
    state = health.state()
    with torch.no_grad():
        actor[0] += 0.25
    resumed = Health(actor, critic, SEEDS)
    resumed.load_state(state)
    found = fed(resumed, 2.0).report(2)
    assert found == fed(health, 2.0).report(2)
    assert found["health/actor_change"] == pytest.approx([0.25] * 3)


def test_an_ordinary_module() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    health = Health(single(module), single(module), [0])
    module(torch.ones(2, 3)).sum().backward()
    gradients = single_gradients(module)
    with torch.no_grad():
        for one in module.parameters():
            one += 0.5
    health.gradients(actor=gradients, critic=gradients)
    found = health.report(1)
    assert found["health/actor_change"] == pytest.approx([0.5])
    assert found["health/gradient_ratio"] == pytest.approx([1.0])
    last = module[2]
    assert isinstance(last, torch.nn.Linear)
    assert last.weight.grad is not None
    expected = math.hypot(float(last.weight.grad.norm()), 2.0)
    assert found["health/actor_gradient_1"] == pytest.approx([expected])


def grads(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in tensors]
