"""What a wheel holds: the packages and the starter inventory, and nothing that git ignores."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("edgebed", "edge_server", "device_agent", "orchestrator", "workloads")
STARTER = "orchestrator/starter/inventory"
PRIVATE = ("inventory/hosts/lab.yaml", "inventory/hosts/known_hosts", "inventory/hosts/__pycache__/left.pyc")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The parts of the repository that make a wheel, without those that make it large, and files that git ignores."""
    clone = tmp_path / "clone"
    left_out = shutil.ignore_patterns("__pycache__", "*.onnx", "*.npz", "lab.yaml", "known_hosts")
    for folder in (*PACKAGES, "inventory"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, clone)
    for name in PRIVATE:
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_text("not for others")
    return clone


def names_in_wheel(clone: Path) -> set[str]:
    """Build a wheel as pip does, by the backend's own hook, and list it."""
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(clone / "dist")]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(clone / "dist" / done.stdout.splitlines()[-1]) as wheel:
        return set(wheel.namelist())


def test_a_wheel_holds_the_inventory_and_nothing_that_git_ignores(clone: Path) -> None:
    names = names_in_wheel(clone)
    shipped = {str(path.relative_to(clone)) for path in (clone / "inventory").rglob("*") if path.is_file()}
    expected = {f"{STARTER}/{name.removeprefix('inventory/')}" for name in shipped - set(PRIVATE)}
    assert {name for name in names if "inventory/" in name} == expected
    assert f"{STARTER}/hosts/local.yaml" in names
    assert {f"{package}/__init__.py" for package in PACKAGES} <= names


def test_what_the_lab_writes_stays_out_without_git_too(clone: Path) -> None:
    (clone / ".gitignore").unlink()
    assert not {name for name in names_in_wheel(clone) if name.endswith(("lab.yaml", "known_hosts"))}
