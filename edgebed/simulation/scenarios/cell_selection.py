"""Cell selection in mobile-env: one user walks among seven base stations and connects to some of them.

The dynamics are mobile-env's (Schneider et al. 2022, "mobile-env: An open platform for reinforcement learning in
wireless mobile networks"), an optional package; here is only the glue. It simulates one environment at a time, so that
these two scenarios are far slower than the others, and the loop over the batch is its price.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import MissingExtra
from edgebed.simulation.base import (
    ActionArray,
    ActionLayout,
    BatchObservation,
    Decisions,
    Heuristic,
    Parameters,
    ScenarioSpec,
    parameter,
)
from edgebed.simulation.episodes import EpisodicScenario, Rows, RowsStep
from edgebed.simulation.random_streams import FloatArray
from edgebed.simulation.scenarios.cell_selection_heuristics import HEURISTICS
from edgebed.types import BoolArray, Feature, Site

PAPER = "Offline-Transfer-Online: cloud-edge collaborative distributed deep reinforcement learning (OTO)"
STATED = "the paper"
PACKAGE = "mobile-env, its medium map"

POSITIONS_M = np.array(
    [(95.0, 240.0), (100.0, 140.0), (105.0, 60.0), (35.0, 200.0), (40.0, 95.0), (165.0, 220.0), (160.0, 110.0)]
)
"""Of the stations, ``[7, 2]``: mobile-env's medium map."""

MAP_M = (200, 300)
_MOVEMENT_SEED = 4
"""What mobile-env adds to an environment's seed for the user's walk."""


class CellSelectionLteParameters(Parameters, frozen=True):
    """Settings of ``cell-selection-lte``; the other has other frequencies and another speed."""

    steps: Annotated[int, parameter("1", "steps of an episode", STATED, ge=1, le=1_000_000)] = 100
    frequency_mhz: Annotated[float, parameter("MHz", "carrier frequency", STATED, gt=0, le=1e6)] = 2100.0
    bandwidth_hz: Annotated[float, parameter("Hz", "bandwidth of a station", STATED, gt=0, le=1e12)] = 20e6
    speed_mps: Annotated[float, parameter("m/step", "how far the user walks", PACKAGE, gt=0, le=1e4)] = 1.5
    transmit_dbm: Annotated[float, parameter("dBm", "power of a station", PACKAGE, ge=-100, le=100)] = 30.0


class CellSelection5gParameters(CellSelectionLteParameters, frozen=True):
    """Settings of ``cell-selection-5g``."""

    frequency_mhz: Annotated[float, parameter("MHz", "carrier frequency", STATED, gt=0, le=1e6)] = 3300.0
    bandwidth_hz: Annotated[float, parameter("Hz", "bandwidth of a station", STATED, gt=0, le=1e12)] = 100e6
    speed_mps: Annotated[float, parameter("m/step", "how far the user walks", STATED, gt=0, le=1e4)] = 9.0


class CellSelection(EpisodicScenario):
    """One user, who walks to one random place after the other, and seven stations.

    An action toggles the connection to one station, or none. A station can be reached, and a connection is kept, while
    the signal-to-noise ratio exceeds mobile-env's threshold. The rates of all connections, ``w log2(1 + snr)`` each,
    add up to the user's; its utility is ``10 log10(rate)``, within 20, and -20 without any connection, scaled to
    [-1, 1]. It is the reward; the step's cost is ``(1 - utility) / 2``: 0 at best and 1 without a connection. Episodes
    are truncated after 100 steps and never terminate.
    """

    spec = ScenarioSpec(
        "cell-selection-lte",
        "Which of 7 stations to connect to while walking, LTE at 2100 MHz; needs the extra [cellular]",
        PAPER,
        CellSelectionLteParameters,
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]] = HEURISTICS
    parameters: CellSelectionLteParameters
    devices = 1
    servers = len(POSITIONS_M)

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        _import_mobile_env(self.spec.name)
        self.steps = self.parameters.steps
        stations = range(1, self.servers + 1)
        self.actions = ActionLayout(("stay", *(f"toggle station {station}" for station in stations)))
        self.device_features = (
            *(Feature(f"connected_{at}", "1", 0.0, 1.0, f"1 if connected to station {at}") for at in stations),
            *(
                Feature(f"snr_{at}", "1", 0.0, 1.0, f"signal-to-noise ratio of station {at} over the greatest")
                for at in stations
            ),
            Feature("utility", "1", -1.0, 1.0, "utility of the last step; -1 at first"),
        )
        self.shared_features = ()

    @property
    def connected(self) -> BoolArray:
        """``[B, 7]``."""
        connected: BoolArray = self._seen[:, : self.servers] > 0.5
        return connected

    @property
    def signal_to_noise(self) -> FloatArray:
        """``[B, 7]``, at the user's place; not scaled."""
        return np.array(
            [[core.channel.snr(station, _user(core)) for station in _stations(core)] for core in self._cores]
        )

    @property
    def reachable(self) -> BoolArray:
        """``[B, 7]``, stations that the user can connect to."""
        return np.array(
            [[core.check_connectivity(station, _user(core)) for station in _stations(core)] for core in self._cores],
            np.bool_,
        )

    @property
    def position_m(self) -> FloatArray:
        """``[B, 2]``, the user's."""
        return np.array([(_user(core).x, _user(core).y) for core in self._cores])

    def _allocate(self, batch: int) -> None:
        self._cores: list[Any] = [self._make_core() for _ in range(batch)]
        self._seen: FloatArray = np.zeros((batch, 2 * self.servers + 1))
        self._connected_sum: FloatArray = np.zeros(batch)

    def _make_core(self) -> Any:
        from mobile_env.core.base import MComCore
        from mobile_env.core.entities import BaseStation, UserEquipment

        settings = self.parameters
        config = MComCore.default_config()
        config["width"], config["height"] = MAP_M
        config["EP_MAX_TIME"] = config["arrival_params"]["ep_time"] = settings.steps
        config["reset_rng_episode"] = True
        config["bs"] |= {
            "bw": settings.bandwidth_hz,
            "freq": settings.frequency_mhz,
            "tx": settings.transmit_dbm,
        }
        config["ue"]["velocity"] = settings.speed_mps
        config["movement_params"]["reset_rng_episode"] = True
        stations = [BaseStation(index, tuple(place), **config["bs"]) for index, place in enumerate(POSITIONS_M)]
        return MComCore(stations, [UserEquipment(0, **config["ue"])], config)

    def _begin(self, rows: Rows) -> None:
        for row in np.arange(self.batch)[rows].tolist():
            core = self._cores[row]
            core.movement.seed = int(self.seeds[row]) + _MOVEMENT_SEED
            self._seen[row], _ = core.reset()
        self._connected_sum[rows] = 0.0

    def _advance(self, rows: Rows, actions: NDArray[Any]) -> RowsStep:
        numbers = np.arange(self.batch)[rows].tolist()
        utility = np.empty(len(numbers))
        for at, row in enumerate(numbers):
            self._seen[row], utility[at], *_ = self._cores[row].step((int(actions[at, 0]),))
        self._connected_sum[rows] += self.connected[rows].sum(axis=1)
        return RowsStep(utility, (1.0 - utility[:, None]) / 2.0, np.zeros(len(numbers), np.bool_))

    def _own_metrics(self) -> dict[str, FloatArray]:
        """``connections``: mean number of stations that the user is connected to."""
        return {"connections": self._connected_sum / np.maximum(self.step_index, 1)}

    def observe(self) -> BatchObservation:
        """See `edgebed.simulation.base.Scenario.observe`; nothing is shared."""
        return BatchObservation(self._seen[:, None].astype(np.float32), np.zeros((self.batch, 0), np.float32))

    def decisions(self, actions: ActionArray) -> Decisions:
        """The nearest that there is to it: what is toggled is the server, what stays is the device."""
        choice = self.checked(actions)
        toggles = choice > 0
        whole = np.ones(choice.shape)
        return Decisions(
            site=np.where(toggles, Site.EDGE, Site.DEVICE).astype(np.int32),
            server=np.maximum(choice - 1, 0).astype(np.int32),
            channel=np.zeros(choice.shape, np.int32),
            edge_fraction=toggles.astype(np.float64),
            cpu_fraction=whole,
            power_fraction=whole.copy(),
        )


class CellSelection5g(CellSelection):
    """As ``cell-selection-lte`` at 3300 MHz and 100 MHz, for a user six times as fast; see `CellSelection`."""

    spec = ScenarioSpec(
        "cell-selection-5g",
        "Which of 7 stations to connect to while driving, 5G at 3300 MHz; needs the extra [cellular]",
        PAPER,
        CellSelection5gParameters,
    )


def _import_mobile_env(name: str) -> None:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it would greet on standard output
    try:
        import mobile_env.core.base  # noqa: F401
    except ImportError as error:
        raise MissingExtra("cellular", f"scenario {name}") from error


def _stations(core: Any) -> list[Any]:
    return list(core.stations.values())


def _user(core: Any) -> Any:
    return core.users[0]


SCENARIOS = (CellSelection, CellSelection5g)
