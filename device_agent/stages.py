"""Where a task's time went: from stamps of two clocks to stages that add up to the latency.

Stamps called ``*_s`` without more are the device's monotonic clock. The server's stamps come in a `TaskResult`; only
how up- and downlink share their sum uses the estimated clock offset, so no error of it ever reaches the latency.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from edgebed.protocol.messages import TaskResult
from edgebed.trace.schema import STAGES


class Stages(Struct, frozen=True):
    """Seconds in each stage, in the order of `edgebed.trace.schema.STAGES`; 0 where a task did not enter."""

    device_queue_s: float = 0.0
    device_compute_s: float = 0.0
    uplink_queue_s: float = 0.0
    uplink_s: float = 0.0
    server_queue_s: float = 0.0
    server_compute_s: float = 0.0
    downlink_s: float = 0.0

    def latency_s(self, decision_s: float) -> float:
        """``decision_s`` and the stages, added from left to right: whoever adds the columns gets the very same."""
        total_s = decision_s
        for name in STAGES:
            total_s += getattr(self, name)
        return total_s


NO_STAGES = Stages()


def local_stages(since_s: float, started_s: float, finished_s: float, spent: Stages = NO_STAGES) -> Stages:
    """Of a part that ran on the device.

    Args:
        since_s: when it was handed to the device's executor.
        started_s: when the executor took it.
        finished_s: when it was done, waiting that emulates a slower board included.
        spent: what it went through before that, at a server that refused it.
    """
    return replace(spent, device_queue_s=started_s - since_s, device_compute_s=finished_s - started_s)


def refused_stages(since_s: float, upload_start_s: float | None, refused_s: float) -> Stages:
    """Of a part that a server refused after its upload began, or that never came so far."""
    if upload_start_s is None:
        return Stages(uplink_queue_s=refused_s - since_s)
    return Stages(uplink_queue_s=upload_start_s - since_s, uplink_s=refused_s - upload_start_s)


class RoundTrip(Struct, frozen=True):
    """A part's way to an edge server and back.

    Attributes:
        clock_error_s: bound on the error of the split between up- and downlink.
        is_suspect: the offset puts the arrival of the last byte before the upload or after the result, by more than
            its error allows: the clocks cannot be trusted.
    """

    stages: Stages
    clock_error_s: float
    is_suspect: bool


def edge_round_trip(
    since_s: float,
    upload_start_s: float,
    result_s: float,
    result: TaskResult,
    offset_s: float | None,
    offset_error_s: float | None,
) -> RoundTrip:
    """Of a part that ran at an edge server.

    Args:
        since_s: when it was handed to the uplink.
        upload_start_s: when its Offer was sent.
        result_s: when its result came.
        result: with the server's stamps.
        offset_s: server's clock - own clock; None when unknown: then the split is a guess with an error to match.
        offset_error_s: bound on the offset's error.
    """
    received_s, finished_s = result.received_s, result.finished_s
    on_the_way_s = max(0.0, (result_s - upload_start_s) - (finished_s - received_s))
    if offset_s is None or offset_error_s is None:
        uplink_s = error_s = on_the_way_s / 2
        is_suspect = False
    else:
        estimate_s = received_s - offset_s - upload_start_s
        uplink_s = min(max(estimate_s, 0.0), on_the_way_s)
        error_s = offset_error_s
        is_suspect = abs(estimate_s - uplink_s) > offset_error_s
    started_s = result.started_s
    stages = Stages(
        0.0,
        0.0,
        upload_start_s - since_s,
        uplink_s,
        started_s - received_s,
        finished_s - started_s,
        on_the_way_s - uplink_s,
    )
    return RoundTrip(stages, error_s, is_suspect)
