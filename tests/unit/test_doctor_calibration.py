"""From hosts with meters to board files: who is left out, what is refused, what is written."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgebed.errors import BadInput
from edgebed.metering.board import load_board
from edgebed.metering.calibrate import LOADS, Answer, Settings, Window
from orchestrator.cli.output import Output
from orchestrator.doctor.calibration import calibrate_hosts
from orchestrator.inventory import Host, Inventory, load_inventory
from orchestrator.remote.base import Remote
from orchestrator.remote.testing import Answer as Ended
from orchestrator.remote.testing import FakeRemote

LOCAL = Path(__file__).parents[2] / "inventory/hosts/local.yaml"
COMMAND = f"{shlex.quote(sys.executable)} -m edgebed.metering.calibrate"

WINDOWS = [Window(asked=load, utilisation=load, power_w=2.0 + 3.0 * load, error_w=0.03) for load in LOADS]

BUSY = [*WINDOWS[:-1], msgspec.structs.replace(WINDOWS[-1], utilisation=0.5)]


class Bench:
    """This machine's host as a fake that answers as the calibration's program would."""

    def __init__(self, tmp_path: Path) -> None:
        self.hosts_file = tmp_path / "hosts" / "mine.yaml"
        self.hosts_file.parent.mkdir()
        self.answer = Answer(source="measured:ina219", windows=WINDOWS)
        self.status = 0
        self.asked: list[Settings] = []

    def inventory(self, **meters: str) -> Inventory:
        found = load_inventory(LOCAL)
        return replace(
            found, devices=tuple(replace(each, meter=meters.get(each.name, "cpu_model")) for each in found.devices[:1])
        )

    def connect(self, host: Host) -> Remote:
        def program(stdin: bytes) -> Ended:
            self.asked.append(msgspec.json.decode(stdin, type=Settings))
            return Ended(self.status, b"warning: something\n" + msgspec.json.encode(self.answer) + b"\n", b"why not")

        return FakeRemote(host.name, programs={COMMAND: program})

    def run(self, inventory: Inventory | None = None) -> tuple[int, dict[str, Any]]:
        inventory = inventory or self.inventory(**{"pi-1": "hwmon_ina2xx"})
        status = calibrate_hosts(inventory, self.hosts_file, self.connect, Output(as_json=True), settle_s=1, window_s=2)
        return status, json.loads(self.capsys.readouterr().out)["hosts"]

    capsys: pytest.CaptureFixture[str]


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    bench = Bench(tmp_path)
    bench.capsys = capsys
    return bench


def test_a_board_file_is_written_that_the_hosts_file_may_name(bench: Bench, tmp_path: Path) -> None:
    status, hosts = bench.run()
    assert status == 0
    (settings,) = bench.asked
    assert (settings.meter, settings.settle_s, settings.window_s) == ("hwmon_ina2xx", 1.0, 2.0)
    assert settings.board["name"] == "raspberry-pi-4b"
    found = hosts["pi-1"]
    assert (found["board"], found["problem"]) == ("raspberry-pi-4b-pi-1", "")
    assert found["idle_w"] == pytest.approx(2.0)
    assert found["max_w"] == pytest.approx(5.0)
    assert len(found["windows"]) == len(LOADS)
    assert all(abs(each["residual_w"]) < 1e-9 for each in found["windows"])
    board = load_board(tmp_path / "boards" / "raspberry-pi-4b-pi-1.yaml")
    assert (board.idle_w, board.max_w) == (2.0, 5.0)
    # The hosts file of the project finds it.
    text = LOCAL.read_text().replace("edgebed_board: raspberry-pi-4b,", "edgebed_board: raspberry-pi-4b-pi-1,")
    bench.hosts_file.write_text(text)
    again = load_inventory(bench.hosts_file)
    assert again.boards["raspberry-pi-4b-pi-1"] == board


def test_calibrating_again_replaces_the_file_and_keeps_its_name(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    text = LOCAL.read_text().replace("edgebed_board: raspberry-pi-4b,", "edgebed_board: raspberry-pi-4b-pi-1,")
    bench.hosts_file.write_text(text.replace("pi-1: {", "pi-1: { edgebed_meter: hwmon_ina2xx, "))
    bench.answer = Answer(
        source="measured:ina219", windows=[msgspec.structs.replace(each, power_w=each.power_w + 1) for each in WINDOWS]
    )
    status, hosts = bench.run(load_inventory(bench.hosts_file))
    assert status == 0
    assert hosts["pi-1"]["board"] == "raspberry-pi-4b-pi-1"
    assert load_board(tmp_path / "boards" / "raspberry-pi-4b-pi-1.yaml").idle_w == 3.0
    assert len(list((tmp_path / "boards").iterdir())) == 1


def test_a_file_of_someone_else_is_not_replaced(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "boards" / "raspberry-pi-4b-pi-1.yaml"
    file.parent.mkdir()
    file.write_text("name: mine\n")
    status, hosts = bench.run()
    assert status == 1
    assert "was not made by a calibration" in hosts["pi-1"]["problem"]
    assert file.read_text() == "name: mine\n"
    assert bench.asked == []  # nothing was measured for nothing


@pytest.mark.parametrize(
    ("answer", "exit_status", "said"),
    [
        (Answer(problem="no INA2xx sensor"), 0, "pi-1: no INA2xx sensor"),
        (Answer(source="estimated:cpu-model/x", windows=WINDOWS), 0, "is itself a model"),
        (Answer(source="measured:x", windows=BUSY), 0, "was not idle"),
        (Answer(), 1, "why not"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_written(
    bench: Bench, tmp_path: Path, answer: Answer, exit_status: int, said: str
) -> None:
    bench.answer, bench.status = answer, exit_status
    status, hosts = bench.run()
    assert status == 1
    assert said in hosts["pi-1"]["problem"]
    assert not (tmp_path / "boards").exists()


@pytest.mark.parametrize(
    ("meter", "said"), [("cpu_model", "is itself a model"), ("rapl", "sees processor and memory, not the whole host")]
)
def test_hosts_without_a_meter_of_the_whole_board_are_left_out(bench: Bench, meter: str, said: str) -> None:
    with pytest.raises(BadInput, match="no host has a meter that sees its board"):
        bench.run(bench.inventory(**{"pi-1": meter}))
    assert f"pi-1: left out, {meter} {said}" in bench.capsys.readouterr().err


def test_hosts_of_one_machine_are_calibrated_once(bench: Bench) -> None:
    found = load_inventory(LOCAL)
    inventory = replace(found, devices=tuple(replace(each, meter="hwmon_ina2xx") for each in found.devices))
    status, hosts = bench.run(inventory)
    assert status == 0
    assert list(hosts) == ["pi-1"]
    assert len(bench.asked) == 1
