"""Why a host cannot be reached over SSH, each reason with its next step."""

from __future__ import annotations

from typing import Literal

from edgebed.errors import RemoteError

Reason = Literal[
    "name_unknown",
    "refused",
    "no_answer",
    "no_route",
    "no_ssh",
    "hung_up",
    "rejected",
    "host_key_unknown",
    "host_key_changed",
    "host_key_revoked",
    "proxy_failed",
]

_MAY_PASS: frozenset[Reason] = frozenset({"refused", "hung_up"})


class Unreachable(RemoteError):
    """There is no connection to a host; nothing was asked of it.

    Attributes:
        reason: which of the ways it is: its name has no address, its port refuses, it is silent, there is no network
            to it, what answers is not SSH, it hung up, it takes neither user nor key, its host key is not known, is
            not the pinned one, or is revoked, or the proxy on the way failed.
        detail: what happened and what to do next, without host and command.
    """

    def __init__(self, host: str, command: str, detail: str, *, reason: Reason, output: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(host, command, detail, output=output)

    @property
    def may_pass(self) -> bool:
        """Whether trying again soon makes sense: a host that is just starting refuses, a busy one hangs up."""
        return self.reason in _MAY_PASS
