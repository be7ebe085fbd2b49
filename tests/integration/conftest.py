"""What the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.testbed import Testbed


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    """A testbed that must leave nothing behind."""
    made = Testbed(tmp_path.resolve())
    try:
        yield made
        made.check_nothing_is_left()
    finally:
        made.kill_everything()
