"""What the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.testbed import Testbed, clean_testbed


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    """A testbed that must leave nothing behind."""
    with clean_testbed(tmp_path) as made:
        yield made
