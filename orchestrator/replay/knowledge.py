"""What hosts know of themselves, of the queues of `orchestrator.replay.queues`: how long they are, how fast it goes."""

from __future__ import annotations

import numpy as np

from edgebed.simulation.testbed.computing import DEVICE_SMOOTHING, SERVER_SMOOTHING
from edgebed.simulation.testbed.ingredients import DONE, FloatArray, IndexArray, Layout
from edgebed.simulation.testbed.pipeline import Load
from edgebed.types import BoolArray
from orchestrator.replay.open_tasks import OpenTasks, smooth, sum_by


class Knowledge:
    """Running means of speeds and rates, and what is to be told of the queues at an instant.

    Args:
        layout: of every lane.
        lanes: how many there are.
        here: open tasks of the devices. away: those of the edge. They are looked at, and stay as they are but for the
            mark ``is_learned``.
    """

    def __init__(self, layout: Layout, lanes: int, here: OpenTasks, away: OpenTasks) -> None:
        self._layout, self._lanes, self._here, self._away = layout, lanes, here, away
        self._devices, self._servers = lanes * layout.devices, lanes * layout.servers
        self._device_frame_s = np.tile(np.array(layout.device_frame_s, np.float64), lanes)
        self._server_frame_s = np.tile(np.array(layout.server_frame_s, np.float64), lanes)
        self._measured_bps = np.zeros(self._devices)

    def learn(self, until_s: float) -> None:
        """Bring the running means up to an instant.

        Tasks that have ended by then are to be taken away after it, and each so is learned from once.
        """
        self._learn_here(until_s)
        self._learn_there(until_s)

    def _learn_here(self, until_s: float) -> None:
        """Bring the running means of the devices' speeds up to an instant."""
        tasks = self._here
        done = np.flatnonzero(tasks["leave_s"] <= until_s)
        leave_s = tasks["leave_s"][done]
        each_s = (leave_s - tasks["begin_s"][done]) / tasks.code("frames")[done]
        smooth(self._device_frame_s, tasks.code("device")[done], leave_s, each_s, DEVICE_SMOOTHING)

    def _learn_there(self, until_s: float) -> None:
        """Bring the running means of the servers' speeds and the uplinks' rates up to an instant."""
        tasks = self._away
        is_answered = tasks.code("outcome") == DONE
        there = np.flatnonzero(is_answered & (tasks["served_s"] <= until_s) & ~tasks.mark("is_learned"))
        tasks.mark("is_learned")[there] = True
        served_s = tasks["served_s"][there]
        each_s = (served_s - tasks["serve_s"][there]) / tasks.code("frames")[there]
        smooth(self._server_frame_s, tasks.code("server")[there], served_s, each_s, SERVER_SMOOTHING)
        back = np.flatnonzero(is_answered & (tasks["known_s"] <= until_s) & (tasks["uplink_s"] > 0))
        rate_bps = 8.0 * tasks["bytes"][back] / tasks["uplink_s"][back]
        key, at_s = tasks.code("device")[back], tasks["known_s"][back]
        first = self._measured_bps[key] == 0
        if first.any():  # the first measurement is taken as it is, and moving towards itself changes nothing
            order = back[first][np.argsort(at_s[first], kind="stable")][::-1]
            self._measured_bps[tasks.code("device")[order]] = 8.0 * tasks["bytes"][order] / tasks["uplink_s"][order]
        smooth(self._measured_bps, key, at_s, rate_bps, DEVICE_SMOOTHING)

    def load(self, now_s: float, held: IndexArray) -> Load:
        """The state of the queues, as `edgebed.simulation.testbed.pipeline.Pipeline.load` has it.

        Args:
            now_s: until when they are computed.
            held: ``[lanes * servers]``, tasks at each server, from the begin of their upload.
        """
        waiting, busy, elapsed_s = self._executors(now_s)
        frame_s = self._device_frame_s
        tasks = self._away
        device, server, size = tasks.code("device"), tasks.code("server"), tasks["bytes"]
        is_placed = tasks.mark("is_placed") & (tasks["drop_s"] > now_s)
        before = is_placed & (tasks["begin_s"] > now_s)
        begun = is_placed & ~before
        uploading = begun & (tasks["received_s"] > now_s)
        # Whoever is served when its time-out comes is still held, though nobody waits for it any more.
        serving = (tasks["serve_s"] <= now_s) & (tasks["served_s"] > now_s)
        queued = begun & ~uploading & (tasks["serve_s"] > now_s)
        queued_bytes = sum_by(device, size, before, self._devices)
        return Load(
            device_queue_delay_s=self._devices_of(waiting * frame_s + np.maximum(0.0, busy * frame_s - elapsed_s)),
            device_frame_s=self._devices_of(frame_s.copy()),
            uplink_queue_bytes=self._devices_of(queued_bytes + self._unsent(begun, now_s)),
            measured_bps=self._devices_of(self._measured_bps.copy()),
            device_is_busy=self._devices_of((busy > 0).astype(np.float64)),
            server_tasks=self._servers_of(held.astype(np.float64)),
            server_queue_delay_s=self._servers_of(self._server_delay_s(queued, serving, now_s)),
            server_frame_s=self._servers_of(self._server_frame_s.copy()),
            server_busy_workers=self._servers_of(self._count(serving)),
            uploading_bytes=self._servers_of(sum_by(server, size, uploading, self._servers)),
            channel_uploads=np.zeros((self._lanes, self._layout.servers, self._layout.channels)),
        )

    def _executors(self, now_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of each device: the frames that wait, those that are computed, and for how long they have been."""
        tasks = self._here
        device, frames = tasks.code("device"), tasks.code("frames")
        is_placed = tasks.mark("is_placed") & (tasks["drop_s"] > now_s)
        before = is_placed & (tasks["begin_s"] > now_s)
        during = is_placed & ~before & (tasks["leave_s"] > now_s)
        waiting = sum_by(device, frames, before, self._devices)
        busy = sum_by(device, frames, during, self._devices)
        elapsed_s = sum_by(device, now_s - tasks["begin_s"], during, self._devices)
        return waiting, busy, elapsed_s

    def _unsent(self, begun: BoolArray, now_s: float) -> FloatArray:
        """Bytes of uploads under way that are not handed to the network yet, of each device."""
        tasks = self._away
        rows = np.flatnonzero(begun & (tasks["leave_s"] > now_s) & (tasks["hold_s"] > 0))
        left = 1.0 - (now_s - tasks["begin_s"][rows]) / tasks["hold_s"][rows]
        unsent_bytes = np.maximum(0.0, left) * tasks["bytes"][rows]
        return np.bincount(tasks.code("device")[rows], unsent_bytes, self._devices).astype(np.float64, copy=False)

    def _server_delay_s(self, queued: BoolArray, serving: BoolArray, now_s: float) -> FloatArray:
        tasks, frame_s, rows = self._away, self._server_frame_s, np.flatnonzero(serving)
        server, frames = tasks.code("server"), tasks.code("frames")
        left_s = frame_s[server[rows]] * frames[rows] - (now_s - tasks["serve_s"][rows])
        total_s = sum_by(server, frames, queued, self._servers) * frame_s
        total_s += np.bincount(server[rows], np.maximum(0.0, left_s), self._servers)
        workers = np.tile(np.array(self._layout.workers, np.float64), self._lanes)
        return np.where(self._count(queued | serving) >= workers, total_s / workers, 0.0)

    def _count(self, where: BoolArray) -> FloatArray:
        return np.bincount(self._away.code("server")[where], minlength=self._servers).astype(np.float64)

    def _devices_of(self, values: FloatArray) -> FloatArray:
        return values.reshape(self._lanes, self._layout.devices)

    def _servers_of(self, values: FloatArray) -> FloatArray:
        return values.reshape(self._lanes, self._layout.servers)
