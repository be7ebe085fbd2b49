from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_agent.deciding import LocalPolicy, flat_action, flat_observation, own_observation, own_spec
from device_agent.testing import DEVICE, SERVER, cell_with
from edgebed.errors import BadInput
from edgebed.types import DEVICE_FEATURES, Site, SlotDecision

CELL = cell_with([], devices=["pi-0", DEVICE, "pi-2"], servers=[SERVER, "edge-2"])
VALUES = [float(number) for number in range(len(DEVICE_FEATURES))]


def test_only_the_own_slot_is_present() -> None:
    spec = own_spec(CELL)
    load = [float(number) for number in range(100, 100 + spec.server_width)]
    observation = own_observation(spec, 1, VALUES, [load, []], [True, False], epoch=4)
    observation.check(spec)
    assert observation.present.tolist() == [False, True, False]
    assert observation.values[1].tolist() == VALUES
    assert not observation.values[[0, 2]].any()
    assert observation.server.tolist() == load + [0.0] * spec.server_width
    assert observation.allowed_actions[1].tolist() == [True, True, False]
    assert observation.epoch == 4
    assert flat_observation(observation, 1) == VALUES + load + [0.0] * spec.server_width


@pytest.mark.parametrize("load", [[1.0], [float("nan")] * 8, [float("inf")] * 8])
def test_a_load_that_cannot_be_is_not_known(load: list[float]) -> None:
    spec = own_spec(cell_with([]))
    observation = own_observation(spec, 0, VALUES, [load], [True], 0)
    assert not observation.server.any()


def test_the_decision_is_that_of_the_own_slot() -> None:
    policy = LocalPolicy("all_edge", {}, DEVICE, CELL, "policy", Path())
    spec = own_spec(CELL)
    decision, compute_s = policy.decide(own_observation(spec, 1, VALUES, [[], []], [False, True], 0))
    assert (decision.site, decision.server) == (Site.EDGE, 1), "the first server is out of reach"
    assert compute_s > 0
    assert flat_action(decision) == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]


def test_devices_do_not_draw_in_step() -> None:
    spec = own_spec(CELL)
    drawn = {}
    for device, role in [("pi-0", "policy"), (DEVICE, "policy"), (DEVICE, "fallback")]:
        policy = LocalPolicy("uniform_random", {}, device, CELL, role, Path())
        slot = CELL.devices.index(device)
        observation = own_observation(spec, slot, VALUES, [[], []], [True, True], 0)
        drawn[device, role] = tuple(str(policy.decide(observation)[0]) for _ in range(30))
    assert len(set(drawn.values())) == 3
    again = LocalPolicy("uniform_random", {}, DEVICE, CELL, "policy", Path())
    observation = own_observation(spec, 1, VALUES, [[], []], [True, True], 0)
    assert tuple(str(again.decide(observation)[0]) for _ in range(30)) == drawn[DEVICE, "policy"]


def test_a_decision_out_of_range_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LocalPolicy("all_edge", {}, DEVICE, CELL, "policy", Path())
    decide = policy._policy.decide

    def wrong(observation: object) -> object:
        decision = decide(observation)  # type: ignore[arg-type]
        decision.server[:] = np.int32(9)
        return decision

    monkeypatch.setattr(policy._policy, "decide", wrong)
    with pytest.raises(BadInput, match="server 9"):
        policy.decide(own_observation(own_spec(CELL), 1, VALUES, [[], []], [True, True], 0))


def test_the_default_is_to_stay() -> None:
    assert flat_action(SlotDecision()) == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
