"""Every registered scenario keeps the `Scenario` contract."""

from __future__ import annotations

from typing import Any

import pytest

from edgebed.simulation.scenarios import make_scenario, scenario_class, scenario_names
from edgebed.simulation.testing import check_scenario

WITH_EXTRAS = {"cell-selection-5g", "cell-selection-lte"}
"""They need mobile-env: `make test-learning` checks them."""


@pytest.mark.parametrize("name", sorted(set(scenario_names()) - WITH_EXTRAS))
def test_registered_scenario_keeps_the_contract(name: str) -> None:
    check_scenario(lambda parameters: make_scenario(name, parameters))


@pytest.mark.parametrize("name", scenario_names())
def test_registered_name_is_the_spec_s_name(name: str) -> None:
    assert scenario_class(name).spec.name == name


@pytest.mark.parametrize(
    "parameters",
    [
        {"n": 1, "channels": 1},
        {"n": 20, "steps": 7},
        {"n": 40, "steps": 7},
        {"speed_mps": 30.0},
        {"own_positions": True, "speed_mps": 1.5},
        {"radio": "orthogonal", "server": "concurrent"},
        {"radio": "time_shared", "arrivals": "constant"},
        {"energy": "sending_and_computing", "cost": "weighted_sum"},
    ],
    ids=str,
)
def test_dc_drl_keeps_the_contract_with_other_settings(parameters: dict[str, Any]) -> None:
    check_scenario(lambda given: make_scenario("dc-drl", given), parameters)
