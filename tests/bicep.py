"""Bicep templates as plain values, as far as the tests need them. The syntax is tree-sitter-bicep's business.

An object becomes a dict, an array a list, a string its text with `${...}` left in it; any other expression is an Expr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_bicep.language()))


class BrokenTemplate(Exception):
    """A file that is no Bicep; the text says where."""


@dataclass(frozen=True, slots=True)
class Expr:
    """An expression that is no literal."""

    text: str


@dataclass(frozen=True, slots=True)
class Each:
    """A loop: its variable, what it goes over, and what it makes each time."""

    over: Any
    body: Any


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource or, with a path instead of a type, a module. `body` is the object, of a loop too."""

    name: str
    type: str
    body: dict[str, Any]
    existing: bool = False
    over: Any = None


@dataclass(slots=True)
class Template:
    """What one file declares."""

    file: Path
    text: str
    scope: str = "resourceGroup"
    params: dict[str, Any] = field(default_factory=dict)
    described: set[str] = field(default_factory=set)
    allowed: dict[str, list[Any]] = field(default_factory=dict)
    vars: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)
    modules: list[Resource] = field(default_factory=list)

    def of_type(self, name: str) -> list[Resource]:
        """The resources of a type that are made here."""
        return [one for one in self.resources if one.type.split("@")[0] == name and not one.existing]


REQUIRED = Expr("")
"""The default of a parameter that has none."""


def read(file: Path) -> Template:
    """Read a template; BrokenTemplate where it is none."""
    return parse(file, file.read_text(encoding="utf-8"))


def parse(file: Path, text: str) -> Template:
    """Read a template from its text."""
    root = _PARSER.parse(text.encode()).root_node
    broken = next((node for node in _nodes(root) if node.is_error or node.is_missing), None)
    if broken is not None:
        raise BrokenTemplate(f"{file.name}:{broken.start_point.row + 1}: this is no Bicep")
    template = Template(file, text)
    decorators: list[Node] = []
    for node in root.named_children:
        if node.type == "decorators":
            decorators = node.named_children
            continue
        _declare(template, node, decorators)
        decorators = []
    return template


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _nodes(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def names(template: Template) -> tuple[set[str], set[str]]:
    """The names that a file gives by declarations, loops and lambdas, and those that its expressions use.

    Functions are not looked at.
    """
    nodes = list(_nodes(_PARSER.parse(template.text.encode()).root_node))
    given = {_text(node) for node in nodes if node.type in {"loop_variable", "loop_enumerator"} or _is_given(node)}
    used = {_text(node) for node in nodes if node.type == "identifier" and not _is_label(node)}
    return given, used


def _is_given(node: Node) -> bool:
    """Whether this is what a declaration or a lambda calls something."""
    parent = _of_first(node)
    return parent.endswith("_declaration") or parent in {"lambda_expression", "for_statement"}


def _is_label(node: Node) -> bool:
    """Whether an identifier is what is declared, a property's name or a function's."""
    following = node.next_sibling
    is_called = following is not None and (following.text or b"").startswith(b"(")
    return _is_given(node) or _of_first(node) == "object_property" or is_called


def _of_first(node: Node) -> str:
    """The type of the node of which this one is the first child; empty for any other."""
    parent = node.parent
    return parent.type if parent is not None and parent.named_children[:1] == [node] else ""


def _declare(template: Template, node: Node, decorators: list[Node]) -> None:
    parts = [one for one in node.named_children if one.type != "comment"]
    match node.type:
        case "comment":
            return
        case "target_scope_assignment":
            template.scope = _value(parts[0])
        case "parameter_declaration":
            name = _text(parts[0])
            template.params[name] = _value(parts[2]) if len(parts) > 2 else REQUIRED
            _decorate(template, name, decorators)
        case "variable_declaration":
            template.vars[_text(parts[0])] = _value(parts[1])
        case "output_declaration":
            name = _text(parts[0])
            template.outputs[name] = _value(parts[2])
            _decorate(template, name, decorators)
        case "resource_declaration":
            template.resources.append(_resource(node, parts))
        case "module_declaration":
            template.modules.append(_resource(node, parts))
        case other:
            raise BrokenTemplate(f"{template.file.name}:{node.start_point.row + 1}: {other} is not read here")


def _decorate(template: Template, name: str, decorators: list[Node]) -> None:
    for decorator in decorators:
        call = decorator.named_children[0]
        kind = _text(call).split("(")[0]
        if kind == "description":
            template.described.add(name)
        if kind == "allowed":
            template.allowed[name] = _value(call.named_children[1].named_children[0])


def _resource(node: Node, parts: list[Node]) -> Resource:
    body, over = _value(parts[2]), None
    if isinstance(body, Each):
        body, over = body.body, body.over
    assert isinstance(body, dict), f"{_text(parts[0])} has no body that can be read"
    existing = any(child.type == "existing" for child in node.children)
    return Resource(_text(parts[0]), _value(parts[1]), body, existing, over)


def _value(node: Node) -> Any:
    inner = [child for child in node.named_children if child.type != "comment"]
    read_as: dict[str, Callable[[], Any]] = {
        "string": lambda: _text(node)[1:-1].replace("\\'", "'"),
        "number": lambda: int(_text(node)),
        "boolean": lambda: _text(node) == "true",
        "object": lambda: dict(map(_property, inner)),
        "array": lambda: list(map(_value, inner)),
        "for_statement": lambda: Each(_value(inner[-2]), _value(inner[-1])),
        "if_statement": lambda: _value(inner[-1]),
    }
    return read_as.get(node.type, lambda: Expr(_text(node)))()


def _property(node: Node) -> tuple[str, Any]:
    inner = [child for child in node.named_children if child.type != "comment"]
    return _text(inner[0]).strip("'"), _value(inner[-1])
