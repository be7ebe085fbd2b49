"""Tests of this folder that need root make network namespaces of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before torch and numpy are loaded; threads of small networks only wait

ALL_TESTS = "EDGEBED_ALL_TESTS"
"""Set where every test must run, as in tests/conftest.py."""

_left_out = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root the tests that need it are left out, counted, and told of at the end."""
    rooted = [item for item in items if item.get_closest_marker("root") and item.path.parent.name == "learning"]
    if rooted and os.geteuid() != 0 and not os.environ.get(ALL_TESTS):
        items[:] = [item for item in items if item not in rooted]
        config.hook.pytest_deselected(items=rooted)
        config.stash[_left_out] = len(rooted)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, and how to have it run."""
    if left_out := config.stash.get(_left_out, 0):
        terminalreporter.write_line(f"left out: {left_out} tests that need root: sudo make test-learning", yellow=True)
