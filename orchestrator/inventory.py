"""The hosts file: an Ansible YAML inventory, groups ``edge_servers`` and ``devices``; see ``docs/experiments.md``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from edgebed.errors import BadInput, Problem
from edgebed.metering.board import Board, load_boards
from edgebed.metering.registry import meter_drivers
from orchestrator.ansible import AnsibleInventory, Variable, read_ansible
from orchestrator.documents import Document, KeyPath, load_document, shown
from orchestrator.host_variables import (
    DEFAULT_METER,
    ClockSource,
    Connection,
    HostVariables,
    Known,
    Service,
    is_ignored_ansible,
    is_read,
)
from orchestrator.shipped import shipped_inventory
from orchestrator.validation import NAME_RULE, is_name, raise_problems, sentence, unknown_name

SERVERS = "edge_servers"
DEVICES = "devices"
DEFAULT_LOCAL_BOARD = "generic-x86"
SSH_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host of the inventory, all defaults filled in.

    Attributes:
        address: where SSH finds it; meaningless for ``local``.
        ssh_port: None leaves it to ``~/.ssh/config``, as for ``user`` and ``ssh_key_file``.
        ssh_key_file: the private key's path; never written to a plan.
        python: the interpreter on the host; None picks one.
        board: name of a board file.
        second_meter: what the meter is held against; empty: nothing.
        slowdown: how many times slower than it is to appear; above 1 its rows are ``emulated``.
        link_rate_bps: pace of a device's uplink; 0 = as fast as the network.
        workers: tasks that an edge server executes at once.
        queue_tasks: most tasks that an edge server has admitted and not finished.
        port: where an edge server listens; 0 picks one.
        position_m: x, y.
        service: who is to keep the programs running on an SSH host.
        peer_address: where other hosts reach it; None: as SSH does.
        clock: whether its clock is set to the edge server's, or only measured.
    """

    name: str
    role: Literal["edge_server", "device"]
    connection: Connection
    address: str
    ssh_port: int | None = None
    user: str | None = None
    ssh_key_file: str | None = None
    python: str | None = None
    board: str
    meter: str = DEFAULT_METER
    meter_options: dict[str, str | int | float] = field(default_factory=dict)
    second_meter: str = ""
    second_meter_options: dict[str, str | int | float] = field(default_factory=dict)
    slowdown: float = 1.0
    link_rate_bps: float = 0.0
    workers: int = 1
    queue_tasks: int = 64
    port: int = 0
    position_m: tuple[float, float] = (0.0, 0.0)
    peer_address: str | None = None
    service: Service = "auto"
    clock: ClockSource = "measure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The hosts of a file.

    Attributes:
        devices: in slot order.
        edge_servers: in the order that decisions index.
        controller: name of the edge server beside which the controller runs.
        boards: the boards that the hosts are, by name.
        file: as it was given.
        notes: what is in the file and not used.
    """

    devices: tuple[Host, ...]
    edge_servers: tuple[Host, ...]
    controller: str
    boards: dict[str, Board]
    file: str = ""
    notes: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, edge servers first."""
        return (*self.edge_servers, *self.devices)

    def first(self, devices: int | None) -> Inventory:
        """The same with the first so many devices alone; None: with all.

        Raises:
            BadInput: there are not so many.
        """
        if devices is None:
            return self
        if devices > len(self.devices):
            raise BadInput(
                Problem(f"has {len(self.devices)} devices; the experiment wants the first {devices}", file=self.file)
            )
        return replace(self, devices=self.devices[:devices])

    def host(self, name: str) -> Host:
        """The host called ``name``.

        Raises:
            BadInput: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise BadInput(Problem(unknown_name("host", name, [host.name for host in self.hosts]), file=self.file))


def load_inventory(path: Path | str) -> Inventory:
    """Read a hosts file.

    Boards are looked for in ``boards/`` beside the file's folder, then among those that come with edgebed.

    Raises:
        BadInput: with everything that is wrong in the file.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        message = "is not named *.yaml; an INI inventory becomes YAML by `ansible-inventory -i FILE --list --yaml`"
        raise BadInput(Problem(message, file=str(path)))
    return read_inventory(load_document(path), known_boards(path), tuple(_unread_folders(path)))


def known_boards(inventory_file: Path | None = None) -> dict[str, Board]:
    """The boards that come with edgebed, and those of the project that a hosts file belongs to; the latter win.

    Raises:
        BadInput: a board's file has problems.
    """
    shipped = shipped_inventory() / "boards"
    boards = load_boards(shipped)
    if inventory_file is not None:
        own = inventory_file.resolve().parent.parent / "boards"
        if own != shipped.resolve() and any(own.glob("*.yaml")):
            boards |= load_boards(own)
    return boards


def read_inventory(document: Document, boards: dict[str, Board], notes: tuple[str, ...] = ()) -> Inventory:
    """The hosts of a document.

    Args:
        document: an Ansible inventory.
        boards: those that a host may be.
        notes: of what was seen before.

    Raises:
        BadInput: with everything that is wrong.
    """
    ansible = read_ansible(document)
    problems = [*document.problems, *ansible.problems, *_group_problems(ansible)]
    known = Known(boards, meter_drivers())
    found: dict[str, _Found] = {}
    for name in _used(ansible):
        try:
            found[name] = _find(ansible, name, known)
        except BadInput as error:
            problems += error.problems
    raise_problems([*problems, *_shared_addresses(ansible, found), *_controller_problems(ansible, found)])
    hosts = {name: each.host for name, each in found.items()}
    servers = tuple(hosts[name] for name in ansible.members(SERVERS))
    return Inventory(
        devices=tuple(hosts[name] for name in ansible.members(DEVICES)),
        edge_servers=servers,
        controller=next((host.name for host in servers if found[host.name].has_controller), servers[0].name),
        boards={name: boards[name] for name in sorted({host.board for host in hosts.values()})},
        file=document.file,
        notes=(*notes, *_notes(ansible)),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A host, and whether it asks for the controller."""

    host: Host
    has_controller: bool


def _used(ansible: AnsibleInventory) -> list[str]:
    return list(dict.fromkeys(ansible.members(SERVERS) + ansible.members(DEVICES)))


def _group_problems(ansible: AnsibleInventory) -> Iterator[Problem]:
    document = ansible.document
    for group, what in ((SERVERS, "edge server"), (DEVICES, "device")):
        if not ansible.members(group):
            reason = (
                "has no hosts" if group in ansible.groups else f"is missing; there are: {', '.join(ansible.groups)}"
            )
            yield Problem(f"the group {reason}; at least one {what} is needed", key=group, file=document.file)
    in_both = set(ansible.members(SERVERS)) & set(ansible.members(DEVICES))
    for name in _used(ansible):
        path = ansible.host_paths[name]
        if name in in_both:
            yield document.problem(path, f"is in both {SERVERS} and {DEVICES}; a host is one or the other")
        if not is_name(name):
            yield document.problem(path, f"{shown(name)} cannot name a host; allowed: {NAME_RULE}")


def _find(ansible: AnsibleInventory, name: str, known: Known) -> _Found:
    """One host, checked.

    Raises:
        BadInput: with everything that is wrong with its variables.
    """
    variables = {key: each for key, each in ansible.variables(name).items() if is_read(key)}
    try:
        checked = HostVariables.model_validate({key: each.value for key, each in variables.items()}, context=known)
    except ValidationError as error:
        raise BadInput(_at_their_places(ansible, variables, error)) from None
    is_server = name in ansible.members(SERVERS)
    board = checked.edgebed_board or (DEFAULT_LOCAL_BOARD if checked.ansible_connection == "local" else "")
    problems: list[Problem] = []
    if not board:
        message = f"is missing; say which board it is, those that exist: {', '.join(known.boards)}"
        problems.append(ansible.document.problem((*ansible.host_paths[name], "edgebed_board"), message))
    if checked.edgebed_controller and not is_server:
        message = f"is true for {name}, a device; the controller runs beside one of {SERVERS}"
        problems.append(ansible.document.problem(variables["edgebed_controller"].path, message))
    raise_problems(problems)
    return _Found(_host(name, is_server, board, checked), checked.edgebed_controller)


def _at_their_places(
    ansible: AnsibleInventory, variables: dict[str, Variable], error: ValidationError
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        variable, *inner = detail["loc"]
        if inner[:1] == [0] and not isinstance(variables[str(variable)].value, list):
            inner = inner[1:]  # one meter that is no list is checked as a list of one
        path: KeyPath = (*variables[str(variable)].path, *inner)
        yield ansible.document.problem(path, sentence(dict(detail), HostVariables))


def _host(name: str, is_server: bool, board: str, checked: HostVariables) -> Host:
    x_m, y_m = checked.edgebed_position
    meter, *others = checked.edgebed_meter
    second = others[0] if others else None
    return Host(
        name=name,
        role="edge_server" if is_server else "device",
        connection=checked.ansible_connection,
        address=checked.ansible_host or name,
        ssh_port=checked.ansible_port,
        user=checked.ansible_user,
        ssh_key_file=checked.ansible_ssh_private_key_file,
        python=checked.edgebed_python,
        board=board,
        meter=meter.name,
        meter_options=meter.options,
        second_meter="" if second is None else second.name,
        second_meter_options={} if second is None else second.options,
        slowdown=checked.edgebed_slowdown,
        link_rate_bps=0.0 if is_server else checked.edgebed_link.rate_bps,
        workers=checked.edgebed_workers,
        queue_tasks=checked.edgebed_queue_tasks,
        port=checked.edgebed_port,
        position_m=(x_m, y_m),
        peer_address=checked.edgebed_address,
        service=checked.edgebed_service,
        clock=checked.edgebed_clock,
    )


def _shared_addresses(ansible: AnsibleInventory, found: dict[str, _Found]) -> Iterator[Problem]:
    names: dict[Any, list[str]] = defaultdict(list)
    for name, each in found.items():
        if each.host.connection == "ssh":
            names[each.host.address.lower(), each.host.ssh_port or SSH_PORT].append(name)
    for (address, port), (first, *others) in names.items():
        for other in others:
            message = f"has the address of {first}, {address} port {port}; each host needs its own"
            yield ansible.document.problem(ansible.host_paths[other], message)


def _controller_problems(ansible: AnsibleInventory, found: dict[str, _Found]) -> Iterator[Problem]:
    first, *others = [name for name, each in found.items() if each.has_controller] or [""]
    for other in others:
        path = ansible.variables(other)["edgebed_controller"].path
        yield ansible.document.problem(path, f"{other} is the second with a controller, after {first}; one is allowed")


def _notes(ansible: AnsibleInventory) -> Iterator[str]:
    """What is in the file and has no effect."""
    document = ansible.document
    seen: dict[KeyPath, str] = {}
    for name in _used(ansible):
        seen |= {each.path: key for key, each in ansible.variables(name).items() if is_ignored_ansible(key)}
    for path in seen:
        yield str(document.problem(path, "is accepted and not used"))
    used = set(_used(ansible))
    for name in [name for name in ansible.hosts if name not in used]:
        yield str(document.problem(ansible.host_paths[name], f"{name} is in neither {SERVERS} nor {DEVICES}; not used"))


def _unread_folders(path: Path) -> Iterator[str]:
    for folder in ("group_vars", "host_vars"):
        if (path.parent / folder).is_dir():
            yield f"{path.parent / folder}: is not read; write the variables into {path.name}"
