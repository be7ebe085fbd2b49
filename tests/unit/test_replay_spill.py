"""Rows put aside by part come back as they came, from files as from memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.replay.spill import Spill


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_parts_have_their_rows_in_the_order_in_which_they_came(tmp_path: Path, is_on_disk: bool) -> None:
    folder = tmp_path / "aside" if is_on_disk else None
    for _ in range(2):  # a second day finds nothing of the first
        spill = Spill({"row": "i8", "share": "f8"}, folder)
        for first in (0, 10):
            rows = np.arange(first, first + 10)
            spill.add({"row": rows, "share": rows / 4.0}, rows % 3)
        assert spill.part(1)["row"].tolist() == [1, 4, 7, 10, 13, 16, 19]
        assert spill.part(1)["share"].tolist() == [0.25, 1.0, 1.75, 2.5, 3.25, 4.0, 4.75]
        assert spill.part(1)["row"].tolist() == [1, 4, 7, 10, 13, 16, 19]  # it is still there
        assert spill.part(7)["row"].tolist() == []
