"""The pairwise critic: its equation, the values of all choices, and an actor that learns from them."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from edgebed.learning.ddpg import Batch, DdpgSettings
from edgebed.learning.encodings import OneHot
from edgebed.learning.pairwise import PairwiseCritic, PairwiseDdpg

DEVICES, CHOICES, SEEDS, SEEN = 3, 3, (4, 7), 5


def critic() -> PairwiseCritic:
    return PairwiseCritic(SEEN, DEVICES, CHOICES, (16, 16), SEEDS, "critic")


def observations(rows: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(len(SEEDS), rows, SEEN)).astype("f"))


def all_choices() -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.array(list(itertools.product(range(CHOICES), repeat=DEVICES)))


def test_values_are_the_equation() -> None:
    network, seen = critic(), observations(1)
    encoding = OneHot(DEVICES, CHOICES)
    hidden = seen
    for index, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        hidden = torch.baddbmm(bias, hidden.relu() if index else hidden, weight)
    numbers = hidden[:, 0].detach().numpy()
    own = numbers[:, : DEVICES * CHOICES].reshape(-1, DEVICES, CHOICES)
    same, both, away = np.moveaxis(numbers[:, DEVICES * CHOICES :].reshape(-1, 3, DEVICES, DEVICES), 1, 0)
    for choices in all_choices():
        inputs = encoding.encoded(np.broadcast_to(choices, (len(SEEDS), 1, DEVICES)))
        found = network(torch.cat([seen, inputs], dim=2))[:, 0].detach().numpy()
        for i in range(DEVICES):
            expected = own[:, i, choices[i]].copy()
            for j in set(range(DEVICES)) - {i}:
                expected += (choices[i] == choices[j] != 0) * same[:, i, j]
                expected += bool(choices[i] and choices[j]) * both[:, i, j] + bool(choices[j]) * away[:, i, j]
            np.testing.assert_allclose(found[:, i], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.beside(seen, inputs)[:, 0].detach().numpy(), found, rtol=1e-4, atol=1e-5)


def test_the_values_of_all_choices_are_those_of_changing_one_device() -> None:
    network, encoding, seen = critic(), OneHot(DEVICES, CHOICES), observations()
    start = np.random.default_rng(2).integers(CHOICES, size=(len(SEEDS), seen.shape[1], DEVICES))
    found = network.choice_values(seen, encoding.encoded(start)).numpy()
    for device in range(DEVICES):
        values = []
        for choice in range(CHOICES):
            changed = start.copy()
            changed[..., device] = choice
            with torch.no_grad():
                values.append(network(torch.cat([seen, encoding.encoded(changed)], dim=2)).sum(2).numpy())
        expected = np.stack(values, axis=2)
        differences = [each - each[..., :1] for each in (found[:, :, device], expected)]
        np.testing.assert_allclose(*differences, rtol=1e-4, atol=1e-4)


def test_its_target_copy_is_of_its_kind_and_stays_as_it_is() -> None:
    network, seen = critic(), observations()
    x = torch.cat([seen, OneHot(DEVICES, CHOICES).encoded(np.ones((len(SEEDS), 6, DEVICES)))], dim=2)
    twin = network.copy()
    before = twin(x).clone()
    with torch.no_grad():
        network.weights[0].add_(1.0)
    assert isinstance(twin, PairwiseCritic)
    assert torch.equal(twin(x), before)
    assert not torch.equal(network(x), before)


def cost(choices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A device costs 1; elsewhere 0.2, and 1.5 for each other device in the same place: ``[..., N]``."""
    meets = (choices[..., :, None] == choices[..., None, :]).sum(-1) - 1
    return np.where(choices == 0, 1.0, 0.2 + 1.5 * meets).astype(np.float32)


def test_an_actor_learns_who_goes_where() -> None:
    """Two places for three devices: the best is one in each, and one stays; the choices must not meet."""
    encoding = OneHot(DEVICES, CHOICES)
    settings = DdpgSettings((32, 32), 3e-3, 3e-3, 0.05, huber=1.0, highest_value=0.0)
    agent = PairwiseDdpg(SEEN, encoding, SEEDS, settings, temperature=0.05)
    rng = np.random.default_rng(3)
    for _ in range(600):
        seen = torch.from_numpy(rng.normal(size=(len(SEEDS), 32, SEEN)).astype("f"))
        choices = rng.integers(CHOICES, size=(len(SEEDS), 32, DEVICES))
        rewards, nothing = torch.from_numpy(-cost(choices)), torch.zeros((len(SEEDS), 32, 1))
        agent.update(Batch(seen, encoding.encoded(choices), rewards, nothing, seen))
    for member in agent.actor(observations()).detach().numpy():
        decided = member.reshape(-1, DEVICES, CHOICES).argmax(-1)
        best = min(cost(each).sum() for each in all_choices())
        np.testing.assert_allclose(cost(decided).sum(-1), best)


def test_targets_are_not_above_the_highest_value() -> None:
    encoding = OneHot(DEVICES, CHOICES)
    agent = PairwiseDdpg(SEEN, encoding, SEEDS, DdpgSettings((8, 8), highest_value=0.0), temperature=0.1)
    returns = torch.tensor([[-2.0, 0.5, 3.0]]).expand(len(SEEDS), 6, DEVICES).clone()
    seen = observations()
    inputs = encoding.encoded(np.zeros((len(SEEDS), 6, DEVICES)))
    batch = Batch(seen, inputs, returns, torch.zeros((len(SEEDS), 6, 1)), seen)
    found = agent.targets(batch)
    assert torch.equal(found, torch.tensor([-2.0, 0.0, 0.0]).expand_as(found))
