"""Settings of the CCM-MADRL scenarios, the constants of their devices, and what is observed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from edgebed.errors import BadInput
from edgebed.simulation.base import Parameters, parameter
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import Feature

CODE = "published code"


class CcmParameters(Parameters, frozen=True):
    """Settings of ``ccm-s10``; the other two have other defaults."""

    n: Annotated[int, parameter("1", "devices", CODE, ge=1, le=10_000)] = 50
    steps: Annotated[int, parameter("1", "steps of an episode", CODE, ge=1, le=1_000_000)] = 10
    energy_weight: Annotated[float, parameter("1/J", "lambda_E", CODE, ge=0, le=1e9)] = 0.5
    time_weight: Annotated[float, parameter("1/s", "lambda_T", CODE, ge=0, le=1e9)] = 0.5
    battery_max_mj: Annotated[float, parameter("MJ", "capacity of a battery", CODE, gt=0, le=1e6)] = 3.2
    battery_min_mj: Annotated[float, parameter("MJ", "charge below which it costs", CODE, ge=0, le=1e6)] = 0.5
    harvest_j: Annotated[float, parameter("J", "harvested a step", CODE, ge=0, le=1e6)] = 0.001
    power_min_dbm: Annotated[float, parameter("dBm", "least full power of a device", CODE, ge=-100, le=60)] = 1.0
    power_max_dbm: Annotated[float, parameter("dBm", "most", CODE, ge=-100, le=60)] = 24.0
    gain_min_db: Annotated[float, parameter("dB", "least gain over noise, of 1 W", CODE, ge=-200, le=200)] = 5.0
    gain_max_db: Annotated[float, parameter("dB", "most", CODE, ge=-200, le=200)] = 14.0
    cpu_min_ghz: Annotated[float, parameter("GHz", "least frequency of a device", CODE, gt=0, le=1e3)] = 0.4
    cpu_max_ghz: Annotated[float, parameter("GHz", "most", CODE, gt=0, le=1e3)] = 1.5
    size_min_kib: Annotated[float, parameter("KiB", "least input of a task", CODE, gt=0, le=1e9)] = 1.0
    size_max_kib: Annotated[float, parameter("KiB", "most", CODE, gt=0, le=1e9)] = 50.0
    cycles_min_per_bit: Annotated[float, parameter("cycle/bit", "least work of a task", CODE, gt=0, le=1e9)] = 300.0
    cycles_max_per_bit: Annotated[float, parameter("cycle/bit", "most", CODE, gt=0, le=1e9)] = 737.5
    deadline_min_s: Annotated[float, parameter("s", "shortest deadline", CODE, gt=0, le=1e6)] = 0.1
    deadline_max_s: Annotated[float, parameter("s", "longest", CODE, gt=0, le=1e6)] = 0.9
    time_max_s: Annotated[float, parameter("s", "times are capped at this", CODE, gt=0, le=1e6)] = 1.0
    units: Annotated[int, parameter("1", "processing units of the server", CODE, ge=1, le=1000)] = 8
    unit_hz: Annotated[float, parameter("cycle/s", "speed of a unit", CODE, gt=0, le=1e15)] = 4e9
    channels: Annotated[int, parameter("1", "channels, and tasks that are admitted at most", CODE, ge=1, le=1000)] = 10
    bandwidth_hz: Annotated[float, parameter("Hz", "shared equally by the channels", CODE, gt=0, le=1e12)] = 40e6
    storage_kib: Annotated[float, parameter("KiB", "of the server, for inputs", CODE, gt=0, le=1e12)] = 400.0
    energy_coefficient: Annotated[float, parameter("J", "k in k c f^e; its unit follows e", CODE, ge=0, le=1)] = 5e-27
    energy_exponent: Annotated[float, parameter("1", "e in k c f^e; 2 is physics", CODE, ge=0, le=4)] = 1.0
    server_counting: Annotated[
        Literal["published", "corrected"], parameter("1", "whether the server over-counts, as published", CODE)
    ] = "published"
    streams: Annotated[
        Literal["published", "counter"], parameter("1", "who draws: NumPy's legacy generator, or ours", CODE)
    ] = "published"
    constants_seed: Annotated[int, parameter("1", "draws the devices' constants", CODE, ge=0, le=2**32 - 1)] = 37


class CcmS100Parameters(CcmParameters, frozen=True):
    """Settings of ``ccm-s100``."""

    steps: Annotated[int, parameter("1", "steps of an episode", CODE, ge=1, le=1_000_000)] = 100
    battery_max_mj: Annotated[float, parameter("MJ", "capacity of a battery", CODE, gt=0, le=1e6)] = 0.5000001


class CcmS100Lambda5Parameters(CcmS100Parameters, frozen=True):
    """Settings of ``ccm-s100-lambda5``."""

    energy_weight: Annotated[float, parameter("1/J", "lambda_E", CODE, ge=0, le=1e9)] = 5.0
    time_weight: Annotated[float, parameter("1/s", "lambda_T", CODE, ge=0, le=1e9)] = 1.0


@dataclass(frozen=True, slots=True)
class DeviceConstants:
    """What devices keep for good, ``[N]`` each; drawn device by device, in this order."""

    power_dbm: FloatArray
    battery_mj: FloatArray
    gain_db: FloatArray
    cpu_ghz: FloatArray


def device_constants(settings: CcmParameters) -> DeviceConstants:
    """The constants, from NumPy's legacy generator as the published code draws them."""
    low = [settings.power_min_dbm, settings.battery_min_mj, settings.gain_min_db, settings.cpu_min_ghz]
    high = [settings.power_max_dbm, settings.battery_max_mj, settings.gain_max_db, settings.cpu_max_ghz]
    drawn = np.random.RandomState(settings.constants_seed).uniform(low, high, (settings.n, 4))
    power_dbm, battery_mj, gain_db, cpu_ghz = np.ascontiguousarray(drawn.T)
    battery_mj = np.clip(battery_mj, settings.battery_min_mj, settings.battery_max_mj)
    return DeviceConstants(power_dbm, battery_mj, gain_db, cpu_ghz)


def features_of(settings: CcmParameters) -> tuple[Feature, ...]:
    """What is observed of a device."""
    most = settings.battery_max_mj
    return (
        Feature("power_dbm", "dBm", settings.power_min_dbm, settings.power_max_dbm, "its full transmit power"),
        Feature("gain_db", "dB", settings.gain_min_db, settings.gain_max_db, "gain over noise, of 1 W"),
        Feature("battery_mj", "MJ", 0.0, most, "charge of its battery"),
        Feature("size_kib", "KiB", settings.size_min_kib, settings.size_max_kib, "input of its task"),
        Feature(
            "cycles_per_bit", "cycle/bit", settings.cycles_min_per_bit, settings.cycles_max_per_bit, "work of its task"
        ),
        Feature("deadline_s", "s", settings.deadline_min_s, settings.deadline_max_s, "deadline of its task"),
        Feature("cpu_ghz", "GHz", settings.cpu_min_ghz, settings.cpu_max_ghz, "its full frequency"),
    )


def check_ranges(name: str, settings: CcmParameters) -> None:
    """Check that no least value is above its most.

    Raises:
        BadInput: one is.
    """
    for what in ("power_{}_dbm", "gain_{}_db", "cpu_{}_ghz", "size_{}_kib", "cycles_{}_per_bit", "deadline_{}_s"):
        low, high = (getattr(settings, what.format(end)) for end in ("min", "max"))
        if low > high:
            raise BadInput(
                f"scenario {name}: `{what.format('min')}` is {low:g}, above `{what.format('max')}`, {high:g}"
            )
    if settings.battery_min_mj > settings.battery_max_mj:
        raise BadInput(
            f"scenario {name}: `battery_min_mj` is {settings.battery_min_mj:g}, above `battery_max_mj`, "
            f"{settings.battery_max_mj:g}"
        )
