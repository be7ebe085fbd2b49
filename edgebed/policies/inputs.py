"""What becomes of an observation before a network's first layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgebed.types import Float32Array

TRANSFORMS = ("linear", "log10", "log1p")
_LEAST_LOG = np.float32(1e-30)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What becomes of the observation before the first layer: ``clip((transform(x) - mean) / scale)``.

    Attributes:
        mean, scale: float32, one for each input.
        transforms: of each input, one of `TRANSFORMS` (``log10`` takes at least 1e-30, ``log1p`` at least 0); empty:
            all linear.
        clip: normalised inputs are limited to [-clip, clip].
    """

    mean: Float32Array
    scale: Float32Array
    transforms: tuple[str, ...] = ()
    clip: float = 1e6
    _low: Float32Array = field(init=False, repr=False)
    _high: Float32Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Inputs are limited before they are divided, so that nothing overflows; nor do the limits themselves.
        largest = np.finfo(np.float32).max
        spread = self.clip * self.scale.astype(np.float64) if self.scale.shape == self.mean.shape else 0.0
        for name, limit in (("_low", self.mean - spread), ("_high", self.mean + spread)):
            object.__setattr__(self, name, np.clip(limit, -largest, largest).astype(np.float32))

    @classmethod
    def unchanged(cls, width: int) -> Inputs:
        """Nothing is done to them."""
        return cls(np.zeros(width, np.float32), np.ones(width, np.float32))

    def __call__(self, x: Float32Array) -> Float32Array:
        """Normalised inputs, ``[..., inputs]``, a new array."""
        if self.transforms:
            x = self._transformed(x)
        x = np.minimum(np.maximum(x, self._low), self._high)
        x -= self.mean
        x /= self.scale
        return x

    def _transformed(self, x: Float32Array) -> Float32Array:
        x = np.array(x, np.float32)
        kinds = np.array(self.transforms)
        for kind, function, least in (("log10", np.log10, _LEAST_LOG), ("log1p", np.log1p, np.float32(0.0))):
            columns = np.flatnonzero(kinds == kind)
            if columns.size:
                x[..., columns] = function(np.maximum(x[..., columns], least))
        return x

    def problems(self, width: int) -> Iterator[str]:
        """Everything that does not fit ``width`` inputs."""
        for name in ("mean", "scale"):
            values = getattr(self, name)
            if values.shape != (width,):
                yield f"normalisation: {name} has shape {values.shape}; the network takes {width} inputs"
            elif not np.isfinite(values).all():
                yield f"normalisation: {name} has numbers that are NaN or infinite"
        if not (np.asarray(self.scale) > 0).all():
            yield "normalisation: every scale must be above 0"
        if self.transforms and len(self.transforms) != width:
            yield f"normalisation: {len(self.transforms)} transforms for {width} inputs"
        unknown = sorted(set(self.transforms) - set(TRANSFORMS))
        if unknown:
            yield f"normalisation: there is no transform {', '.join(unknown)}; allowed: {', '.join(TRANSFORMS)}"
        if not 0 < self.clip <= 1e9:
            yield f"normalisation: clip is {self.clip}; allowed: above 0, at most 1e9"
