"""The calibrated scenario as environments: the checkers of Gymnasium and PettingZoo, with warnings as errors."""

from __future__ import annotations

import warnings

from gymnasium.utils.env_checker import check_env

from edgebed.envs.gym import GymScenario
from edgebed.envs.parallel import ParallelScenario
from edgebed.simulation.calibrated import CalibratedScenario
from edgebed.simulation.testbed.profile import Decider, DeviceProfile, Link, Profile, ServerProfile, ServiceTime

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # PettingZoo's own, of its own modules, while it is imported
    from pettingzoo.test import parallel_api_test

PROFILE = Profile(
    workload="digits",
    cycles_per_frame=1e7,
    frame_bytes=[20_000.0, 60_000.0],
    devices={
        name: DeviceProfile(compute=ServiceTime(seconds_per_frame=0.05, ratio=[0.8, 1.3]), link=Link(paced_bps=2e7))
        for name in ("pi-1", "pi-2")
    },
    servers={"edge": ServerProfile(compute=ServiceTime(seconds_per_frame=0.01))},
    deciders={"controller": Decider(delay_s=[0.002]), "device": Decider()},
)


def scenario() -> CalibratedScenario:
    """A short one."""
    return CalibratedScenario(PROFILE, {"epochs": 8})


def test_gymnasium_accepts_it() -> None:
    check_env(GymScenario(scenario()), skip_render_check=True)


def test_pettingzoo_accepts_it() -> None:
    parallel_api_test(ParallelScenario(scenario()), num_cycles=20)
