"""How small models are found: a folder a kind, a file a model.

A module in a kind's folder is a model when it defines ``MODEL``; the module's name is the model's, and the first line
of its docstring is what it is. Modules without it hold functions that models and scenarios share. Adding a model
touches two files: its own and its test.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from edgebed.errors import BadInput


@cache
def models_in(package: str) -> dict[str, Any]:
    """Every model of a kind.

    Args:
        package: the kind's folder, for example ``"edgebed.simulation.radio"``.

    Returns:
        ``MODEL`` by the name of its module, in alphabetical order.
    """
    found = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        if hasattr(module, "MODEL"):
            found[info.name] = module.MODEL
    return dict(sorted(found.items()))


def model_in(package: str, name: str) -> Any:
    """One model of a kind.

    Raises:
        BadInput: there is none of this name; those that there are, are named.
    """
    models = models_in(package)
    if name not in models:
        kind = package.rpartition(".")[2]
        raise BadInput(f"{kind}: there is no model {name!r}; those that exist: {', '.join(models)}")
    return models[name]
