"""The user's own model and images: what is accepted, what comes out, and every way in which files can be wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgebed.errors import BadInput, ProtocolError
from orchestrator.experiment import Experiment, load_experiment
from workloads import load_workload
from workloads.base import pack_clip
from workloads.files import Packed, file_name, load_placed, pack_workload
from workloads.onnx_images import OnnxImages, library, recognise
from workloads.onnx_images.testing import COLOURS, colour_model, own_files, save_image
from workloads.testing import check_workload


def packed(folder: Path, **options: Any) -> Packed:
    found = pack_workload("onnx_images", {"model": "model.onnx", "images": "images"} | options, folder)
    assert found is not None
    return found


def on_a_host(found: Packed, content: Path) -> OnnxImages:
    """The workload as a host makes it, from placed files."""
    content.mkdir(exist_ok=True)
    for reference, each in found.files.items():
        (content / file_name(reference)).write_bytes(each)
    workload = load_placed("onnx_images", found.options, content)
    assert isinstance(workload, OnnxImages)
    return workload


def problems(folder: Path, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        packed(folder, **options)
    return str(caught.value)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_a_host_recognises_what_was_packed(tmp_path: Path) -> None:
    own_files(tmp_path)
    workload = on_a_host(packed(tmp_path), tmp_path / "content")
    check_workload(workload)
    task = workload.generate(np.random.default_rng(0), "x", 60)
    assert set(task.labels) == {0, 1, 2}
    assert workload.execute(pack_clip(task.frames)).predicted == task.labels


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (colour_model((1, 3, 8, 8)), {}),
        (colour_model(("batch", 3, 8, 12)), {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "fit": "crop"}),
        (colour_model((1, 8, 8, 3)), {}),
        (colour_model((1, 8, 8, 3), TensorProto.UINT8), {}),
        (colour_model((1, 3, 8, 8), TensorProto.FLOAT16), {"mean": 0.5}),
        (colour_model((1, 3, "height", "width")), {"size": [16, 24]}),
    ],
)
def test_models_of_every_kind_of_input(tmp_path: Path, model: bytes, options: dict[str, Any], suffix: str) -> None:
    own_files(tmp_path, each=2, suffix=suffix)
    (tmp_path / "model.onnx").write_bytes(model)
    workload = on_a_host(packed(tmp_path, **options), tmp_path / "content")
    task = workload.generate(np.random.default_rng(1), "x", 12)
    assert workload.execute(pack_clip(task.frames)).predicted == task.labels


def test_pixels_are_scaled_as_said(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(colour_model((1, 3, 2, 2)))
    session = recognise.shared_session(tmp_path / "model.onnx")
    recogniser = recognise.Recogniser(session, recognise.Preparation(mean=(0.5, 0.0, 0.2), std=(0.5, 1.0, 2.0)))
    pixels = np.full((2, 2, 3), (255, 51, 102), np.uint8)
    prepared = recogniser.as_input(pixels)
    assert (prepared.shape, prepared.dtype) == ((1, 3, 2, 2), np.float32)
    assert prepared[0, :, 0, 0] == pytest.approx([1.0, 0.2, 0.1], abs=1e-6)


@pytest.mark.parametrize(("fit", "expected"), [("stretch", [255, 0, 0]), ("crop", [0, 255, 0])])
def test_crop_takes_the_middle_and_stretch_takes_all(tmp_path: Path, fit: str, expected: list[int]) -> None:
    """Red, a narrow green middle, red: more red than green, but only green in the middle square."""
    (tmp_path / "model.onnx").write_bytes(colour_model((1, 3, 8, 8)))
    session = recognise.shared_session(tmp_path / "model.onnx")
    recogniser = recognise.Recogniser(session, recognise.Preparation(fit=fit))
    pixels = np.zeros((20, 100, 3), np.uint8)
    pixels[:, :, 0] = 255
    pixels[:, 36:64] = (0, 255, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    mean = recogniser.fitted(file.getvalue()).mean(axis=(0, 1))
    assert int(mean.argmax()) == expected.index(255)


def test_demand_needs_no_file_on_a_host_and_follows_the_model(tmp_path: Path) -> None:
    own_files(tmp_path)
    found = packed(tmp_path)
    placed = load_workload("onnx_images", found.options)  # references, but nothing is there
    sizes = [path.stat().st_size for path in (tmp_path / "images").rglob("*.jpg")]
    assert placed.demand.bytes_per_frame == pytest.approx(np.mean(sizes), abs=0.1)
    # One matrix product of 3 x 3, and images of 64 x 48.
    assert placed.demand.cycles_per_frame == pytest.approx(0.15 * 9 + 18 * 64 * 48, rel=0.05)
    assert packed(tmp_path, cycles_per_frame=5e6).options["cycles_per_frame"] == 5e6
    direct = load_workload("onnx_images", {key: str(tmp_path / value) for key, value in own_files(tmp_path).items()})
    assert direct.demand.cycles_per_frame == placed.demand.cycles_per_frame
    assert direct.demand.bytes_per_frame == pytest.approx(placed.demand.bytes_per_frame, abs=0.1)


def test_the_estimate_of_the_shipped_network_is_near_its_measured_cost(tmp_path: Path) -> None:
    digits = load_workload("digits")
    task = digits.generate(np.random.default_rng(0), "x", 2)
    (tmp_path / "images").mkdir()
    for number, frame in enumerate(task.frames):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(frame)
    shipped = Path(recognise.__file__).parents[1] / "digits" / "model.onnx"
    estimated = packed(tmp_path, model=str(shipped)).options["cycles_per_frame"]
    assert 0.5 < estimated / digits.demand.cycles_per_frame < 2.0


def test_the_same_files_give_the_same_bytes_and_other_files_others(tmp_path: Path) -> None:
    own_files(tmp_path / "a")
    own_files(tmp_path / "b")
    assert packed(tmp_path / "a") == packed(tmp_path / "b")
    save_image(tmp_path / "b" / "images" / "1" / "9.jpg", 1, 99)
    assert packed(tmp_path / "a").options["images"] != packed(tmp_path / "b").options["images"]


def test_images_are_read_one_by_one_from_the_packed_file(tmp_path: Path) -> None:
    own_files(tmp_path)
    found = library.open_library(tmp_path / "images")
    (tmp_path / "one").write_bytes(found.packed())
    again = library.open_library(tmp_path / "one")
    assert (again.labels, again.lengths) == (found.labels, found.lengths)
    assert [again.frame(index) for index in range(len(again))] == [found.frame(index) for index in range(len(found))]


# --- labels -----------------------------------------------------------------------------------------------------------


def test_without_labels_the_truth_is_unknown(tmp_path: Path) -> None:
    own_files(tmp_path)
    for number, path in enumerate(sorted((tmp_path / "images").rglob("*.jpg"))):
        path.rename(tmp_path / "images" / f"{number}.jpg")
    workload = on_a_host(packed(tmp_path), tmp_path / "content")
    task = workload.generate(np.random.default_rng(0), "x", 4)
    assert task.labels == ()
    assert len(workload.execute(pack_clip(task.frames)).predicted) == 4


@pytest.mark.parametrize("with_classes", [True, False])
def test_sub_folders_may_be_called_by_the_classes_names(tmp_path: Path, with_classes: bool) -> None:
    own_files(tmp_path)
    # In the order of the alphabet blue would be class 0; a list of names says that it is class 2.
    names = COLOURS if with_classes else ("a-red", "b-green", "c-blue")
    for number, name in enumerate(names):
        (tmp_path / "images" / str(number)).rename(tmp_path / "images" / name)
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS) + "\n")
    workload = on_a_host(packed(tmp_path, **({"classes": "classes.txt"} if with_classes else {})), tmp_path / "content")
    task = workload.generate(np.random.default_rng(0), "x", 20)
    assert workload.execute(pack_clip(task.frames)).predicted == task.labels


@pytest.mark.parametrize("name", ["labels.csv", "elsewhere/truth.csv"])
def test_a_csv_file_gives_the_labels(tmp_path: Path, name: str) -> None:
    for number in range(6):
        save_image(tmp_path / "images" / f"{number}.png", number % 3, number)
    (tmp_path / "model.onnx").write_bytes(colour_model())
    rows = "".join(f"{number}.png,{COLOURS[number % 3] if number < 3 else number % 3}\n" for number in range(6))
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    path = tmp_path / "images" / name if name == "labels.csv" else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("file,label\n" + rows)
    given = {} if name == "labels.csv" else {"labels": name}
    workload = on_a_host(packed(tmp_path, classes="classes.txt", **given), tmp_path / "content")
    task = workload.generate(np.random.default_rng(0), "x", 20)
    assert workload.execute(pack_clip(task.frames)).predicted == task.labels


# --- what is wrong ----------------------------------------------------------------------------------------------------


RELU = [helper.make_node("Relu", ["image"], ["scores"])]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (b"", "cannot load it"),
        (b"not a model", "cannot load it"),
        (colour_model((4, 3, 8, 8)), "the model takes batches of 4"),
        (colour_model((1, 5, 8, 8), nodes=RELU), "expected 1 or 3 colours"),
        (colour_model((1, 3, 8), nodes=RELU), "expected 4 dimensions"),
        (colour_model((1, 3, "h", "w")), "leaves its size open"),
        (colour_model((1, 3, 8, 8), TensorProto.INT64), r"is tensor\(int64\); allowed: tensor\(float\)"),
    ],
)
def test_models_that_are_refused(tmp_path: Path, model: bytes, sentence: str) -> None:
    own_files(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model)
    with pytest.raises(BadInput, match=sentence) as caught:
        packed(tmp_path)
    assert "model.onnx" in str(caught.value)


def test_a_model_that_gives_something_else_than_scores(tmp_path: Path) -> None:
    own_files(tmp_path)
    (tmp_path / "model.onnx").write_bytes(colour_model(nodes=RELU))
    assert "has the shape [1, 3, 8, 8]; expected [1, classes]" in problems(tmp_path)


def spoil_image(folder: Path) -> None:
    path = folder / "images" / "0" / "0.jpg"
    path.write_bytes(path.read_bytes()[:300])


def add_text(folder: Path) -> None:
    (folder / "images" / "readme.txt").write_text("hello")


def remove_images(folder: Path) -> None:
    for path in (folder / "images").rglob("*.jpg"):
        path.unlink()


def empty_image(folder: Path) -> None:
    (folder / "images" / "0" / "empty.jpg").write_bytes(b"")


def class_too_many(folder: Path) -> None:
    save_image(folder / "images" / "7" / "0.jpg", 0, 0)


def unclear_order(folder: Path) -> None:
    (folder / "images" / "2").rename(folder / "images" / "blue")
    save_image(folder / "images" / "pink" / "0.jpg", 0, 0)


def mixed(folder: Path) -> None:
    save_image(folder / "images" / "0.jpg", 0, 0)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_image, "0.jpg: an image is no JPEG or PNG that can be decoded"),
        (add_text, "readme.txt: is no image; allowed in this folder: .jpg, .jpeg, .png"),
        (remove_images, "has 0 images; allowed: 1 to 4096"),
        (empty_image, "empty.jpg: has 0 bytes"),
        (class_too_many, "has the class 7; the model gives scores for 0 to 2"),
        (unclear_order, "has 4 sub-folders and the model 3 classes"),
        (mixed, "0.jpg: lies in no sub-folder"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    own_files(tmp_path)
    spoil(tmp_path)
    assert sentence in problems(tmp_path)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    own_files(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    add_text(tmp_path)
    said = problems(tmp_path)
    assert "model.onnx" in said
    assert "readme.txt" in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,label\n", "labels.csv:1: has the columns name, label; expected file,label"),
        ("file,label\n0.png,0\n", "labels.csv: has no label for '1.png'"),
        ("file,label\n0.png,0\n1.png,1\n2.png,1\n", "labels.csv:4: '2.png' is no image"),
        ("file,label\n0.png,0\n0.png,0\n", "labels.csv:3: '0.png' is here twice"),
        ("file,label\n0.png,0\n1.png,cat\n", "labels.csv:3: the label 'cat' is neither a number nor a name: say"),
        ("file,label\n0.png,0\n1.png,-1\n", "the label '-1' is neither"),
        ("file,label\n0.png,0\n1.png,9\n", "has the class 9"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "model.onnx").write_bytes(colour_model())
    for number in range(2):
        save_image(tmp_path / "images" / f"{number}.png", number, number)
    (tmp_path / "images" / "labels.csv").write_text(text)
    assert sentence in problems(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "nowhere.onnx"}, "nowhere.onnx: the model cannot be read: No such file"),
        ({"images": "nowhere"}, "nowhere: is no folder of images"),
        ({"labels": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"model": 5}, "model is 5; expected a path"),
        ({"colour": "red"}, "got an unexpected keyword argument 'colour'"),
        ({"fit": "squeeze"}, "fit is 'squeeze'; allowed: stretch, crop"),
        ({"std": 0}, "std is 0"),
        ({"mean": [0.1, 0.2]}, "expected a number, or three"),
        ({"size": [8, 8, 8]}, "expected [height, width]"),
        ({"size": [16, 16]}, "size is [16, 16], but the model takes [8, 8]"),
        ({"cycles_per_frame": -1}, "expected a positive number"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    own_files(tmp_path)
    assert sentence in problems(tmp_path, **options)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_files(tmp_path)
    monkeypatch.setattr(recognise, "MAX_PIXELS", 64 * 48 - 1)
    assert "an image has 64 x 48 pixels" in problems(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_that_were_cut_or_changed_on_the_way_raise_what_the_contract_says(tmp_path: Path, suffix: str) -> None:
    own_files(tmp_path, suffix=f".{suffix}")
    workload = on_a_host(packed(tmp_path), tmp_path / "content")
    frame = workload.generate(np.random.default_rng(0), "x", 1).frames[0]
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        bad = bytearray(frame[: int(rng.integers(1, len(frame) + 1))])
        for _ in range(3):
            bad[int(rng.integers(len(bad)))] = int(rng.integers(256))
        try:
            workload.execute(pack_clip([bytes(bad)]))
        except ProtocolError:
            refused += 1
    assert refused > 100


# --- in an experiment -------------------------------------------------------------------------------------------------

EXPERIMENT = """\
name: own
workload: {{ name: onnx_images, model: model.onnx, images: images{more} }}
deadline_s: 1
arrivals: {{ kind: periodic, period_s: 0.5 }}
epoch_s: 0.5
epochs: 4
policies: [all_local]
seeds: [1]
"""


def experiment(folder: Path, more: str = "", end: str = "") -> Experiment:
    (folder / "own.yaml").write_text(EXPERIMENT.format(more=more) + end)
    return load_experiment(folder / "own.yaml")


def test_an_experiment_names_files_from_its_own_folder_and_hosts_get_checksums(tmp_path: Path) -> None:
    own_files(tmp_path)
    found = experiment(tmp_path, more=", fit: crop")
    (setting,) = found.settings
    assert setting.workload_options == packed(tmp_path, fit="crop").options
    assert str(tmp_path) not in str(setting)
    (source,) = found.workload_sources
    assert (source.folder, source.options["images"]) == (str(tmp_path), "images")


def test_a_sweep_over_models_packs_each_once(tmp_path: Path) -> None:
    own_files(tmp_path)
    (tmp_path / "other.onnx").write_bytes(colour_model(classes=4))
    found = experiment(tmp_path, end="sweep: { workload.model: [model.onnx, other.onnx], deadline_s: [1, 2] }")
    assert len(found.settings) == 4
    assert len(found.workload_sources) == 2
    assert len({setting.workload_options["model"] for setting in found.settings}) == 2
    assert len({setting.workload_options["images"] for setting in found.settings}) == 1


def test_all_that_is_wrong_is_said_when_the_experiment_is_read(tmp_path: Path) -> None:
    own_files(tmp_path)
    (tmp_path / "images" / "0" / "0.jpg").write_bytes(b"no image")
    (tmp_path / "images" / "1" / "0.jpg").write_bytes(b"nor this")
    with pytest.raises(BadInput) as caught:
        experiment(tmp_path)
    for number in (0, 1):
        assert f"{number}/0.jpg: an image is no JPEG or PNG" in str(caught.value)
    with pytest.raises(BadInput, match=r"own.yaml:2: workload: workload onnx_images: fit is 'x'"):
        experiment(tmp_path, more=", fit: x")
    with pytest.raises(BadInput, match=r"own.yaml:2: workload: workload onnx_images: options"):
        experiment(tmp_path, more=", colour: red")


# --- on the host ------------------------------------------------------------------------------------------------------


def test_a_host_refuses_files_that_are_not_what_was_checked(tmp_path: Path) -> None:
    own_files(tmp_path)
    found = packed(tmp_path)
    on_a_host(found, tmp_path / "content")
    path = tmp_path / "content" / file_name(found.options["model"])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadInput, match="has other bytes than were checked"):
        load_placed("onnx_images", found.options, tmp_path / "content")
    path.unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        load_placed("onnx_images", found.options, tmp_path / "content")


@pytest.mark.parametrize("cut", [0, 10, 20, 40])
def test_a_damaged_file_of_images(tmp_path: Path, cut: int) -> None:
    own_files(tmp_path)
    content = library.open_library(tmp_path / "images").packed()
    (tmp_path / "one").write_bytes(content[:cut])
    with pytest.raises(BadInput, match=r"is neither a folder of images nor|is not a file of images"):
        library.open_library(tmp_path / "one")
