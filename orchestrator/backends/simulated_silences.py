"""What silences between hosts do to a simulated cell: to its queues, to its decisions, and to what policies see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from edge_server.controller.controller import GATHER_SHARE
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.ingredients import Ended, FloatArray, IndexArray
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.types import BoolArray, Observation
from orchestrator.faults.happening import LOADING_S
from orchestrator.faults.silences import DEAD_AFTER_S, Silences, Span, span_at

Act = tuple[float, int, Callable[[], Ended]]
"""When it happens, its place among what happens at one instant, and what it is; it gives the tasks that end by it."""

_BEGINS, _LISTENS, _LOST, _ANSWERS, _OPENS = range(5)


class Hindrances:
    """The silences of one cell.

    Args:
        cell: the cell.
        silences: that its faults come to.
        pipeline: its queues.
    """

    def __init__(self, cell: CellSpec, silences: Silences, pipeline: Pipeline) -> None:
        self._cell, self._silences, self._pipeline = cell, silences, pipeline
        slots, servers = range(len(cell.devices)), range(len(cell.servers))
        self._of_controller = [silences.of_controller(slot) for slot in slots] if silences else []
        self._of_server = (
            [[silences.of_server(slot, server) for server in servers] for slot in slots] if silences else []
        )
        self._stops = [silences.stops.get(slot, []) for slot in slots] if silences else []

    def __bool__(self) -> bool:
        return bool(self._silences)

    # -- queues -------------------------------------------------------------------------------------------------------

    def acts(self) -> Iterator[Act]:
        """What the queues are to be told, and when."""
        if not self:
            return
        for at_s, place, act in (*self._of_devices(), *self._of_servers(), *self._of_pairs()):
            yield at_s, place, partial(self._do, act)

    def _do(self, act: Callable[[], None]) -> Ended:
        act()
        return self._pipeline.advance(self._pipeline.now_s)

    def _of_devices(self) -> Iterator[tuple[float, int, Callable[[], None]]]:
        lane = self._pipeline.hindered
        servers = range(len(self._cell.servers))
        for slot, spans in self._silences.stops.items():
            for span in spans:
                yield span.from_s, _BEGINS, partial(lane.stop_device, slot, span.until_s)
                if span.lost_s is not None:
                    for server in servers:
                        yield span.lost_s, _LOST, partial(lane.miss, slot, server)
                        yield span.until_s, _ANSWERS, partial(lane.welcome, slot, server, is_another=False)
        for slot, spans in self._silences.cuts.items():
            for span in spans:
                for server in servers:
                    yield span.from_s, _BEGINS, partial(lane.cut, slot, server, span.until_s)

    def _of_servers(self) -> Iterator[tuple[float, int, Callable[[], None]]]:
        lane = self._pipeline.hindered
        for server, spans in self._silences.server_stops.items():
            for span in spans:
                yield span.from_s, _BEGINS, partial(lane.stop_server, server, span.until_s)
        for server, spans in self._silences.server_deaths.items():
            for span in spans:
                yield span.from_s, _BEGINS, partial(lane.kill_server, server)
                yield span.until_s, _LISTENS, partial(lane.start_server, server)
                yield span.until_s + LOADING_S, _OPENS, partial(lane.open_server, server)

    def _of_pairs(self) -> Iterator[tuple[float, int, Callable[[], None]]]:
        lane = self._pipeline.hindered
        for slot, by_server in enumerate(self._of_server):
            for server, spans in enumerate(by_server):
                for span in spans:
                    if span.lost_s is not None:
                        yield span.lost_s, _LOST, partial(lane.lose, slot, server)
                    if span.lost_s is not None or span.is_another:
                        again = partial(lane.welcome, slot, server, is_another=span.is_another)
                        yield span.until_s, _ANSWERS, again

    # -- what is seen -------------------------------------------------------------------------------------------------

    def mask(self, seen: Observation) -> None:
        """Forbid what devices cannot reach, as far as they know."""
        now_s, channels = self._pipeline.now_s, self._cell.channels.count
        for slot, by_server in enumerate(self._of_server):
            for server, spans in enumerate(by_server):
                if _is_lost(span_at(spans, now_s), now_s):
                    first = 1 + server * channels
                    seen.allowed_actions[slot, first : first + channels] = False

    def hide(self, seen: Observation) -> None:
        """Take what does not reach the controller in time out of an observation."""
        now_s = self._pipeline.now_s
        for slot, spans in enumerate(self._stops):
            span = span_at(spans, now_s) or span_at(self._silences.cuts.get(slot, ()), now_s)
            if span is not None:
                seen.values[slot], seen.present[slot] = 0.0, False
                seen.age_s[slot] = now_s - span.from_s
                seen.allowed_actions[slot] = True

    # -- decisions ----------------------------------------------------------------------------------------------------

    @property
    def controllers(self) -> int:
        """How many programs have been the controller until now, but for the first."""
        now_s = self._pipeline.now_s
        return sum(span.is_another and span.until_s <= now_s for span in self._silences.controller)

    def is_decided(self, seen: Observation) -> bool:
        """Will a controller decide this epoch, in time or not? It does when somebody reports for it."""
        if not self:
            return True
        now_s = self._pipeline.now_s
        span = span_at(self._silences.controller, now_s)
        # One that stood still takes up at the newest epoch.
        is_there = span is None or (not span.is_another and span.until_s < now_s + self._cell.epoch_s)
        return is_there and bool(seen.present.any())

    def waits(self, delay_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How long devices wait for the controller's decision of this tick.

        Args:
            delay_s: ``[slots]``, until each knows it when nothing is in the way.

        Returns:
            The same with what is in the way, and when each gives up waiting; ``[slots]``, from the tick.
        """
        patience_s = self._cell.timeouts.decision_s
        give_up_s = np.full(len(delay_s), patience_s)
        if not self:
            return delay_s, give_up_s
        now_s, delay_s = self._pipeline.now_s, delay_s.copy()
        for slot, spans in enumerate(self._of_controller):
            span, stop = span_at(spans, now_s), span_at(self._stops[slot], now_s)
            if span is not None:
                delay_s[slot] = math.inf if span.is_another else delay_s[slot] + span.until_s - now_s
                if _is_lost(span, now_s):
                    delay_s[slot], give_up_s[slot] = math.inf, 0.0
            if stop is not None:  # what is due meanwhile is dealt with when it goes on
                give_up_s[slot] = wakes_s = stop.until_s - now_s
                # The decision waits for it; but whoever has been given up is told none.
                delay_s[slot] = math.inf if stop.lost_s is not None else max(delay_s[slot], wakes_s)
                if stop.lost_s is None and math.isfinite(delay_s[slot]):
                    give_up_s[slot] = math.inf
        return delay_s, give_up_s

    def straggling_s(self, is_awaited: BoolArray) -> float:
        """How much later the controller decides because it waits for somebody in vain.

        Args:
            is_awaited: ``[slots]``, devices whose programs have died, and that it takes for connected.
        """
        now_s = self._pipeline.now_s
        silent = [*self._stops, *self._silences.cuts.values()]
        spans = (span_at(spans, now_s) for spans in silent)
        is_silent = any(span is not None and now_s < span.from_s + DEAD_AFTER_S for span in spans)
        is_in_vain = is_silent or bool(is_awaited.any())
        return GATHER_SHARE * self._cell.timeouts.decision_s if is_in_vain else 0.0

    def awake_s(self, slot: IndexArray, instant_s: FloatArray) -> FloatArray:
        """The same instants, or when a device that stands still then goes on."""
        if not any(self._stops):
            return instant_s
        found = instant_s.copy()
        for row, (device, at_s) in enumerate(zip(slot.tolist(), instant_s.tolist(), strict=True)):
            span = span_at(self._stops[device], at_s)
            found[row] = at_s if span is None else span.until_s
        return found


def _is_lost(span: Span | None, now_s: float) -> bool:
    return span is not None and span.lost_s is not None and span.lost_s <= now_s
