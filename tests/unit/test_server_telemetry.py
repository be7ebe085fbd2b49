"""What the edge server says of itself: samples with its health, and a meter that is lost, back or contradicted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_server.telemetry import RunClock, Telemetry
from edgebed.clock import ManualClock, MonotonicClock
from edgebed.configuration import ServerConfig
from edgebed.metering.board import load_board
from edgebed.protocol.liveness import ClockOffset
from edgebed.trace.outbox import Outbox
from edgebed.trace.schema import RECORD_TYPES, EventRecord, SampleRecord

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-4b.yaml")


class Server:
    """A scripted host with an INA226, and the telemetry of an edge server on it."""

    def __init__(self, root: Path, outbox: Outbox) -> None:
        self.root, self.outbox = root, outbox
        self.clock = ManualClock(100.0)
        self.chip = root / "class/hwmon/hwmon0"
        self.chip.mkdir(parents=True)
        (self.chip / "name").write_text("ina226\n")
        self.show_w(3.0)
        self.busy = self.idle = 0
        self.work(0, 100)

    def show_w(self, power_w: float) -> None:
        (self.chip / "power1_input").write_text(f"{round(power_w * 1e6)}\n")

    def work(self, busy_ticks: int, idle_ticks: int) -> None:
        self.busy += busy_ticks
        self.idle += idle_ticks
        (self.root / "stat").write_text(f"cpu  {self.busy} 0 0 {self.idle} 0 0 0 0\n" + "cpu0 0 0 0 0\n" * 4)

    def telemetry(self, **settings: Any) -> Telemetry:
        fields: dict[str, Any] = {"name": "edge-1", "state_dir": "", "secret_key_file": "", "bind": "", "allow": []}
        fields |= {"sysfs_root": str(self.root), "proc_root": str(self.root), "meter": "hwmon_ina2xx"}
        telemetry = Telemetry(ServerConfig(**(fields | settings)), self.clock, BOARD, self.outbox)
        offset = ClockOffset()
        offset.offset_s = 0.0
        telemetry.start(RunClock(1, 100.0, 0.0, offset))
        return telemetry

    def run(self, telemetry: Telemetry, seconds: float, busy_share: float = 0.0) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.work(round(40 * busy_share), round(40 * (1 - busy_share)))
            telemetry.turn(self.clock.now_s())

    def rows(self) -> list[Any]:
        assert self.outbox.flush(10.0)
        records = self.outbox.committed(0, 10_000)
        return [msgspec.msgpack.decode(each.row, type=RECORD_TYPES[each.kind]) for each in records]

    def events(self) -> list[EventRecord]:
        return [row for row in self.rows() if isinstance(row, EventRecord)]

    def samples(self) -> list[SampleRecord]:
        return [row for row in self.rows() if isinstance(row, SampleRecord)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Outbox(tmp_path / "rows.sqlite", MonotonicClock()) as outbox:
        yield Server(tmp_path, outbox)


def test_samples_tell_once_a_second_how_busy_others_keep_the_host(server: Server) -> None:
    server.run(server.telemetry(), 3.05, busy_share=0.75)
    told = [row.other_cpu for row in server.samples() if row.other_cpu is not None]
    assert 2 <= len(told) <= 3
    # This process has used next to nothing: the scripted clock runs faster than the real one.
    assert all(share == pytest.approx(0.75, abs=0.1) for share in told)


def test_on_a_shared_machine_nobody_is_other(server: Server) -> None:
    server.run(server.telemetry(shares_machine=True), 2.0, busy_share=0.75)
    assert {row.other_cpu for row in server.samples()} == {None}


def test_a_meter_that_is_lost_and_back_is_two_events(server: Server) -> None:
    telemetry = server.telemetry()
    server.run(telemetry, 0.5)
    (server.chip / "power1_input").unlink()
    server.run(telemetry, 0.5)
    server.show_w(3.0)
    server.run(telemetry, 0.5)
    assert [event.kind for event in server.events()] == ["meter_lost", "meter_back"]
    assert "gives no power" in json.loads(server.events()[0].detail)["problem"]


def test_a_second_meter_that_says_otherwise_is_an_event_with_both(server: Server) -> None:
    telemetry = server.telemetry(second_meter="cpu_model")
    server.show_w(40.0)
    server.run(telemetry, 12.0, busy_share=0.1)
    (event,) = server.events()
    detail = json.loads(event.detail)
    assert event.kind == "meters_disagree"
    assert (detail["used_source"], detail["other_source"]) == ("measured:ina226", BOARD.energy_source)
    assert detail["used_energy_j"] - detail["other_energy_j"] > detail["used_error_j"] + detail["other_error_j"]


def test_meters_that_agree_are_no_event(server: Server) -> None:
    telemetry = server.telemetry(second_meter="cpu_model")
    server.show_w(BOARD.power_w(0.1))
    server.run(telemetry, 12.0, busy_share=0.1)
    assert server.events() == []
    assert {row.power_source for row in server.samples()} == {"measured:ina226"}
