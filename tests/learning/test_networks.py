"""Batched ensembles: a member computes and learns what it would alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgebed.errors import SchemaMismatch
from edgebed.learning.networks import Adam, Ensemble, member_norms
from edgebed.policies.forward import Network

SIZES = (7, 32, 16, 3)


def inputs(seeds: list[int], rows: int = 9) -> torch.Tensor:
    """Each seed's own inputs, whatever else is in the batch."""
    return torch.stack([torch.from_numpy(np.random.default_rng(s).normal(size=(rows, 7)).astype("f")) for s in seeds])


def trained(seeds: list[int], steps: int = 20) -> Ensemble:
    ensemble = Ensemble(SIZES, seeds, "actor")
    adam = Adam(ensemble.learnable(), 0.01, largest_norm=0.5)
    x = inputs(seeds)
    for _ in range(steps):
        adam.step((ensemble(x) - 1.0).square().mean(dim=(1, 2)).sum())
    return ensemble


def test_first_weights_belong_to_a_seed_and_a_name() -> None:
    both, alone, critic = (Ensemble(SIZES, s, n) for s, n in (([3, 5], "actor"), ([5], "actor"), ([5], "critic")))
    for mine, own, other in zip(both.tensors, alone.tensors, critic.tensors, strict=True):
        assert torch.equal(mine[1:], own)
        assert not torch.equal(own, other)
    assert both.weights[1].abs().max() <= 32**-0.5
    assert Ensemble(SIZES, [1], "actor", last_bound=0.003).weights[-1].abs().max() <= 0.003


def test_inputs_in_two_parts_give_the_outputs_and_the_gradient_of_joined_ones() -> None:
    ensemble, x = Ensemble(SIZES, [1, 2], "critic"), inputs([1, 2])
    ensemble.learnable()
    known, part = x[:, :, :3], x[:, :, 3:].clone().requires_grad_()
    joined, apart = ensemble(torch.cat([known, part], dim=2)), ensemble.beside(known, part)
    torch.testing.assert_close(apart, joined)
    torch.testing.assert_close(*(torch.autograd.grad(one.square().sum(), part)[0] for one in (apart, joined)))


def test_outputs_are_a_network_of_linear_layers_and_rectifiers() -> None:
    ensemble = Ensemble(SIZES, [1, 2], "actor")
    x = inputs([1, 2])
    for member in range(2):
        by_hand = x[member]
        for index, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            by_hand = by_hand @ weight[member] + bias[member]
            by_hand = by_hand.relu() if index < 2 else by_hand
        torch.testing.assert_close(ensemble(x)[member], by_hand)


def test_numpy_gives_what_torch_gives() -> None:
    ensemble = trained([4, 9])
    x = inputs([4, 9], rows=200)
    for member in range(2):
        ours = Network(ensemble.layers(member))(x[member].numpy())
        np.testing.assert_allclose(ours, ensemble(x)[member].detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [[7, 1], [1, 7, 3], [7]])
def test_a_member_learns_what_it_would_alone(batch: list[int]) -> None:
    together, alone = trained(batch), trained([7])
    for many, one in zip(together.tensors, alone.tensors, strict=True):
        # To the last bits of float32 only: BLAS may sum in another order for another batch.
        torch.testing.assert_close(many[batch.index(7)], one[0], rtol=1e-4, atol=1e-6)


def test_the_same_list_of_seeds_gives_the_same_bits() -> None:
    for one, other in zip(trained([3, 8]).tensors, trained([3, 8]).tensors, strict=True):
        assert torch.equal(one, other)


def test_adam_does_what_torchs_own_does() -> None:
    ensemble, reference = Ensemble(SIZES, [3], "actor"), Ensemble(SIZES, [3], "actor")
    ours, theirs = Adam(ensemble.learnable(), 0.01), torch.optim.Adam(reference.learnable(), lr=0.01)
    x = inputs([3])
    for _ in range(15):
        ours.step((ensemble(x) - 1.0).square().mean())
        theirs.zero_grad()
        (reference(x) - 1.0).square().mean().backward()  # type: ignore[no-untyped-call]
        theirs.step()
    for one, other in zip(ensemble.tensors, reference.tensors, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_each_members_gradient_is_limited_by_itself() -> None:
    ensemble = Ensemble(SIZES, [1, 2], "actor")
    adam = Adam(ensemble.learnable(), 0.01, largest_norm=0.1)
    errors = ensemble(inputs([1, 2])).square().mean(dim=(1, 2))
    norms = member_norms(adam.step((errors * torch.tensor([1e4, 1e-4])).sum()))
    assert norms[0] == pytest.approx(0.1, rel=1e-4)
    assert norms[1] < 0.01


def test_moments_are_stored_and_taken_over() -> None:
    x = inputs([1])

    def step(ensemble: Ensemble, adam: Adam, times: int) -> None:
        for _ in range(times):
            adam.step((ensemble(x) - 1.0).square().mean())

    whole = Ensemble(SIZES, [1], "actor")
    step(whole, Adam(whole.learnable(), 0.01), 10)
    first = Ensemble(SIZES, [1], "actor")
    first_adam = Adam(first.learnable(), 0.01)
    step(first, first_adam, 4)
    second = Ensemble(SIZES, [2], "actor")
    second_adam = Adam(second.learnable(), 0.01)
    second.load_state("a", first.state("a"))
    second_adam.load_state("b", first_adam.state("b"))
    step(second, second_adam, 6)
    for one, other in zip(whole.tensors, second.tensors, strict=True):
        assert torch.equal(one, other)


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"actor.0: .*\(1, 8, 32\).*\(1, 7, 32\)"):
        Ensemble(SIZES, [1], "a").load_state("actor", Ensemble((8, 32, 16, 3), [1], "a").state("actor"))


def test_targets_follow_by_a_share() -> None:
    target, goal = Ensemble(SIZES, [1], "a"), Ensemble(SIZES, [2], "a")
    before = target.state("t")["t.0"]
    target.move_towards(goal, 0.25)
    np.testing.assert_allclose(target.state("t")["t.0"], 0.75 * before + 0.25 * goal.state("t")["t.0"], atol=1e-7)
