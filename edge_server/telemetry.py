"""What the server says about itself: features for those who decide, samples and events for the trace."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgebed.clock import Clock
from edgebed.configuration import ServerConfig
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.metering.base import Meter, MeterSetup
from edgebed.metering.board import Board
from edgebed.metering.cross_check import CheckedMeter
from edgebed.metering.health import HostSampler
from edgebed.metering.registry import open_checked_meter
from edgebed.protocol.liveness import ClockOffset
from edgebed.trace.outbox import Outbox
from edgebed.trace.schema import EventRecord, SampleRecord

_log = logging.getLogger("edge_server")

MOST_EARLY_EVENTS = 100
"""Events that may wait for the run's clock to be known."""


@dataclass(slots=True)
class RunClock:
    """The run's clock, as a started cell tells it.

    Attributes:
        start_s: an instant of the controller's monotonic clock, which is ``run_clock_s`` in the run.
        offset: the controller's clock against ours. What it says once it is known is kept: a controller that is
            restarted on another clock tells its own start.
    """

    serial: int
    start_s: float
    run_clock_s: float
    offset: ClockOffset
    _own_start_s: float | None = None

    def at(self, own_s: float) -> float | None:
        """An instant of our own clock on the run's clock; None while the offset is not known yet."""
        if self._own_start_s is None:
            if self.offset.offset_s is None:
                return None
            self._own_start_s = self.offset.to_own(self.start_s)
        return self.run_clock_s + own_s - self._own_start_s


@dataclass(slots=True)
class Allowance:
    """Bounds how many events there can be, whatever happens: a burst, and then a steady rate.

    Attributes:
        left: how many may come now.
    """

    burst: float = 200.0
    rate_hz: float = 2.0
    left: float = 200.0
    at_s: float = 0.0

    def take(self, now_s: float) -> bool:
        """May one more come? Answering True counts it."""
        self.left = min(self.burst, self.left + (now_s - self.at_s) * self.rate_hz)
        self.at_s = now_s
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Telemetry:
    """Samples this host and keeps events, as rows in the outbox.

    Args:
        board: for the meter; without one there is none.

    Attributes:
        run_clock: None until a cell has been started.
        cpu: busy share of the processors at the newest sample.
    """

    def __init__(self, config: ServerConfig, clock: Clock, board: Board | None, outbox: Outbox) -> None:
        self._name = config.name
        self._clock = clock
        self._outbox = outbox
        self._interval_s = config.sample_interval_s
        self._due_s = clock.now_s()
        self._sampling = False
        self._early: list[tuple[float, str, str]] = []
        self._allowance = Allowance(at_s=clock.now_s())
        self.run_clock: RunClock | None = None
        self.cpu = 0.0
        self._meter: Meter | None = None
        self._meter_problem: str | None = None
        self._sampler = self._open_sampler(config, board)

    def _open_sampler(self, config: ServerConfig, board: Board | None) -> HostSampler:
        sysfs_root, proc_root = Path(config.sysfs_root), Path(config.proc_root)
        meter = None
        if board is not None and config.power_meter is not None:
            try:
                setup = MeterSetup(self._clock, board, sysfs_root, proc_root, config.meter_options)
                other = (config.second_meter, config.second_meter_options)
                meter = self._meter = open_checked_meter(config.power_meter, setup, *other)
            except EdgebedError as error:
                # A server without its meter still serves; the trace says why there is no power.
                self.event("meter_failed", {"meter": config.meter, "problem": str(error)})
        return HostSampler(
            self._clock, sysfs_root, proc_root, meter=meter, host=config.name, shares_machine=config.shares_machine
        )

    def start(self, run_clock: RunClock) -> None:
        """A cell runs from now on: samples are rows of it."""
        self.run_clock = run_clock
        self._sampling = True

    def stop(self) -> None:
        """No cell runs any more."""
        self._sampling = False

    def turn(self, now_s: float) -> None:
        """Take a sample when it is time, and write down events that waited for the run's clock."""
        if self._early:
            early, self._early = self._early, []
            for own_s, kind, detail in early:
                self._append_event(own_s, kind, detail)
        if now_s < self._due_s:
            return
        self._due_s = max(self._due_s + self._interval_s, now_s)
        if self._sampling:
            self._sample(now_s)

    def _sample(self, now_s: float) -> None:
        sample = self._sampler.sample()
        self.cpu = sample.cpu or 0.0
        self._report_meter()
        run_clock = self.run_clock
        t_s = None if run_clock is None else run_clock.at(now_s)
        if run_clock is None or t_s is None:
            return
        self._append("sample", run_clock.serial, SampleRecord(host=sample.host, t_s=t_s, **sample.columns()))

    def _report_meter(self) -> None:
        """A meter that is lost, is back, or is contradicted by the second one is an event."""
        problem = self._sampler.meter_problem
        if problem != self._meter_problem:
            self._meter_problem = problem
            self.event("meter_lost" if problem else "meter_back", {"problem": problem})
        if isinstance(self._meter, CheckedMeter):
            for found in self._meter.take_disagreements():
                self.event("meters_disagree", found.detail)

    def event(self, kind: str, detail: Mapping[str, object]) -> None:
        """Something has happened. It waits until the run's clock is known; too many in a short time are only logged."""
        _log.info("%s %s", kind, dict(detail))
        own_s = self._clock.now_s()
        if self._allowance.take(own_s):
            self._append_event(own_s, kind, json.dumps(dict(detail)))

    def _append_event(self, own_s: float, kind: str, detail: str) -> None:
        run_clock = self.run_clock
        t_s = None if run_clock is None else run_clock.at(own_s)
        if run_clock is not None and t_s is not None:
            self._append("event", run_clock.serial, EventRecord(t_s=t_s, host=self._name, kind=kind, detail=detail))
        elif len(self._early) < MOST_EARLY_EVENTS:
            self._early.append((own_s, kind, detail))

    def _append(self, kind: str, serial: int, row: SampleRecord | EventRecord) -> None:
        try:
            self._outbox.append(kind, serial, row)
        except WorkFailed as error:
            _log.error("a row is lost: %s", error)  # the disk refuses, and 100,000 rows wait for it already
