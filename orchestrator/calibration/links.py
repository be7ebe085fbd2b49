"""Uplinks and downlinks, from the stages of offloaded tasks.

How long an upload keeps the uplink is seen where another upload waited for it: the one begins when the other has been
sent, so the time between their beginnings is it. What is left of ``uplink_s`` is the way of the last byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgebed.simulation.testbed.profile import Link
from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.fitting import fit_line, stored_quantiles
from orchestrator.calibration.rows import BoolArray, Rows

LEAST_WAIT_S = 0.010
"""An upload that waited for less may have waited for its program, not for the one before it."""

LEAST_PAIRS = 20
LEAST_BYTES_SPREAD = 0.05
REFUSED = ("queue_full", "draining", "not_ready")


@dataclass(frozen=True, slots=True)
class LinkFit:
    """A fitted link.

    Attributes:
        rows: uploads it was fitted to. pairs: of these, those that another one waited for.
        relative_rms: of the time on the way, against that of the model's mean.
        refusals: it was fitted to.
    """

    link: Link
    rows: int
    pairs: int
    relative_rms: float
    refusals: int


def uploads_of(rows: Rows) -> BoolArray:
    """Tasks that are done and whose way to a server and back is in their stages."""
    return np.asarray(rows.is_done & (rows["server_compute_s"] > 0) & (rows["uplink_s"] > 0))


def uploaded_bytes(rows: Rows) -> FloatArray:
    """Bytes that each sends: those of its frames that go to the edge."""
    sent: FloatArray = rows["payload_bytes"] * np.nan_to_num(rows["edge_frames"]) / rows["frames"]
    return sent


def fit_link(rows: Rows, rate_bps: float, round_trip_s: float, others: Link | None = None) -> LinkFit | None:
    """Fit one device's link.

    Args:
        rows: of one device, those included that are not usable.
        rate_bps: what the hosts file paces the uplink to; 0: not at all, then the rate is fitted.
        round_trip_s: of an idle link, as the device measured it.
        others: the link of devices alike, for refusals where this one had none.

    Returns:
        None without a single usable upload.
    """
    sent = uploads_of(rows)
    fits = sent & rows.is_usable
    if not fits.any():
        return None
    size, on_the_way_s = uploaded_bytes(rows)[fits], rows["uplink_s"][fits]
    held = _held_s(rows, sent)[fits]
    known = ~np.isnan(held)
    fitted_bps = 0.0 if rate_bps else _rate_of(size[~_has_rate(rows)[fits]], on_the_way_s[~_has_rate(rows)[fits]])
    # What a channel granted, or the hosts file paces to; where nobody limits it, what was fitted.
    row_bps = np.where(_has_rate(rows)[fits], rows["link_rate_bps"][fits], fitted_bps)
    if rate_bps:  # a channel may grant more than the uplink's pace
        row_bps = np.minimum(row_bps, rate_bps)
    bare_s = np.divide(8 * size, row_bps, out=np.zeros(len(size)), where=row_bps > 0)
    hold_s, ratio = _holding(bare_s[known], held[known])
    kept_s = hold_s + bare_s * float(np.mean(ratio))
    # Where the occupancy itself is known its variation is not counted a second time as the last byte's.
    own_s = np.where(known, held, kept_s)
    use = known if known.sum() >= LEAST_PAIRS else np.ones(len(size), np.bool_)
    delay = np.maximum(0.0, (on_the_way_s - own_s)[use])
    refusals = _refusals_s(rows)
    link = Link(
        rate_bps=None if rate_bps else fitted_bps,
        paced_bps=rate_bps,
        time_ratio=stored_quantiles(ratio),
        hold_s=hold_s,
        uplink_delay_s=stored_quantiles(delay),
        downlink_s=stored_quantiles(np.maximum(0.0, rows["downlink_s"][fits])),
        refusal_s=_refusal_quantiles(refusals, others, round_trip_s),
        round_trip_s=round_trip_s,
    )
    fitted_s = kept_s + delay.mean()
    rms = float(np.sqrt(np.mean((on_the_way_s / fitted_s - 1.0) ** 2)))
    return LinkFit(link, int(fits.sum()), int(known.sum()), rms, len(refusals))


def _has_rate(rows: Rows) -> BoolArray:
    """Uploads that somebody limited, and to how much is in the row."""
    return np.asarray(np.nan_to_num(rows["link_rate_bps"]) > 0)


def _rate_of(size: FloatArray, on_the_way_s: FloatArray) -> float:
    """Rate of a link that nobody limits, from how the time grows with the bytes; 0: it does not."""
    if len(size) < LEAST_PAIRS or np.std(size) < LEAST_BYTES_SPREAD * np.mean(size):
        return 0.0
    slope = fit_line(size, on_the_way_s).slope
    return 8.0 / slope if slope > 0 else 0.0


def _held_s(rows: Rows, sent: BoolArray) -> FloatArray:
    """How long each upload kept the uplink, ``[n]``; NaN where nobody waited for it."""
    held = np.full(len(rows), np.nan)
    start_s = rows.upload_start_s
    for positions in rows.by_cell():
        mine = positions[sent[positions]]
        mine = mine[np.argsort(start_s[mine], kind="stable")]
        for server in set(rows["server"][mine]):
            chain = mine[rows["server"][mine] == server]
            before, after = chain[:-1], chain[1:]
            waited = rows["uplink_queue_s"][after] > LEAST_WAIT_S
            # Others may lie between the two in the row's order only if they were not sent: those are not done.
            handed_over = start_s[after] - start_s[before] <= rows["uplink_s"][before] * 1.5
            pair = waited & handed_over
            held[before[pair]] = (start_s[after] - start_s[before])[pair]
    return held


def _holding(bare_s: FloatArray, held_s: FloatArray) -> tuple[float, FloatArray]:
    """Fixed seconds of an upload, and the ratios of its time to what its bytes take at their rate."""
    timed = bare_s > 0
    if timed.sum() < LEAST_PAIRS:
        return 0.0, np.ones(1)
    hold_s = max(0.0, float(np.median((held_s - bare_s)[timed])))
    return hold_s, np.maximum(0.0, held_s[timed] - hold_s) / bare_s[timed]


def _refusals_s(rows: Rows) -> FloatArray:
    refused = np.isin(rows["reason"].astype(str), REFUSED) & ~np.isnan(rows["uplink_s"]) & rows.is_usable
    times_s: FloatArray = rows["uplink_s"][refused]
    return times_s


def _refusal_quantiles(refusals_s: FloatArray, others: Link | None, round_trip_s: float) -> list[float]:
    if len(refusals_s):
        return stored_quantiles(refusals_s)
    return others.refusal_s if others is not None else [round_trip_s]
