"""Settings of `dc-drl`, and what follows from them: models, features and their ranges."""

from __future__ import annotations

from typing import Annotated

from edgebed.errors import BadInput
from edgebed.simulation.base import Parameters, parameter
from edgebed.simulation.compute import server_model
from edgebed.simulation.cost import Prices, cost_model
from edgebed.simulation.energy import DevicePower, energy_model
from edgebed.simulation.radio import Channels, radio_model
from edgebed.simulation.radio.shannon import watts_of_dbm
from edgebed.simulation.scenarios.dc_drl_epoch import System
from edgebed.types import Feature

CODE = "published code"


class DcDrlParameters(Parameters, frozen=True):
    """Settings of `dc-drl`."""

    n: Annotated[int, parameter("1", "devices", CODE, ge=1, le=10_000)] = 10
    channels: Annotated[int, parameter("1", "channels of the edge server", CODE, ge=1, le=1000)] = 5
    steps: Annotated[int, parameter("1", "epochs of an episode", CODE, ge=1, le=1_000_000)] = 50
    epoch_s: Annotated[float, parameter("s", "length of an epoch", CODE, gt=0, le=1e6)] = 0.6
    deadline_s: Annotated[float, parameter("s", "deadline of every task", CODE, gt=0, le=1e6)] = 2.0
    cycles_min: Annotated[float, parameter("cycle", "least cycles of a task", CODE, gt=0, le=1e15)] = 0.6e9
    cycles_max: Annotated[float, parameter("cycle", "most cycles of a task", CODE, gt=0, le=1e15)] = 0.8e9
    input_min_bytes: Annotated[float, parameter("B", "least input of a task", CODE, gt=0, le=1e15)] = 5000 * 1024.0
    input_max_bytes: Annotated[float, parameter("B", "most input of a task", CODE, gt=0, le=1e15)] = 8000 * 1024.0
    device_hz: Annotated[float, parameter("cycle/s", "speed of a device", CODE, gt=0, le=1e15)] = 0.8e9
    server_hz: Annotated[float, parameter("cycle/s", "speed of the edge server", CODE, gt=0, le=1e15)] = 5e9
    local_price: Annotated[float, parameter("1/Gcycle", "price of computing locally", CODE, ge=0, le=1e6)] = 0.025
    edge_price: Annotated[float, parameter("1/Gcycle", "price of computing at the edge", CODE, ge=0, le=1e6)] = 0.05
    energy_price: Annotated[float, parameter("1/J", "price of the device's energy", CODE, ge=0, le=1e6)] = 0.1
    delay_price: Annotated[float, parameter("1/s", "price of delay; cost model weighted_sum only", ge=0, le=1e6)] = 0.1
    penalty: Annotated[float, parameter("1", "charged for a missed deadline", CODE, ge=0, le=1e6)] = 1.0
    bandwidth_hz: Annotated[float, parameter("Hz", "bandwidth of a channel", gt=0, le=1e12)] = 5e6
    transmit_power_w: Annotated[float, parameter("W", "power of a device that sends", gt=0, le=1e3)] = 0.1
    noise_dbm: Annotated[float, parameter("dBm", "noise on a channel", ge=-250, le=50)] = -100.0
    path_loss_exponent: Annotated[float, parameter("1", "gain is distance^-exponent, from 1 m", ge=0, le=10)] = 4.0
    half_side_m: Annotated[int, parameter("m", "half the side of the square of devices", ge=1, le=100_000)] = 50
    position_seed: Annotated[int, parameter("1", "draws the devices' places", CODE, ge=0, le=2**32 - 1)] = 2020
    own_positions: Annotated[bool, parameter("1", "every episode draws its own places")] = False
    speed_mps: Annotated[float, parameter("m/s", "devices walk this fast, each epoch anywhere", ge=0, le=1e4)] = 0.0
    switched_capacitance: Annotated[
        float, parameter("J s^2", "energy of a cycle over f^2; energy model sending_and_computing only", ge=0, le=1)
    ] = 1e-27
    radio: Annotated[str, parameter("1", "radio model", "the paper")] = "sinr"
    arrivals: Annotated[str, parameter("1", "arrival model", CODE)] = "uniform"
    server: Annotated[str, parameter("1", "compute model of the edge server", "the paper")] = "fifo"
    energy: Annotated[str, parameter("1", "energy model", "the paper")] = "transmission"
    cost: Annotated[str, parameter("1", "cost model", "the paper")] = "prices"


def check_ranges(settings: DcDrlParameters) -> None:
    """Check what one parameter says of another.

    Raises:
        BadInput: a least value is above its most.
    """
    for low, high in (("cycles_min", "cycles_max"), ("input_min_bytes", "input_max_bytes")):
        if getattr(settings, low) > getattr(settings, high):
            raise BadInput(
                f"scenario dc-drl: `{low}` is {getattr(settings, low):g}, above `{high}`, {getattr(settings, high):g}"
            )


def system_of(settings: DcDrlParameters) -> System:
    """The models, and what they are told.

    Raises:
        BadInput: there is no model of a name; those that exist are named.
    """
    return System(
        radio=radio_model(settings.radio),
        server=server_model(settings.server),
        energy=energy_model(settings.energy),
        cost=cost_model(settings.cost),
        channels=Channels(settings.channels, settings.bandwidth_hz, watts_of_dbm(settings.noise_dbm)),
        power=DevicePower(settings.transmit_power_w, settings.device_hz, settings.switched_capacitance),
        prices=Prices(
            settings.local_price, settings.edge_price, settings.energy_price, settings.delay_price, settings.penalty
        ),
        server_hz=settings.server_hz,
        deadline_s=settings.deadline_s,
        epoch_s=settings.epoch_s,
    )


def features_of(settings: DcDrlParameters) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    """Features of a device, and shared ones. Ranges are what the equations allow.

    Queues reach their ends only if nobody ever offloads, or everybody does.
    """
    side_m = float(settings.half_side_m)
    local_s = settings.steps * max(0.0, settings.cycles_max / settings.device_hz - settings.epoch_s)
    edge_s = settings.steps * max(0.0, settings.n * settings.cycles_max / settings.server_hz - settings.epoch_s)
    device = (
        Feature("cpu_hz", "cycle/s", 0.0, settings.device_hz, "speed of the device's processor"),
        Feature("queue_s", "s", 0.0, local_s, "time until the device's processor is free"),
        Feature("x_m", "m", -side_m, side_m, "place; the edge server is at (0, 0)"),
        Feature("y_m", "m", -side_m, side_m, "place"),
        Feature("cycles", "cycle", settings.cycles_min, settings.cycles_max, "cycles of the device's task"),
        Feature("deadline_s", "s", 0.0, settings.deadline_s, "deadline of the device's task"),
        Feature("input_bytes", "B", settings.input_min_bytes, settings.input_max_bytes, "input of the device's task"),
    )
    shared = (
        Feature("server_hz", "cycle/s", 0.0, settings.server_hz, "speed of the edge server"),
        Feature("server_queue_s", "s", 0.0, edge_s, "time until the edge server is free"),
        Feature("step", "1", 0.0, float(settings.steps), "epochs done in this episode"),
    )
    return device, shared
