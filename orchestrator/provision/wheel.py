"""The wheel that hosts get: the very files that the orchestrator itself runs, those of the programs and the library.

It is zipped here and not by a build tool: that needs no network, works alike from a checkout and from an installed
edgebed, and gives the same bytes for the same files, by which hosts know whether they have it already.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import msgspec

from edgebed import __version__
from edgebed.errors import BadInput
from orchestrator.provision.caches import cache_folder, keep_newest, write_whole

PACKAGES = ("edgebed", "edge_server", "device_agent", "workloads")
"""What runs on hosts; never the orchestrator."""

WHEEL_FILE = f"edgebed-{__version__}-py3-none-any.whl"

KEPT_WHEELS = 8

_SOURCES = Path(__file__).resolve().parents[2]
_INFO = f"edgebed-{__version__}.dist-info"
# A zip file cannot say earlier.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class OwnWheel:
    """The wheel of this edgebed.

    Attributes:
        sha256: of the wheel file, hexadecimal.
        requirements: what it needs, as pip is told.
        path: the wheel's content, in the cache; what a wheel has to be called is `WHEEL_FILE`.
    """

    sha256: str
    requirements: tuple[str, ...]
    path: Path


def own_wheel() -> OwnWheel:
    """The wheel of this edgebed, built unless one of the same files is in the cache.

    Whether the files are the same is told by names, sizes and times, which takes milliseconds.

    Raises:
        BadInput: what edgebed needs cannot be told, because it is not installed.
        OSError: the cache folder cannot be written.
    """
    files, requirements = _files(), own_requirements()
    folder, name = cache_folder("wheels"), _fingerprint(files, requirements)
    path, sum_file = folder / f"{name}.whl", folder / f"{name}.sha256"
    if not (sum_file.is_file() and path.is_file()):
        content = wheel_bytes(files, requirements)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        write_whole(sum_file, hashlib.sha256(content).hexdigest().encode())
        keep_newest(folder, "*.whl", KEPT_WHEELS)
        keep_newest(folder, "*.sha256", KEPT_WHEELS)
    return OwnWheel(sum_file.read_text(), requirements, path)


@cache
def own_requirements() -> tuple[str, ...]:
    """What edgebed needs without any extra.

    Raises:
        BadInput: it runs from files that nobody has installed.
    """
    import tomllib

    project = _SOURCES / "pyproject.toml"
    if project.is_file():
        described = tomllib.loads(project.read_text())["project"]
        if described["name"] == "edgebed":
            return tuple(sorted(described["dependencies"]))
    try:
        found = requires("edgebed") or []
    except PackageNotFoundError:
        raise BadInput(
            f"edgebed in {_SOURCES} is not installed, so what it needs on hosts cannot be told; pip install edgebed"
        ) from None
    return tuple(sorted(each for each in found if "extra ==" not in each))


def wheel_bytes(files: dict[str, Path], requirements: tuple[str, ...]) -> bytes:
    """A wheel's content.

    Args:
        files: by the name that they have in the wheel.
        requirements: for its metadata.
    """
    import zipfile

    contents = {name: path.read_bytes() for name, path in files.items()}
    metadata = ["Metadata-Version: 2.1", "Name: edgebed", f"Version: {__version__}", "Requires-Python: >=3.11"]
    metadata += [f"Requires-Dist: {each}" for each in requirements]
    contents[f"{_INFO}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    contents[f"{_INFO}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgebed\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{name},sha256={_urlsafe_sha256(content)},{len(content)}" for name, content in contents.items()]
    contents[f"{_INFO}/RECORD"] = ("\n".join([*record, f"{_INFO}/RECORD,,"]) + "\n").encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, content)
    return archive.getvalue()


def _urlsafe_sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _files() -> dict[str, Path]:
    """The files of the packages, sorted by name; what Python has made of them is left out."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for folder, inner, names in os.walk(_SOURCES / package):
            inner[:] = [each for each in inner if each != "__pycache__" and not each.startswith(".")]
            for name in names:
                if not name.startswith(".") and not name.endswith(".pyc"):
                    path = Path(folder, name)
                    found[str(path.relative_to(_SOURCES))] = path
    return dict(sorted(found.items()))


def _fingerprint(files: dict[str, Path], requirements: tuple[str, ...]) -> str:
    stats = [(name, path.stat()) for name, path in files.items()]
    listed = [str(_SOURCES), __version__, requirements, [(name, one.st_size, one.st_mtime_ns) for name, one in stats]]
    return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()[:24]
