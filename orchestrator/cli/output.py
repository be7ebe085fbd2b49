"""What a verb prints and where: the answer on standard output, everything else on standard error.

With ``--json`` the answer is one JSON object on one line, the last of standard output; the text for people then goes to
standard error, so that a program may read all of standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Output:
    """Where a verb's text goes.

    Attributes:
        as_json: a program reads standard output.
    """

    as_json: bool = False

    def text(self, text: str = "") -> None:
        """Print a part of the answer for people."""
        print(text, file=sys.stderr if self.as_json else sys.stdout)

    def note(self, text: str) -> None:
        """Print what is not part of the answer: a warning, progress."""
        print(text, file=sys.stderr)

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Print the answer for programs; does nothing without ``--json``.

        Raises:
            ValueError: a value is not JSON; NaN and infinity are not.
        """
        if self.as_json:
            print(json.dumps(answer, allow_nan=False, ensure_ascii=False), flush=True)
