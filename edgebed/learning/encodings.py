"""How the devices' decisions become numbers for an actor and a critic, and back.

An *output* is what the actor's last layer gives. A *stored* action is what replay keeps of an action that was taken.
An *input* is what the critic sees of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebed.learning.noise import gumbel
from edgebed.policies.forward import Layer
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

__all__ = ["Encoding", "Numbers", "OneHot", "PublishedTanh"]


class Encoding(Protocol):
    """Between an agent and the devices' actions.

    Attributes:
        outputs: width of the actor's output.
        inputs: width of the critic's action.
    """

    outputs: int
    inputs: int

    def chosen(self, outputs: Tensor) -> Tensor:
        """The critic's input for the actions that the outputs mean, ``[..., inputs]``."""

    def differentiable(self, outputs: Tensor) -> Tensor:
        """The same, with a gradient for the outputs."""

    def encoded(self, stored: NDArray[Any]) -> Tensor:
        """The critic's input for stored actions, ``[..., inputs]``."""


class Numbers:
    """Numbers in (-1, 1), as in DDPG; for continuous control.

    Args:
        count: how many an action has.
    """

    def __init__(self, count: int) -> None:
        self.outputs = self.inputs = count

    def chosen(self, outputs: Tensor) -> Tensor:
        """See `Encoding`."""
        return outputs.tanh()

    def differentiable(self, outputs: Tensor) -> Tensor:
        """See `Encoding`."""
        return outputs.tanh()

    def encoded(self, stored: NDArray[Any]) -> Tensor:
        """See `Encoding`."""
        return torch.from_numpy(stored)


class _StraightThrough(torch.autograd.Function):
    """Indicators that have the gradient of a softmax, written out: torch's takes five times as long for few choices."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, indicators: Tensor) -> Tensor:
        """``[..., N * C]`` from scores ``[..., N, C]`` and the indicators of the highest of them."""
        powers = (scores - scores.amax(-1, keepdim=True)).exp_()
        ctx.save_for_backward(powers / powers.sum(-1, keepdim=True))
        return indicators

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """``p (g - sum(p g))``, p the softmax."""
        (soft,) = ctx.saved_tensors
        weighted = soft * gradient.reshape(soft.shape)
        return weighted - soft * weighted.sum(-1, keepdim=True), None


class OneHot:
    """A score for each choice of each device; the critic sees the highest one's indicator.

    Its gradient is that of a softmax, the "straight-through" estimator (Bengio et al. 2013; Jang et al. 2017).

    Args:
        devices: N.
        choices: what a device can do; 0 is to compute locally.
        temperature: of the softmax.
    """

    def __init__(self, devices: int, choices: int, temperature: float = 1.0) -> None:
        self.devices, self.choices, self.temperature = devices, choices, temperature
        self.outputs = self.inputs = devices * choices
        self._indicator_of = np.eye(choices, dtype=np.float32)

    def _by_device(self, outputs: Tensor) -> Tensor:
        return outputs.reshape(*outputs.shape[:-1], self.devices, self.choices)

    def _indicators(self, choices: NDArray[Any]) -> Tensor:
        return torch.from_numpy(self._indicator_of.take(choices, axis=0)).flatten(-2)

    def _best(self, outputs: Tensor) -> NDArray[np.int64]:
        # Over so few choices numpy is faster than torch, as in `_indicators`.
        best: NDArray[np.int64] = self._by_device(outputs).detach().numpy().argmax(-1)
        return best

    def chosen(self, outputs: Tensor) -> Tensor:
        """See `Encoding`."""
        return self._indicators(self._best(outputs))

    def differentiable(self, outputs: Tensor) -> Tensor:
        """See `Encoding`."""
        scores = self._by_device(outputs) / self.temperature
        found: Tensor = _StraightThrough.apply(scores, self.chosen(outputs))  # type: ignore[no-untyped-call]
        return found

    def encoded(self, stored: NDArray[Any]) -> Tensor:
        """See `Encoding`."""
        return self._indicators(stored.astype(np.int64))

    def choices_of(self, stored: NDArray[Any]) -> NDArray[Any]:
        """What each device does, ``[..., N]``."""
        return stored

    def agreeing(self, outputs: Tensor, stored: NDArray[Any]) -> BoolArray:
        """Which devices' stored decisions are those that the outputs mean, ``[..., N]``."""
        agree: BoolArray = self._best(outputs) == stored
        return agree

    def explore(self, outputs: Tensor, scale: float, uniform: FloatArray) -> NDArray[Any]:
        """Stored actions with Gumbel noise on the scores.

        Args:
            outputs: ``[..., outputs]``.
            scale: of the noise; 0: none.
            uniform: numbers in [0, 1), ``[..., outputs]``.
        """
        scores = outputs.numpy() + scale * gumbel(uniform) if scale else outputs.numpy()
        chosen: NDArray[np.int8] = (
            scores.reshape(*scores.shape[:-1], self.devices, self.choices).argmax(-1).astype(np.int8)
        )
        return chosen

    def stored(self, choices: NDArray[Any]) -> NDArray[Any]:
        """What replay keeps of choices that somebody else made, ``[..., N]``."""
        return choices.astype(np.int8)

    def scores(self, layers: Sequence[Layer]) -> list[Layer]:
        """An actor's layers, so that the last gives a score for each choice of each device."""
        return list(layers)


class PublishedTanh(Numbers):
    """The published encoding: a number in (-1, 1) a device, cut into equal intervals, one a choice, in their order.

    The critic sees the number itself, and the noise is added to it.

    Args:
        devices: N.
        choices: what a device can do; the lowest interval is choice 0, to compute locally.
    """

    def __init__(self, devices: int, choices: int) -> None:
        super().__init__(devices)
        self.devices, self.choices = devices, choices

    def choices_of(self, stored: NDArray[Any]) -> NDArray[Any]:
        """What each device does, ``[..., N]``."""
        return np.clip(((stored + 1.0) / 2.0 * self.choices).astype(np.int8), 0, self.choices - 1)

    def agreeing(self, outputs: Tensor, stored: NDArray[Any]) -> BoolArray:
        """Which devices' stored numbers mean what the outputs mean, ``[..., N]``."""
        agree: BoolArray = self.choices_of(outputs.tanh().numpy()) == self.choices_of(stored)
        return agree

    def explore(self, outputs: Tensor, noise: FloatArray) -> NDArray[Any]:
        """Stored actions: the numbers with noise added, kept within [-1, 1]."""
        return np.clip(outputs.tanh().numpy() + noise, -1.0, 1.0).astype(np.float32)

    def stored(self, choices: NDArray[Any]) -> NDArray[Any]:
        """The middles of the intervals of choices that somebody else made, ``[..., N]``."""
        return ((choices + 0.5) * (2.0 / self.choices) - 1.0).astype(np.float32)

    def scores(self, layers: Sequence[Layer]) -> list[Layer]:
        """An actor's layers, so that the last gives a score for each choice of each device.

        With the cuts ``t_1 < t_2 < ...`` before the tanh, ``score_c = c x - (t_1 + ... + t_c)`` is highest for the
        interval that ``x`` lies in, because ``score_c > score_(c-1)`` just where ``x > t_c``.
        """
        cuts = np.arctanh(np.arange(1, self.choices) * 2.0 / self.choices - 1.0)
        shifts = -np.concatenate([[0.0], np.cumsum(cuts)])
        steps = np.arange(self.choices)
        last = layers[-1]
        weight = (last.weight[:, :, None] * steps).reshape(last.inputs, -1)
        bias = (last.bias[:, None] * steps + shifts).reshape(-1)
        return [*layers[:-1], Layer.of(weight, bias)]
