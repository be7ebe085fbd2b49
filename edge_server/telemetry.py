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
from edgebed.metering.base import MeterSetup
from edgebed.metering.board import Board
from edgebed.metering.health import HostSampler
from edgebed.metering.registry import open_meter
from edgebed.protocol.liveness import ClockOffset
from edgebed.trace.outbox import Outbox
from edgebed.trace.schema import EventRecord, SampleRecord

_log = logging.getLogger("edge_server")

MOST_EARLY_EVENTS = 100
"""Events that may wait for the run's clock to be known."""


@dataclass(frozen=True, slots=True)
class RunClock:
    """The run's clock, as a started cell tells it.

    Attributes:
        start_s: an instant of the controller's monotonic clock, which is ``run_clock_s`` in the run.
        offset: the controller's clock against ours; looked at late, as it gets better with every ping.
    """

    serial: int
    start_s: float
    run_clock_s: float
    offset: ClockOffset

    def at(self, own_s: float) -> float:
        """An instant of our own clock on the run's clock."""
        return self.run_clock_s + own_s - self.offset.to_own(self.start_s)


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
        self.run_clock: RunClock | None = None
        self.cpu = 0.0
        self._sampler = self._open_sampler(config, board)

    def _open_sampler(self, config: ServerConfig, board: Board | None) -> HostSampler:
        sysfs_root, proc_root = Path(config.sysfs_root), Path(config.proc_root)
        meter = None
        if board is not None:
            try:
                setup = MeterSetup(self._clock, board, sysfs_root, proc_root, config.meter_options)
                meter = open_meter(config.meter, setup)
            except EdgebedError as error:
                # A server without its meter still serves; the trace says why there is no power.
                self.event("meter_failed", {"meter": config.meter, "problem": str(error)})
        return HostSampler(self._clock, sysfs_root, proc_root, meter=meter, host=config.name)

    def start(self, run_clock: RunClock) -> None:
        """A cell runs from now on: samples are rows of it."""
        self.run_clock = run_clock
        self._sampling = True
        early, self._early = self._early, []
        for own_s, kind, detail in early:
            self._append_event(run_clock, own_s, kind, detail)

    def stop(self) -> None:
        """No cell runs any more."""
        self._sampling = False

    def turn(self, now_s: float) -> None:
        """Take a sample when it is time."""
        if now_s < self._due_s:
            return
        self._due_s = max(self._due_s + self._interval_s, now_s)
        if not self._sampling or self.run_clock is None:
            return
        sample = self._sampler.sample()
        self.cpu = sample.cpu or 0.0
        row = SampleRecord(
            host=sample.host,
            t_s=self.run_clock.at(sample.t_s),
            cpu=sample.cpu,
            frequency_hz=sample.frequency_hz,
            temperature_c=sample.temperature_c,
            throttle_word=sample.throttle_word,
            memory_bytes=sample.memory_bytes,
            rx_bytes=sample.rx_bytes,
            tx_bytes=sample.tx_bytes,
            power_w=sample.power_w,
            power_source=sample.power_source,
        )
        self._append("sample", self.run_clock.serial, row)

    def event(self, kind: str, detail: Mapping[str, object]) -> None:
        """Something has happened. Before the run's clock is known it waits; of too many, the oldest are kept."""
        _log.info("%s %s", kind, dict(detail))
        own_s, text = self._clock.now_s(), json.dumps(dict(detail))
        if self.run_clock is not None:
            self._append_event(self.run_clock, own_s, kind, text)
        elif len(self._early) < MOST_EARLY_EVENTS:
            self._early.append((own_s, kind, text))

    def _append_event(self, run_clock: RunClock, own_s: float, kind: str, detail: str) -> None:
        row = EventRecord(t_s=run_clock.at(own_s), host=self._name, kind=kind, detail=detail)
        self._append("event", run_clock.serial, row)

    def _append(self, kind: str, serial: int, row: SampleRecord | EventRecord) -> None:
        try:
            self._outbox.append(kind, serial, row)
        except WorkFailed as error:
            _log.error("a row is lost: %s", error)  # the disk refuses, and 100,000 rows wait for it already
