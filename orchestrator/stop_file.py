"""The key ``stop`` of an experiment file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.stop_rule import MIN_SEEDS, HalfWidth, StopRule
from orchestrator.validation import Strict


class HalfWidthChoice(Strict):
    """``stop.half_width``."""

    measure: Literal["latency_s", "miss_rate", "cpu_s", "energy_j", "offload_share", "cost"]
    at_most: float = Field(gt=0, le=1e12, description="in the measure's unit")
    min_seeds: int = Field(default=MIN_SEEDS, ge=2, le=1_000_000)


class StopChoice(Strict):
    """``stop``: either, both, or none."""

    run_s: float | None = Field(default=None, gt=0, le=1e9)
    half_width: HalfWidthChoice | None = None

    def rule(self) -> StopRule | None:
        """As a plan has it; None when it says nothing."""
        wanted = self.half_width
        if self.run_s is None and wanted is None:
            return None
        half_width = None
        if wanted is not None:
            half_width = HalfWidth(measure=wanted.measure, at_most=wanted.at_most, min_seeds=wanted.min_seeds)
        return StopRule(run_s=self.run_s, half_width=half_width)
