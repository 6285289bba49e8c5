"""The document as YAML: read strictly, whatever it holds. A key that stands twice is a fault: one would win silently.

Measured before it is built: deep nesting and aliases that multiply must not cost more than a sentence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from shared.errors import Malformed

MOST_CHARACTERS = 2_000_000
MOST_VALUES = 200_000
"""As many keys and values, aliases counted with all that they stand for."""
DEEPEST = 20

Path = tuple[str | int, ...]

_Loader = yaml.CSafeLoader if getattr(yaml, "__with_libyaml__", False) else yaml.SafeLoader


def read_yaml(text: str) -> tuple[Any, tuple[str, ...]]:
    """Return the document and a fault for each key that stands twice; Malformed if it is no YAML that is served."""
    if len(text) > MOST_CHARACTERS:
        raise Malformed(f"the document has {len(text)} characters: write {MOST_CHARACTERS} at most")
    try:
        _measure(text)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None, ()
        twice = _twice(node)  # before it is built: that merges what `<<` stands for into the mappings
        return _Constructor().construct_document(node), twice
    except yaml.MarkedYAMLError as error:
        raise Malformed(f"not YAML: {_told(error)}") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; half a character
        raise Malformed(f"not YAML: {' '.join(str(error).split())[:300]}") from error


class _Constructor(SafeConstructor):
    """What only looks like a date or a number stays text: as such it is a fault with its path, beside all others."""

    def construct_yaml_timestamp(self, node: Any) -> Any:
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:  # 30 February
            return node.value

    def construct_yaml_int(self, node: Any) -> Any:
        try:
            return super().construct_yaml_int(node)
        except ValueError:  # more digits than Python reads
            return node.value

    yaml_constructors = SafeConstructor.yaml_constructors | {
        "tag:yaml.org,2002:timestamp": construct_yaml_timestamp,
        "tag:yaml.org,2002:int": construct_yaml_int,
    }


def dotted(path: Path) -> str:
    """Return a path as faults name it, `targets.0.name`."""
    return ".".join(str(part)[:100] for part in path) or "the document"


def _told(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(filter(None, (error.context, error.problem)))[:300]
    hint = (
        "; indent with blanks, not with tabs, and quote what begins oddly" if "cannot start any token" in said else ""
    )
    mark = error.problem_mark or error.context_mark
    return f"{said} (line {mark.line + 1}, column {mark.column + 1}){hint}" if mark else f"{said}{hint}"


def _measure(text: str) -> None:
    """Refuse what is too deep, too large once its aliases stand for what they mean, or tagged.

    A tag may ask for a value that can't be made of the text; the document needs none.
    """
    sizes: dict[str | None, int] = {}
    open_parts: list[_Open] = [_Open(None)]
    for event in yaml.parse(text, Loader=_Loader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise Malformed(f"line {_line(event)}: tags like {tag[:50]} are not served: write the value alone")
        if isinstance(event, yaml.CollectionStartEvent):
            open_parts.append(_Open(event.anchor))
            if len(open_parts) > DEEPEST:
                raise Malformed(f"line {_line(event)}: the document is more than {DEEPEST} levels deep")
            continue
        open_parts[-1].size += _size(event, sizes, open_parts)
        if open_parts[-1].size > MOST_VALUES:
            raise Malformed(f"line {_line(event)}: the document holds more than {MOST_VALUES} values")


@dataclass(slots=True)
class _Open:
    """A list or a mapping that has not ended yet, and how many values it holds so far."""

    anchor: str | None
    size: int = 0


def _size(event: yaml.Event, sizes: dict[str | None, int], open_parts: list[_Open]) -> int:
    """Return how many values an event stands for, and remember it if it is named."""
    if isinstance(event, yaml.AliasEvent):
        if any(part.anchor == event.anchor for part in open_parts):
            raise Malformed(f"line {_line(event)}: an alias stands within what it stands for: write it out")
        return sizes.get(event.anchor, 1)
    if isinstance(event, yaml.CollectionEndEvent):
        ended = open_parts.pop()
        sizes[ended.anchor] = ended.size + 1
        return ended.size + 1
    if isinstance(event, yaml.ScalarEvent):
        sizes[event.anchor] = 1
        return 1
    return 0


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _twice(root: yaml.Node) -> tuple[str, ...]:
    """Name each key that stands twice, by its path."""
    faults: list[str] = []
    seen: set[int] = set()
    ahead: list[tuple[Path, yaml.Node]] = [((), root)]
    while ahead:
        path, node = ahead.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            ahead += [((*path, number), one) for number, one in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            line = node.start_mark.line + 1
            faults += [
                f"{dotted((*path, key))}: stands twice in the mapping of line {line}: keep one of them"
                for key, count in Counter(keys).items()
                if count > 1
            ]
            ahead += [((*path, str(key.value)), value) for key, value in node.value]
    return tuple(sorted(faults))
