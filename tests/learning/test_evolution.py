"""Merging, replacing and perturbing of populations, and the encodings of decisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgebed.learning.encodings import OneHot, PublishedTanh
from edgebed.learning.evolution import below_average, merged, mutate, rank_weights
from edgebed.learning.networks import Ensemble
from edgebed.learning.noise import Counted, OrnsteinUhlenbeck, decayed, gumbel
from edgebed.policies.forward import Network


def test_merge_weights_rise_with_fitness_and_sum_to_one() -> None:
    fitness = np.array([[-9.0, -1.0], [-2.0, -3.0], [-5.0, -2.0]])  # negative costs: -1 is best
    weights = rank_weights(fitness)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    assert weights[:, 0].tolist() == [1 / 6, 3 / 6, 2 / 6]
    assert weights[:, 1].argmax() == 0


def test_a_merge_is_the_weighted_sum_seed_by_seed() -> None:
    agents = [{"a": np.full((2, 3, 4), value, np.float32)} for value in (1.0, 5.0)]
    found = merged(agents, np.array([[0.25, 1.0], [0.75, 0.0]]))["a"]
    assert found[0].tolist() == np.full((3, 4), 4.0).tolist()
    assert found[1].tolist() == np.full((3, 4), 1.0).tolist()
    assert found.dtype == np.float32


def test_agents_below_the_average_are_found() -> None:
    fitness = np.array([[-9.0], [-2.0], [-1.0]])
    assert below_average(fitness)[:, 0].tolist() == [True, False, False]
    assert not below_average(np.full((3, 1), -2.0)).any()


def test_a_network_and_its_target_are_perturbed_alike_and_as_strongly_as_said() -> None:
    online, target = (Ensemble((50, 60, 5), [1, 2], name) for name in ("a", "b"))
    first, slow = online.state("n"), target.state("n")
    mutate(online, target, 0.05, Counted([1, 2], "mutation"), 3)
    shifts = {name: online.state("n")[name] - first[name] for name in first}
    for name in first:
        np.testing.assert_allclose(target.state("n")[name] - slow[name], shifts[name], atol=1e-6)
    every = np.concatenate([one.reshape(2, -1) for one in shifts.values()], axis=1)
    assert every.std() == pytest.approx(0.05, rel=0.05)
    assert abs(np.corrcoef(every)[0, 1]) < 0.1  # seeds do not share numbers


def test_a_seed_is_perturbed_alike_alone_and_in_a_batch() -> None:
    together, alone = Ensemble((9, 8, 2), [4, 7], "a"), Ensemble((9, 8, 2), [7], "a")
    for ensemble, seeds in ((together, [4, 7]), (alone, [7])):
        mutate(ensemble, ensemble.copy(), 0.1, Counted(seeds, "mutation"), 5)
    for many, one in zip(together.tensors, alone.tensors, strict=True):
        assert torch.equal(many[1:], one)


def test_one_hot_encodes_what_it_chose_and_passes_softmaxs_gradient() -> None:
    encoding = OneHot(2, 3, temperature=2.0)
    outputs = torch.tensor([[[0.1, 0.9, 0.0, 2.0, -1.0, 1.0]]], requires_grad=True)
    given = encoding.differentiable(outputs)
    torch.testing.assert_close(given.detach(), torch.tensor([[[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]]]))
    (given * torch.arange(6.0)).sum().backward()  # type: ignore[no-untyped-call]
    soft = outputs.detach().reshape(1, 1, 2, 3).div(2.0).softmax(-1).requires_grad_(False)
    by_hand = torch.arange(6.0).reshape(2, 3)
    expected = soft * (by_hand - (soft * by_hand).sum(-1, keepdim=True)) / 2.0
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, expected.reshape(1, 1, 6))


def test_stored_choices_are_encoded_and_compared_as_decisions() -> None:
    encoding = OneHot(2, 3)
    outputs = torch.tensor([[[0.1, 0.9, 0.0, 2.0, -1.0, 1.0]]])
    assert encoding.encoded(np.array([[[1, 0]]], np.int8)).tolist() == [[[0, 1, 0, 1, 0, 0]]]
    assert encoding.agreeing(outputs, np.array([[[1, 2]]], np.int8)).tolist() == [[[True, False]]]
    assert encoding.explore(outputs, 0.0, np.zeros(0)).tolist() == [[[1, 0]]]


def test_gumbel_noise_draws_by_softmax() -> None:
    scores = torch.log(torch.tensor([0.7, 0.2, 0.1]))
    uniform = np.random.default_rng(0).uniform(size=(40_000, 3))
    drawn = OneHot(1, 3).explore(scores.repeat(40_000, 1), 1.0, uniform)[:, 0]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0.7, 0.2, 0.1], atol=0.01)
    assert gumbel(np.array([0.0, 1.0])).tolist() == pytest.approx([-3.3, 27.6], abs=0.1)


def test_the_published_encoding_cuts_the_range_into_equal_intervals() -> None:
    encoding = PublishedTanh(1, 4)
    stored = np.array([[-1.0], [-0.51], [-0.49], [0.1], [0.6], [1.0]], np.float32)
    assert encoding.choices_of(stored)[:, 0].tolist() == [0, 0, 1, 2, 3, 3]
    assert encoding.choices_of(encoding.stored(np.arange(4)[:, None]))[:, 0].tolist() == [0, 1, 2, 3]


def test_the_published_encoding_is_written_as_scores_of_choices() -> None:
    encoding, ensemble = PublishedTanh(3, 6), Ensemble((5, 40, 3), [2], "actor")
    x = torch.from_numpy(np.random.default_rng(1).normal(0, 6, (1, 500, 5)).astype("f"))
    by_intervals = encoding.choices_of(ensemble(x).tanh().detach().numpy())[0]
    scores = Network(encoding.scores(ensemble.layers(0)))(x[0].numpy()).reshape(500, 3, 6)
    assert len(np.unique(by_intervals)) == 6
    assert (scores.argmax(axis=2) == by_intervals).mean() > 0.999  # apart from rounding at a cut


def test_ornstein_uhlenbeck_noise_has_its_stationary_deviation_and_begins_at_zero() -> None:
    walk, rng = OrnsteinUhlenbeck((2000,), pull=0.15, spread=0.2), np.random.default_rng(0)
    for _ in range(60):
        walk.step(rng.normal(size=2000))
    assert walk.value.std() == pytest.approx(0.2 / np.sqrt(1 - 0.85**2), rel=0.05)
    walk.reset()
    assert not walk.value.any()


def test_what_decays_goes_from_first_to_last() -> None:
    assert [decayed(0.3, 0.03, at) for at in (0.0, 0.5, 1.0, 2.0)] == pytest.approx(
        [0.3, 0.09487, 0.03, 0.03], rel=1e-3
    )
    assert decayed(0.0, 0.0, 0.5) == 0.0


def test_counted_numbers_are_of_a_seed_a_name_and_a_position() -> None:
    together, alone = Counted([4, 7], "x"), Counted([7], "x")
    assert np.array_equal(together.uniform(3, 2, 5)[1:], alone.uniform(3, 2, 5))
    assert not np.array_equal(alone.uniform(3, 5), alone.uniform(4, 5))
    assert not np.array_equal(alone.uniform(3, 5), Counted([7], "y").uniform(3, 5))
    assert {int(Counted([1], "z").integers(n, 2, 4)[0]) for n in range(50)} == {2, 3}
