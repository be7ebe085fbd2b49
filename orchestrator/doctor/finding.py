"""What the doctor finds: a check, how it stands, the evidence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check stands. A run on a host that fails one would fail; with a warning its results would be suspect."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


SEVERITY = {Status.FAIL: 0, Status.WARN: 1, Status.OK: 2}
"""For sorting: the worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one host.

    Attributes:
        check: its name; fixed, for programs.
        evidence: what was seen, in a sentence or a number with its unit.
        fix: what to do; empty when all is well.
    """

    check: str
    status: Status
    evidence: str
    fix: str = ""

    def to_plain(self) -> dict[str, str]:
        """As ``check --json`` shows it."""
        return {"check": self.check, "status": self.status.value, "evidence": self.evidence, "fix": self.fix}


def ok(check: str, evidence: str) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, evidence)


def warn(check: str, evidence: str, fix: str) -> Finding:
    """It works, and what is measured may suffer."""
    return Finding(check, Status.WARN, evidence, fix)


def fail(check: str, evidence: str, fix: str) -> Finding:
    """It will not work."""
    return Finding(check, Status.FAIL, evidence, fix)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sorted by how bad they are; those alike keep their order."""
    return sorted(findings, key=lambda finding: SEVERITY[finding.status])
