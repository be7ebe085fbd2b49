"""Interference on shared channels: ``w log2(1 + p_i g_i / (noise + sum of the others' p_j g_j on the channel))``.

Qiu et al. 2021 (DC-DRL). Their published code counts a device's own signal as interference, which caps every rate at
``w``; the equation does not, nor do we.

The others' power is the channel's total minus the device's own, so it is off by at most some rounding errors of the
strongest signal on the channel; it is exactly 0 for a device alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.bounds import not_negative
from edgebed.simulation.places import row_starts
from edgebed.simulation.radio import Channels
from edgebed.simulation.radio.shannon import shannon_bps


def interference_rates_bps(
    channel: NDArray[np.integer], received_w: NDArray[np.float64], channels: Channels
) -> NDArray[np.float64]:
    """See `edgebed.simulation.radio.RadioModel`."""
    batch, devices = channel.shape
    width = channels.count + 1
    place = channel + row_starts(batch, devices, width)
    total_w = np.bincount(place.ravel(), weights=received_w.ravel(), minlength=batch * width)
    others_w: NDArray[np.float64] = total_w.astype(np.float64, copy=False).take(place, mode="clip")
    others_w -= received_w
    not_negative(others_w)
    others_w += channels.noise_w
    return shannon_bps(channels.bandwidth_hz, np.divide(received_w, others_w, out=others_w))


MODEL = interference_rates_bps
