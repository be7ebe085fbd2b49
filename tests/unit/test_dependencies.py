"""Who may import whom. The rule is drawn in the architecture; here it is read off every module's imports.

A new module inside a known package needs nothing. A new package, or a new module directly in ``edgebed/``, gets its
place in ``GROUPS``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
PACKAGES = [folder for folder in WHEEL if folder != "inventory"]

GROUPS = {
    "edgebed": "base",
    "edgebed.types": "base",
    "edgebed.clock": "base",
    "edgebed.errors": "base",
    "edgebed.randomness": "base",
    "edgebed.replacing": "base",
    "edgebed.configuration": "base",
    "edgebed.entry_points": "base",
    "edgebed.exclusive": "base",
    "edgebed.garbage": "base",
    "edgebed.program": "base",
    "edgebed.backend": "base",
    "edgebed.backend_testing": "base",
    "edgebed.backend_toy": "base",
    "edgebed.protocol": "records",
    "edgebed.metering": "records",
    "edgebed.trace": "records",
    "edgebed.policies": "content",
    "workloads": "content",
    "edgebed.simulation": "simulation",
    "edgebed.envs": "envs",
    "edgebed.learning": "learning",
    "edge_server": "edge_server",
    "device_agent": "device_agent",
    "orchestrator": "orchestrator",
}
LIBRARY = ["base", "records", "content", "simulation", "envs", "learning"]
MAY_IMPORT: dict[str, set[str]] = {
    **{group: set(LIBRARY[: level + 1]) for level, group in enumerate(LIBRARY)},
    "edge_server": {"base", "records", "content", "edge_server"},
    "device_agent": {"base", "records", "content", "device_agent"},
    "orchestrator": {*LIBRARY, "edge_server", "device_agent", "orchestrator"},
}
EXCEPTIONS = {("edge_server", "edgebed.simulation.radio.between_hosts")}
"""The channel arbiter grants what the scenario's interference equation says; that model is numpy only."""


@dataclass(frozen=True)
class Import:
    """One imported name, absolute; ``typing_only``: under ``if TYPE_CHECKING``."""

    target: str
    line: int
    typing_only: bool = False


def imports_of(source: str, module: str, is_package: bool) -> list[Import]:
    """Every import of a module, wherever it stands; ``from a import b`` gives ``a.b``, which may be a module."""
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) + is_package - node.level] if node.level else []
            parent = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{parent}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(name, node.lineno, id(node) in typing_only) for name in names]
    return found


@cache
def modules() -> dict[str, Path]:
    """Every module of the product, by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> tuple[Import, ...]:
    path = modules()[module]
    return tuple(imports_of(path.read_text(), module, path.name == "__init__.py"))


def module_of(target: str) -> str | None:
    """The product's module that an imported name is or lies in; None for packages from elsewhere."""
    parts = target.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in modules()), None)


def group_of(module: str) -> str:
    """The group of the nearest ancestor with a place in ``GROUPS``; ``edgebed`` itself has no children there."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in GROUPS and (name == module or name != "edgebed"):
            return GROUPS[name]
    raise AssertionError(f"{module} has no place in GROUPS of {Path(__file__).name}: say what may import it")


def executed_by(roots: set[str]) -> set[str]:
    """All modules that importing the roots may execute, sooner or later: parents, imports, and theirs in turn."""
    reached: set[str] = set()
    waiting = set(roots)
    while waiting:
        module = waiting.pop()
        reached.add(module)
        parents = {module.rsplit(".", 1)[0]} & modules().keys()
        used = {module_of(found.target) for found in imports(module) if not found.typing_only}
        waiting |= (parents | {name for name in used if name}) - reached
    return reached


def inside(*packages: str) -> set[str]:
    return {module for module in modules() if module.split(".")[0] in packages}


def distribution(requirement: str) -> str:
    """The normalised name in a requirement such as ``pyzmq>=26``."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def imported_names(requirements: list[str]) -> set[str]:
    """What the packages of a list of requirements are imported as, as far as they are installed."""
    wanted = {distribution(requirement) for requirement in requirements}
    return {
        name
        for name, origins in packages_distributions().items()
        if wanted & {distribution(origin) for origin in origins}
    }


def from_elsewhere(module: str) -> Iterator[Import]:
    """Imports of neither the product nor the standard library."""
    for found in imports(module):
        top = found.target.split(".")[0]
        if not found.typing_only and top not in sys.stdlib_module_names and top not in PACKAGES:
            yield found


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_only_what_lies_below_them(package: str) -> None:
    wrong = []
    for module in inside(package):
        for found in imports(module):
            target = module_of(found.target)
            if target is None or group_of(target) in MAY_IMPORT[group_of(module)]:
                continue
            if (group_of(module), target) not in EXCEPTIONS:
                wrong.append(f"{modules()[module]}:{found.line}: {group_of(module)} may not import {target}")
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_the_tests() -> None:
    outside = [path for folder in ("examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    sources = {path: imports_of(path.read_text(), path.stem, False) for path in outside}
    sources |= {path: list(imports(module)) for module, path in modules().items()}
    wrong = [path for path, found in sources.items() if any(one.target.split(".")[0] == "tests" for one in found)]
    assert not wrong


def test_programs_on_hosts_need_only_what_a_device_gets() -> None:
    allowed = imported_names(PROJECT["project"]["dependencies"])
    plugins = {module for module in modules() if re.fullmatch(r"edgebed\.policies\.\w+|workloads\.\w+", module)}
    wrong = [
        f"{modules()[module]}:{found.line}: {found.target}"
        for module in executed_by(inside("device_agent", "edge_server") | plugins)
        for found in from_elsewhere(module)
        if found.target.split(".")[0] not in allowed
    ]
    assert not wrong, "not among [project.dependencies]:\n" + "\n".join(wrong)


def test_policies_need_numpy_and_nothing_heavier() -> None:
    wrong = [
        f"{modules()[module]}:{found.line}: {found.target}"
        for module in modules()
        if module.startswith("edgebed.policies")
        for found in from_elsewhere(module)
        if found.target.split(".")[0] not in {"numpy", "msgspec"}
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("package", "only_in"),
    [("paramiko", "orchestrator"), ("torch", "edgebed.learning|workloads.*training"), ("ray", "edgebed.learning")],
)
def test_some_packages_have_one_place(package: str, only_in: str) -> None:
    users = {module for module in modules() if any(one.target.split(".")[0] == package for one in imports(module))}
    assert {module for module in users if not re.match(only_in, module)} == set()


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for info in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(info.name)
from edgebed.policies import policy_names, policy_spec
from workloads import load_workload, workload_names
for name in policy_names():
    policy_spec(name)
for name in workload_names():
    if name == "onnx_images":  # the user's own: there is nothing to load without a model
        from workloads.onnx_images import library, recognise
    else:
        load_workload(name).load()
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("program", ["device_agent", "edge_server"])
def test_importing_a_program_s_every_module_loads_no_extra(program: str) -> None:
    project = PROJECT["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    forbidden = imported_names(extras) - imported_names(project["dependencies"])
    forbidden |= {"torch", "duckdb", "pydantic", "matplotlib", "orchestrator"}
    command = [sys.executable, "-c", IMPORT_EVERYTHING, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"edgebed", "workloads", "numpy", program} <= loaded
    assert loaded & forbidden == set()


class TestTheReader:
    """The reader of imports, on made-up modules: it must see what the tests above rely on."""

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("import torch", ["torch"]),
            ("import torch.nn as nn, os", ["torch.nn", "os"]),
            ("from edgebed import types", ["edgebed.types"]),
            ("from . import radio", ["edgebed.simulation.radio"]),
            ("from .radio import sinr", ["edgebed.simulation.radio.sinr"]),
            ("from ..learning import ppo", ["edgebed.learning.ppo"]),
            ("def late():\n    import duckdb", ["duckdb"]),
            ("try:\n    import ray\nexcept ImportError:\n    pass", ["ray"]),
            ("text = 'import torch'", []),
        ],
    )
    def test_finds_every_way_to_import(self, source: str, expected: list[str]) -> None:
        assert [found.target for found in imports_of(source, "edgebed.simulation.engine", False)] == expected

    def test_relative_imports_of_a_package_start_at_itself(self) -> None:
        assert imports_of("from . import radio", "edgebed.simulation", True)[0].target == "edgebed.simulation.radio"

    def test_tells_imports_for_types_only(self) -> None:
        source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import os"
        found = imports_of(source, "edgebed.x", False)
        assert [(one.target, one.typing_only) for one in found] == [
            ("typing.TYPE_CHECKING", False),
            ("torch", True),
            ("os", False),
        ]

    def test_knows_the_product_s_modules(self) -> None:
        assert module_of("edgebed.types.Decision") == "edgebed.types"
        assert module_of("edgebed.policies.base.Policy") == "edgebed.policies.base"
        assert module_of("numpy.random") is None
        assert "edgebed.errors" in executed_by({"edgebed.policies.all_local"})

    def test_a_module_without_a_place_is_noticed(self) -> None:
        assert group_of("edgebed.protocol.codec") == "records"
        with pytest.raises(AssertionError, match=r"edgebed\.surprise has no place in GROUPS"):
            group_of("edgebed.surprise")
