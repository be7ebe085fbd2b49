"""Run the commands of the docs as they stand there: every ``sh`` block of README.md and docs/, page by page.

A block is left out only when the line above it says so, with the reason: ``<!-- not run here: REASON -->``. Every page
runs in the same checkout, in the order of the pages, with the project's virtual environment first in the path.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:^<!-- not run here: (?P<reason>.+?) -->\n+)?^```sh\n(?P<commands>.*?)^```", re.M | re.S)
LIMIT_S = 1500
FOLLOWED_ELSEWHERE = {"docs/extending.md": "tests/unit/test_extending.py follows the page in a copy of the tree"}


def main() -> int:
    """Run all blocks; returns 1 when one fails."""
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    passed = failed = left_out = 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in BLOCK.finditer(page.read_text()):
            where = f"{page.relative_to(ROOT)}:{page.read_text()[: block.start('commands')].count(chr(10)) + 1}"
            reason = block["reason"] or FOLLOWED_ELSEWHERE.get(str(page.relative_to(ROOT)))
            if reason:
                print(f"{where}: not run here: {reason}")
                left_out += 1
                continue
            started_s = time.monotonic()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block["commands"]],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            print(f"{where}: status {done.returncode} after {time.monotonic() - started_s:.1f} s")
            if done.returncode:
                failed += 1
                print(block["commands"], done.stdout[-3000:], done.stderr[-3000:], sep="\n")
            else:
                passed += 1
    print(f"docs: {passed} passed, {failed} failed, {left_out} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
