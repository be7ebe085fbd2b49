"""Scenarios and backends as environments: Gymnasium (joint), PettingZoo (a device, an agent) and batched.

Modules: `edgebed.envs.gym` (`GymScenario`), `edgebed.envs.vector` (`VectorScenario`), `edgebed.envs.parallel`
(`ParallelScenario`), `edgebed.envs.backend` (`BackendEnv`, `ParallelBackendEnv`: any backend, real hosts included).
They need the extra [learning]; importing this package needs nothing.

With the extra installed, every scenario is known to Gymnasium: ``gymnasium.make("edgebed/dc-drl-v0", n=20)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebed.envs.gym import GymScenario
    from edgebed.envs.vector import VectorScenario

__all__ = ["register_envs"]

NAMESPACE = "edgebed"


def register_envs() -> None:
    """Tell Gymnasium of every scenario, as ``edgebed/<scenario>-v0``; it calls this itself when it is imported."""
    from gymnasium.envs import registration

    from edgebed.simulation.scenarios import scenario_names

    for name in scenario_names():
        if f"{NAMESPACE}/{name}-v0" not in registration.registry:
            # While Gymnasium loads its plug-ins it gives names the plug-in's namespace, and only then.
            is_plugin = getattr(registration, "current_namespace", None) == NAMESPACE
            registration.register(
                id=f"{name}-v0" if is_plugin else f"{NAMESPACE}/{name}-v0",
                entry_point="edgebed.envs:make_gym",
                vector_entry_point="edgebed.envs:make_vector",
                kwargs={"scenario": name},
            )


def make_gym(scenario: str, render_mode: str | None = None, **parameters: Any) -> GymScenario:
    """What ``gymnasium.make`` calls.

    Args:
        scenario: its name.
        render_mode: None; there is nothing to see.
        parameters: the scenario's.
    """
    from edgebed.envs.gym import GymScenario
    from edgebed.simulation.scenarios import make_scenario

    return GymScenario(make_scenario(scenario, parameters))


def make_vector(scenario: str, num_envs: int = 1, render_mode: str | None = None, **parameters: Any) -> VectorScenario:
    """What ``gymnasium.make_vec`` calls.

    Args:
        scenario: its name.
        num_envs: environments in the batch.
        render_mode: None; there is nothing to see.
        parameters: the scenario's.
    """
    from edgebed.envs.vector import VectorScenario
    from edgebed.simulation.scenarios import make_scenario

    return VectorScenario(make_scenario(scenario, parameters), num_envs)
