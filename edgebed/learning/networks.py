"""Batched ensembles: the networks of all training seeds, evaluated and trained as one.

A member is one seed's network. Members share nothing: every operation is element by element or a batch of matrix
products, so a member learns what it would learn alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Self

import numpy as np
import torch
from torch import Tensor

from edgebed.errors import SchemaMismatch
from edgebed.learning.base import State
from edgebed.policies.forward import Layer
from edgebed.randomness import stream

__all__ = ["Adam", "Ensemble", "member_norms"]


class Ensemble:
    """``S`` multilayer perceptrons of one shape, with rectifiers between the layers and a linear output.

    Weights start uniform within ``1 / sqrt(inputs)``, as in stable-baselines3 and in DDPG (Lillicrap et al. 2016,
    "Continuous control with deep reinforcement learning", section 7).

    Args:
        sizes: inputs, hidden layers, outputs.
        seeds: one a member; a member's first weights depend on its seed and on ``name`` alone.
        name: which network of an agent this is.
        last_bound: bound of the last layer's first weights; None: as the others. DDPG takes 0.003.

    Attributes:
        weights: ``[S, inputs, outputs]`` of each layer.
        biases: ``[S, 1, outputs]`` of each layer.
    """

    def __init__(self, sizes: Sequence[int], seeds: Sequence[int], name: str, last_bound: float | None = None) -> None:
        self.sizes = tuple(sizes)
        bounds = [size**-0.5 for size in self.sizes[:-1]]
        bounds[-1] = bounds[-1] if last_bound is None else last_bound
        drawn = [self._first(stream(seed, "weights", name), bounds) for seed in seeds]
        stacked = [torch.from_numpy(np.stack(same)) for same in zip(*drawn, strict=True)]
        self.weights, self.biases = stacked[0::2], stacked[1::2]

    def _first(self, rng: np.random.Generator, bounds: list[float]) -> list[np.ndarray[tuple[int, ...], np.dtype]]:
        arrays: list[np.ndarray[tuple[int, ...], np.dtype]] = []
        for inputs, outputs, bound in zip(self.sizes, self.sizes[1:], bounds, strict=False):
            arrays.append(rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32))
            arrays.append(rng.uniform(-bound, bound, (1, outputs)).astype(np.float32))
        return arrays

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs ``[S, B, outputs]`` for inputs ``[S, B, inputs]``."""
        return self._after_first(torch.baddbmm(self.biases[0], x, self.weights[0]))

    def beside(self, known: Tensor, x: Tensor) -> Tensor:
        """Outputs for ``known`` and ``x`` side by side, whose gradient is asked for ``x`` alone.

        Of two inputs that were joined autograd computes the gradient of both; that of what is known is in vain.

        Args:
            known: the first inputs, ``[S, B, known]``.
            x: the others, ``[S, B, inputs - known]``.
        """
        first, count = self.weights[0].detach(), known.shape[2]
        start = torch.baddbmm(self.biases[0].detach(), known, first[:, :count])
        return self._after_first(torch.baddbmm(start, x, first[:, count:]))

    def _after_first(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            x = torch.baddbmm(bias, x.relu_(), weight)
        return x

    @property
    def tensors(self) -> list[Tensor]:
        """Weight, bias, weight, bias, ...: ``[S, ...]`` each, the ensemble's own."""
        return [one for pair in zip(self.weights, self.biases, strict=True) for one in pair]

    def learnable(self) -> list[Tensor]:
        """`tensors`, from now on with gradients."""
        return [one.requires_grad_() for one in self.tensors]

    def copy(self) -> Self:
        """Another ensemble with the same weights, without gradients."""
        twin = copy(self)
        twin.weights = [one.detach().clone() for one in self.weights]
        twin.biases = [one.detach().clone() for one in self.biases]
        return twin

    @torch.no_grad()
    def move_towards(self, other: Ensemble, share: float) -> None:
        """``own <- own + share (other - own)``, the target networks' soft update."""
        for own, goal in zip(self.tensors, other.tensors, strict=True):
            own.lerp_(goal, share)

    def state(self, prefix: str) -> State:
        """Copies of the weights, by name."""
        return {f"{prefix}.{i}": one.detach().numpy().copy() for i, one in enumerate(self.tensors)}

    @torch.no_grad()
    def load_state(self, prefix: str, state: State) -> None:
        """Take the weights over.

        Raises:
            SchemaMismatch: a shape differs; both are named.
        """
        for index, own in enumerate(self.tensors):
            given = state[f"{prefix}.{index}"]
            if tuple(given.shape) != tuple(own.shape):
                raise SchemaMismatch(
                    f"{prefix}.{index}: the weights given have shape {given.shape}, this network's {tuple(own.shape)}; "
                    "train with the same scenario, seeds and network sizes"
                )
            own.copy_(torch.from_numpy(given))

    def layers(self, member: int, last_activation: str = "identity") -> list[Layer]:
        """A member as `edgebed.policies.forward` runs it with numpy."""
        names = ["relu"] * (len(self.weights) - 1) + [last_activation]
        return [
            Layer.of(weight[member].detach().numpy(), bias[member, 0].detach().numpy(), name)
            for weight, bias, name in zip(self.weights, self.biases, names, strict=True)
        ]


class Adam:
    """Adam (Kingma and Ba 2015) for ensembles: every step is element by element, so members do not mix.

    Args:
        tensors: ``[S, ...]`` each, with gradients.
        rate: step size.
        largest_norm: a member whose gradient's norm is above it has it scaled down to it; None: no limit.
    """

    def __init__(self, tensors: list[Tensor], rate: float, largest_norm: float | None = None) -> None:
        self._tensors = tensors
        self._largest_norm = largest_norm
        self._torch = torch.optim.Adam(tensors, lr=rate, fused=True)

    def step(self, loss: Tensor, rate: float | None = None) -> list[Tensor]:
        """One step down the gradient of ``loss``, a sum over the members.

        Args:
            loss: a scalar.
            rate: from now on; None: as it is.

        Returns:
            The gradients, a ``[S, ...]`` for each tensor.
        """
        gradients = list(torch.autograd.grad(loss, self._tensors))
        if self._largest_norm is not None:
            self._limit(gradients, self._largest_norm)
        if rate is not None:
            self._torch.param_groups[0]["lr"] = rate
        for tensor, gradient in zip(self._tensors, gradients, strict=True):
            tensor.grad = gradient
        self._torch.step()
        return gradients

    @staticmethod
    def _limit(gradients: list[Tensor], largest_norm: float) -> None:
        scale = (largest_norm / member_norms(gradients).clamp(min=1e-12)).clamp(max=1.0)
        for gradient in gradients:
            gradient *= scale[:, None, None]

    def state(self, prefix: str) -> State:
        """Copies of the moments and of the number of steps, by name; empty before the first step."""
        found: State = {}
        for index, tensor in enumerate(self._tensors):
            for name, value in self._torch.state.get(tensor, {}).items():
                found[f"{prefix}.{index}.{name}"] = value.numpy().copy()
        return found

    def load_state(self, prefix: str, state: State) -> None:
        """Take the moments over."""
        for index, tensor in enumerate(self._tensors):
            names = [name for name in ("step", "exp_avg", "exp_avg_sq") if f"{prefix}.{index}.{name}" in state]
            if names:
                self._torch.state[tensor] = {n: torch.from_numpy(state[f"{prefix}.{index}.{n}"].copy()) for n in names}


@torch.no_grad()
def member_norms(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of each member's share of the tensors ``[S, ...]``: ``[S]``."""
    return torch.stack([one.square().sum(dim=tuple(range(1, one.ndim))) for one in tensors]).sum(dim=0).sqrt()
