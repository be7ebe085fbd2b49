"""What the device measures of itself while a cell runs: host samples, and the energy of tasks."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from device_agent.energy import EnergyRule, EstimatedEnergy, MeasuredEnergy, NoEnergy
from edgebed.clock import Clock
from edgebed.configuration import DeviceConfig
from edgebed.errors import EdgebedError
from edgebed.metering.base import Meter, MeterSetup, Reading
from edgebed.metering.board import Board, board_from_dict
from edgebed.metering.cross_check import CheckedMeter, Disagreement
from edgebed.metering.health import HostSampler
from edgebed.metering.registry import open_checked_meter
from edgebed.trace.schema import SampleRecord

_log = logging.getLogger(__name__)

LEAST_IDLE_WINDOW_S = 0.5
"""A shorter wait before a cell says too little about idle power; then the board's file is asked."""


class Telemetry:
    """Samples of this host, and the rule for the energy of tasks.

    Args:
        config: names board and meter; without a board there is no energy.

    Raises:
        BadInput: the board or the meter is described wrongly, or the sensor is not there.
    """

    def __init__(self, config: DeviceConfig, clock: Clock) -> None:
        self._clock = clock
        self._name = config.name
        self._board = board_from_dict(config.board) if config.board else None
        self._meter = self._open(config, self._board, clock)
        self._sampler = HostSampler(
            clock,
            sysfs_root=Path(config.sysfs_root),
            proc_root=Path(config.proc_root),
            meter=self._meter,
            host=config.name,
            peers=[_host_of(peer.endpoint) for peer in (*config.servers, config.controller)],
            shares_machine=config.shares_machine,
        )
        self._idle_start: Reading | None = None
        self._measured: MeasuredEnergy | None = None
        self.cpu = 0.0

    @staticmethod
    def _open(config: DeviceConfig, board: Board | None, clock: Clock) -> Meter | None:
        if board is None or config.power_meter is None:
            return None
        setup = MeterSetup(clock, board, Path(config.sysfs_root), Path(config.proc_root), config.meter_options)
        return open_checked_meter(config.power_meter, setup, config.second_meter, config.second_meter_options)

    @property
    def meter_source(self) -> str:
        """Where power is from; empty when there is no meter."""
        return "" if self._meter is None else self._meter.source

    @property
    def charge_left(self) -> float:
        """Of this host's batteries at the last sample, 0..1; 1 on mains."""
        return self._sampler.charge_left

    @property
    def meter_problem(self) -> str | None:
        """Why the meter could not be read last time; None when it could."""
        return self._sampler.meter_problem

    def sample(self, run_clock_s: float) -> SampleRecord:
        """A row of ``samples.parquet``, now.

        Args:
            run_clock_s: the run clock now.
        """
        taken = self._sampler.sample()
        if taken.cpu is not None:
            self.cpu = taken.cpu
        if self._measured is not None and self._sampler.last_reading is not None:
            self._measured.note(self._sampler.last_reading)
        return SampleRecord(host=self._name, t_s=run_clock_s, **taken.columns())

    def take_disagreements(self) -> list[Disagreement]:
        """What a second meter was found to say otherwise since this was asked last."""
        return self._meter.take_disagreements() if isinstance(self._meter, CheckedMeter) else []

    @property
    def has_sensor(self) -> bool:
        """Does a sensor measure the power, not a model?"""
        return self.meter_source.startswith("measured:")

    def begin_idle(self) -> None:
        """The device is ready and waits: from now until the cell starts is what idle means."""
        self._sampler.sample()  # utilisation of the first sample is then since here
        self._idle_start = self._read()

    def watch_idle(self) -> None:
        """Look at the sensor while waiting; most of them show power, and only what is looked at can be added up."""
        self._read()

    def energy_rule(self) -> EnergyRule:
        """The rule for a cell that starts now."""
        self._measured = None
        if self._board is None:
            return NoEnergy()
        if not self.has_sensor:
            return EstimatedEnergy(self._board)
        idle_w, idle_error_w = self._idle_power(self._board)
        self._measured = MeasuredEnergy(self._board, self._read, idle_w, idle_error_w)
        reading = self._read()
        if reading is not None:
            self._measured.note(reading)
        return self._measured

    def _idle_power(self, board: Board) -> tuple[float, float]:
        """Idle power and its error, in watts: measured while waiting for the start if that took long enough."""
        start, end = self._idle_start, self._read()
        if start is None or end is None or end.t_s - start.t_s < LEAST_IDLE_WINDOW_S:
            return board.idle_w, board.error_fraction * board.idle_w
        seconds = end.t_s - start.t_s
        return (end.energy_j - start.energy_j) / seconds, (end.error_j - start.error_j) / seconds

    def _read(self) -> Reading | None:
        if self._meter is None:
            return None
        try:
            return self._meter.read()
        except EdgebedError as error:
            _log.warning("the meter cannot be read: %s", error)
            return None


def _host_of(endpoint: str) -> str:
    """The host of an endpoint like ``tcp://192.0.2.7:5570``."""
    return urlsplit(endpoint).hostname or ""
