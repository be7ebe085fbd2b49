"""The same work on many hosts at once; what fails on one does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from edgebed.errors import EdgebedError
from orchestrator.inventory import Host
from orchestrator.remote.base import Remote

MAX_THREADS = 64

State = Literal["local", "unchanged", "planned", "changed", "failed"]

Tell = Callable[[str, str], None]
"""Called with a host's name and a sentence, from its thread, as the work goes on."""


@dataclass(slots=True)
class HostReport:
    """How the work on a host ended.

    Attributes:
        state: ``local``: this machine, nothing to do; ``planned``: changes are needed and were only shown.
        commands: those that were run, or would be.
        seconds: how long it took, reaching the host included.
        error: why it failed; None when it did not.
    """

    state: State = "unchanged"
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was changed on the host."""
        return self.state == "changed"

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "state": self.state,
            "changed": self.changed,
            "commands": self.commands,
            "seconds": round(self.seconds, 3),
            "error": self.error,
        }


def on_each_host(
    hosts: Sequence[Host], connect: Callable[[Host], Remote], work: Callable[[Host, Remote], HostReport]
) -> dict[str, HostReport]:
    """Reach all hosts at once, and do the work on each of them.

    Args:
        hosts: local ones have nothing done to them.
        connect: makes the `Remote` of a host; it is connected and closed here.
        work: done in a thread of its own for each host.

    Returns:
        What came of it by name, in the order of ``hosts``.
    """
    reports = {host.name: HostReport("local") for host in hosts}
    distant = [host for host in hosts if host.connection != "local"]
    if not distant:
        return reports
    remotes: list[Remote] = []
    pool = ThreadPoolExecutor(min(MAX_THREADS, len(distant)), "hosts")
    try:
        futures = {host.name: pool.submit(_on_one, host, connect, work, remotes) for host in distant}
        reports |= {name: future.result() for name, future in futures.items()}
    except BaseException:
        # Ctrl-C: threads that wait for a host wait no longer.
        for remote in remotes:
            with suppress(EdgebedError, OSError):
                remote.close()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    return reports


def _on_one(
    host: Host,
    connect: Callable[[Host], Remote],
    work: Callable[[Host, Remote], HostReport],
    remotes: list[Remote],
) -> HostReport:
    began_s = time.monotonic()
    try:
        remote = connect(host)
        remotes.append(remote)
        try:
            remote.connect()
            report = work(host, remote)
        finally:
            remote.close()
    except (EdgebedError, OSError) as error:
        report = HostReport("failed", error=str(error))
    report.seconds = time.monotonic() - began_s
    return report
