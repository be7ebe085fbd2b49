"""What the verbs that work on the hosts of a file are told in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HostsFile = Annotated[Path, typer.Argument(help="The hosts' YAML file, an Ansible inventory.")]
OnlyHosts = Annotated[
    list[str] | None, typer.Option("--host", metavar="NAME", help="Only this host; may be given several times.")
]
AsJson = Annotated[bool, typer.Option("--json", help="End with one line of JSON.")]
