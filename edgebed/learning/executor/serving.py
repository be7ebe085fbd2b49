"""What a worker does with a request, and what the driver reads from the answer; the same on every executor."""

from __future__ import annotations

import traceback
from typing import Any

from edgebed import errors
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.learning.base import Cell, CellWorker, Data
from edgebed.learning.executor.plain_data import decode, encode

STATE = "state"
LOAD_STATE = "load_state"

_RAISED_AS_THEY_ARE = ("BadInput", "SchemaMismatch", "RunConflict", "WorkFailed", "EdgebedError")


class Server:
    """A worker behind requests and answers of bytes.

    Attributes:
        worker: None where it could not be made; each request is then answered with the reason.
    """

    def __init__(self, kind: type[CellWorker], cell: Cell) -> None:
        self.cell = cell
        self.worker: CellWorker | None = None
        self.first_answer = self._guarded("being made", lambda: self._make(kind))

    def _make(self, kind: type[CellWorker]) -> None:
        self.worker = kind(self.cell)

    def answer(self, request: bytes) -> bytes:
        """Do what a request asks for; what the worker raises becomes an answer, too."""
        if self.worker is None:
            return self.first_answer
        asked: dict[str, Any] = decode(request)
        worker, method = self.worker, str(asked["method"])
        if method == LOAD_STATE:
            return self._guarded(method, lambda: worker.load_state(asked["payload"]))
        return self._guarded(method, lambda: getattr(worker, method)(**asked["payload"]))

    def _guarded(self, method: str, work: Any) -> bytes:
        try:
            return encode({"answer": work()})
        except EdgebedError as error:
            return encode({"error": type(error).__name__, "text": str(error)})
        except Exception:
            text = (
                f"cell {self.cell.index}: {method} failed. The worker's traceback (what it learned since the last "
                f"checkpoint is not kept):\n{traceback.format_exc()}"
            )
            return encode({"error": WorkFailed.__name__, "text": text})


def request(method: str, payload: Data) -> bytes:
    """A request to call a method of a worker with arguments by name; to `LOAD_STATE`, the payload is the state.

    Raises:
        BadInput: the payload is not plain data.
    """
    return encode({"method": method, "payload": payload})


def answer_of(content: bytes) -> Any:
    """What a worker returned.

    Raises:
        EdgebedError: what it raised: one of edgebed's own errors as it was, any other as `WorkFailed`.
    """
    answer: dict[str, Any] = decode(content)
    if "error" not in answer:
        return answer["answer"]
    name, text = answer["error"], answer["text"]
    kind = getattr(errors, name) if name in _RAISED_AS_THEY_ARE else WorkFailed
    raise kind(text)
