"""AGA: a genetic search around the actor's decision, scored by the critic, explores; DC-DRL's second baseline.

The paper's baseline searches with an adaptive genetic algorithm for actions that the critic values more than the
actor's. Here it is DC-DRL's own agent in a single cell, without neuroevolution and with one-step returns, whose every
decision while learning is the search's (`edgebed.learning.search`) before the usual random decisions are mixed in. So
what it differs in from DC-DRL is what is compared.

What decides in the exported policy is the actor alone, as for every learner: hosts do not search.
`DcDrl`'s metrics are logged.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from numpy.typing import NDArray

from edgebed.learning.base import Cell, CellWorker, LearnerSpec, parameter
from edgebed.learning.dc_drl import DcDrl, DcDrlCell, DcDrlConfig
from edgebed.learning.noise import Counted, OrnsteinUhlenbeck
from edgebed.learning.search import GeneticSearch, searched


class AgaConfig(DcDrlConfig, frozen=True):
    """Settings of AGA: DC-DRL's, with other defaults, and the search's."""

    cells: Annotated[int, parameter("1", "environments, an agent each", ge=1, le=64)] = 1
    neuroevolution: Annotated[Literal["gradient", "vanilla", "off"], parameter("1", "as in dc_drl; off here")] = "off"
    merge_share: Annotated[float, parameter("1", "as in dc_drl; 0 here: a single agent", ge=0, le=1)] = 0.0
    cell_updates: Annotated[float, parameter("1", "as in dc_drl; 0 here: a single agent", ge=0)] = 0.0
    collective_updates: Annotated[float, parameter("1", "updates of the agent, a step", ge=0)] = 0.4
    n_step: Annotated[int, parameter("1", "largest n", ge=1, le=50)] = 1
    population: Annotated[int, parameter("1", "joint decisions that a search keeps", ge=2, le=1000)] = 16
    generations: Annotated[int, parameter("1", "rounds of a search", ge=1, le=100)] = 3
    most_mutation: Annotated[float, parameter("1", "share of devices drawn anew, for the worst", ge=0, le=1)] = 0.3
    least_mutation: Annotated[float, parameter("1", "share of devices drawn anew, for the best", ge=0, le=1)] = 0.05

    def search(self) -> GeneticSearch:
        """The search's settings."""
        return GeneticSearch(self.population, self.generations, self.most_mutation, self.least_mutation)


class AgaCell(DcDrlCell):
    """A cell whose decisions are searched for."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self._search_numbers = Counted(cell.task.seeds, "cell", cell.index, "search")

    def _explore(self, seen: NDArray[Any], draw: int, progress: float, walk: OrnsteinUhlenbeck) -> NDArray[Any]:
        config, agent = self._config, self._agent
        assert isinstance(config, AgaConfig)
        start = agent.encoding.choices_of(self._noisy(seen, draw, walk))
        best = searched(agent.ddpg.critic, agent.encoding, seen, start, config.search(), self._search_numbers, draw)
        return self._some_random(agent.encoding.stored(best), draw, progress)


class Aga(DcDrl):
    """A single cell of DC-DRL that explores by genetic search."""

    spec: ClassVar[LearnerSpec] = LearnerSpec(
        name="aga",
        title="DDPG that explores by a genetic search around the actor's decision, scored by the critic",
        paper="Qiu et al. 2021, baseline AGA",
        config=AgaConfig,
    )
    cell_kind: ClassVar[type[CellWorker]] = AgaCell


LEARNERS = (Aga,)
