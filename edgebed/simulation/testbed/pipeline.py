"""The queues of a testbed in virtual time: decided tasks go in, stages and outcomes come out, lane by lane.

A lane is an independent cell: a learner's environments, or the cells of an experiment, pass through together::

    pipeline = Pipeline(layout, lanes=64)
    pipeline.submit(ingredients)            # what was decided at a tick
    ended = pipeline.advance(until_s)       # up to the next one
    ...
    ended = pipeline.advance(math.inf)      # whatever is left
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from edgebed.errors import BadInput
from edgebed.simulation.testbed.hindered import HinderedLane
from edgebed.simulation.testbed.ingredients import Ended, FloatArray, IndexArray, Ingredients, Layout
from edgebed.simulation.testbed.lane import Lane
from edgebed.simulation.testbed.parts import Part

_FIELDS = tuple(each.name for each in fields(Ingredients))


@dataclass(frozen=True, slots=True)
class Load:
    """The state of the queues at one instant, as hosts know of themselves.

    Attributes:
        device_queue_delay_s: ``[lanes, devices]``, estimated time until the executor is free.
        device_frame_s: what the device believes that a frame takes.
        uplink_queue_bytes: not handed to the network yet, all uplinks.
        measured_bps: running mean of what uploads really got; 0 before the first.
        device_is_busy: the executor computes.
        server_tasks: ``[lanes, servers]``, held from the begin of their upload until their answer.
        server_queue_delay_s: estimated time until a worker is free.
        server_frame_s: what the server believes that a frame takes.
        server_busy_workers: that compute.
        uploading_bytes: offered and not yet received.
        channel_uploads: ``[lanes, servers, channels]``, in progress; 0 where channels are not shaped.
    """

    device_queue_delay_s: FloatArray
    device_frame_s: FloatArray
    uplink_queue_bytes: FloatArray
    measured_bps: FloatArray
    device_is_busy: FloatArray
    server_tasks: FloatArray
    server_queue_delay_s: FloatArray
    server_frame_s: FloatArray
    server_busy_workers: FloatArray
    uploading_bytes: FloatArray
    channel_uploads: FloatArray


class Pipeline:
    """Lanes of queues, all of one layout, on one clock.

    Attributes:
        layout: of every lane.
        now_s: how far it has come.
    """

    def __init__(self, layout: Layout, lanes: int = 1) -> None:
        if lanes < 1:
            raise BadInput(f"a pipeline of {lanes} lanes; at least 1 is needed")
        self.layout = layout
        self.now_s = 0.0
        self._lanes = [self._lane(lane) for lane in range(lanes)]

    def _lane(self, lane: int) -> Lane:
        layout = self.layout
        kind = Lane if layout.disturbances is None else HinderedLane
        return kind(layout, lane * layout.devices, lane * layout.servers)

    @property
    def open(self) -> int:
        """Tasks without an outcome."""
        return sum(lane.open for lane in self._lanes)

    def open_of(self) -> IndexArray:
        """``[lanes]``, tasks without an outcome."""
        return np.array([lane.open for lane in self._lanes], np.int64)

    def fork(self) -> Pipeline:
        """The same queues, to go on apart from these: what would come if nothing were decided any more, say."""
        other = Pipeline.__new__(Pipeline)
        other.layout, other.now_s = self.layout, self.now_s
        other._lanes = [lane.fork() for lane in self._lanes]
        return other

    def restart(self, lane: int) -> None:
        """Empty a lane, as at the begin of another episode; its clock stays that of the pipeline."""
        fresh = self._lane(lane)
        fresh.now_s = self.now_s
        self._lanes[lane] = fresh

    def forget(self, device: int, reason: int) -> None:
        """A device's program dies now: what it has not told of is unknown, and the next `advance` says so.

        Args:
            device: through all lanes.
            reason: code of `edgebed.simulation.testbed.ingredients.REASONS`.
        """
        self._lanes[device // self.layout.devices].forget(device % self.layout.devices, reason)

    @property
    def hindered(self) -> HinderedLane:
        """The only lane, to be told of what hinders its hosts; the next `advance` says what came of it."""
        (lane,) = self._lanes
        assert isinstance(lane, HinderedLane), "the layout has no disturbances"
        return lane

    def submit(self, ingredients: Ingredients) -> None:
        """Take decided tasks, of any lanes, ready now or later.

        Raises:
            BadInput: one was ready before now, or is of no device, server or channel of this pipeline.
        """
        if not len(ingredients):
            return
        self._check(ingredients)
        columns = [getattr(ingredients, name).tolist() for name in _FIELDS]
        devices = self.layout.devices
        for row in zip(*columns, strict=True):
            self._lanes[row[1] // devices].submit(row)

    def _check(self, ingredients: Ingredients) -> None:
        lanes, layout = len(self._lanes), self.layout
        if ingredients.ready_s.min() < self.now_s:
            raise BadInput(
                f"a task was ready at {ingredients.ready_s.min()} s; the pipeline is at {self.now_s} s already"
            )
        bounds = (
            ("device", ingredients.device, 0, lanes * layout.devices),
            ("server", ingredients.server, -1, lanes * layout.servers),
            ("channel", ingredients.channel, 0, layout.channels),
        )
        for name, values, low, high in bounds:
            if values.min() < low or values.max() >= high:
                raise BadInput(f"{name} {values.min()} to {values.max()}; this pipeline has {low} to {high - 1}")
        wrong = (
            (ingredients.frames < 1) | (ingredients.edge_frames < 0) | (ingredients.edge_frames > ingredients.frames)
        )
        if wrong.any():
            raise BadInput("a task has 1 frame or more, and edge_frames are 0 to all of them")
        if (ingredients.uplink_hold_s > ingredients.uplink_s).any():
            raise BadInput("uplink_hold_s is part of uplink_s and cannot be longer")

    def advance(self, until_s: float) -> Ended:
        """Let time pass.

        Args:
            until_s: up to and at this instant; infinite: until nothing is left to happen.

        Returns:
            The tasks that have ended meanwhile: by lane, and in the order in which that became known.
        """
        if until_s < self.now_s:
            raise BadInput(f"time cannot go back from {self.now_s} s to {until_s} s")
        rows = []
        for lane in self._lanes:
            lane.advance(until_s)
            rows += lane.ended
            lane.ended = []
        self.now_s = until_s if math.isfinite(until_s) else max(lane.now_s for lane in self._lanes)
        return Ended.of_rows(rows)

    @property
    def next_s(self) -> float:
        """When something will happen next; infinite when nothing will."""
        return min(lane.next_s for lane in self._lanes)

    def load(self) -> Load:
        """The state of the queues now."""
        lanes, now_s = self._lanes, self.now_s
        device_frame_s = _table([lane.device_frame_s for lane in lanes])
        running = [[_left_of(part, now_s) for part in lane.running] for lane in lanes]
        busy_frames, elapsed_s = np.moveaxis(np.array(running, np.float64), -1, 0)
        waiting = _table([lane.waiting_frames for lane in lanes])
        queue_s = waiting * device_frame_s + np.maximum(0.0, busy_frames * device_frame_s - elapsed_s)
        server_frame_s = _table([lane.server_frame_s for lane in lanes])
        return Load(
            device_queue_delay_s=queue_s,
            device_frame_s=device_frame_s,
            uplink_queue_bytes=_table([lane.waiting_bytes for lane in lanes]) + self._unsent_bytes(),
            measured_bps=_table([lane.measured_bps for lane in lanes]),
            device_is_busy=(busy_frames > 0).astype(np.float64),
            server_tasks=_table([lane.held for lane in lanes]),
            server_queue_delay_s=self._server_queue_s(server_frame_s),
            server_frame_s=server_frame_s,
            server_busy_workers=_table([[len(parts) for parts in lane.serving] for lane in lanes]),
            uploading_bytes=_table([lane.uploading_bytes for lane in lanes]),
            channel_uploads=self._channel_uploads(),
        )

    def _unsent_bytes(self) -> FloatArray:
        """What the uploads in progress still have to hand to the network, ``[lanes, devices]``."""
        layout = self.layout
        unsent = np.zeros((len(self._lanes), layout.devices))
        for number, lane in enumerate(self._lanes):
            for uplink, part in lane.uploading.items():
                if part.hold_s > 0:
                    left = max(0.0, 1.0 - (self.now_s - part.upload_s) / part.hold_s)
                    unsent[number, uplink // layout.servers] += left * part.bytes
        return unsent

    def _server_queue_s(self, server_frame_s: FloatArray) -> FloatArray:
        """As `edge_server.workers.ServiceTime.delay_s` has it."""
        delay_s = np.zeros_like(server_frame_s)
        for number, lane in enumerate(self._lanes):
            for server, parts in enumerate(lane.serving):
                workers, frame_s = self.layout.workers[server], server_frame_s[number, server]
                if len(parts) + lane.queued_tasks[server] >= workers:
                    left_s = lane.queued_frames[server] * frame_s
                    left_s += sum(max(0.0, frame_s * part.frames - (self.now_s - part.started_s)) for part in parts)
                    delay_s[number, server] = left_s / workers
        return delay_s

    def _channel_uploads(self) -> FloatArray:
        layout = self.layout
        shape = (len(self._lanes), layout.servers, layout.channels)
        if not layout.is_shaped:
            return np.zeros(shape)
        return _table([[len(channel) for channel in lane.channels] for lane in self._lanes]).reshape(shape)


def _table(rows: list[list[float]] | list[list[int]]) -> FloatArray:
    return np.array(rows, np.float64)


def _left_of(part: Part | None, now_s: float) -> tuple[float, float]:
    return (0.0, 0.0) if part is None else (part.frames, now_s - part.started_s)
