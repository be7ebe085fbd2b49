"""The scripted sensors: their models in closed form, and their files through edgebed's own readers; no root."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgebed.errors import BadInput
from orchestrator.lab.sensor_files import ScriptedFile
from orchestrator.lab.sensor_model import AMBIENT_C, BATTERY_J, FULL_LOAD_C, BoardFacts, SensorModel

PI = BoardFacts(nominal_hz=1.5e9, idle_w=2.3, max_w=6.8)


@pytest.fixture
def model() -> SensorModel:
    return SensorModel(PI, cores=2, start_s=100.0)


def test_power_goes_with_the_use_of_the_cores(model: SensorModel):
    model.step(101.0, cpu_s=0.0)
    assert model.power_w == pytest.approx(2.3)
    model.step(102.0, cpu_s=1.0)  # one of two cores
    assert model.utilisation == pytest.approx(0.5)
    assert model.power_w == pytest.approx(2.3 + 4.5 / 2, abs=0.0101)  # an INA219 shows steps of 20 mW
    model.step(103.0, cpu_s=9.0)
    assert model.power_w == pytest.approx(6.8)


def test_energy_is_the_shown_power_times_the_time_it_was_shown(model: SensorModel):
    model.step(101.0, 0.0)
    model.step(102.0, 2.0)
    shown_w = model.power_w
    model.step(110.0, 2.0)
    assert model.energy_j == pytest.approx(2.3 * 2 + shown_w * 8)
    assert model.energy_at(111.0) == pytest.approx(model.energy_j + model.power_w)


def test_a_group_that_counts_anew_is_no_negative_work(model: SensorModel):
    model.step(101.0, 50.0)
    model.step(102.0, 0.1)
    assert model.utilisation == 0
    model.step(103.0, 1.1)
    assert model.utilisation == pytest.approx(0.5)


def test_heat_follows_power_with_its_time_constant(model: SensorModel):
    model.change({"power_w": 6.8})
    model.step(100.1, 0.0)
    model.step(160.1, 0.0)
    expected_c = AMBIENT_C + (FULL_LOAD_C - AMBIENT_C) * (1 - math.exp(-1))
    assert model.temperature_c == pytest.approx(expected_c, abs=0.1)


def test_a_hot_board_caps_its_clock_and_says_so_until_it_boots(model: SensorModel):
    model.change({"temperature_c": 82.0})
    model.step(101.0, 2.0)
    assert model.frequency_hz == pytest.approx(1.2e9)
    assert model.throttle_word == 0x20002
    model.change({"temperature_c": 90.0})
    model.step(102.0, 4.0)
    assert model.throttle_word == 0x60006
    assert model.highest_hz == pytest.approx(0.6e9)
    model.change({"temperature_c": 50.0})
    model.step(103.0, 6.0)
    assert model.throttle_word == 0x60000
    model.forget_past()
    assert model.throttle_word == 0


def test_under_voltage_can_be_scripted(model: SensorModel):
    model.change({"throttle_word": 0x1})
    model.step(101.0, 0.0)
    assert model.throttle_word == 0x10001
    model.change({"throttle_word": None})
    model.step(102.0, 0.0)
    assert model.throttle_word == 0x10000


def test_the_battery_empties_by_what_is_drawn(model: SensorModel):
    model.change({"battery_fraction": 0.5, "power_w": 5.0})
    model.step(100.1, 0.0)
    model.step(200.1, 0.0)
    assert model.battery_fraction == pytest.approx(0.5 - (2.3 * 0.1 + 5.0 * 100) / BATTERY_J, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"heat": 3.0}, {"temperature_c": math.inf}, {"throttle_word": 0x50005}])
def test_a_wrong_script_is_refused(model: SensorModel, wrong: dict[str, float]):
    with pytest.raises(BadInput, match="sensors: "):
        model.change(wrong)


def test_a_scripted_file_keeps_its_length_and_reads_as_a_number(tmp_path: Path):
    file = ScriptedFile(tmp_path / "deep" / "power1_input")
    for value in (5_123_456, 7, 2_290_000):
        file.show(value)
        data = (tmp_path / "deep" / "power1_input").read_bytes()
        assert len(data) == 16
        assert int(data) == value
    file.close()
