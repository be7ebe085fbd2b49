"""Time sharing: the k uploads on a channel take turns, each at full bandwidth: ``(1/k) w log2(1 + p g / noise)``.

Time division in equal parts, with the power as it is while a device sends. Assumed, no paper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.radio import Channels
from edgebed.simulation.radio.orthogonal import uploads_on_own_channel
from edgebed.simulation.radio.shannon import shannon_bps


def time_split_rates_bps(
    channel: NDArray[np.integer], received_w: NDArray[np.float64], channels: Channels
) -> NDArray[np.float64]:
    """See `edgebed.simulation.radio.RadioModel`."""
    rates = shannon_bps(channels.bandwidth_hz, received_w / channels.noise_w)
    return np.divide(rates, uploads_on_own_channel(channel, channels.count), out=rates)


MODEL = time_split_rates_bps
