"""What can be done to a host, an ability a protocol. Which hosts have which is in `orchestrator.faults.hands`.

Each method does its fault now and sees to it that the host itself lifts it after the fault's time, whoever is gone by
then; `Hands.lift` lifts it earlier, or learns that it was lifted.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from orchestrator.faults.schedule import Act


@runtime_checkable
class CanKill(Protocol):
    """Its programs can be killed."""

    def kill(self, act: Act) -> None:
        """Kill a program.

        Raises:
            WorkFailed: it does not run. RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanPause(Protocol):
    """Its programs can be made to stand still."""

    def stop(self, act: Act) -> None:
        """Make a program stand still.

        Raises:
            WorkFailed: it does not run. RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanReboot(Protocol):
    """It can be started anew."""

    def reboot(self, act: Act) -> None:
        """Begin to reboot; the fault is over when the host is back.

        Raises:
            RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanCutLink(Protocol):
    """Its link can be cut."""

    def cut_link(self, act: Act) -> None:
        """Cut the link.

        Raises:
            RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanSlowLink(Protocol):
    """Its link can be shaped."""

    def slow_link(self, act: Act) -> None:
        """Shape the link: ``rate_bps``, ``delay_s``, ``loss``, those that are given.

        Raises:
            RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanThrottle(Protocol):
    """Its processor can be kept slower."""

    def throttle(self, act: Act) -> None:
        """Keep the processor at a ``fraction`` of its highest frequency.

        Raises:
            RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanFillDisk(Protocol):
    """Its disk can be filled."""

    def fill_disk(self, act: Act) -> None:
        """Fill the disk up to ``leave_bytes``.

        Raises:
            RemoteError: the host was lost, or refused.
        """
        ...


@runtime_checkable
class CanStepClock(Protocol):
    """Its wall clock can be set."""

    def step_clock(self, act: Act) -> None:
        """Set the wall clock ``by_s`` seconds further.

        Raises:
            RemoteError: the host was lost, or refused.
        """
        ...
