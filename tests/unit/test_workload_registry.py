"""Finding workloads by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from edgebed import entry_points
from edgebed.errors import BadInput
from workloads import load_workload, workload_names
from workloads.testing import InstantWorkload


def test_the_folder_is_walked() -> None:
    assert {"digits", "instant"} <= set(workload_names())


def test_options_reach_the_workload() -> None:
    assert load_workload("instant", {"frame_bytes": 77}).demand.bytes_per_frame == 77


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(BadInput, match=r"no 'digit'.*digits.*instant"):
        load_workload("digit")


def test_an_unknown_option_lists_those_that_exist() -> None:
    with pytest.raises(BadInput, match=r"frame_size.*frame_bytes"):
        load_workload("instant", {"frame_size": 3})


@pytest.mark.parametrize("options", [{"frame_bytes": 0}, {"frame_bytes": 10**9}, {"cycles_per_frame": float("nan")}])
def test_an_option_out_of_range_is_named(options: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(options))):
        load_workload("instant", options)


@dataclass
class FakePoint:
    name: str

    def load(self) -> type[InstantWorkload]:
        return InstantWorkload


def test_an_entry_point_admits_a_package_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_points, "points_of", lambda group: [FakePoint(f"from-{group}")])
    assert "from-edgebed.workloads" in workload_names()
    assert isinstance(load_workload("from-edgebed.workloads"), InstantWorkload)


def test_importing_the_registry_loads_nothing_heavy() -> None:
    code = "import sys, workloads; print([m for m in ('numpy', 'PIL', 'onnxruntime', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_naming_workloads_loads_no_runtime() -> None:
    code = (
        "import sys, workloads; workloads.load_workload('digits').demand;"
        "print([m for m in ('PIL', 'onnxruntime', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
