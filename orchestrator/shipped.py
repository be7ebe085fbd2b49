"""The data that comes with edgebed: hosts, experiments, boards."""

from __future__ import annotations

from pathlib import Path

from edgebed.errors import WorkFailed

LOCAL_HOSTS = Path("inventory/hosts/local.yaml")
"""The hosts file of a project (or checkout) that needs no hardware; what verbs use unless told otherwise."""

_HERE = Path(__file__).resolve().parent


def shipped_inventory() -> Path:
    """The folder ``inventory/``: in the installed package, or in the checkout that this runs from.

    Raises:
        WorkFailed: the installation is incomplete.
    """
    for folder in (_HERE / "starter" / "inventory", _HERE.parent / "inventory"):
        if (folder / "boards").is_dir():
            return folder
    raise WorkFailed(f"edgebed's own inventory/ is missing beside {_HERE}; install edgebed again")
