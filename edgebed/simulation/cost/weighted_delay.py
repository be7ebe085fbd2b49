"""Weighted sum of delays when the offloading devices share one link and one server: ``Q`` of a set ``O`` of devices.

Alone, device n would take ``u_n`` seconds on the link and ``e_n`` at the server; locally it takes ``l_n``; its weight
is ``w_n``. Given shares of the link's time and the server's cycles that add up to 1, its delay is
``u_n / share + e_n / share'``. The shares that minimise the weighted sum are proportional to ``sqrt(w u)`` and
``sqrt(w e)`` (Cauchy and Schwarz), and give

    Q(O) = sum_{n not in O} w_n l_n + (sum_{n in O} sqrt(w_n u_n))^2 + (sum_{n in O} sqrt(w_n e_n))^2.

With equal shares it is ``sum_{not O} w l + |O| sum_O w u + |O| sum_O w e``. Either way Q depends on O only through sums
over O, so that it takes a few additions to know it for every set: `every_set` builds the sums of all ``2^N`` sets by
doubling. The equations of Q are Zhang et al.'s (2022, meta reinforcement learning); how link and server are shared,
they leave open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.types import BoolArray

FloatArray = NDArray[np.float64]

MOST_ENUMERATED = 20
"""Devices up to which all sets are tried: a million of them."""

_SETS_AT_ONCE = 2**22
"""How many sets, of all rows together, are held in memory."""


@dataclass(frozen=True, slots=True)
class Delays:
    """What each device would take, ``[R, N]`` each.

    Attributes:
        local: ``w l``.
        link: ``w u``, alone on the link.
        server: ``w e``, alone at the server.
        equal_split: whether shares are equal, not the best.
    """

    local: FloatArray
    link: FloatArray
    server: FloatArray
    equal_split: bool = False

    def rows(self, rows: slice) -> Delays:
        """These rows only."""
        return Delays(self.local[rows], self.link[rows], self.server[rows], self.equal_split)


def per_device(delays: Delays, offloads: BoolArray) -> FloatArray:
    """Weighted delay of each device given who offloads, ``[R, N]``; their sum is Q.

    Args:
        delays: of the devices.
        offloads: ``[R, N]``.
    """
    if delays.equal_split:
        shared = (delays.link + delays.server) * offloads.sum(axis=1)[:, None]
    else:
        link, server = np.sqrt(delays.link), np.sqrt(delays.server)
        shared = link * (link * offloads).sum(axis=1)[:, None] + server * (server * offloads).sum(axis=1)[:, None]
    return np.where(offloads, shared, delays.local)


def weighted_delay(delays: Delays, offloads: BoolArray) -> FloatArray:
    """Q, ``[R]``."""
    total: FloatArray = per_device(delays, offloads).sum(axis=1)
    return total


def candidates_delay(delays: Delays, offloads: BoolArray) -> FloatArray:
    """Q of several decisions for each row.

    Args:
        delays: of the devices.
        offloads: ``[R, C, N]``.

    Returns:
        ``[R, C]``.
    """
    kept = (delays.local[:, None] * ~offloads).sum(axis=2)
    if delays.equal_split:
        link = ((delays.link + delays.server)[:, None] * offloads).sum(axis=2)
        total: FloatArray = kept + offloads.sum(axis=2) * link
        return total
    link = (np.sqrt(delays.link)[:, None] * offloads).sum(axis=2)
    server = (np.sqrt(delays.server)[:, None] * offloads).sum(axis=2)
    best_split: FloatArray = kept + np.square(link) + np.square(server)
    return best_split


def every_set(delays: Delays) -> FloatArray:
    """Q of every set, ``[R, 2^N]``; device n is in set number s if bit n of s is 1."""
    saved = _sums(delays.local)
    total = saved[:, -1:] - saved
    if delays.equal_split:
        members = _sums(np.ones_like(delays.local))
        total += members * (_sums(delays.link) + _sums(delays.server))
        return total
    total += np.square(_sums(np.sqrt(delays.link)))
    total += np.square(_sums(np.sqrt(delays.server)))
    return total


def best_sets(delays: Delays) -> tuple[BoolArray, FloatArray]:
    """The best decision by trying all, and its Q.

    Returns:
        who offloads, ``[R, N]``, and Q, ``[R]``.

    Raises:
        BadInput: there are too many devices to try all sets.
    """
    rows, devices = len(delays.local), delays.local.shape[1]
    if devices > MOST_ENUMERATED:
        raise BadInput(
            f"the best of all decisions is found by trying them, for at most {MOST_ENUMERATED} devices; there are "
            f"{devices}; use steepest descent"
        )
    offloads = np.zeros((rows, devices), np.bool_)
    best = np.zeros(rows)
    at_once = max(1, _SETS_AT_ONCE >> devices)
    for first in range(0, rows, at_once):
        some = slice(first, first + at_once)
        total = every_set(delays.rows(some))
        chosen = total.argmin(axis=1)
        best[some] = total[np.arange(len(total)), chosen]
        offloads[some] = (chosen[:, None] >> np.arange(devices)) & 1
    return offloads, best


def descended(delays: Delays) -> tuple[BoolArray, FloatArray]:
    """Steepest descent from "nobody offloads": the flip of one device that lowers Q most, until none does.

    Returns:
        who offloads, ``[R, N]``, and Q, ``[R]``.
    """
    offloads: BoolArray = np.zeros(delays.local.shape, np.bool_)
    total = weighted_delay(delays, offloads)
    for _ in range(offloads.shape[1] ** 2):  # far more than it takes; each flip lowers Q, so that it ends anyway
        tried = _flipped_delay(delays, offloads)
        flip = tried.argmin(axis=1)
        lowest = tried[np.arange(len(tried)), flip]
        better = lowest < total
        if not better.any():
            break
        offloads[better, flip[better]] ^= True
        total = np.where(better, lowest, total)
    return offloads, total


def _flipped_delay(delays: Delays, offloads: BoolArray) -> FloatArray:
    """Q if device n alone changes its mind, ``[R, N]``."""
    sign = np.where(offloads, -1.0, 1.0)
    kept: FloatArray = (delays.local * ~offloads).sum(axis=1)[:, None] - sign * delays.local
    if delays.equal_split:
        shared = delays.link + delays.server
        members = offloads.sum(axis=1)[:, None] + sign
        total: FloatArray = kept + members * ((shared * offloads).sum(axis=1)[:, None] + sign * shared)
        return total
    for part in (np.sqrt(delays.link), np.sqrt(delays.server)):
        kept += np.square((part * offloads).sum(axis=1)[:, None] + sign * part)
    return kept


def _sums(values: FloatArray) -> FloatArray:
    """Sums over every set, ``[R, 2^N]``, by doubling: those without the next device, then those with it."""
    sums: FloatArray = np.zeros((len(values), 1))
    for device in range(values.shape[1]):
        sums = np.concatenate([sums, sums + values[:, device : device + 1]], axis=1)
    return sums
