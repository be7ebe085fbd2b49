"""Without mobile-env: the scenarios are listed, and making one says what to install."""

from __future__ import annotations

import sys

import pytest

from edgebed.errors import MissingExtra
from edgebed.simulation.scenarios import make_scenario, scenario_names


@pytest.mark.parametrize("name", ["cell-selection-lte", "cell-selection-5g"])
def test_a_missing_extra_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == "mobile_env"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mobile_env", None)  # what an import of a missing package comes to
    assert name in scenario_names()
    with pytest.raises(MissingExtra, match=rf"scenario {name} needs the extra \[cellular\].*pip install"):
        make_scenario(name)
