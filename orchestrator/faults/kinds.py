"""The kinds of faults: what each needs to be told, what it touches, and which ability of a host does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.faults.abilities import (
    CanCutLink,
    CanFillDisk,
    CanKill,
    CanPause,
    CanReboot,
    CanSlowLink,
    CanStepClock,
    CanThrottle,
)

PROGRAM = "program"
EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a kind of fault is told.

    Attributes:
        low, high: what is allowed, both included.
        default: None when it has to be said, or may be left out, see `Kind.needs_one`.
        may_be_left_out: in any case.
    """

    meaning: str
    low: float
    high: float
    default: float | None = None
    may_be_left_out: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        meaning: in a few words.
        ability: what a host must be able to do; a class of `orchestrator.faults.hands`.
        touches: two faults of one host that touch the same thing may not overlap.
        lasts: it has a duration; otherwise it is a moment.
        parameters: by name.
        needs_one: any one of the parameters is enough; otherwise each without a default is needed.
    """

    meaning: str
    ability: Any
    touches: str
    lasts: bool = True
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needs_one: bool = False


KINDS: dict[str, Kind] = {
    "kill": Kind("a program is killed; it is started again", CanKill, PROGRAM, lasts=False),
    "stop": Kind("a program stands still (SIGSTOP) and goes on (SIGCONT)", CanPause, PROGRAM),
    "reboot": Kind(
        "the host starts anew",
        CanReboot,
        EVERYTHING,
        lasts=False,
        parameters={
            "boot_s": Parameter("seconds that it takes in virtual time", 0.0, 3600.0, may_be_left_out=True),
        },
    ),
    "cut_link": Kind("nothing goes in or out of the host", CanCutLink, "link"),
    "slow_link": Kind(
        "the host's link is slower, later or lossy",
        CanSlowLink,
        "link",
        parameters={
            "rate_bps": Parameter("bits a second", 1e3, 1e12),
            "delay_s": Parameter("added one way, seconds", 0.0, 60.0),
            "loss": Parameter("share of packets that are lost", 0.0, 1.0),
        },
        needs_one=True,
    ),
    "throttle": Kind(
        "the processor is kept slower",
        CanThrottle,
        "board",
        parameters={"fraction": Parameter("of its highest frequency", 0.05, 0.99)},
    ),
    "fill_disk": Kind(
        "the disk is full but for a little",
        CanFillDisk,
        "disk",
        parameters={"leave_bytes": Parameter("bytes that stay free", 1 << 20, 1e12, float(64 << 20))},
    ),
    "step_clock": Kind(
        "the wall clock jumps, and jumps back",
        CanStepClock,
        "clock",
        parameters={"by_s": Parameter("seconds, forwards or backwards", -86400.0, 86400.0)},
    ),
}
