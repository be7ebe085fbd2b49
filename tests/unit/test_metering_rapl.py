"""RAPL against a scripted powercap tree: wrap-around, resets, permissions, and whose joules they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.registry import AUTO, open_meter

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/generic-x86.yaml")
RANGE_UJ = 262_143_328_850


class Server:
    """Two packages, of which one has memory counted apart; cores are part of their package."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock(10.0)
        for folder, name in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "dram",
            "intel-rapl:1": "package-1",
            "intel-rapl-mmio:0": "package-0",
        }.items():
            self.set(folder, 0, name)
        (root / "cpuinfo").write_text("vendor_id\t: GenuineIntel\n")

    def counter(self, folder: str) -> Path:
        return self.root / "class/powercap" / folder / "energy_uj"

    def set(self, folder: str, energy_uj: int, name: str = "") -> None:
        file = self.counter(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{energy_uj}\n")
        file.with_name("max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        if name:
            file.with_name("name").write_text(name + "\n")

    def open(self) -> Meter:
        return open_meter("rapl", MeterSetup(self.clock, BOARD, sysfs_root=self.root, proc_root=self.root))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_packages_and_memory_are_added_and_what_they_contain_is_not(server: Server) -> None:
    meter = server.open()
    server.clock.advance(1.0)
    for folder, joules in {"intel-rapl:0": 30, "intel-rapl:0:0": 20, "intel-rapl:0:1": 4, "intel-rapl:1": 25}.items():
        server.set(folder, joules * 10**6)
    server.set("intel-rapl-mmio:0", 30 * 10**6)
    reading = meter.read()
    assert reading.energy_j == 30 + 4 + 25
    assert reading.power_w == 59
    assert reading.source == "measured:rapl-package"
    assert reading.error_j == pytest.approx(0.05 * 59)


def test_a_counter_that_wraps_goes_on(server: Server) -> None:
    server.set("intel-rapl:0", RANGE_UJ - 5 * 10**6)
    meter = server.open()
    server.clock.advance(1.0)
    server.set("intel-rapl:0", 7 * 10**6)
    reading = meter.read()
    assert reading.energy_j == pytest.approx(12.0)
    assert reading.error_j == pytest.approx(0.05 * 12)


def test_a_counter_that_was_reset_is_no_wrap(server: Server) -> None:
    server.set("intel-rapl:0", 9 * 10**6)
    meter = server.open()
    server.clock.advance(1.0)
    server.set("intel-rapl:0", 3 * 10**6)  # as a wrap it would have been 262 kW
    reading = meter.read()
    assert reading.energy_j == pytest.approx(3.0)
    assert reading.error_j >= 3.0


def test_not_looked_at_for_longer_than_a_wrap_can_take_is_error(server: Server) -> None:
    meter = server.open()
    server.clock.advance(RANGE_UJ * 1e-6 / 1000 + 1)
    server.set("intel-rapl:0", 10**6)
    assert meter.read().error_j >= RANGE_UJ * 1e-6


def test_amd_s_counters_are_an_estimate(server: Server) -> None:
    (server.root / "cpuinfo").write_text("vendor_id\t: AuthenticAMD\n")
    assert server.open().source == "estimated:rapl-amd/generic-x86"


def test_no_packages_is_bad_input(server: Server) -> None:
    shutil.rmtree(server.root / "class")
    with pytest.raises(BadInput, match="virtual machines and ARM boards have none"):
        server.open()


def test_a_counter_that_shows_no_number_is_a_failure(server: Server) -> None:
    meter = server.open()
    server.counter("intel-rapl:1").write_text("?\n")
    with pytest.raises(WorkFailed, match="no number"):
        meter.read()


@contextmanager
def nobody() -> Iterator[None]:
    """Not root for a while, if we are: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="edgebed-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_no_permission_names_the_fix_and_auto_looks_further(open_folder: Path) -> None:
    server = Server(open_folder)
    (open_folder / "stat").write_text("cpu  0 0 0 0 0 0 0 0\ncpu0 0 0 0 0\n")
    server.counter("intel-rapl:1").chmod(0)
    with nobody():
        with pytest.raises(WorkFailed, match="only root may read it: `sudo chmod a") as caught:
            server.open()
        setup = MeterSetup(server.clock, BOARD, sysfs_root=open_folder, proc_root=open_folder)
        assert open_meter(AUTO, setup).source == BOARD.energy_source
    assert "intel-rapl:1/energy_uj" in str(caught.value)
    assert "udev rule" in str(caught.value)
