"""Programs kept by a host's systemd: `SystemdSupervision`, with the methods of `Supervision`.

The work is done by ``service.sh``, which deploying has placed on the host.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from edgebed.errors import BadInput
from orchestrator.provision.installation import Installation
from orchestrator.provision.supervision import Supervision
from orchestrator.remote.base import Remote

SCRIPT = "service.sh"


@dataclass(frozen=True, slots=True)
class SystemdSupervision(Supervision):
    """The programs that a run has on one host with systemd.

    A program starts again when it has crashed and after a reboot, until it is stopped or ends with status 0 or 2.
    ``ProgramState.supervisor_pid`` is 1 while systemd keeps it.

    Args:
        remote: the host, connected.
        folder: the run's state folder, as the host resolves it.
        installation: what is deployed there.
    """

    installation: Installation

    def install(self) -> None:
        """Check that the service is there; deploying has placed it.

        Raises:
            BadInput: it is not.
            RemoteError: the host was lost.
        """
        script = f"{self.installation.root}/{SCRIPT}"
        if self.remote.execute(f"test -f {shlex.quote(script)}", idempotent=True).status != 0:
            raise BadInput(f"{self.remote.host}: {script} is missing; run `edgebed deploy HOSTS`")

    def _command(self, *words: str) -> str:
        scope = self.installation.keeper.removeprefix("systemd_")
        return shlex.join(["sh", f"{self.installation.root}/{SCRIPT}", scope, self.folder, *words])


def supervision_for(remote: Remote, folder: str, installation: Installation) -> Supervision:
    """Who keeps the programs of a run on a host: its systemd, or a script where there is none.

    Args:
        remote: the host, connected.
        folder: the run's state folder, as the host resolves it.
        installation: what is deployed there.
    """
    if installation.keeper == "shell":
        return Supervision(remote, folder)
    return SystemdSupervision(remote, folder, installation)
