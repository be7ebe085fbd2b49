"""Orthogonal access: the k uploads on a channel get ``w/k`` each: ``(w/k) log2(1 + p g / (noise / k))``.

Frequency division in equal parts; white noise, so a part of the band has that part of the noise. Assumed, no paper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.places import row_starts
from edgebed.simulation.radio import Channels
from edgebed.simulation.radio.shannon import shannon_bps


def uploads_on_own_channel(channel: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """How many uploads there are on each upload's channel, itself included; ``[B, N]``."""
    batch, devices = channel.shape
    place = channel + row_starts(batch, devices, count + 1)
    uploads = np.bincount(place.ravel(), minlength=batch * (count + 1))
    return uploads.astype(np.float64).take(place, mode="clip")


def frequency_split_rates_bps(
    channel: NDArray[np.integer], received_w: NDArray[np.float64], channels: Channels
) -> NDArray[np.float64]:
    """See `edgebed.simulation.radio.RadioModel`."""
    sharers = uploads_on_own_channel(channel, channels.count)
    rates = shannon_bps(channels.bandwidth_hz, received_w * sharers / channels.noise_w)
    return np.divide(rates, sharers, out=rates)


MODEL = frequency_split_rates_bps
