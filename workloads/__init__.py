"""WHAT IS COMPUTED: the workloads, found by walking this folder and the entry-point group ``edgebed.workloads``.

A module or package in this folder is a workload when it defines ``WORKLOAD = ItsClass``; the class's ``name`` is what
hosts and experiment files call it. A package from elsewhere is admitted by an entry point whose name is the workload's
and whose value is the class. Importing this package imports none of them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgebed import entry_points
from edgebed.errors import BadInput

if TYPE_CHECKING:
    from workloads.base import Workload

ENTRY_POINT_GROUP = "edgebed.workloads"

__all__ = ["ENTRY_POINT_GROUP", "load_workload", "workload_class", "workload_names"]


def workload_names() -> list[str]:
    """The names that `load_workload` knows, in alphabetical order."""
    return sorted({**_own(), **_from_elsewhere()})


def workload_class(name: str) -> type[Workload]:
    """The class of the workload called ``name``.

    Raises:
        BadInput: no workload has this name.
    """
    return _own().get(name) or _load_from_elsewhere(name)


def load_workload(name: str, options: Mapping[str, Any] | None = None) -> Workload:
    """Make the workload called ``name``; nothing that costs memory is loaded before it is used.

    Args:
        name: one of `workload_names`; this folder's workloads win over packages from elsewhere.
        options: keyword arguments of the workload's class.

    Raises:
        BadInput: no workload has this name, or it has no such option.
    """
    kind = workload_class(name)
    given = dict(options or {})
    signature = inspect.signature(kind)
    try:
        signature.bind(**given)
    except TypeError as error:
        allowed = ", ".join(signature.parameters) or "none"
        raise BadInput(f"workload {name}: options {sorted(given)}: {error}; its options: {allowed}") from None
    return kind(**given)


def _own() -> dict[str, type[Workload]]:
    """The workloads of this folder."""
    # A name with an underscore is no workload, and importing it may cost what loading lazily saves.
    names = (found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names)
    kinds = (getattr(module, "WORKLOAD", None) for module in modules)
    return {kind.name: kind for kind in kinds if kind is not None}


def _from_elsewhere() -> dict[str, Callable[[], type[Workload]]]:
    """What loads each workload that an installed package admits; not loaded before it is asked for."""
    return {point.name: point.load for point in entry_points.points_of(ENTRY_POINT_GROUP)}


def _load_from_elsewhere(name: str) -> type[Workload]:
    sources = _from_elsewhere()
    if name not in sources:
        raise BadInput(f"workload: there is no {name!r}; those that exist: {', '.join(workload_names())}")
    return sources[name]()
