"""What the outputs of a network mean: a choice a device, numbers a device, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgebed.types import BoolArray, Feature, Float32Array, IntArray

HEADS = {
    "categorical_per_device": "a score for each choice; the highest is taken",
    "choice_and_numbers": "the scores of the choices, then the numbers, each squashed into its range",
    "numbers": "numbers, each squashed into its range",
    "sigmoid_threshold": "one score; choice 1 where it is above 0 (a probability above one half), else choice 0",
}
"""Each with the meaning of a device's outputs. A joint network's outputs lie device by device."""

SQUASHES: dict[str, Callable[[Float32Array], Float32Array]] = {
    "tanh": np.tanh,
    "sigmoid": lambda x: np.tanh(x * np.float32(0.5)),
    "tanh_cubed": lambda x: np.tanh(x) ** 3,
    "clip": lambda x: np.clip(x, -1.0, 1.0),
}
"""From any number to [-1, 1], which is then stretched over the number's range. ``sigmoid`` is the logistic function."""


_NEVER = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class Head:
    """How the outputs of a network become actions.

    Attributes:
        kind: one of `HEADS`.
        choices: how many choices a device has; 0 when it has none.
        numbers: name, unit and range of each number.
        squash: one of `SQUASHES`.
    """

    kind: str
    choices: int
    numbers: tuple[Feature, ...] = ()
    squash: str = "tanh"

    @property
    def outputs(self) -> int:
        """Outputs that a device takes."""
        if self.kind == "sigmoid_threshold":
            return 1
        return (0 if self.kind == "numbers" else self.choices) + len(self.numbers)

    def problems(self) -> Iterator[str]:
        """Everything that does not fit together."""
        if self.kind not in HEADS:
            yield f"there is no head {self.kind!r}; allowed: {', '.join(HEADS)}"
        if self.squash not in SQUASHES:
            yield f"there is no squash {self.squash!r}; allowed: {', '.join(SQUASHES)}"
        with_numbers = self.kind in ("choice_and_numbers", "numbers")
        if with_numbers != bool(self.numbers):
            yield f"the head {self.kind} and {len(self.numbers)} numbers in an action do not go together"
        if (self.kind == "numbers") != (self.choices == 0):
            yield f"the head {self.kind} and {self.choices} choices in an action do not go together"
        if self.kind == "sigmoid_threshold" and self.choices != 2:
            yield f"the head sigmoid_threshold needs 2 choices, the action has {self.choices}"
        for one in self.numbers:
            if not (np.isfinite(one.low) and np.isfinite(one.high) and one.low < one.high):
                yield f"the number {one.name} has the range {one.low} to {one.high}; a finite one is needed"

    def choice(self, outputs: Float32Array, allowed: BoolArray | None = None) -> IntArray:
        """The choice of each device, ``[..., N]``; the first of equals.

        Args:
            outputs: ``[..., N, outputs]``.
            allowed: ``[..., N, choices]``, True = allowed; where nothing is, choice 0.
        """
        if self.kind == "sigmoid_threshold":
            scores = np.concatenate([np.zeros_like(outputs), outputs], axis=-1)
        else:
            scores = outputs[..., : self.choices]
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        chosen: IntArray = scores.argmax(axis=-1).astype(np.int32)
        return chosen

    def one_choice(self, outputs: Float32Array, allowed: BoolArray) -> int:
        """`choice` of one device, ``[outputs]`` and ``[choices]``, with less ado."""
        scores = np.array([0.0, outputs[0]]) if self.kind == "sigmoid_threshold" else outputs[: self.choices]
        return int(np.where(allowed, scores, _NEVER).argmax())

    def values(self, outputs: Float32Array) -> Float32Array:
        """The numbers of each device, ``[..., N, numbers]``, each within its range.

        Args:
            outputs: ``[..., N, outputs]``.
        """
        raw = outputs[..., 0 if self.kind == "numbers" else self.choices :]
        low = np.array([one.low for one in self.numbers], np.float32)
        high = np.array([one.high for one in self.numbers], np.float32)
        spread = (SQUASHES[self.squash](raw) + np.float32(1.0)) * np.float32(0.5)
        return np.clip(low + spread * (high - low), low, high)

    def actions(self, outputs: Float32Array, allowed: BoolArray | None = None) -> np.ndarray[tuple[int, ...], np.dtype]:
        """Actions as a scenario's layout has them.

        Returns:
            int32 ``[..., N]`` for choices alone, float32 ``[..., N, numbers]`` for numbers alone, and both together
            as float32 ``[..., N, 1 + numbers]``, the choice first.
        """
        if not self.numbers:
            return self.choice(outputs, allowed)
        if not self.choices:
            return self.values(outputs)
        chosen = self.choice(outputs, allowed).astype(np.float32)[..., None]
        return np.concatenate([chosen, self.values(outputs)], axis=-1)
