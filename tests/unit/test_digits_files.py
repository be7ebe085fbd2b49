"""The shipped scans, model, manifest and card agree with each other, and are checked when they are loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits

from edgebed.errors import BadInput
from workloads.digits import DigitsWorkload
from workloads.digits.manifest import FOLDER, MANIFEST_NAME, read_manifest
from workloads.digits.scans import SCANS_NAME, Part, read_part
from workloads.digits.training.card import CARD_NAME, format_card
from workloads.digits.training.make_scans import describe_scans, draw_split

MANIFEST = read_manifest()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (MANIFEST_NAME, MANIFEST.scans.file, MANIFEST.model.file):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


def _generate(folder: Path) -> None:
    DigitsWorkload(folder).generate(np.random.default_rng(0), "c", 1)


def test_a_copy_of_the_files_works(copy: Path) -> None:
    _generate(copy)
    DigitsWorkload(copy).load()


def test_a_changed_scan_is_noticed(copy: Path) -> None:
    _flip_a_bit(copy / MANIFEST.scans.file)
    with pytest.raises(BadInput, match=rf"scans\.npz: SHA-256 is .*expects {MANIFEST.scans.sha256}.*restore"):
        _generate(copy)


def test_a_changed_model_is_noticed(copy: Path) -> None:
    _flip_a_bit(copy / MANIFEST.model.file)
    changed = msgspec.structs.replace(MANIFEST.model, sha256="0" * 64)
    path = copy / MANIFEST_NAME
    # Another checksum than the shipped one, as the process may have the shipped model in memory already.
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(MANIFEST, model=changed)))
    with pytest.raises(BadInput, match=r"model\.onnx: SHA-256 is .*expects 0000.*restore"):
        DigitsWorkload(copy).load()


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / MANIFEST.scans.file).unlink()
    with pytest.raises(BadInput, match=r"scans\.npz: cannot be read"):
        _generate(copy)


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"schema_version": "one"}'])
def test_a_broken_manifest_is_named(copy: Path, text: bytes) -> None:
    (copy / MANIFEST_NAME).write_bytes(text)
    with pytest.raises(BadInput, match=r"manifest\.json: cannot be read"):
        _ = DigitsWorkload(copy).demand


def test_a_manifest_of_another_version_is_refused(copy: Path) -> None:
    (copy / MANIFEST_NAME).write_bytes(msgspec.json.encode(msgspec.structs.replace(MANIFEST, schema_version=2)))
    with pytest.raises(BadInput, match="schema_version is 2, expected 1"):
        _ = DigitsWorkload(copy).demand


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_scans_are_scikit_learns() -> None:
    digits = load_digits()
    with np.load(FOLDER / SCANS_NAME, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], digits.images)
        assert np.array_equal(arrays["labels"], digits.target)
        assert np.array_equal(arrays["split"], draw_split(arrays["labels"]))
    assert describe_scans(FOLDER) == MANIFEST.scans


def test_no_scan_is_in_two_parts() -> None:
    content = (FOLDER / SCANS_NAME).read_bytes()
    parts = [{image.tobytes() for image in read_part(content, part).images} for part in Part]
    # By content, not by index: a duplicate scan in another part would be a leak too.
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(len(read_part(content, part)) for part in Part) == 1797


def test_every_digit_is_split_alike() -> None:
    content = (FOLDER / SCANS_NAME).read_bytes()
    test, whole = read_part(content, Part.TEST), load_digits().target
    for digit in range(10):
        assert (test.labels == digit).sum() == pytest.approx(0.2 * (whole == digit).sum(), abs=1)


def test_the_card_states_the_manifest() -> None:
    assert (FOLDER / CARD_NAME).read_text(encoding="utf-8") == format_card(MANIFEST)


def test_demand_is_that_of_the_manifest() -> None:
    demand = DigitsWorkload().demand
    assert demand.cycles_per_frame == MANIFEST.cost.cpu_s_per_frame * MANIFEST.cost.nominal_hz
    assert 1e6 < demand.cycles_per_frame < 1e9
    frames = DigitsWorkload().generate(np.random.default_rng(1), "c", 50).frames
    assert np.mean([len(frame) for frame in frames]) == pytest.approx(demand.bytes_per_frame, rel=0.15)


def test_the_network_is_as_large_as_the_card_says() -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(FOLDER / MANIFEST.model.file))
    assert _multiply_adds(model) == MANIFEST.model.multiply_adds
    assert MANIFEST.model.multiply_adds >= 30e6
    assert (FOLDER / MANIFEST.model.file).stat().st_size == MANIFEST.model.file_bytes < 3e6


def _multiply_adds(model: onnx.ModelProto) -> int:
    """Counted from the shipped file, independently of the training code: kernel size x outputs of each layer."""
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    weights = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(weights[node.input[1]][1:]) * np.prod(shapes[node.output[0]][1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            total += int(np.prod(weights[node.input[1]]))
    return total


def test_the_model_tells_nothing_of_where_it_was_made() -> None:
    content = (FOLDER / MANIFEST.model.file).read_bytes()
    assert not [word for word in (b"/home", b"/root", b"/work", b"site-packages", b".py") if word in content]
