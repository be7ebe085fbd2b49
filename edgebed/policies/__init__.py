"""WHAT DECIDES: the policies, found by walking this folder and the entry-point group ``edgebed.policies``.

A module in this folder is a policy when it defines ``POLICY = ItsClass``; the class's ``spec.name`` is what experiment
files call it. A package from elsewhere is admitted by an entry point whose name is the policy's and whose value is the
class. Importing this package imports none of them. ``docs/extending.md`` shows both ways.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgebed import entry_points
from edgebed.errors import BadInput

if TYPE_CHECKING:
    from edgebed.policies.base import Policy
    from edgebed.types import ObservationSpec, PolicySpec

ENTRY_POINT_GROUP = "edgebed.policies"

__all__ = ["ENTRY_POINT_GROUP", "make_policy", "policy_class", "policy_names", "policy_spec"]


def policy_names() -> list[str]:
    """The names that `make_policy` knows, in alphabetical order."""
    return sorted(_sources())


def policy_spec(name: str) -> PolicySpec:
    """What a policy needs and sets, without making it.

    Raises:
        BadInput: no policy has this name.
    """
    return policy_class(name).spec


def make_policy(name: str, observation_spec: ObservationSpec, options: Mapping[str, Any] | None = None) -> Policy:
    """Make a policy for the observations that ``observation_spec`` describes; `Policy.reset` it before use.

    Args:
        name: one of `policy_names`.
        observation_spec: what it will be shown.
        options: settings of the policy; those left out have defaults.

    Raises:
        BadInput: no policy has this name, or an option is unknown or of the wrong type.
        SchemaMismatch: the policy needs a feature that the observations lack.
    """
    return policy_class(name)(observation_spec, options)


def policy_class(name: str) -> type[Policy]:
    """The class registered under ``name``.

    Raises:
        BadInput: no policy has this name, two have it, or what an entry point names is not a policy.
    """
    sources = _sources()
    if name not in sources:
        raise BadInput(f"policy: there is no {name!r}; those that exist: {', '.join(sorted(sources))}")
    if len(sources[name]) > 1:
        origins = " and ".join(origin for origin, _ in sources[name])
        raise BadInput(f"policy {name}: defined by {origins}; rename or uninstall one of them")
    origin, load = sources[name][0]
    return _checked(name, origin, load())


def _checked(name: str, origin: str, kind: object) -> type[Policy]:
    from edgebed.policies.base import Policy  # here: importing this package must stay cheap

    if not (isinstance(kind, type) and issubclass(kind, Policy)):
        raise BadInput(f"policy {name}: {origin} gives {kind!r}; a subclass of edgebed.policies.base.Policy is needed")
    return kind


_Source = tuple[str, Callable[[], object]]


def _sources() -> dict[str, list[_Source]]:
    """Every definition of every name: where it comes from, and what loads its class."""
    sources: dict[str, list[_Source]] = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        kind = getattr(importlib.import_module(info.name), "POLICY", None)
        if kind is not None:
            name = _checked(info.name, info.name, kind).spec.name
            sources.setdefault(name, []).append((info.name, lambda kind=kind: kind))  # type: ignore[misc]
    for point in entry_points.points_of(ENTRY_POINT_GROUP):
        sources.setdefault(point.name, []).append((f"entry point {point.value}", point.load))
    return sources
