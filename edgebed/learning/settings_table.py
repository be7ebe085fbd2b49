"""Settings with unit, range, default and source, read from their declarations; for lists and pages."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec


def settings_of(kind: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Every field of a `LearnerConfig` (or of a scenario's ``Parameters``) by name, as plain data."""
    hints = get_type_hints(kind, include_extras=True)
    defaults = {one.name: one.default for one in msgspec.structs.fields(kind)}
    return {name: _described(hints[name], defaults[name]) for name in kind.__struct_fields__}


def _described(hint: Any, default: Any) -> dict[str, Any]:
    meta = next((one for one in get_args(hint)[1:] if isinstance(one, msgspec.Meta)), msgspec.Meta())
    extra = meta.extra or {}
    return {
        "default": msgspec.to_builtins(default) if default is not msgspec.NODEFAULT else None,
        "unit": extra.get("unit", ""),
        "range": _range(meta, get_args(hint)[0] if get_args(hint) else hint),
        "meaning": meta.description or "",
        "source": extra.get("source", ""),
    }


def _range(meta: msgspec.Meta, kind: Any) -> str:
    choices = [str(one) for one in get_args(kind)]
    if choices and all(isinstance(one, str) for one in get_args(kind)):
        return " | ".join(choices)
    bounds = ((">=", meta.ge), (">", meta.gt), ("<=", meta.le), ("<", meta.lt))
    return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
