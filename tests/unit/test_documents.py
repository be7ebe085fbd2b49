"""YAML files: plain data that knows its lines, and every problem at once."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgebed.errors import BadInput
from orchestrator.documents import MAX_FILE_BYTES, Origin, load_document, parse_document, parse_value


def problems(text: str) -> list[str]:
    try:
        document = parse_document(text, "f.yaml")
    except BadInput as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-3", -3),
        ("1_000", 1000),
        ("0x10", 16),
        ("010", "010"),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("20e6", 20e6),
        ("2.5E-3", 0.0025),
        ("-.inf", float("-inf")),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("yes", True),
        ("Off", False),
        ("yesterday", "yesterday"),
        ("~", None),
        ("", None),
        ("'7'", "7"),
        ("!!str 7", "7"),
        ("!vault 7", "7"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("pi-[1:8]", "pi-[1:8]"),
    ],
)
def test_what_a_value_means(text: str, value: Any) -> None:
    found = parse_value(text, "--set x")
    assert found == value
    assert type(found) is type(value)


letters = st.text(string.ascii_letters, min_size=1, max_size=8).map("t{}".format)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | letters,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(letters, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(letters, plain, min_size=1, max_size=4))
def test_what_others_write_is_read_as_they_meant_it(data: dict[str, Any]) -> None:
    assert parse_document(yaml.safe_dump(data), "f.yaml").data == data


def test_every_key_knows_its_line() -> None:
    document = parse_document("a: 1\nb:\n  c:\n    - x\n    - {d: 2}\n", "f.yaml")
    lines = {".".join(map(str, path)): origin.line for path, origin in document.origins.items()}
    assert lines == {"a": 1, "b": 2, "b.c": 3, "b.c.0": 4, "b.c.1": 5, "b.c.1.d": 5}
    assert str(document.problem(("b", "c", 1, "d"), "wrong")) == "f.yaml:5: b.c.1.d: wrong"


def test_a_key_that_is_missing_has_its_parents_line() -> None:
    document = parse_document("a: 1\nb:\n  c: 2\n", "f.yaml")
    assert document.problem(("b", "nope"), "is missing").line == 2
    assert document.problem(("nope",), "is missing").line is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\nb: 4\n", ["3: a: is here twice, first in line 1", "4: b: is here twice, first in line 2"]),
        ("1: x\nyes: y\n", ["1: the key 1 is not text; put it in quotes", "2: the key yes is not text"]),
        ("a:\n\tb: 1\n\tc: 2\n", ["2: begins with a tab", "3: begins with a tab"]),
        ("a: [1, 2\nb: 3\n", ["2: is not YAML: while parsing a flow sequence"]),
        ("a: !python/object:os.system x\n", ["1: a: the tag !python/object:os.system is not known"]),
        ("a: !!int x\n", ["1: a: 'x' is not of the type that its tag says"]),
        ("- a\n", ["1: is not a mapping"]),
        ("", ["is empty"]),
        ("a: 1\n---\nb: 2\n", ["2: is not YAML: expected a single document"]),
        ("a: *nowhere\n", ["1: is not YAML: "]),
        ("a: &a [*a]\n", ["1: a.0.0.0"]),
        ("a: {<<: 5}\n", ["1: a: `<<` merges a mapping"]),
    ],
)
def test_what_is_wrong_with_a_file(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected)
    for problem, fragment in zip(found, expected, strict=True):
        assert problem.startswith(("f.yaml:" + fragment, "f.yaml: " + fragment))


def test_nested_aliases_are_refused_before_they_are_followed() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (problem,) = problems("\n".join(levels))
    assert "has more than 100000 values (aliases counted each time)" in problem


def test_merged_keys_give_way_to_the_mappings_own() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nx: {<<: [*base, *more], a: 9}\n"
    assert parse_document(text, "f.yaml").data["x"] == {"a": 9, "b": 2, "c": 4}


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"a: 1\nb: \xff\n", ":2: is not UTF-8 text"), (b"#" * (MAX_FILE_BYTES + 1), "is larger than")],
    ids=["not-utf-8", "too-large"],
)
def test_files_that_are_not_text(tmp_path: Path, content: bytes, fragment: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=fragment):
        load_document(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nope\.yaml: cannot be read: No such file"):
        load_document(tmp_path / "nope.yaml")


def test_a_value_is_set_in_a_copy() -> None:
    before = parse_document("a: {b: 1}\nl: [1, 2]\n", "f.yaml")
    after = before.with_value(("a", "c", "d"), 2, Origin("--set a.c.d=2")).with_value(
        ("l", "1"), 9, Origin("--set l.1=9")
    )
    assert before.data == {"a": {"b": 1}, "l": [1, 2]}
    assert after.data == {"a": {"b": 1, "c": {"d": 2}}, "l": [1, 9]}
    assert str(after.problem(("a", "c", "d"), "wrong")) == "--set a.c.d=2: a.c.d: wrong"
    assert str(after.problem(("l", 1), "wrong")) == "--set l.1=9: l.1: wrong"
    assert str(after.problem(("a", "b"), "wrong")) == "f.yaml:1: a.b: wrong"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("a", "b", "c"), "a.b: is 1, which has nothing below it"),
        (("l", "2"), "l: is a list, which has no 2; allowed: 0 to 1"),
        (("l", "x"), "l: is a list, which has no x; allowed: 0 to 1"),
        (("e", "0"), "e: is a list, which has no 0; allowed: none, the list is empty"),
    ],
)
def test_a_value_cannot_be_set_everywhere(path: tuple[str, ...], message: str) -> None:
    document = parse_document("a: {b: 1}\nl: [1, 2]\ne: []\n", "f.yaml")
    with pytest.raises(BadInput) as caught:
        document.with_value(path, 3, Origin("--set"))
    assert str(caught.value) == f"--set: {message}"
