"""Files that a policy's options name, a learned policy's weights say; they come to the hosts as those of workloads do.

See `workloads.files`: checked and packed where the experiment is read, named by checksum, placed once on every host.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.policies import make_policy, policy_class
from workloads.files import NeedsFiles, Packed, placed_options

if TYPE_CHECKING:
    from edgebed.policies.base import Policy
    from edgebed.types import ObservationSpec

__all__ = ["make_placed", "pack_files"]


def pack_files(name: str, options: Mapping[str, Any], folder: Path) -> Packed | None:
    """Pack the files of a policy; None when it needs none.

    Raises:
        BadInput: there is no such policy, or something is wrong with its files.
    """
    kind: Any = policy_class(name)
    return kind.pack(options, folder) if isinstance(kind, NeedsFiles) else None


def make_placed(name: str, observation_spec: ObservationSpec, options: Mapping[str, Any], folder: Path) -> Policy:
    """Make a policy whose files lie in ``folder``.

    Raises:
        BadInput: a file is missing or has other bytes than its name says; or as `edgebed.policies.make_policy`.
    """
    return make_policy(name, observation_spec, placed_options(options, folder))
