"""Virtual Pis on this machine, with SSH, systemd, links and sensors (Linux, root).

Each host has its own root, processes, address and sshd, and is reached over SSH like a real one. docs/lab.md tells what
is real about them and what is not.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from edgebed.errors import BadInput
from orchestrator.cli import new_application
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed lab up --devices 3 --board raspberry-pi-4b --rate 20M --delay 5ms --jitter 1ms",
    "edgebed lab status",
    "edgebed lab down",
)

app = new_application()

NameOption = Annotated[str, typer.Option("--name", help="Name of the lab; several may be side by side.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End with one line of JSON.")]


@app.callback()
def lab() -> None:
    """Virtual Pis on this machine, with SSH, systemd, links and sensors (Linux, root)."""


@app.command()
def up(
    devices: Annotated[int, typer.Option("--devices", min=1, max=200, help="How many, besides one edge server.")] = 3,
    board: Annotated[
        list[str] | None,
        typer.Option("--board", help="What devices pretend to be; give several to alternate. See `list boards`."),
    ] = None,
    name: NameOption = "lab",
    hosts: Annotated[Path, typer.Option("--hosts", help="The hosts file to write.")] = Path("inventory/hosts/lab.yaml"),
    rate: Annotated[
        str, typer.Option("--rate", help="Of each device's link, each way: 20M, 500k, 1G; 0 = no limit.")
    ] = "0",
    delay: Annotated[str, typer.Option("--delay", help="One way: 5ms, 0.1s, 200us.")] = "0ms",
    jitter: Annotated[str, typer.Option("--jitter", help="The delay varies by +- this.")] = "0ms",
    loss: Annotated[str, typer.Option("--loss", help="Share of frames lost: 0.01 or 1%.")] = "0",
    cpu: Annotated[
        float | None,
        typer.Option("--cpu", help="Quota of each device in cores of this machine; it really gets no more."),
    ] = None,
    slowdown: Annotated[
        float,
        typer.Option(
            "--slowdown", min=1, max=1000, help="Written to the hosts file: work takes so many times as long."
        ),
    ] = 1.0,
    meter: Annotated[str, typer.Option("--meter", help="The devices' meter; hwmon_ina2xx reads a scripted sensor.")] = (
        "cpu_model"
    ),
    disk: Annotated[str, typer.Option("--disk", help="Size of each host's disk, taken as it fills.")] = "4G",
    arm64: Annotated[
        bool, typer.Option("--arm64", help="Make the last device an arm64 one, emulated and slow.")
    ] = False,
    mirror: Annotated[
        str | None, typer.Option("--mirror", help="URL of a Debian mirror; as this machine's apt by default.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Measure the links when they are up.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Make virtual hosts, write a hosts file for them, and measure their links."""
    from orchestrator.lab.making import LabWish, set_up
    from orchestrator.lab.programs import require_lab

    require_lab()
    out = Output(as_json)
    boards = _boards(hosts, board or ["raspberry-pi-4b"])
    wish = LabWish(
        name=name,
        hosts_file=hosts,
        device_boards=tuple(boards[index % len(boards)] for index in range(devices)),
        server_board=_boards(hosts, ["generic-x86"])[0],
        link=_shape(rate, delay, jitter, loss),
        cpu_cores=_cores(cpu),
        device_slowdown=slowdown,
        disk_bytes=round(_quantity("--disk", disk, _SIZES)),
        meter=_meter(meter),
        arm64=arm64,
        mirror=mirror,
    )
    # What `kill` and a closed terminal send: taken back like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    made = set_up(wish, out.note)
    probes = _probed(made, out) if probe else []
    out.text(f"lab {made.name} is up: {len(made.hosts)} hosts, {hosts}")
    out.text(_what_is_slow(made))
    out.text(f"next: edgebed check {hosts}   ...   edgebed lab down" + (f" --name {name}" if name != "lab" else ""))
    out.answer({"lab": made.name, "hosts_file": made.hosts_file, "hosts": _hosts(made), "probes": probes})


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@app.command()
def down(
    name: NameOption = "lab",
    all_labs: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also the cached Debian root; the next `up` builds it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Switch a lab off and remove all that it made; the cached Debian root stays."""
    from orchestrator.lab.image import purge_roots
    from orchestrator.lab.programs import require_lab
    from orchestrator.lab.spec import lab_names
    from orchestrator.lab.teardown import take_down

    require_lab()
    out = Output(as_json)
    names = lab_names() if all_labs else [name]
    if purge and set(lab_names()) - set(names):
        raise BadInput("the cached root is in use by other labs; take them down too: edgebed lab down --all --purge")
    if not (purge and not all_labs and name not in lab_names()):
        for each in names:
            take_down(each)
            out.text(f"lab {each} is gone")
    if purge:
        purge_roots()
        out.text("the cached Debian root is gone")
    out.answer({"down": names, "purged": purge})


@app.command()
def status(
    name: Annotated[str | None, typer.Option("--name", help="One lab; all by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the labs of this machine: hosts, links as probed, sensors."""
    from orchestrator.lab.programs import require_lab
    from orchestrator.lab.report import report_of
    from orchestrator.lab.spec import lab_names, load_lab

    require_lab()
    out = Output(as_json)
    names = lab_names() if name is None else [load_lab(name).name]
    reports = {each: report_of(each) for each in names}
    if not reports:
        out.text("there is no lab on this machine; make one with `edgebed lab up`")
    for each, report in reports.items():
        out.text(f"{each}: {report['state']}, {report.get('hosts_file', '')}")
        for host, facts in report.get("hosts", {}).items():
            out.text(f"  {host:<10} {facts['address']:<14} {facts['state']:<6} boot {facts['boots']}  {_line(facts)}")
    out.answer({"labs": reports})


def _line(facts: dict[str, Any]) -> str:
    link, sensors = facts["link"], facts["sensors"]
    shape = link["shape"]
    rate = f"{shape['rate_bps'] / 1e6:g} Mbit/s" if shape["rate_bps"] else "unlimited"
    text = f"{facts['board']}; link {rate} {shape['delay_s'] * 1e3:g}+-{shape['jitter_s'] * 1e3:g} ms by {link['by']}"
    text += " CUT" if link["cut"] else ""
    text += f"; {sensors['power_w']:.2f} W {sensors['temperature_c']:.0f} C"
    return text + (f"; {facts['problem']}" if facts["problem"] else "")


def _probed(made: Any, out: Output) -> list[dict[str, Any]]:
    from orchestrator.lab.probe import probe_links
    from orchestrator.lab.report import save_probes

    out.note("probing the links")
    found = probe_links(made, [host for host in made.hosts if host.role == "device"])
    for each in found:
        for way, result in (("up", each.up), ("down", each.down)):
            rate = (
                ""
                if result.rate_bps is None
                else (f", {result.rate_bps / 1e6:.2f} Mbit/s ({(result.goodput_bps or 0) / 1e6:.2f} of TCP payload)")
            )
            delay = (
                "nothing arrives"
                if result.delay_s is None
                else (f"{result.delay_s * 1e3:.2f} +- {(result.jitter_s or 0) * 1e3:.2f} ms, {result.lost:.0%} lost")
            )
            out.text(f"  {each.host:<10} {way:<4} {delay}{rate}")
        for problem in each.problems:
            out.note(f"warning: {each.host}: its link is not as asked: {problem}; is this machine busy?")
    save_probes(made, found)
    return [each.to_plain() for each in found]


def _what_is_slow(made: Any) -> str:
    device = next(host for host in made.hosts if host.role == "device")
    quota = "all of this machine's cores" if device.cpu_cores is None else f"{device.cpu_cores:g} of its cores (quota)"
    slow = "" if device.slowdown == 1 else f", and edgebed_slowdown {device.slowdown:g} in the hosts file"
    return f"each device may use {quota}{slow}"


def _hosts(made: Any) -> list[dict[str, str]]:
    return [{"name": host.name, "role": host.role, "address": host.address} for host in made.hosts]


def _boards(hosts: Path, names: list[str]) -> list[Any]:
    from orchestrator.inventory import known_boards
    from orchestrator.validation import unknown_name

    known = known_boards(hosts)
    for each in names:
        if each not in known:
            raise BadInput(f"--board: {unknown_name('board', each, known)}")
    return [known[each] for each in names]


def _meter(name: str) -> str:
    from edgebed.metering.registry import AUTO, meter_drivers
    from orchestrator.validation import unknown_name

    if name != AUTO and name not in meter_drivers():
        raise BadInput(f"--meter: {unknown_name('meter', name, (AUTO, *meter_drivers()))}")
    return name


def _cores(cpu: float | None) -> float | None:
    if cpu is not None and not 0.01 <= cpu <= 1024:
        raise BadInput(f"--cpu is {cpu:g}; allowed is 0.01 to 1024 cores of this machine")
    return cpu


def _shape(rate: str, delay: str, jitter: str, loss: str) -> Any:
    from orchestrator.lab.shaping import LinkShape

    return LinkShape(
        rate_bps=_quantity("--rate", rate, {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}),
        delay_s=_quantity("--delay", delay, _TIMES),
        jitter_s=_quantity("--jitter", jitter, _TIMES),
        loss=_quantity("--loss", loss, {"": 1.0, "%": 0.01}),
    )


_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SIZES = {"M": 2.0**20, "G": 2.0**30}


def _quantity(option: str, text: str, units: dict[str, float]) -> float:
    """A number with a unit; a bare 0 needs none."""
    number = text.rstrip("skmMGu%bit/")
    unit = text[len(number) :].removesuffix("bit/s").removesuffix("bit")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    factor = units.get(unit, 1.0 if value == 0 else None)
    if factor is None or not 0 <= value < float("inf"):
        allowed = ", ".join(f"20{unit}" for unit in units)
        raise BadInput(f"{option} is {text!r}; expected a number with a unit, as in {allowed}")
    return value * factor
