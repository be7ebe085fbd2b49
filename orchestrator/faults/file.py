"""The entries of ``faults:`` in an experiment file, checked by themselves; ``docs/faults.md`` explains them."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.faults.kinds import KINDS
from orchestrator.faults.schedule import FaultRule
from orchestrator.validation import Strict, unknown_name

PROGRAMS = ("device_agent", "edge_server", "controller")
_PARAMETERS = ("rate_bps", "delay_s", "loss", "fraction", "leave_bytes", "by_s", "boot_s")


class FaultChoice(Strict):
    """An entry of ``faults``: what, to whom, when, for how long."""

    kind: str = Field(description=f"one of {', '.join(KINDS)}")
    host: str | list[str] = Field(description="a host's name, devices, edge_servers, or a list of them")
    program: Literal["device_agent", "edge_server", "controller"] | None = None
    at_s: float | list[float] | None = None
    every_s: float | None = Field(default=None, gt=0, le=1e9)
    probability: float | None = Field(default=None, gt=0, le=1)
    for_s: float | None = Field(default=None, gt=0, le=86400)
    rate_bps: float | None = None
    delay_s: float | None = None
    loss: float | None = None
    fraction: float | None = None
    leave_bytes: float | None = None
    by_s: float | None = None
    boot_s: float | None = None

    @field_validator("kind")
    @classmethod
    def _kind_exists(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(unknown_name("kind of fault", value, KINDS))
        return value

    @field_validator("at_s")
    @classmethod
    def _times_are_times(cls, value: float | list[float] | None) -> float | list[float] | None:
        times = value if isinstance(value, list) else [] if value is None else [value]
        if value == [] or not all(0 <= each < 1e9 for each in times):
            raise ValueError("expected seconds since the cell's start, one number or a list, each at least 0")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> FaultChoice:
        kind = KINDS[self.kind]
        if (self.at_s is None) == (self.every_s is None):
            raise ValueError(f"{self.kind}: say either at_s or every_s")
        if self.probability is not None and self.every_s is None:
            raise ValueError(f"{self.kind}: probability goes with every_s")
        if kind.lasts != (self.for_s is not None):
            text = "is needed: how long it lasts, in seconds" if kind.lasts else "does not go with it: it is a moment"
            raise ValueError(f"{self.kind}: for_s {text}")
        if self.every_s is not None and self.for_s is not None and self.for_s >= self.every_s:
            raise ValueError(f"{self.kind}: for_s is {self.for_s:g}; allowed: less than every_s, {self.every_s:g}")
        if self.program is not None and self.kind not in ("kill", "stop"):
            raise ValueError(f"{self.kind}: program goes with kill and stop")
        self._parameters()
        return self

    def _parameters(self) -> dict[str, float]:
        """What the kind is told, defaults filled in.

        Raises:
            ValueError: something is missing, out of bounds, or belongs to another kind.
        """
        kind = KINDS[self.kind]
        given = {name: getattr(self, name) for name in _PARAMETERS if getattr(self, name) is not None}
        for name, value in given.items():
            if name not in kind.parameters:
                raise ValueError(f"{self.kind}: {name} is not for it; allowed: {', '.join(kind.parameters) or 'none'}")
            bounds = kind.parameters[name]
            if not math.isfinite(value) or not bounds.low <= value <= bounds.high:
                raise ValueError(f"{self.kind}: {name} is {value:g}; allowed: {bounds.low:g} to {bounds.high:g}")
        defaults = {name: each.default for name, each in kind.parameters.items() if each.default is not None}
        left_out = {name for name, each in kind.parameters.items() if each.may_be_left_out}
        missing = [name for name in kind.parameters if name not in {*given, *defaults, *left_out}]
        if missing and (not kind.needs_one or not given):
            raise ValueError(f"{self.kind}: {' or '.join(missing)} is needed")
        return {name: float(value) for name, value in (defaults | given).items()}

    def rule(self) -> FaultRule:
        """What the plan keeps of it."""
        at_s = self.at_s if isinstance(self.at_s, list) else [] if self.at_s is None else [self.at_s]
        return FaultRule(
            kind=self.kind,
            hosts=[self.host] if isinstance(self.host, str) else list(self.host),
            program=self.program or "",
            at_s=[float(each) for each in at_s],
            every_s=self.every_s,
            probability=1.0 if self.probability is None else self.probability,
            for_s=self.for_s or 0.0,
            parameters=self._parameters(),
        )


def spelt_out(given: Any) -> Any:
    """A single fault may stand without a list around it."""
    return [given] if isinstance(given, dict) else given
