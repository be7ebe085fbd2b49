"""The files that workloads and policies need, on their way to the hosts: packed again from their sources, placed once.

A host behind SSH keeps them in ``~/.edgebed/content``, by checksum, so that the next run with the same model and images
sends nothing; `edgebed clean` removes them. On this machine they go with the run's state folder.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from edgebed.errors import RunConflict
from edgebed.policies.files import pack_files
from orchestrator.plan_file import Plan
from orchestrator.provision.layout import HostFolder
from orchestrator.remote.base import Remote
from workloads.files import CONTENT_FOLDER, file_name, is_reference, pack_workload

KEPT = '"$HOME"/.edgebed/content'
"""Where a host keeps placed files between runs; in the words of its shell."""


def content_of(plan: Plan) -> dict[str, bytes]:
    """The content of the files that hosts need, by reference; empty when nothing needs any.

    Raises:
        BadInput: a file cannot be read any more.
        RunConflict: a file is not what it was when the run was planned.
    """
    files: dict[str, bytes] = {}
    for source in plan.workload_sources:
        packed = pack_workload(source.workload, source.options, Path(source.folder))
        files |= packed.files if packed is not None else {}
    for policy in plan.policy_sources:
        packed = pack_files(policy.name, policy.options, Path(policy.folder))
        files |= packed.files if packed is not None else {}
    options = [*(setting.workload_options for setting in plan.settings), *(each.options for each in plan.policies)]
    wanted = {value for each in options for value in each.values() if is_reference(value)}
    if not wanted <= files.keys():
        where = [f"{source.workload} ({source.folder})" for source in plan.workload_sources]
        where += [f"{source.label} ({source.options.get('weights', source.folder)})" for source in plan.policy_sources]
        raise RunConflict(
            f"the model, the images or the weights have changed since the run was planned: {', '.join(where)}; put the "
            "files back as they were, or start a new run with `edgebed run`"
        )
    return {name: files[name] for name in sorted(wanted)}


def place(remote: Remote, folder: HostFolder, files: dict[str, bytes], *, are_kept: bool) -> None:
    """Place files where the programs of a state folder look for them; those that the host has are not sent.

    Args:
        remote: connected.
        folder: the run's state folder.
        files: content by reference.
        are_kept: the host keeps them for the next run.

    Raises:
        RemoteError: one could not be placed.
    """
    if not files:
        return
    target = shlex.quote(f"{folder.path}/{CONTENT_FOLDER}")
    # The state folder then has a link in the place of the folder, and goes without what is kept.
    make = f"umask 077; mkdir -p {KEPT} && ln -sfn {KEPT} {target}" if are_kept else f"umask 077; mkdir -p {target}"
    # Without sha256sum all are sent again; a file that was damaged since is replaced.
    look = f"cd {target} && {{ sha256sum {' '.join(map(file_name, files))} 2>/dev/null || :; }}"
    done = remote.execute(f"{make} && {look}", idempotent=True).checked("the folder for content cannot be made")
    there = {name for digest, name in (line.split() for line in done.text.splitlines()) if digest == name}
    for reference, content in files.items():
        if file_name(reference) not in there:
            remote.upload(content, f"{folder.path}/{CONTENT_FOLDER}/{file_name(reference)}")
