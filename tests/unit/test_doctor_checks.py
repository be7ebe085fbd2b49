"""The doctor's checks: from what real boards say to findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from edgebed.metering.board import load_boards
from orchestrator.doctor import board_checks, network_checks, system_checks
from orchestrator.doctor.boards import board_of_model, parse_revision
from orchestrator.doctor.finding import Finding, Status, fail, ok, warn, worst_first
from orchestrator.doctor.fleet_checks import check_clones
from orchestrator.doctor.probe import ClockReading, Probe, parse_probe
from orchestrator.doctor.round_trips import RoundTrips, summarise
from orchestrator.inventory import Host
from orchestrator.provision.facts import HostFacts, Interpreter
from orchestrator.provision.installation import Record
from orchestrator.provision.lease import Holder, Lease

BOARDS = load_boards(Path(__file__).parents[2] / "inventory/boards")
OK, WARN, FAIL = Status.OK, Status.WARN, Status.FAIL

# A Raspberry Pi 4B with 4 GB on Wi-Fi, as probe.sh shows it: throttled in the past, power saving on, not synchronised.
PI_4B = """\
Welcome to pi-1
@@ model
Raspberry Pi 4 Model B Rev 1.4@@ cpuinfo
CPU implementer	: 0x41
CPU part	: 0xd08
Hardware	: BCM2835
Revision	: c03114
@@ cores
4
@@ memory
MemTotal:        3884272 kB
MemAvailable:    3503140 kB
@@ machine_id
5f1d2b1c9f0c4d1e8a7b6c5d4e3f2a1b
@@ host_keys
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOne
ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQTwo
@@ sudo
yes
@@ mounts
/dev/mmcblk0p2 / ext4 rw,noatime 0 0
proc /proc proc rw,relatime 0 0
/dev/mmcblk0p1 /boot/firmware vfat rw,relatime 0 0
@@ space
/dev/root         29387136 8856010  19531250      32% /
@@ inodes
/dev/root      1889280  61345 1827935    4% /
@@ home
/home/pi
@@ mmc
mmcblk0 type SD
mmcblk0 name SC32G
mmcblk0 date 08/2021
@@ kernel_log
@@ clock_sync
NTP=yes
NTPSynchronized=no
@@ throttled
throttled=0x50000
sysfs=0
@@ temperature
cpu-thermal 61342
@@ governor
ondemand
@@ nominal_khz
1800000
@@ clock
frequency(48)=1800404352
kernel 1800000
kernel 1800000
@@ ssh
192.168.1.2 51514 192.168.1.31 22
@@ addresses
1: lo    inet 127.0.0.1/8 scope host lo
3: wlan0    inet 192.168.1.31/24 brd 192.168.1.255 scope global dynamic noprefixroute wlan0
@@ wireless
Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
 wlan0: 0000   58.  -52.  -256        0      0      0      0      0        0
@@ wireless_interfaces
wlan0
wlan0
@@ routes
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
wlan0	0001A8C0	00000000	0001	0	0	600	00FFFFFF	0	0	0
@@ power_save
wlan0 Power save: on
@@ iw
/usr/sbin/iw
@@ listening
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15716 1 000000
   1: 00000000:15C2 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 15717 1 000000
@@ rapl
@@ hwmon
cpu_thermal
rpi_volt
@@ end
"""
PI = parse_probe(PI_4B)


def said(**parts: str) -> Probe:
    """The Pi with some parts changed."""
    return Probe({**PI.parts, **parts})


def host(**fields: Any) -> Host:
    defaults = {"name": "pi-1", "role": "device", "connection": "ssh", "address": "pi-1", "board": "raspberry-pi-4b"}
    return Host(**(defaults | fields))


def facts(**fields: Any) -> HostFacts:
    defaults: dict[str, Any] = {
        "user": "pi",
        "uid": 1000,
        "home": "/home/pi",
        "machine": "aarch64",
        "pythons": (Interpreter("/usr/bin/python3", (3, 11)),),
    }
    return HostFacts(**(defaults | fields))


def assert_is(finding: Finding | None, status: Status, *words: str) -> None:
    assert finding is not None
    assert finding.status is status, finding
    for word in words:
        assert word in f"{finding.evidence} -> {finding.fix}", finding
    assert bool(finding.fix) == (status is not OK), finding


# --- the text of the probe --------------------------------------------------------------------------------------------


def test_a_part_ends_where_the_next_begins_even_in_the_middle_of_a_line() -> None:
    assert PI.text("model") == "Raspberry Pi 4 Model B Rev 1.4"
    assert PI.lines("governor") == ["ondemand"]
    assert PI.text("kernel_log") == ""
    assert PI.is_whole
    assert "Welcome" not in str(PI.parts)


def test_a_probe_that_was_cut_off_is_not_whole() -> None:
    assert not parse_probe(PI_4B.partition("@@ hwmon")[0]).is_whole
    assert parse_probe("").parts == {}


# --- boards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "memory_mb", "revision"),
    [
        ("9000c1", "Zero W", 512, "1.1"),
        ("a02082", "3 Model B", 1024, "1.2"),
        ("a020d3", "3 Model B+", 1024, "1.3"),
        ("c03114", "4 Model B", 4096, "1.4"),
        ("d03115", "4 Model B", 8192, "1.5"),
        ("c03130", "400", 4096, "1.0"),
        ("d04170", "5", 8192, "1.0"),
        ("1000c03114", None, None, None),
        ("0002", None, None, None),
    ],
)
def test_revision_codes(code: str, kind: str | None, memory_mb: int | None, revision: str | None) -> None:
    found = parse_revision(f"Hardware\t: BCM2711\nRevision\t: {code}\n")
    if kind is None:
        assert found is None
    else:
        assert found is not None
        assert (found.kind, found.memory_mb, found.revision) == (kind, memory_mb, revision)


@pytest.mark.parametrize(
    ("model", "board"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4b"),
        ("Raspberry Pi 3 Model B Rev 1.2", "raspberry-pi-3b"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3b-plus"),
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
        ("Raspberry Pi 400 Rev 1.0", "raspberry-pi-400"),
        ("Raspberry Pi Zero W Rev 1.1", "raspberry-pi-zero-w"),
        ("Raspberry Pi Compute Module 4 Rev 1.0", None),
    ],
)
def test_models_of_boards(model: str, board: str | None) -> None:
    assert board_of_model(model) == board
    assert board is None or board in BOARDS


@pytest.mark.parametrize(
    ("fields", "parts", "status", "words"),
    [
        ({}, {}, OK, ("Rev 1.4", "c03114", "4 GiB", "4 cores")),
        ({"board": "raspberry-pi-5"}, {}, WARN, ("hosts file says raspberry-pi-5", "edgebed_board: raspberry-pi-4b")),
        ({}, {"memory": "MemTotal: 965432 kB"}, WARN, ("part of the memory is not used", "total_mem")),
        ({}, {"cores": "2"}, WARN, ("a raspberry-pi-4b has 4 cores", "maxcpus")),
        ({}, {"model": "Raspberry Pi Compute Module 4 Rev 1.0"}, WARN, ("a board file of its own",)),
        ({}, {"model": "", "cpuinfo": "model name\t: Intel(R) N100"}, WARN, ("Intel(R) N100", "no Raspberry Pi")),
        ({"board": "generic-x86"}, {"model": "", "cpuinfo": "model name\t: Intel(R) N100"}, OK, ("Intel(R) N100",)),
        ({"slowdown": 8.0}, {"model": ""}, OK, ("stands for a raspberry-pi-4b", "emulated")),
    ],
)
def test_board(fields: dict[str, Any], parts: dict[str, str], status: Status, words: tuple[str, ...]) -> None:
    each = host(**fields)
    assert_is(board_checks.check_board(each, BOARDS[each.board], said(**parts)), status, *words)


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("throttled=0x0", OK, ("nothing, now or since boot",)),
        ("throttled=0x50000\nsysfs=0", WARN, ("0x50000", "since boot: throttled, under voltage", "power supply")),
        ("throttled=0x50005", WARN, ("now: throttled, under voltage; since boot", "heat sink")),
        ("throttled=0x80008", WARN, ("soft temperature limit", "cool it")),
        ("sysfs=4", WARN, ("now: throttled",)),
        ("VCHI initialization failed\nsysfs=0", OK, ("0x0",)),
        ("", WARN, ("cannot be read", "raspi-utils")),
    ],
)
def test_throttling(text: str, status: Status, words: tuple[str, ...]) -> None:
    assert_is(board_checks.check_throttling(said(throttled=text)), status, *words)


def test_throttling_is_no_question_where_there_is_no_pi() -> None:
    assert board_checks.check_throttling(said(model="", throttled="")) is None


@pytest.mark.parametrize(
    ("nominal", "clock", "status", "words"),
    [
        ("1800000", "frequency(48)=1800404352\nkernel 1800000", OK, ("1800 MHz", "by the firmware")),
        ("1500000", "frequency(48)=600117184\nkernel 1500000", WARN, ("600 MHz", "nominal 1500 MHz")),
        ("1500000", "kernel 600000\nkernel 1500000", OK, ("1500 MHz", "as the kernel believes")),
        ("1500000", "kernel 1200000", WARN, ("1200 MHz",)),
    ],
)
def test_clock_rate(nominal: str, clock: str, status: Status, words: tuple[str, ...]) -> None:
    assert_is(board_checks.check_clock_rate(said(nominal_khz=nominal, clock=clock)), status, *words)


@pytest.mark.parametrize(("nominal", "clock"), [("", "kernel 1"), ("1500000", ""), ("0", "kernel 1"), ("x", "y")])
def test_a_clock_that_nobody_tells_is_no_finding(nominal: str, clock: str) -> None:
    assert board_checks.check_clock_rate(said(nominal_khz=nominal, clock=clock)) is None


def test_governor() -> None:
    assert_is(board_checks.check_governor(PI), WARN, "ondemand", "performance")
    assert_is(board_checks.check_governor(said(governor="performance\n")), OK)
    assert_is(board_checks.check_governor(said(governor="ondemand\nperformance")), WARN, "ondemand, performance")
    assert board_checks.check_governor(said(governor="")) is None


@pytest.mark.parametrize(
    ("model", "zones", "status"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", "cpu-thermal 61342", OK),
        ("Raspberry Pi 4 Model B Rev 1.4", "cpu-thermal 75000", WARN),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "cpu-thermal 55000", WARN),
        ("", "acpitz 27800\nx86_pkg_temp 84000", OK),
        ("", "x86_pkg_temp 86000", WARN),
    ],
)
def test_temperature(model: str, zones: str, status: Status) -> None:
    found = board_checks.check_temperature(BOARDS["generic-x86"], said(model=model, temperature=zones))
    assert_is(found, status, "°C")


def test_a_temperature_that_nobody_tells_is_no_finding() -> None:
    assert board_checks.check_temperature(BOARDS["raspberry-pi-4b"], said(temperature="cpu-thermal\n")) is None


@pytest.mark.parametrize(
    ("meters", "parts", "statuses"),
    [
        (("cpu_model", ""), {}, [OK]),
        (("hwmon_ina2xx", ""), {}, [FAIL]),
        (("hwmon_ina2xx", "cpu_model"), {"hwmon": "cpu_thermal\nina219"}, [OK, OK]),
        (("rapl", ""), {"rapl": "unreadable\nunreadable"}, [FAIL]),
        (("rapl", ""), {"rapl": "readable"}, [OK]),
        (("rapl", ""), {}, [FAIL]),
    ],
)
def test_meters(meters: tuple[str, str], parts: dict[str, str], statuses: list[Status]) -> None:
    found = board_checks.check_meter(host(meter=meters[0], second_meter=meters[1]), said(**parts))
    assert [each.status for each in found] == statuses


# --- system -----------------------------------------------------------------------------------------------------------


def test_sudo() -> None:
    assert_is(system_checks.check_sudo(PI), OK)
    assert_is(system_checks.check_sudo(said(sudo="root")), OK, "root")
    assert_is(system_checks.check_sudo(said(sudo="no")), WARN, "asks for a password", "NOPASSWD")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, OK),
        ({"machine": "x86_64"}, OK),
        ({"machine": "armv7l", "bits": 32}, FAIL),
        ({"bits": 32}, FAIL),  # a 32-bit system under a 64-bit kernel, as Raspberry Pi OS had it
        ({"machine": "riscv64"}, FAIL),
    ],
)
def test_architecture(fields: dict[str, Any], status: Status) -> None:
    assert_is(system_checks.check_architecture(facts(**fields)), status)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, OK, ("/usr/bin/python3 (3.11)",)),
        ({"pythons": (), "current_python": "3.11.2"}, OK, ("3.11.2, deployed",)),
        ({"pythons": ()}, FAIL, ("found: none", "3.11 to 3.13")),
        ({"pythons": (Interpreter("/usr/bin/python3", (3, 9)),)}, FAIL, ("3.9",)),
        ({"pythons": (Interpreter("/usr/bin/python3", (3, 14)),)}, FAIL, ("3.14",)),
        ({"pythons": (Interpreter("/usr/bin/python3", (3, 11), bits=32),)}, FAIL, ()),
        ({"pythons": (Interpreter("/usr/bin/python3", (3, 11), 64, ("venv",)),)}, FAIL, ("lacks venv", "python3-venv")),
        (
            {"pythons": (Interpreter("/p39", (3, 9)), Interpreter("/p312", (3, 12)))},
            OK,
            ("/p312 (3.12)",),
        ),
    ],
)
def test_python(fields: dict[str, Any], status: Status, words: tuple[str, ...]) -> None:
    assert_is(system_checks.check_python(facts(**fields)), status, *words)


@pytest.mark.parametrize(
    ("fields", "parts", "status", "words"),
    [
        ({}, {}, OK, ("20.0 GB",)),
        ({}, {"space": "/dev/root 29387136 28000000 976563 97% /"}, WARN, ("1.0 GB",)),
        ({}, {"space": "/dev/root 29387136 29000000 97657 99% /"}, FAIL, ("0.1 GB", "make room")),
        ({}, {"space": ""}, WARN, ()),
        ({"writable": False}, {}, FAIL, ("cannot be written by pi",)),
        ({}, {"mounts": "/dev/mmcblk0p2 / ext4 ro,noatime 0 0\nproc /proc proc rw 0 0"}, FAIL, ("read-only", "dmesg")),
        ({}, {"mounts": "/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /home ext4 ro 0 0"}, FAIL, ("/home (/dev/sda2)",)),
        ({}, {"mounts": "/dev/sda1 / ext4 ro 0 0\n/dev/sda1 / ext4 rw 0 0\n/dev/b /homeless ext4 ro 0 0"}, OK, ()),
        ({}, {"inodes": "/dev/root 1000 990 10   99% /"}, WARN, ("99 %",)),
    ],
)
def test_disk(fields: dict[str, Any], parts: dict[str, str], status: Status, words: tuple[str, ...]) -> None:
    assert_is(system_checks.check_disk(facts(**fields), said(**parts)), status, *words)


EMMC = "mmcblk0 type MMC\nmmcblk0 name BJTD4R\nmmcblk0 date 03/2022\n"


@pytest.mark.parametrize(
    ("parts", "statuses", "words"),
    [
        ({}, [OK], ("mmcblk0: SD SC32G of 08/2021",)),
        ({"mmc": ""}, [], ()),
        ({"mmc": EMMC + "mmcblk0 life_time 0x01 0x02\nmmcblk0 pre_eol_info 0x01"}, [OK], ("worn up to 20 %",)),
        ({"mmc": EMMC + "mmcblk0 life_time 0x09 0x0a"}, [WARN], ("worn up to 100 %",)),
        ({"mmc": EMMC + "mmcblk0 life_time 0x0b 0x01"}, [WARN], ("beyond its life",)),
        ({"mmc": EMMC + "mmcblk0 life_time 0x01 0x01\nmmcblk0 pre_eol_info 0x02"}, [WARN], ("near its end",)),
        (
            {"kernel_log": "mmc0: error -110 whilst initialising SD card\nEXT4-fs error (device mmcblk0p2)"},
            [OK, WARN],
            ("2 kernel messages", "EXT4-fs error"),
        ),
        ({"kernel_log": "unreadable"}, [OK], ()),
        ({"kernel_log": "hwmon hwmon1: Undervoltage detected!\nUnder-voltage detected! (0x00050005)"}, [OK], ()),
    ],
)
def test_storage(parts: dict[str, str], statuses: list[Status], words: tuple[str, ...]) -> None:
    found = list(system_checks.check_storage(said(**parts)))
    assert [each.status for each in found] == statuses
    for word in words:
        assert word in " ".join(each.evidence for each in found)


def test_ports() -> None:
    assert system_checks.listening_ports(PI) == {22, 5570}
    assert system_checks.check_ports(host(), PI) is None
    server = host(role="edge_server", port=5570)
    assert_is(system_checks.check_ports(server, PI), FAIL, "5570 is in use", "ss -ltnp")
    assert_is(system_checks.check_ports(server, PI, is_held=True), OK, "held for a run")
    assert_is(system_checks.check_ports(replace(server, port=5571), PI), OK, "5571 is free")
    assert_is(system_checks.check_ports(replace(server, port=0), PI), OK, "picked")


RECORD = Record(
    digest="ab" * 32, wheel="w1", edgebed="0.1.0", interpreter="/p", python="3.11", machine="aarch64", keeper="shell"
)
OTHER = structs.replace(RECORD, wheel="w2")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, WARN, ("not deployed", "edgebed deploy")),
        ({"record": RECORD, "current_python": "3.11.2"}, OK, ("abababababab",)),
        ({"record": OTHER, "current_python": "3.11.2"}, WARN, ("this machine has another", "edgebed deploy")),
        ({"record": RECORD, "current_python": ""}, FAIL, ("does not start",)),
        ({"root": "foreign"}, FAIL, ("not made by edgebed", "move /home/pi/.edgebed away")),
    ],
)
def test_version(fields: dict[str, Any], status: Status, words: tuple[str, ...]) -> None:
    assert_is(system_checks.check_version(facts(**fields), "w1"), status, *words)


def test_lease() -> None:
    holder = Holder(holder="ada@laptop", machine="elsewhere", pid=7, started_s=0, run_id="demo", taken="2026-01-01")
    assert_is(system_checks.check_lease(facts()), OK)
    assert_is(system_checks.check_lease(facts(lease=Lease(holder, 5.0, "{}"))), WARN, "ada@laptop", "wait")
    assert_is(system_checks.check_lease(facts(lease=Lease(holder, 5000.0, "{}"))), WARN, "gone", "edgebed release")


# --- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, [("wifi_power_save", WARN), ("wifi", OK)]),
        ({"power_save": "wlan0 Power save: off"}, [("wifi_power_save", OK), ("wifi", OK)]),
        ({"power_save": ""}, [("wifi_power_save", WARN), ("wifi", OK)]),
        ({"wireless": PI.text("wireless").replace("-52.", "-78.")}, [("wifi_power_save", WARN), ("wifi", WARN)]),
        ({"wireless": ""}, [("wifi_power_save", WARN), ("wifi", OK)]),
        ({"wireless": "", "wireless_interfaces": ""}, [("wifi", OK)]),
        ({"routes": PI.text("routes").replace("wlan0", "eth0")}, [("wifi", OK)]),
        ({"routes": ""}, [("wifi_power_save", WARN), ("wifi", OK)]),  # found by SSH's own address
        ({"routes": "", "ssh": ""}, [("wifi", OK)]),
    ],
)
def test_wifi(parts: dict[str, str], expected: list[tuple[str, Status]]) -> None:
    assert [(each.check, each.status) for each in network_checks.check_wifi(said(**parts))] == expected


@pytest.mark.parametrize(
    ("offset_s", "error_s", "status"),
    [(0.004, 0.001, OK), (-0.15, 0.1, OK), (-0.15, 0.01, WARN), (86_400 * 365.0, 0.01, FAIL)],
)
def test_clock(offset_s: float, error_s: float, status: Status) -> None:
    assert_is(network_checks.check_clock(ClockReading(offset_s, error_s)), status, "ms +-")


def test_a_clock_without_fractions_is_a_warning() -> None:
    assert_is(network_checks.check_clock(None), WARN)


CHRONY = (
    "Reference ID    : C0A80102 (edge-1)\nSystem time     : 0.000012 seconds fast of NTP time\nLeap status     : {}"
)


@pytest.mark.parametrize(
    ("text", "status", "word"),
    [
        ("NTP=yes\nNTPSynchronized=yes", OK, "systemd"),
        (CHRONY.format("Normal"), OK, "edge-1"),
        ("NTPSynchronized=no\n" + CHRONY.format("Normal"), OK, "edge-1"),
        (CHRONY.format("Not synchronised"), WARN, "not synchronised"),
        ("NTP=no\nNTPSynchronized=no", WARN, "set-ntp true"),
        ("", WARN, "nobody tells"),
    ],
)
def test_clock_sync(text: str, status: Status, word: str) -> None:
    assert_is(network_checks.check_clock_sync(said(clock_sync=text)), status, word)


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        (RoundTrips("10.0.0.2:5570", 100, 0.006, 0.019), OK),
        (RoundTrips("10.0.0.2:5570", 100, 0.049, 0.060), WARN),
        (RoundTrips("10.0.0.2:5570", 100, 0.006, 0.9), WARN),
        (RoundTrips("10.0.0.2:5570", problem="timed out", fix="open the port"), FAIL),
    ],
)
def test_round_trips(measured: RoundTrips, status: Status) -> None:
    assert_is(network_checks.check_round_trips("edge-1", measured), status, "edge-1")


def test_percentiles_are_by_the_nearest_rank() -> None:
    found = summarise("a:1", range(1, 101))
    assert (found.count, round(found.p50_s * 1e6), round(found.p99_s * 1e6)) == (100, 50, 99)
    assert round(summarise("a:1", [7]).p99_s * 1e6) == 7
    assert summarise("a:1", []).problem


# --- together ---------------------------------------------------------------------------------------------------------


def test_clones_are_found_by_machine_id_and_by_host_key() -> None:
    own_key = said(host_keys="ssh-ed25519 AAAAOther", machine_id="01234567")
    found = check_clones({"pi-1": PI, "pi-2": PI, "pi-3": own_key, "pi-4": said(machine_id="", host_keys="")})
    by_host = {name: {each.check: each for each in findings} for name, findings in found.items()}
    assert_is(by_host["pi-1"]["machine_id"], WARN, "the same as pi-2", "systemd-machine-id-setup")
    assert_is(by_host["pi-2"]["host_key"], WARN, "the same SSH host key as pi-1", "edgebed trust")
    assert_is(by_host["pi-3"]["machine_id"], OK)
    assert_is(by_host["pi-3"]["host_key"], OK)
    assert_is(by_host["pi-4"]["machine_id"], WARN)
    assert "host_key" not in by_host["pi-4"]


def test_the_worst_comes_first_and_order_is_kept_among_equals() -> None:
    found = worst_first([ok("a", "x"), warn("b", "x", "y"), ok("c", "x"), fail("d", "x", "y"), warn("e", "x", "y")])
    assert [each.check for each in found] == ["d", "b", "e", "a", "c"]
