"""How the lab's programs are spoken to: a Unix socket, one line of JSON each way, then it closes.

A request is ``{"do": NAME, ...arguments}``; an answer is ``{"ok": VALUE}`` or ``{"error": TEXT, "bad_input": BOOL}``.
Only the owner of the socket's file (and root) may connect.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput, EdgebedError, WorkFailed

TIMEOUT_S = 30.0
_MOST_BYTES = 1 << 20
_PATIENCE_S = 2.0

Action = Callable[..., Any]


def ask(path: Path, do: str, timeout_s: float = TIMEOUT_S, **arguments: Any) -> Any:
    """Have a program of the lab do something, and return what it answers.

    Raises:
        BadInput: it says that an argument is wrong.
        WorkFailed: it could not, or it is not there.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            answer = json.loads(_line(connection))
    except (OSError, ValueError) as error:
        raise WorkFailed(
            f"the lab's program at {path} does not answer ({error}); `edgebed lab status` says how it is, "
            "`edgebed lab down` and `edgebed lab up` start it anew"
        ) from error
    if "error" in answer:
        raise (BadInput if answer.get("bad_input") else WorkFailed)(answer["error"])
    return answer["ok"]


def _line(connection: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < _MOST_BYTES:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return bytes(data)


class ControlSocket:
    """The answering side; its owner waits for it to become readable and calls `serve_one`.

    Args:
        path: of the socket's file.
        actions: by name, replaceable; what one raises as an `EdgebedError` is the answer.
        owner: user id that may connect besides root.
    """

    def __init__(self, path: Path, actions: Mapping[str, Action], owner: int = 0) -> None:
        self.actions = actions
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        path.chmod(0o600)
        if owner:
            os.chown(path, owner, -1)
        self._socket.listen(16)

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def serve_one(self) -> None:
        """Answer one request that waits. A client that is slow or rude is dropped, not waited for."""
        connection, _ = self._socket.accept()
        with connection, suppress(OSError):
            connection.settimeout(_PATIENCE_S)
            connection.sendall(json.dumps(self._answer(_line(connection))).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            action = self.actions[request.pop("do")]
        except (ValueError, KeyError, AttributeError, TypeError):
            return {"error": f"not a request; what can be asked: {', '.join(sorted(self.actions))}", "bad_input": True}
        try:
            return {"ok": action(**request)}
        except EdgebedError as error:
            return {"error": str(error), "bad_input": isinstance(error, BadInput)}
        except (OSError, TypeError, ValueError, KeyError) as error:
            return {"error": f"{type(error).__name__}: {error}", "bad_input": isinstance(error, TypeError)}

    def close(self) -> None:
        """Stop answering."""
        self._socket.close()
