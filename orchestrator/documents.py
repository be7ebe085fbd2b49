"""YAML files as plain data that still knows the line of every key.

Every problem of a file is collected and reported at once, as ``file:line: key.path: what is wrong, what is allowed``.

YAML is read as version 1.1, as Ansible reads it, with four differences that each remove a surprise: ``20e6`` is a
number, ``1:30`` and ``2026-11-21`` are text, numbers with a leading zero are text, and a key may stand only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from edgebed.errors import BadInput, Problem

KeyPath = tuple[str | int, ...]

MAX_FILE_BYTES = 4 << 20
MAX_VALUES = 100_000  # after aliases are followed: a few lines of nested aliases can mean billions of values
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
# Ansible's own tags: an encrypted value, and one that must not be taken for a template. Both are text to us.
_TEXT_TAGS = frozenset({f"{_TAG}str", "!vault", "!unsafe"})


class Origin(NamedTuple):
    """Where a value was written: a file and line, or a command-line option as ``file``."""

    file: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file's content.

    Attributes:
        file: as it is named in problems.
        data: the root mapping, plain data.
        origins: where each key path was written; a path that is not in it takes its nearest parent's.
        problems: what is wrong with the file as YAML; whoever validates it reports these together with its own.
    """

    file: str
    data: dict[str, Any]
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def origin(self, path: KeyPath) -> Origin:
        """Where ``path``, or else its nearest parent, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return Origin(self.file)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A problem with what stands at ``path``."""
        where = self.origin(path)
        return Problem(message, key=dotted(path), file=where.file, line=where.line)

    def with_value(self, path: KeyPath, value: Any, origin: Origin) -> Document:
        """A copy with ``value`` at ``path``; mappings on the way are made where they are missing.

        Args:
            path: positions of lists may be digits, as text.
            value: plain data.
            origin: what problems with the value will name.

        Raises:
            BadInput: something on the way is neither a mapping nor a list that has the position.
        """
        data = deepcopy(self.data)
        parent: Any = data
        known: KeyPath = ()
        made: dict[KeyPath, Origin] = {}
        for depth, part in enumerate(path):
            known = (*known, _checked_part(parent, part, known, origin))
            if depth == len(path) - 1:
                parent[known[-1]] = value
                break
            if isinstance(parent, dict) and parent.get(known[-1]) is None:
                parent[known[-1]] = {}
                made[known] = origin
            parent = parent[known[-1]]
        kept = {each: where for each, where in self.origins.items() if each[: len(known)] != known}
        return replace(self, data=data, origins=kept | made | {known: origin})


def dotted(path: KeyPath) -> str:
    """A key path as people write it: ``policies.0.label``."""
    return ".".join(str(part) for part in path)


def _checked_part(parent: Any, part: str | int, above: KeyPath, origin: Origin) -> str | int:
    """``part`` as a key or position that ``parent`` can have; ``above`` is where the parent stands."""
    if isinstance(parent, dict):
        return str(part)
    if not isinstance(parent, list):
        message = f"is {shown(parent)}, which has nothing below it"
    elif str(part).isdigit() and int(part) < len(parent):
        return int(part)
    else:
        allowed = f"0 to {len(parent) - 1}" if parent else "none, the list is empty"
        message = f"is a list, which has no {part}; allowed: {allowed}"
    raise BadInput(Problem(message, key=dotted(above), file=origin.file, line=origin.line))


def shown(value: Any) -> str:
    """A value as a problem shows it: short, text in quotes."""
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def beside(folder: Path, name: str) -> str:
    """The path of a file that a document in this folder names: beside it, or where this program was started."""
    try:
        is_there = bool(name) and (folder / name).exists()
    except OSError:  # a name that is too long for one, say: whoever opens it tells
        return name
    return str(folder / name) if is_there else name


def load_document(path: Path | str) -> Document:
    """Read a YAML file whose root is a mapping.

    Problems that leave something to validate (a key that stands twice) are in ``problems`` of what is returned.

    Raises:
        BadInput: the file cannot be read, is too large, is not YAML, or its root is not a mapping.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=name)) from None
    if len(content) > MAX_FILE_BYTES:
        raise BadInput(Problem(f"is larger than {MAX_FILE_BYTES} bytes, too large to be meant", file=name))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(Problem("is not UTF-8 text", file=name, line=line)) from None
    return parse_document(text, name)


def parse_document(text: str, file: str) -> Document:
    """Like `load_document`, of text that was already read."""
    root = _compose(text, file)
    if not isinstance(root, yaml.MappingNode):
        kind = "empty" if root is None else "not a mapping"
        line = None if root is None else root.start_mark.line + 1
        raise BadInput(Problem(f"is {kind}; expected `key: value` lines", file=file, line=line))
    reader = _Reader(file)
    data = reader.mapping(root, ())
    return Document(file, data, reader.origins, tuple(reader.problems))


def parse_value(text: str, source: str) -> Any:
    """A single value as YAML writes it: ``7``, ``[1, 2]``, ``{a: b}``; empty text is None.

    Raises:
        BadInput: it is not YAML; ``source`` says where it came from.
    """
    try:
        root = _compose(text, source)
    except BadInput as error:
        raise BadInput(replace(problem, line=None) for problem in error.problems) from None
    if root is None:
        return None
    reader = _Reader(source)
    value = reader.value(root, ())
    if reader.problems:
        raise BadInput(replace(problem, line=None) for problem in reader.problems)
    return value


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        # Tabs are by far the most frequent cause, and the parser's own words for them explain nothing.
        tabs = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"[ ]*\t", line)]
        message = "begins with a tab; YAML is indented with spaces"
        raise BadInput([Problem(message, file=file, line=line) for line in tabs] or _syntax(error, file)) from None


def _syntax(error: yaml.YAMLError, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    said = [getattr(error, "context", None), getattr(error, "problem", None)]
    reason = ", ".join(part for part in said if part) or str(error)
    return Problem(f"is not YAML: {reason}", file=file, line=None if mark is None else mark.line + 1)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml where it is there
    """Composes nodes; resolves plain scalars as this module's docstring says."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


_NUMBER_STARTS = list("-+0123456789.")
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    f"{_TAG}bool", re.compile(r"^(?:yes|no|on|off|true|false)$", re.IGNORECASE), list("yYnNoOtTfF")
)
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), _NUMBER_STARTS)
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"^[-+]?(?:(?:0|[1-9][0-9_]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|(?:0|[1-9][0-9_]*)\.?(?:[eE][-+]?[0-9]+)"
        r"|(?:0|[1-9][0-9_]*)\.|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    _NUMBER_STARTS,
)
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"^<<$"), ["<"])


class _Reader:
    """Turns nodes into plain data; remembers lines and collects problems. Aliases count each time they are used."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.origins: dict[KeyPath, Origin] = {}
        self.problems: list[Problem] = []
        self._values = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(path) > MAX_DEPTH:
            limit = f"{MAX_VALUES} values" if self._values > MAX_VALUES else f"{MAX_DEPTH} levels"
            self._note(node, path, f"has more than {limit} (aliases counted each time), too much to be meant")
            raise BadInput(self.problems)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path)
        return self._scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        # What `<<` brings in comes first, so that the mapping's own keys win.
        data: dict[str, Any] = {}
        for merged in self._merged(node, path):
            data |= self.value(merged, path)
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            if key in first_lines:
                self._note(key_node, (*path, key), f"is here twice, first in line {first_lines[key]}")
                continue
            first_lines[key] = line
            self.origins[(*path, key)] = Origin(self.file, line)
            data[key] = self.value(value_node, (*path, key))
        return data

    def _merged(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[yaml.MappingNode]:
        for key_node, value_node in node.value:
            if key_node.tag != f"{_TAG}merge":
                continue
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in reversed(sources):  # of several, the first wins, so it comes last
                if isinstance(source, yaml.MappingNode):
                    yield source
                else:
                    self._note(key_node, path, "`<<` merges a mapping, for example `<<: *defaults`")

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        for index, item in enumerate(node.value):
            self.origins[(*path, index)] = Origin(self.file, item.start_mark.line + 1)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in _TEXT_TAGS:
            return str(node.value)
        what = f"the key {node.value}" if isinstance(node, yaml.ScalarNode) else "a key"
        self._note(node, path, f"{what} is not text; put it in quotes")
        return None

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        text = str(node.value)
        if node.tag in _TEXT_TAGS:
            return text
        try:
            match node.tag.removeprefix(_TAG):
                case "null":
                    return None
                case "bool":
                    return text.lower() in ("yes", "on", "true")
                case "int":
                    return int(text.replace("_", ""), 0)
                case "float":
                    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self._note(node, path, f"{text!r} is not of the type that its tag says")
            return None
        self._note(node, path, f"the tag {node.tag} is not known here; write a plain value")
        return None

    def _note(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(message, key=dotted(path), file=self.file, line=node.start_mark.line + 1))
