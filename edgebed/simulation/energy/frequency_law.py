"""Energy of computing at a chosen frequency: ``k c f^e`` for ``c`` cycles at ``f`` cycles/s.

``e = 2`` is physics: the dynamic power of CMOS is ``k f^3``, over ``c / f`` seconds (Burd and Brodersen 1996). Some
published code has ``e = 1`` with the same ``k``, which makes local computing nearly free.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def computing_at_j(cycles: FloatArray, frequency_hz: FloatArray, coefficient: float, exponent: float) -> FloatArray:
    """``k c f^e`` in joules, as ``cycles``."""
    energy_j: FloatArray = cycles * coefficient
    energy_j *= frequency_hz if exponent == 1.0 else frequency_hz**exponent
    return energy_j
