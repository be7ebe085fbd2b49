"""What a host still needs: steps, each a generator from facts to changes. Pure.

A step looks at what there is and yields a `Change` only for what differs, with its undo. The order of `STEPS` is that
in which changes are made; `current` is switched late, so that until then the old version is the one that counts.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from orchestrator.provision.facts import HostFacts
from orchestrator.provision.installation import RECORD, Record
from orchestrator.provision.ledger import ARCHIVE_INPUT, Change
from orchestrator.provision.unit import UNIT, Scope, instances_of

SYSTEM_UNIT = f"/etc/systemd/system/{UNIT}"
CHRONY_FILE = "/etc/chrony/conf.d/edgebed.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a host is to have.

    Attributes:
        record: what is to be installed, for whom, and who keeps it running.
        scripts: content of the files that lie beside the versions, by name.
        unit: the unit's text; empty without systemd.
        clock: chrony's configuration; empty when the clock is only measured.
    """

    record: Record
    scripts: dict[str, str] = field(default_factory=dict)
    unit: str = ""
    clock: str = ""


Step = Callable[[HostFacts, Wanted], Iterator[Change]]


def changes_for(facts: HostFacts, wanted: Wanted) -> list[Change]:
    """All changes that a host needs, in order; none when it is as it should be."""
    changes = [change for step in STEPS for change in step(facts, wanted)]
    # What follows from changes that were made, and is none of its own.
    return [*changes, *record(facts, wanted, changes)]


def folders(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """``~/.edgebed`` itself; and that the folders of runs are edgebed's, so that they go when they are empty."""
    root = shlex.quote(facts.root_path)
    if not facts.has_changed("root"):
        yield Change(
            key="root",
            what=f"make {facts.root_path}",
            command=f"chmod 700 {root}\nmkdir -p {root}/versions {root}/active",
            undo=f"cd {root} 2>/dev/null || exit 0\n"
            f"rm -f lease.json {RECORD} current .lease.*.new .lease.*.old *.new active/*\n"
            "for each in versions active; do if [ -d $each ]; then rmdir $each; fi; done",
        )
    if not facts.has_changed("runs"):
        inside = [facts.state_root, f"{facts.home}/.local/state", f"{facts.home}/.local"]
        missing = [
            each for each in inside if each not in facts.folders and f"{facts.state_root}/".startswith(f"{each}/")
        ]
        yield Change(
            key="runs",
            what=f"runs keep their state in {facts.state_root}",
            command=":",
            undo=_rmdir(missing) or ":",
        )


def version(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """The wheels, in a virtual environment of their own. Needs neither pip nor ensurepip on the host."""
    name = wanted.record.digest
    is_broken = facts.current == f"versions/{name}" and not facts.current_python.startswith(f"{wanted.record.python}.")
    if name in facts.versions and not is_broken:
        return
    folder = shlex.quote(f"{facts.root_path}/versions/{name}")
    python = shlex.quote(wanted.record.interpreter)
    yield Change(
        key=f"version:{name}",
        what=f"install edgebed {wanted.record.edgebed} as {facts.root_path}/versions/{name}",
        command=f"""\
rm -rf {folder}
mkdir -p {folder}/wheels
tar -xf - -C {folder}/wheels <&{ARCHIVE_INPUT}
{python} -I -m venv --without-pip {folder}
pip=$(echo {folder}/wheels/pip-*.whl)
{folder}/bin/python -I "$pip/pip" install --quiet --no-index --no-cache-dir --no-compile \\
    --disable-pip-version-check --no-warn-script-location --root-user-action=ignore --find-links {folder}/wheels edgebed
rm -rf {folder}/wheels
{folder}/bin/python -I -c {shlex.quote(_COMPILE)}
touch {folder}/complete
sync -f {folder} 2>/dev/null || sync""",
        undo=f"rm -rf {folder}",
        needs_archive=True,
    )


# Bytecode of edgebed itself, and, by importing them, of that part of the packages which it uses: a third of the work of
# compiling all of them. That they can be imported is the proof that the wheels fit.
_COMPILE = """\
import compileall, importlib, pathlib
import edgebed
site = pathlib.Path(edgebed.__file__).parent.parent
for name in ("edgebed", "edge_server", "device_agent", "workloads"):
    compileall.compile_dir(site / name, quiet=2)
for name in ("device_agent.agent", "edge_server.server", "edge_server.controller.controller", "workloads.digits",
             "workloads._onnxruntime", "numpy", "zmq", "psutil", "msgspec", "PIL.Image", "PIL.JpegImagePlugin", "yaml"):
    importlib.import_module(name)
"""


def scripts(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """The scripts by which programs are launched and kept."""
    for name, content in wanted.scripts.items():
        path = f"{facts.root_path}/{name}"
        if facts.sum_of(path) != sha256(content):
            yield Change(
                key=f"file:{name}",
                what=f"write {path}",
                command=_write(path, content, mode="700"),
                undo=f"rm -f {shlex.quote(path)}",
            )


def retired(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """What an earlier deploy has set up and is no longer wanted: another systemd, programs of another role, a clock."""
    wanted_keys = _service_keys(wanted)
    for entry in reversed(facts.ledger):
        if entry.key.startswith(_SERVICE_PREFIXES) and entry.key not in wanted_keys:
            yield Change(key=entry.key, what=f"undo: {entry.what}", command=entry.undo, undo=entry.undo, is_undo=True)


_SERVICE_PREFIXES = ("unit:", "enabled:", "linger", "user_units", "clock")


def _service_keys(wanted: Wanted) -> set[str]:
    scope = wanted.record.keeper.removeprefix("systemd_")
    keys = {"clock"} if wanted.clock else set()
    if scope != "shell":
        keys |= {f"unit:{scope}", *(f"enabled:{scope}:{name}" for name in instances_of(wanted.record.programs))}
    return keys | {"linger", "user_units"} if scope == "user" else keys


def unit(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """The template unit, where systemd keeps the programs."""
    keeper = wanted.record.keeper
    if keeper == "systemd_system":
        yield from _unit_file(facts, "system", SYSTEM_UNIT, wanted.unit)
    if keeper == "systemd_user":
        yield from _linger(facts)
        yield from _user_folders(facts)
        yield from _unit_file(facts, "user", user_unit_path(facts), wanted.unit)


def _unit_file(facts: HostFacts, scope: Scope, path: str, text: str) -> Iterator[Change]:
    if facts.sum_of(path) == sha256(text):
        return
    quoted, systemctl = shlex.quote(path), _systemctl(facts, scope)
    sudo = _sudo(facts) if scope == "system" else ""
    yield Change(
        key=f"unit:{scope}",
        what=f"write {path}",
        command=f"{_write(path, text, mode='644', sudo=sudo)}\n{systemctl} daemon-reload",
        undo=f"if [ -e {quoted} ]; then {sudo}rm -f {quoted}; {systemctl} daemon-reload; fi",
    )


def _linger(facts: HostFacts) -> Iterator[Change]:
    if facts.linger:
        return
    user = shlex.quote(facts.user)
    yield Change(
        key="linger",
        what=f"let the programs of {facts.user} run when nobody is logged in",
        # Without polkit a user may not even do this to himself. The user's systemd comes up now, if it was not there;
        # the socket says when it has.
        command=f"""\
loginctl enable-linger {user} 2>/dev/null || sudo -n loginctl enable-linger {user}
tries=100
while ! [ -S "$XDG_RUNTIME_DIR/systemd/private" ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ]
    sleep 0.1
done""",
        undo=f"if [ -e /var/lib/systemd/linger/{user} ]; then\n"
        f"loginctl disable-linger {user} 2>/dev/null || sudo -n loginctl disable-linger {user}\nfi",
    )


def _user_folders(facts: HostFacts) -> Iterator[Change]:
    config = f"{facts.home}/.config"
    all_of = [f"{config}/systemd/user/default.target.wants", f"{config}/systemd/user", f"{config}/systemd", config]
    missing = [each for each in all_of if each not in facts.folders]
    if missing and not facts.has_changed("user_units"):
        folder = f"{config}/systemd/user"
        yield Change(
            key="user_units",
            what=f"make {folder}",
            command=f"mkdir -p {shlex.quote(folder)}",
            undo=_rmdir(missing),
        )


def enabled(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """The units of the host's programs: after a reboot those start that a run has asked for."""
    keeper = wanted.record.keeper
    if keeper == "shell":
        return
    scope: Scope = "system" if keeper == "systemd_system" else "user"
    systemctl = _systemctl(facts, scope)
    there = facts.enabled_system if scope == "system" else facts.enabled_user
    for name in instances_of(wanted.record.programs):
        if name in there:
            continue
        yield Change(
            key=f"enabled:{scope}:{name}",
            what=f"start {name} with the host, when a run has asked for it",
            command=f"{systemctl} --quiet enable {name}",
            undo=f"if {systemctl} --quiet is-enabled {name} 2>/dev/null; then\n"
            f"{systemctl} --quiet disable --now {name}\n{systemctl} reset-failed {name} 2>/dev/null || :\nfi",
        )


def clock(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """The host's clock, set by chrony to the edge server's, where the inventory asks for it."""
    sudo, there = _sudo(facts), facts.sum_of(CHRONY_FILE)
    restart = f"{sudo}systemctl try-restart chrony.service"
    if wanted.clock and there != sha256(wanted.clock):
        yield Change(
            key="clock",
            what=f"write {CHRONY_FILE}",
            command=f"{_write(CHRONY_FILE, wanted.clock, mode='644', sudo=sudo)}\n{restart}",
            undo=f"if [ -e {CHRONY_FILE} ]; then {sudo}rm -f {CHRONY_FILE}; {restart}; fi",
        )


def switch(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """``current``, in one step from the old version to the new."""
    target = f"versions/{wanted.record.digest}"
    if facts.current != target:
        yield Change(
            key="current",
            what=f"make {wanted.record.digest} the current version",
            command=f"cd {shlex.quote(facts.root_path)}\nln -sfn {target} current.new\nmv -T current.new current",
            undo=f"rm -f {shlex.quote(facts.root_path + '/current')}",
        )


def prune(facts: HostFacts, wanted: Wanted) -> Iterator[Change]:
    """Versions that are not current. What still runs for a run keeps its version until the next deploy."""
    old = sorted((facts.versions | facts.partial) - {wanted.record.digest})
    if facts.active:
        return
    for name in old:
        folder = shlex.quote(f"{facts.root_path}/versions/{name}")
        yield Change(
            key=f"version:{name}",
            what=f"remove the old version {name}",
            command=f"rm -rf {folder}",
            undo=f"rm -rf {folder}",
            is_undo=True,
        )


def record(facts: HostFacts, wanted: Wanted, changes: list[Change]) -> Iterator[Change]:
    """Say what is installed, as the last of all."""
    if not changes and facts.record == wanted.record:
        return
    path = f"{facts.root_path}/{RECORD}"
    content = msgspec.json.encode(wanted.record).decode()
    yield Change(
        key="record",
        what=f"write {path}",
        command=_write(path, content, mode="600"),
        undo=f"rm -f {shlex.quote(path)}",
    )


STEPS: tuple[Step, ...] = (folders, version, scripts, retired, unit, enabled, clock, switch, prune)


def sha256(content: str) -> str:
    """Of a text, hexadecimal, as ``sha256sum`` prints it."""
    return hashlib.sha256(content.encode()).hexdigest()


def _sudo(facts: HostFacts) -> str:
    return "" if facts.uid == 0 else "sudo -n "


def _systemctl(facts: HostFacts, scope: Scope) -> str:
    return f"{_sudo(facts)}systemctl" if scope == "system" else "systemctl --user"


def user_unit_path(facts: HostFacts) -> str:
    """Where the unit lies that the user's own systemd reads."""
    return f"{facts.home}/.config/systemd/user/{UNIT}"


def _write(path: str, content: str, *, mode: str, sudo: str = "") -> str:
    """Commands that write a file beside ``path`` and then rename it; synced, for a power cut may come."""
    new = shlex.quote(f"{path}.new")
    return (
        f"printf '%s' {shlex.quote(content)} | {sudo}tee {new} >/dev/null\n"
        f"{sudo}chmod {mode} {new}\n"
        f"sync {new} 2>/dev/null || sync\n"
        f"{sudo}mv {new} {shlex.quote(path)}"
    )


def _rmdir(paths: list[str]) -> str:
    """Commands that remove folders if they are empty, in this order."""
    return "\n".join(f"rmdir {shlex.quote(path)} 2>/dev/null || :" for path in paths)
