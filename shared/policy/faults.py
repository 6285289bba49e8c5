"""What is wrong with a document, as sentences: the path, what is wrong there, and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from shared.policy.reading import dotted

_SHOWN = 40


def sentence(root: type[BaseModel], error: ErrorDetails) -> str:
    """Return a fault of a document of this shape as one sentence."""
    where = error["loc"]
    model, field = _place(root, where)
    path = dotted(tuple(part for part in where if part != "[key]"))
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_hint(root, model, str(where[-1]))}"
    if error["type"] == "invalid_key" or "[key]" in where:
        return f"{path}: a key must be text: write it in quotes; on, off, yes and no are no text without"
    return f"{path}: {_wrong(error)}{_example(error, where, field)}"


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a part's fields by the names that the document gives them."""
    return {str(field.validation_alias): field for field in model.model_fields.values()}


def part_of(annotation: Any) -> type[BaseModel] | None:
    """Return the part that a field holds, in a list or not; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(part_of, get_args(annotation))), None)


def _place(root: type[BaseModel], where: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the innermost part that a path leads to, and the field in it."""
    model, field = root, None
    for name in (part for part in where if isinstance(part, str)):
        known = keys_of(model)
        if name not in known:
            break
        field = known[name]
        model = part_of(field.annotation) or model
    return model, field


def _wrong(error: ErrorDetails) -> str:
    kind, given, limits = error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind in {"enum", "literal_error"}:
        return _no_choice(given, limits["expected"])
    if kind == "string_type":
        return _no_text(given)
    said = _SAID.get(kind, _NO_NUMBER if kind.startswith("int") else f"{{given}}: {error['msg']}")
    return said.format(given=_shown(given), **limits)


_NO_NUMBER = "{given} is no whole number: write one, without quotes"
_NO_MAPPING = "{given} is no mapping: write `name: value` pairs"
_SAID = {
    "missing": "is missing",
    "bool_type": "{given} is neither true nor false: write one of these, without quotes",
    "list_type": "{given} is no list: write one",
    "dict_type": _NO_MAPPING,
    "model_type": _NO_MAPPING,
    "too_short": "must not be empty",
    "too_long": "is too long: write {max_length} entries at most",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long: write {max_length} characters at most",
    "greater_than_equal": "{given} is too little: write {ge} or more",
    "less_than_equal": "{given} is too much: write {le} or less",
}
"""What to say of pydantic's kinds of error; each may name the value that is given and the error's own limits."""


def _no_choice(given: object, expected: str) -> str:
    """`expected` is pydantic's list of the choices, each in quotes or a number, the last one behind `or`."""
    choices = [choice.strip().strip("'") for choice in expected.replace(" or ", ", ").split(",")]
    if len(choices) == 1:
        return f"{_shown(given)} is not served: write {choices[0]}"
    near = get_close_matches(given.lower()[:100], choices, n=1) if isinstance(given, str) else []
    trap = f"; {_BOOLEANS}" if isinstance(given, bool) else ""
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{_shown(given)} is not one of {', '.join(choices)}{trap}{hint}"


_BOOLEANS = "YAML reads yes, no, on and off without quotes as true or false: write them in quotes"


def _no_text(given: object) -> str:
    if isinstance(given, bool):
        return f"{_shown(given)} is no text; {_BOOLEANS}"
    if isinstance(given, int | float | date):
        return f"{_shown(given)} is no text: write it in quotes"
    return f"{_shown(given)} is no text: write one"


def _shown(given: object) -> str:
    """What stands there, cut short: it may be anything."""
    if given is None:
        return "nothing"
    if isinstance(given, dict | list | set | tuple | bytes):
        return "a mapping" if isinstance(given, dict) else "a list" if isinstance(given, list) else "this"
    if isinstance(given, bool):
        return str(given).lower()
    text = str(given)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...") if isinstance(given, str) else text[:_SHOWN]


def _example(error: ErrorDetails, where: tuple[int | str, ...], field: FieldInfo | None) -> str:
    """A sentence of ours says itself what to write."""
    if error["type"] in {"value_error", "enum", "literal_error"}:
        return ""
    if field is None:
        return "; the smallest document is `{version: 1, targets: [{keyManagement: platform-managed}]}`"
    name = next(part for part in reversed(where) if isinstance(part, str))
    known = field.examples and str(field.validation_alias) == name
    return f"; for example `{name}: {json.dumps(field.examples[0])}`" if known and field.examples else ""


def _hint(root: type[BaseModel], model: type[BaseModel], name: str) -> str:
    """Where an unknown key belongs, what it is near to, or what there is."""
    homes = sorted({path for path, keys in _parts(root, "") if name in keys})
    if homes:
        return f"; it belongs {' or '.join(homes)}"
    known = keys_of(model)
    near = get_close_matches(name[:100], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known here are {', '.join(known)}"


def _parts(model: type[BaseModel], path: str) -> Iterator[tuple[str, set[str]]]:
    """Yield every part of a document, as words for where it is, with its keys."""
    known = keys_of(model)
    yield (f"under {path}" if path else "at the top of the document"), set(known)
    for name, field in known.items():
        inner = part_of(field.annotation)
        if inner is not None:
            yield from _parts(inner, f"{path}.{name}" if path else name)
