"""The unit that keeps edgebed's programs on a host with systemd. Pure text."""

from __future__ import annotations

from typing import Literal

Scope = Literal["system", "user"]

UNIT = "edgebed@.service"
LAUNCHER = "launch.sh"

_UNIT = """\
[Unit]
Description=edgebed %i
# Of the programs that a host has, those run that a run has asked for; after a reboot, too.
ConditionPathExists={root}/active/%i
Wants={wants}
After={wants}
# A program that crashes at once, again and again, will not get better.
StartLimitIntervalSec=120
StartLimitBurst=20

[Service]
Type=exec
ExecStart=/bin/sh "{root}/{launcher}" %i
Restart=on-failure
RestartSec=500ms
# The program's way to say that its settings are wrong.
RestartPreventExitStatus=2
# The program ends its own workers.
KillMode=mixed
TimeoutStopSec=90
UMask=0077
LimitNOFILE=65536
LimitCORE=0
TasksMax=512
# The rest is for the system and for whoever is logged in: a host that swaps measures nothing.
MemoryMax=75%
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
{scope}
[Install]
WantedBy={wanted_by}
"""

# Sensors are read from /sys, and through the firmware's devices; nothing else of /dev is needed, and all of the system
# but the two folders of edgebed is read-only. A user's own systemd has not the right to arrange this.
# Not ProtectControlGroups and ProtectKernelTunables: both give the service a fresh /proc and /sys. Where the host's own
# show less than the machine's (containers, virtual hosts) it would measure other programs than its host's. Without
# capabilities the user can write to neither anyway.
_SYSTEM = """\
User={user}
{groups}CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={root}
ReadWritePaths=-{state_root}
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/vcio rw
DeviceAllow=/dev/vchiq rw
DeviceAllow=/dev/vcsm-cma rw
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectHostname=yes
ProtectClock=yes
RemoveIPC=yes
"""


def unit_text(scope: Scope, *, root: str, user: str, state_root: str, groups: tuple[str, ...] = ()) -> str:
    """The template unit of a host.

    Args:
        scope: whose systemd keeps the programs.
        root: the host's ``.edgebed``.
        user: as whom they run.
        state_root: the folder of the runs' state folders.
        groups: those that a program needs besides the user's own, to read sensors.
    """
    is_system = scope == "system"
    words = {"root": _escaped(root), "user": user, "state_root": _escaped(state_root), "launcher": LAUNCHER}
    words["groups"] = f"SupplementaryGroups={' '.join(groups)}\n" if groups else ""
    return _UNIT.format(
        scope=_SYSTEM.format(**words) if is_system else "",
        wants="network-online.target" if is_system else "default.target",
        wanted_by="multi-user.target" if is_system else "default.target",
        **{name: words[name] for name in ("root", "launcher")},
    ).replace("Wants=default.target\nAfter=default.target\n", "")


def _escaped(path: str) -> str:
    """A path in which systemd finds no specifier of its own."""
    return path.replace("%", "%%")


def instances_of(programs: tuple[str, ...]) -> tuple[str, ...]:
    """The units of programs."""
    return tuple(UNIT.replace("@", f"@{program}") for program in programs)
