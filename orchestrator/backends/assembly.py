"""All that works on a run's hosts, put together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.clock import Clock, MonotonicClock
from orchestrator.attempts import Attempts
from orchestrator.backends.conductor import Conductor
from orchestrator.backends.run_clock import RunClock
from orchestrator.backends.session import Patience, Session
from orchestrator.collect import Collector
from orchestrator.interrupts import Interrupts
from orchestrator.inventory import Host
from orchestrator.journal import Journal
from orchestrator.plan_file import Plan
from orchestrator.provision.deployment import Deployment, local_remote
from orchestrator.provision.layout import free_name, state_name
from orchestrator.provision.settings import Pace
from orchestrator.remote.base import Remote
from orchestrator.retrieve import collect_logs

if TYPE_CHECKING:
    from orchestrator.faults.driver import FaultDriver
    from orchestrator.online.driver import LearningDriver

STOP_GRACE_S = 6.0
"""How long programs may take to end by themselves: an edge server finishes what it has for up to 5 s."""

HASTY_GRACE_S = 1.0


def local_state_root() -> Path:
    """Where this machine keeps what must outlive a program; as `orchestrator.provision.layout.STATE_ROOT` says it."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgebed"


@dataclass(frozen=True, slots=True)
class Hosts:
    """A run, its hosts, and everything between the two.

    Attributes:
        own_folder: what this machine has to remember while programs may run.
        close_interrupts: nobody else has a say in them.
    """

    folder: Path
    plan: Plan
    own_folder: Path
    deployment: Deployment
    attempts: Attempts
    collector: Collector
    journal: Journal
    session: Session
    conductor: Conductor
    interrupts: Interrupts
    close_interrupts: bool = False

    def stop_programs(self) -> list[str]:
        """End every program, in a hurry when someone has asked to stop twice.

        Returns:
            A sentence for each host where that failed.
        """
        grace_s = HASTY_GRACE_S if self.interrupts.count > 1 else STOP_GRACE_S
        return self.session.wait_for(self.deployment.in_background(lambda: self.deployment.stop(grace_s)))

    def sweep_faults(self, by: str) -> list[str]:
        """See that no fault is left on any host.

        Args:
            by: what ends those that are, in a word.

        Returns:
            A sentence for each that may be left.
        """
        faults = self.session.faults
        if faults is None:
            return []
        self.session.doing = "lifting faults"
        self.session.lift_faults(self.session.patience.lift_s)
        self.session.await_reboots(self.session.patience.reboot_s)
        return faults.sweep(by, self.session.wait_for)

    def dismantle(self) -> list[str]:
        """End the programs, fetch all that is still on the hosts, and leave nothing there if all of it came.

        Returns:
            A sentence for each thing that failed.
        """
        problems = self.sweep_faults("end")
        self.session.doing = "stopping programs"
        problems += self.stop_programs()
        self.session.doing = "collecting"
        recovered = self.session.recover(self.deployment.members)
        problems += self.session.wait_for(
            self.deployment.in_background(lambda: collect_logs(self.deployment, self.folder / "logs"))
        )
        self.session.close()
        self.collector.close()
        reached = [member for member in self.deployment.members if self.deployment.folder(member.host.name)]
        if not problems and all(member.name in recovered for member in reached):
            problems = self.deployment.remove()
        problems += self.deployment.drop_leases()
        self.deployment.close()
        self.journal.close()
        if self.close_interrupts:
            self.interrupts.close()
        return problems


def assemble(
    folder: Path,
    plan: Plan,
    *,
    clock: Clock | None = None,
    interrupts: Interrupts | None = None,
    pace: Pace | None = None,
    patience: Patience | None = None,
    on_turn: Callable[[Session], None] = lambda session: None,
    connect: Callable[[Host], Remote] = local_remote,
) -> Hosts:
    """Put together what works on a run; nothing is connected to yet.

    Args:
        folder: the run's.
        plan: the one in it.
        clock: monotonic.
        interrupts: who may ask to stop.
        pace: how patient the programs are.
        patience: how patient the orchestrator is.
        on_turn: called about every 0.1 s.
        connect: makes the `Remote` of a host.
    """
    are_own = interrupts is None
    clock, interrupts, pace = clock or MonotonicClock(), interrupts or Interrupts(), pace or Pace()
    attempts = Attempts(folder, [cell.cell_id for cell in plan.cells])
    collector = Collector(folder, attempts)
    run_clock = RunClock(attempts, clock)
    journal = Journal(folder, free_name(plan, "orchestrator"), run_clock.now_s)
    state = state_name(plan.run_id, folder)
    own_folder = local_state_root() / state / ".orchestrator"
    deployment = Deployment(plan, state, own_folder, connect=connect, pace=pace)
    session = Session(
        deployment,
        collector,
        journal,
        clock,
        interrupts,
        limits=pace.liveness,
        patience=patience,
        on_turn=on_turn,
        faults=_fault_driver(plan, deployment, journal, clock, run_clock),
        learning=_learning_driver(plan, folder, journal),
    )
    conductor = Conductor(session, attempts, run_clock)
    return Hosts(
        folder,
        plan,
        own_folder,
        deployment,
        attempts,
        collector,
        journal,
        session,
        conductor,
        interrupts,
        close_interrupts=are_own,
    )


def _fault_driver(
    plan: Plan, deployment: Deployment, journal: Journal, clock: Clock, run_clock: RunClock
) -> FaultDriver | None:
    """Who does the faults of a plan; None when it has none, and then nothing of it is loaded."""
    if not plan.fault_lists:
        return None
    from orchestrator.faults.driver import FaultDriver

    return FaultDriver(plan, deployment, journal, clock, run_clock.now_s)


def _learning_driver(plan: Plan, folder: Path, journal: Journal) -> LearningDriver | None:
    """Who leads the learners of a plan; None when no policy learns, and then nothing of it is loaded.

    Raises:
        MissingExtra: what learners need is not installed.
    """
    if not any(policy.learn for policy in plan.policies):
        return None
    from orchestrator.online.driver import LearningDriver

    return LearningDriver(plan, folder, journal)
