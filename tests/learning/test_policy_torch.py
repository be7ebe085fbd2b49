"""What torch has trained is evaluated by numpy alike: within 1e-5 relative."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from edgebed.policies.forward import ACTIVATIONS, Layer, Network
from edgebed.policies.network_testing import random_network

IN_TORCH: dict[str, Callable[[], torch.nn.Module]] = {
    "identity": torch.nn.Identity,
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "elu": torch.nn.ELU,
    "leaky_relu": torch.nn.LeakyReLU,
}


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Relative to the size of the outputs: single numbers near 0 are differences of large ones."""
    assert ours.dtype == theirs.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_every_activation_has_its_like() -> None:
    assert set(IN_TORCH) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(53, 400, 300, 60), (21, 64, 64, 6), (5, 3)])
def test_outputs_are_torch_s(activation: str, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    modules: list[torch.nn.Module] = []
    layers = []
    for inputs, outputs in pairwise(sizes):
        linear = torch.nn.Linear(inputs, outputs)
        modules += [linear, IN_TORCH[activation]()]
        layers.append(Layer.of(linear.weight.detach().numpy().T, linear.bias.detach().numpy(), activation))
    x = np.random.default_rng(0).normal(0, 3, (64, sizes[0])).astype(np.float32)
    with torch.no_grad():
        theirs = torch.nn.Sequential(*modules)(torch.from_numpy(x)).numpy()
    ours = Network(layers)(x)
    close(ours, theirs)
    close(Network(layers)(x[3]), theirs[3])


def test_weights_of_each_device_are_a_batched_product() -> None:
    network = random_network([7, 32, 4], count=5, activation="tanh")
    x = np.random.default_rng(1).normal(size=(16, 5, 7)).astype(np.float32)
    y = torch.from_numpy(x).transpose(0, 1)
    for index, layer in enumerate(network.layers):
        y = torch.baddbmm(torch.from_numpy(layer.bias)[:, None, :], y, torch.from_numpy(layer.weight))
        y = torch.tanh(y) if index == 0 else y
    close(network(x), y.transpose(0, 1).contiguous().numpy())
