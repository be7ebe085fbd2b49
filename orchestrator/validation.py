"""Checks a document against a pydantic model and says what is wrong in plain sentences, with file and line."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from edgebed.errors import BadInput, Problem
from edgebed.protocol.messages import Name as WireName
from orchestrator.documents import Document, KeyPath, shown


class Strict(BaseModel):
    """Base of all models of files: unknown keys are problems, text is never taken for a number, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def is_name(text: str) -> bool:
    """Whether ``text`` may name a host, a policy or a cell: it becomes a file name and crosses the wire."""
    try:
        msgspec.convert(text, WireName)
    except msgspec.ValidationError:
        return False
    return True


NAME_RULE = "letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 64"


def checked_name(text: str) -> str:
    """``text``, when it `is_name`.

    Raises:
        ValueError: it is not; the rule is named.
    """
    if not is_name(text):
        raise ValueError(f"is {shown(text)}, which is not a name; allowed: {NAME_RULE}")
    return text


Name = Annotated[str, AfterValidator(checked_name)]


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise BadInput when there is any problem, each one once, in the order of their lines."""
    unique = list(dict.fromkeys(problems))
    if unique:
        raise BadInput(sorted(unique, key=lambda problem: (problem.file, problem.line or 0)))


def problems_of(error: ValidationError, model: type[BaseModel], document: Document) -> Iterator[Problem]:
    """What pydantic found, as problems of ``document``."""
    for detail in error.errors(include_url=False):
        yield document.problem(tuple(detail["loc"]), sentence(dict(detail), model))


def sentence(detail: dict[str, Any], model: type[BaseModel]) -> str:
    """One error of pydantic as a sentence: what is wrong, what is allowed."""
    kind, value, context = str(detail["type"]), detail["input"], detail.get("ctx", {})
    location: KeyPath = tuple(detail["loc"])
    if kind == "extra_forbidden":
        return unknown_key(str(location[-1]), _keys_at(model, location[:-1]))
    if kind == "missing":
        return f"is missing{_meaning(model, location)}"
    if kind in _EXPECTED:
        return f"is {shown(value)}; expected {_EXPECTED[kind]}"
    if kind in ("literal_error", "enum"):
        return f"is {shown(value)}{_guess(str(value), _words(context['expected']))} allowed: {context['expected']}"
    if kind == "value_error":
        return str(context["error"])
    bounds = [f"{words} {context[name]:g}" for name, words in _BOUNDS.items() if name in context]
    if bounds:
        return f"is {shown(value)}; allowed: {' and '.join(bounds)}"
    if kind == "too_short":
        return f"has {context['actual_length']} entries; at least {context['min_length']} needed"
    if kind == "too_long":
        return f"has more than {context['max_length']} entries"
    return f"is {shown(value)}: {detail['msg']}"


def unknown_key(key: str, allowed: Iterable[str]) -> str:
    """The sentence for a key that does not exist; names the nearest one and all that are allowed."""
    known = list(allowed)
    return f"is not a key here{_guess(key, known)} allowed: {', '.join(known) or 'none'}"


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that no registry has; names the nearest one and all that exist."""
    names = list(known)
    return f"there is no {what} {name!r}{_guess(name, names)} those that exist: {', '.join(names) or 'none'}"


def _guess(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ";"


def _words(expected: str) -> list[str]:
    """The values in pydantic's ``'a', 'b' or 'c'``."""
    return [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]


def _meaning(model: type[BaseModel], location: KeyPath) -> str:
    parent = _model_at(model, location[:-1])
    field = parent.model_fields.get(str(location[-1])) if parent else None
    return f"; {field.description}" if field and field.description else ""


def _keys_at(model: type[BaseModel], location: KeyPath) -> list[str]:
    found = _model_at(model, location)
    return list(found.model_fields) if found else []


def _model_at(model: type[BaseModel], location: KeyPath) -> type[BaseModel] | None:
    """The model that validates what stands at ``location``; None when there is none."""
    annotation: Any = model
    for part in location:
        current = _as_model(annotation)
        if current is not None:
            field = current.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            arguments = [each for each in typing.get_args(_unwrapped(annotation)) if each is not Ellipsis]
            annotation = arguments[-1] if arguments else None
    return _as_model(annotation)


def _as_model(annotation: Any) -> type[BaseModel] | None:
    annotation = _unwrapped(annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _unwrapped(annotation: Any) -> Any:
    """Without ``Annotated`` and ``| None``."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
        else:
            return annotation
