"""The wheel that hosts get, and the wheels that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest

from edgebed.errors import WorkFailed
from orchestrator.provision import wheelhouse
from orchestrator.provision.caches import cache_folder, keep_newest, write_whole
from orchestrator.provision.wheel import WHEEL_FILE, own_requirements, own_wheel, wheel_bytes
from orchestrator.provision.wheelhouse import LockedWheel, Platform, Wheelhouse, wheelhouse_for

ARM = Platform("aarch64", (3, 11))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_programs_go_along_and_the_orchestrator_does_not() -> None:
    with zipfile.ZipFile(own_wheel().path) as wheel:
        names = wheel.namelist()
        tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"edgebed", "edge_server", "device_agent", "workloads"}
    assert "workloads/digits/model.onnx" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_nothing_of_torch() -> None:
    requirements = own_requirements()
    assert {each.split(">")[0] for each in requirements} == {
        "numpy",
        "pyzmq",
        "psutil",
        "msgspec",
        "onnxruntime",
        "pillow",
        "pyyaml",
    }


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = 1\n")
    first = wheel_bytes({"package/module.py": path}, ("numpy",))
    os.utime(path, (0, 0))
    assert wheel_bytes({"package/module.py": path}, ("numpy",)) == first
    path.write_text("x = 2\n")
    assert wheel_bytes({"package/module.py": path}, ("numpy",)) != first


def test_pip_takes_it_for_a_wheel(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    target = tmp_path / "target"
    path = tmp_path / "wheels" / WHEEL_FILE
    path.write_bytes(own_wheel().path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--target", str(target), str(path)], check=True, timeout=120)
    assert (target / "device_agent" / "__main__.py").is_file()


def test_it_is_built_once(tmp_path: Path) -> None:
    first = own_wheel()
    stamp = first.path.stat().st_mtime_ns
    assert own_wheel() == first
    assert first.path.stat().st_mtime_ns == stamp


def test_pip_is_asked_for_the_hosts_platform_and_not_for_ours() -> None:
    options = ARM.pip_options
    assert options[options.index("--python-version") + 1] == "3.11"
    platforms = [word for word in options if word.startswith("manylinux")]
    assert "manylinux_2_28_aarch64" in platforms
    assert "manylinux2014_aarch64" in platforms
    assert not [each for each in platforms if "x86" in each]
    assert ARM.tag == "cp311-aarch64"


def fake_house(folder: Path, *, content: bytes = b"abc") -> Wheelhouse:
    folder.mkdir(parents=True)
    (folder / "a-1-py3-none-any.whl").write_bytes(content)
    return Wheelhouse(ARM, folder, (LockedWheel("a-1-py3-none-any.whl", "0" * 64, len(content)),))


def test_the_digest_tells_wheels_python_and_platform_apart(tmp_path: Path) -> None:
    house, own = fake_house(tmp_path / "house"), own_wheel()
    other = Wheelhouse(Platform("aarch64", (3, 12)), house.folder, house.wheels)
    digests = {
        house.digest(own, "/usr/bin/python3"),
        house.digest(own, "/opt/python3"),
        other.digest(own, "/opt/python3"),
    }
    assert len(digests) == 3
    assert house.digest(own, "/opt/python3") in digests


def test_the_archive_has_all_wheels(tmp_path: Path) -> None:
    house = fake_house(tmp_path / "house")
    path = house.archive(own_wheel())
    with tarfile.open(path) as archive:
        assert sorted(archive.getnames()) == sorted([WHEEL_FILE, "a-1-py3-none-any.whl"])
    assert house.archive(own_wheel()) == path


def test_wheels_in_the_cache_need_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def download(options: list[str], platform: Platform) -> None:
        made.append(options)
        Path(options[1], "a-1-py3-none-any.whl").write_bytes(b"abc")

    monkeypatch.setattr(wheelhouse, "_download", download)
    first = wheelhouse_for(ARM, ("a>=1",))
    assert wheelhouse_for(ARM, ("a>=1",)) == first
    assert len(made) == 1
    assert made[0][-2:] == ["a>=1", "pip"]
    (first.folder / "a-1-py3-none-any.whl").write_bytes(b"cut")
    (first.folder / "a-1-py3-none-any.whl").write_bytes(b"cu")
    wheelhouse_for(ARM, ("a>=1",))
    assert len(made) == 2, "a wheel that is not whole is fetched again"
    assert msgspec.json.decode((first.folder / "lock.json").read_bytes())["requirements"] == ["a>=1"]


def test_pips_own_words_when_it_fails() -> None:
    with pytest.raises(WorkFailed, match="no-such-wheel") as caught:
        wheelhouse_for(ARM, ("./no-such-wheel.whl",))
    assert "package registry" in str(caught.value)
    assert list(cache_folder("wheelhouse").glob("*")) == [], "nothing half"


def test_the_cache_keeps_the_newest(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.tar"
        write_whole(path, b"x")
        os.utime(path, (number, number))
    keep_newest(tmp_path, "*.tar", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.tar", "4.tar"]
