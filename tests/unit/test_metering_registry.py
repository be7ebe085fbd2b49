"""The registry of meters: its folder, other packages, and choosing one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edgebed import entry_points
from edgebed.clock import ManualClock
from edgebed.errors import BadInput
from edgebed.metering import drivers, registry
from edgebed.metering.base import MeterDriver, MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.drivers.cpu_model import DRIVER as CPU_MODEL

BOARD = load_board(Path(__file__).parents[2] / "inventory" / "boards" / "generic-x86.yaml")

OUTSIDE: MeterDriver = replace(CPU_MODEL, name="outside")


def add_entry_point(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry = EntryPoint("plugin", value, registry.ENTRY_POINT_GROUP)

    def fake_entry_points(group: str) -> list[EntryPoint]:
        return [entry] if group == registry.ENTRY_POINT_GROUP else []

    monkeypatch.setattr(entry_points, "points_of", fake_entry_points)


@pytest.fixture
def setup(tmp_path: Path) -> MeterSetup:
    (tmp_path / "stat").write_text("cpu  1 0 0 9\ncpu0 1 0 0 9\n")
    return MeterSetup(ManualClock(), BOARD, sysfs_root=tmp_path, proc_root=tmp_path)


def add_sensor(root: Path) -> None:
    folder = root / "class" / "hwmon" / "hwmon0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina219\n")
    (folder / "power1_input").write_text("1000000\n")


def test_every_file_of_the_folder_is_a_driver_of_that_name() -> None:
    files = {path.stem for path in Path(drivers.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(registry.meter_drivers()) >= files
    assert {"hwmon_ina2xx", "cpu_model"} <= files


def test_auto_prefers_a_sensor_to_the_model(setup: MeterSetup) -> None:
    assert registry.open_meter("auto", setup).source == "estimated:cpu-model/generic-x86"
    add_sensor(setup.sysfs_root)
    assert registry.open_meter("auto", setup).source == "measured:ina219"


def test_unknown_meter_lists_those_there_are(setup: MeterSetup) -> None:
    with pytest.raises(BadInput, match=r"no meter 'solar'; allowed: auto, hwmon_ina2xx, pi5_pmic, .*, cpu_model"):
        registry.open_meter("solar", setup)


def test_model_has_no_settings(setup: MeterSetup) -> None:
    with pytest.raises(BadInput, match="unknown settings channel; allowed: none"):
        registry.open_meter("cpu_model", replace(setup, settings={"channel": 1}))


def test_driver_of_another_package_is_admitted(monkeypatch: pytest.MonkeyPatch, setup: MeterSetup) -> None:
    monkeypatch.setattr(drivers, "OUTSIDE", OUTSIDE, raising=False)
    add_entry_point(monkeypatch, "edgebed.metering.drivers:OUTSIDE")
    assert registry.open_meter("outside", setup).source == "estimated:cpu-model/generic-x86"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_package_anywhere:DRIVER", "cannot be loaded"),
        ("edgebed.metering.registry:AUTO", "not a meter driver"),
        ("edgebed.metering.drivers.cpu_model:DRIVER", "is taken"),
    ],
)
def test_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    add_entry_point(monkeypatch, value)
    with pytest.raises(BadInput, match=f"plugin.*{said}"):
        registry.meter_drivers()


def test_metering_on_a_device_imports_neither_yaml_nor_psutil_nor_torch() -> None:
    code = (
        "import sys\n"
        "import edgebed.metering.health, edgebed.metering.energy, edgebed.metering.cpu, edgebed.metering.registry\n"
        "edgebed.metering.registry.meter_drivers()\n"
        "print([name for name in ('yaml', 'psutil', 'torch', 'numpy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
