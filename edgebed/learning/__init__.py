"""WHAT TRAINS POLICIES: the learners, found by walking this folder and the entry-point group ``edgebed.learners``.

A module in this folder is a learner's when it defines ``LEARNERS``, a tuple of `edgebed.learning.base.Learner` classes;
the module of a single learner has the learner's name, so that training it imports no other one. A package from
elsewhere is admitted by an entry point whose name is the learner's and whose value is the class. Importing this package
imports none of them. ``docs/learning.md`` shows how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgebed import entry_points
from edgebed.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from types import ModuleType

    from edgebed.learning.base import Learner

ENTRY_POINT_GROUP = "edgebed.learners"

_EXTRA_PACKAGES = frozenset({"torch", "gymnasium", "pettingzoo", "stable_baselines3", "sb3_contrib", "tensorboard"})

__all__ = ["ENTRY_POINT_GROUP", "learner_class", "learner_names"]


def learner_names() -> list[str]:
    """The names that `learner_class` knows, in alphabetical order. Imports them all, torch included.

    Raises:
        MissingExtra: a learner's packages are not installed.
    """
    return sorted(_sources(_modules()))


def learner_class(name: str) -> type[Learner]:
    """The class registered under ``name``.

    Raises:
        BadInput: no learner has this name, or what an entry point names is not a learner.
        MissingExtra: its packages are not installed.
    """
    own = [module for module in _modules() if module == name]
    found = _sources(own).get(name) or _sources(_modules()).get(name)
    if found is None:
        raise BadInput(f"learner: there is no {name!r}; those that exist: {', '.join(learner_names())}")
    return found


def _modules() -> list[str]:
    return [info.name for info in pkgutil.iter_modules(__path__) if info.name not in {"base", "testing"}]


def _sources(modules: list[str]) -> Mapping[str, type[Learner]]:
    found: dict[str, type[Learner]] = {}
    for name in modules:
        for kind in getattr(_imported(name), "LEARNERS", ()):
            found[kind.spec.name] = kind
    for point in entry_points.points_of(ENTRY_POINT_GROUP):
        found[point.name] = _checked(point.name, point.load())
    return found


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA_PACKAGES:
            raise
        raise MissingExtra("learning", f"the learner {name}") from None


def _checked(name: str, kind: Any) -> type[Learner]:
    from edgebed.learning.base import Learner

    if not (isinstance(kind, type) and issubclass(kind, Learner)):
        raise BadInput(f"learner {name}: its entry point gives {kind!r}; a subclass of {Learner!r} is needed")
    return kind
