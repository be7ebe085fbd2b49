"""Where devices are whose hosts file does not say it: drawn, where an experiment's channels depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgebed.errors import Problem
from edgebed.protocol.radio import radio_settings
from orchestrator.experiment import Setting
from orchestrator.inventory import Host

NOWHERE_M = (0.0, 0.0)
"""What a hosts file says by saying nothing."""


def square_of(setting: Setting) -> tuple[float, float] | None:
    """``half_side_m`` and ``position_seed`` of a setting whose channels interfere; None of another."""
    if setting.channels.model != "sinr":
        return None
    settings = radio_settings(setting.channels.parameters)
    return settings.half_side_m, settings.position_seed


def placed(devices: Sequence[Host], settings: Sequence[Setting]) -> list[Host]:
    """The devices, those without a place at the one that the scenario `dc-drl` draws for their slot.

    Args:
        devices: in slot order.
        settings: of the plan; all that interfere draw from one square, see `place_problems`.
    """
    squares = [square for square in map(square_of, settings) if square is not None]
    if not squares:
        return list(devices)
    from edgebed.simulation.scenarios.dc_drl_positions import first_positions_m  # here: few plans need the scenario

    half_side_m, seed = squares[0]
    places = first_positions_m(len(devices), int(half_side_m), int(seed), None).tolist()
    return [
        replace(host, position_m=(x_m, y_m)) if host.position_m == NOWHERE_M else host
        for host, (x_m, y_m) in zip(devices, places, strict=True)
    ]


def place_problems(settings: Sequence[Setting], file: str) -> Iterator[Problem]:
    """Why hosts cannot be placed."""
    squares = {square for square in map(square_of, settings) if square is not None}
    if len(squares) > 1:
        text = "half_side_m and position_seed say where hosts are, the same in all cells; give each one value"
        yield Problem(text, key="channels.parameters", file=file)
