"""Feed-forward networks in numpy: what a learner has trained, evaluated where there is no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgebed.errors import SchemaMismatch
from edgebed.types import Float32Array


def _identity(x: Float32Array) -> Float32Array:
    return x


def _relu(x: Float32Array) -> Float32Array:
    return np.maximum(x, np.float32(0.0), out=x)


def _tanh(x: Float32Array) -> Float32Array:
    return np.tanh(x, out=x)


def _sigmoid(x: Float32Array) -> Float32Array:
    # Not 1 / (1 + exp(-x)), which overflows.
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x += np.float32(1.0)
    x *= np.float32(0.5)
    return x


def _elu(x: Float32Array) -> Float32Array:
    negative: Float32Array = np.expm1(np.minimum(x, np.float32(0.0)))
    return np.where(x > 0, x, negative)


def _leaky_relu(x: Float32Array) -> Float32Array:
    return np.where(x > 0, x, x * np.float32(0.01))


ACTIVATIONS: dict[str, Callable[[Float32Array], Float32Array]] = {
    "identity": _identity,
    "relu": _relu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "elu": _elu,
    "leaky_relu": _leaky_relu,
}
"""What may follow a layer, with torch's default settings. Each may overwrite its argument."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A dense layer: ``activation(x @ weight + bias)``.

    Attributes:
        weight: ``[inputs, outputs]`` (the transpose of torch's), or ``[N, inputs, outputs]``, one for each device.
        bias: ``[outputs]``, or ``[N, outputs]``.
        activation: one of `ACTIVATIONS`.
    """

    weight: Float32Array
    bias: Float32Array
    activation: str = "identity"

    @classmethod
    def of(cls, weight: ArrayLike, bias: ArrayLike, activation: str = "identity") -> Layer:
        """A layer of anything that numpy takes for arrays, as contiguous float32."""
        return cls(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32), activation)

    @property
    def inputs(self) -> int:
        """Numbers that go in."""
        return int(self.weight.shape[-2])

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return int(self.weight.shape[-1])


class Network:
    """Dense layers one after another, for a batch at once.

    Attributes:
        layers: in order.
        count: None when all rows share the weights; N when each device has its own.
        inputs, outputs: numbers that go in and come out, of a row.

    Raises:
        SchemaMismatch: two layers do not fit; both are named.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        problem = next(shape_problems(self.layers), None)
        if problem:
            raise SchemaMismatch(f"network: {problem}")
        first = self.layers[0].weight
        self.count: int | None = first.shape[0] if first.ndim == 3 else None
        self.inputs, self.outputs = self.layers[0].inputs, self.layers[-1].outputs
        self._steps = tuple((one.weight, one.bias, ACTIVATIONS[one.activation]) for one in self.layers)

    def __call__(self, x: Float32Array) -> Float32Array:
        """The outputs for a batch.

        Args:
            x: float32 ``[..., inputs]``; with weights of each device's own ``[B, N, inputs]``. It is not changed.

        Returns:
            ``[..., outputs]``, or ``[B, N, outputs]``.
        """
        if self.count is None:
            for weight, bias, activation in self._steps:
                x = x @ weight
                x += bias
                x = activation(x)
            return x
        x = x.swapaxes(0, 1)  # [N, B, inputs]: a matrix product for each device
        for weight, bias, activation in self._steps:
            x = np.matmul(x, weight)
            x += bias[:, None, :]
            x = activation(x)
        return x.swapaxes(0, 1)

    def of_device(self, index: int) -> Network:
        """The network of one device; itself when all share the weights."""
        if self.count is None:
            return self
        return Network([Layer(one.weight[index], one.bias[index], one.activation) for one in self.layers])


def shape_problems(layers: Sequence[Layer]) -> Iterator[str]:
    """Everything that does not fit in a list of layers."""
    if not layers:
        yield "has no layers"
    for index, layer in enumerate(layers):
        name = f"layer {index}"
        if layer.activation not in ACTIVATIONS:
            yield f"{name}: there is no activation {layer.activation!r}; allowed: {', '.join(ACTIVATIONS)}"
        if layer.weight.ndim not in (2, 3) or 0 in layer.weight.shape:
            yield f"{name}: weight has shape {layer.weight.shape}; allowed: [inputs, outputs] or [N, inputs, outputs]"
            return
        expected = (*layer.weight.shape[:-2], layer.outputs)
        if layer.bias.shape != expected:
            yield f"{name}: bias has shape {layer.bias.shape}; a weight of {layer.weight.shape} needs {expected}"
        for what, values in (("weight", layer.weight), ("bias", layer.bias)):
            if values.dtype != np.float32:
                yield f"{name}: {what} is {values.dtype}; float32 is needed"
            elif not np.isfinite(values).all():
                bad = int((~np.isfinite(values)).sum())
                yield f"{name}: {what} has {bad} of {values.size} numbers that are NaN or infinite"
        if index:
            before = layers[index - 1]
            if before.weight.shape[:-2] != layer.weight.shape[:-2]:
                yield f"{name} is for {layer.weight.shape[:-2] or 'all devices'}, the one before it is not"
            if before.outputs != layer.inputs:
                yield f"{name} takes {layer.inputs} numbers, the one before it gives {before.outputs}"
