"""A learned policy, from its file, deciding for all environments of a scenario at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgebed.errors import SchemaMismatch
from edgebed.policies.policy_file import JOINT, PolicyFile, load_policy
from edgebed.simulation.base import ActionArray, Scenario
from edgebed.types import Feature


class LearnedPolicy:
    """Decides as the file's network does, without exploring.

    Attributes:
        scenario: whose current state it acts on.
        file: what was learned.
    """

    def __init__(self, scenario: Scenario, file: PolicyFile) -> None:
        """Check that the policy is one for this scenario.

        Raises:
            SchemaMismatch: its spaces are not the scenario's; both sides are named.
        """
        problems = list(_misfits(scenario, file))
        if problems:
            name = scenario.spec.name
            raise SchemaMismatch(
                f"this policy was made for {file.scenario} and does not fit {name}: {'; '.join(problems)}; "
                f"evaluate it with the parameters it was trained with, or train one for {name}"
            )
        self.scenario = scenario
        self.file = file

    @classmethod
    def load(cls, scenario: Scenario, folder: Path) -> LearnedPolicy:
        """Read it.

        Raises:
            BadInput: there is no policy in the folder, or it is damaged.
            SchemaMismatch: see above.
        """
        return cls(scenario, load_policy(folder))

    def act(self) -> ActionArray:
        """See `edgebed.simulation.evaluation.BatchPolicy`."""
        joint = self.file.scope == JOINT
        seen = self.scenario.observe().joint() if joint else self.scenario.device_views()
        return self.file.head.actions(self.file.outputs(seen))


def _misfits(scenario: Scenario, file: PolicyFile) -> Iterator[str]:
    joint = file.scope == JOINT
    sides: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("device features", _names(file.device_features), _names(_columns(scenario, joint))),
        ("shared features", _names(file.shared_features), _names(scenario.shared_features if joint else ())),
        ("numbers of an action", _names(file.head.numbers), _names(scenario.actions.numbers)),
        ("choices of an action", file.choices, scenario.actions.choices),
    ]
    if (joint or file.actor.count is not None) and len(file.slots) != scenario.devices:
        yield f"it decides for {len(file.slots)} devices, the scenario has {scenario.devices}"
    for what, its, scenarios in sides:
        if list(its) != list(scenarios):
            yield f"its {what} are {_listed(its)}, the scenario's {_listed(scenarios)}"


def _columns(scenario: Scenario, joint: bool) -> tuple[Feature, ...]:
    return scenario.device_features if joint else scenario.view_features


def _names(features: Sequence[Feature]) -> list[str]:
    return [feature.name for feature in features]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"{len(names)} ({shown})" if names else "none"
