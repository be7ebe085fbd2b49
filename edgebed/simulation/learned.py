"""A learned policy, from its file, deciding for all environments of a scenario at once."""

from __future__ import annotations

from pathlib import Path

from edgebed.errors import SchemaMismatch
from edgebed.policies.policy_file import JOINT, PolicyFile, load_policy
from edgebed.simulation.base import ActionArray, Scenario
from edgebed.simulation.network_actor import NetworkActor, scenario_name, space_problems


class LearnedPolicy:
    """Decides as the file's network does, without exploring; it may come from another scenario of the same spaces.

    Attributes:
        scenario: whose current state it acts on.
        file: what was learned.
    """

    def __init__(self, scenario: Scenario, file: PolicyFile) -> None:
        """Check that the policy is one for this scenario.

        Raises:
            SchemaMismatch: its spaces are not the scenario's; both sides are named.
        """
        problems = space_problems(file, scenario)
        if problems:
            name = scenario_name(scenario)
            raise SchemaMismatch(
                f"this policy was made for {file.scenario} and does not fit {name}: {'; '.join(problems)}; "
                f"evaluate it with the parameters it was trained with, or train one for {name}"
            )
        self.scenario = scenario
        self.file = file
        self._actor = NetworkActor(file)

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
        return self._actor.act_on(self.scenario.observe().joint() if joint else self.scenario.device_views())
