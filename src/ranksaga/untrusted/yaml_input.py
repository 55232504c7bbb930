"""The one reader of YAML that a user or a stranger wrote: recipes, settings of the command line, model cards.

YAML 1.1 and 1.2 read ``no``, ``1:30``, ``010`` and ``2024-01-01`` differently. A plain scalar is a number, a truth
value or null only where both agree; all else is text, which a recipe's types then read (``yes`` for a truth value,
``1e-5`` for a number). Keys are text always. Aliases and merge keys work within bounds.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from ranksaga.untrusted.escape import printable
from ranksaga.untrusted.input_files import decoded

__all__ = ["DEEPEST", "LARGEST", "Yaml", "YamlError", "dump_yaml", "read_yaml"]

LARGEST = 1 << 20  # characters
DEEPEST = 64  # collections inside each other
ALIASED = 10_000  # values that aliases may add to those that are written out
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan")
_WIDEST = 2**63  # beyond, no library reads it as a seed or a count


class YamlError(ValueError):
    """It is no YAML that is accepted; ``line`` counts from 1, None where none can be named."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"line {line}: {problem}")
        self.problem = problem
        self.line = line


@dataclass(frozen=True)
class Yaml:
    """A document's value, and by path (keys, and numbers in lists, as text) the line that each value is written on."""

    value: Any
    lines: Mapping[tuple[str, ...], int]


def dump_yaml(values: Mapping[str, Any]) -> str:
    """A mapping as YAML that :func:`read_yaml` and every other reader read back as it was, in the order given."""
    text = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return printable(text)  # these escapes are those of YAML, and what needs them stands in double quotes


class _Dumper(yaml.SafeDumper):
    """PyYAML leaves U+0085 and its like as they are in quotes, where they read back as spaces."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """In double quotes, with escapes, where a line would end or turn around."""
        style = '"' if printable(text) != text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


@dataclass(frozen=True)
class _Node:
    """A value, the line that it is written on, its parts by key or number, how many values it has and how deep."""

    value: Any
    line: int
    parts: Mapping[str, _Node] = field(default_factory=dict)
    size: int = 1
    depth: int = 0


def read_yaml(source: bytes | str) -> Yaml:
    """Read one YAML document of untrusted origin.

    Raises:
        YamlError: it is not UTF-8, too large, broken, nested too deeply, has a control character, a tag of a special
            type, more than one document, a key twice, an integer beyond 64 bits, or aliases that are recursive or that
            multiply.
    """
    try:
        text = decoded(source) if isinstance(source, bytes) else source.removeprefix("\ufeff")
    except ValueError as error:
        raise YamlError(str(error)) from None
    if len(text) > LARGEST:
        raise YamlError(f"more than {LARGEST} characters")
    if bad := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise YamlError(f"the character U+{ord(bad.group()):04X} may not stand in YAML", line)
    try:
        root = _Composer(text).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise YamlError(str(problem), mark.line + 1 if mark else None) from None
    return Yaml(root.value, dict(_lines(root, ()))) if root is not None else Yaml(None, {})


class _Composer:
    """Makes values of the parser's events, counting what aliases add before they are copied."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchors: dict[str, _Node | None] = {}  # None: not closed yet
        self._most = len(text) + ALIASED

    def document(self) -> _Node | None:
        """The one document; None of an empty text."""
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise YamlError("a second document begins; write one", _line(event))
                root = self._node(next(self._events), 0)
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(str(event.anchor), depth, line)
        if depth > DEEPEST:
            raise YamlError(f"nested more than {DEEPEST} deep", line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(_scalar(event, line), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq", line)
            node = self._list(line, depth)
        else:
            _check_tag(event, "map", line)
            node = self._mapping(line, depth)
        if node.size > self._most:
            raise YamlError("its aliases multiply to too many values; write them out", line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _list(self, line: int, depth: int) -> _Node:
        nodes = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            nodes.append(self._node(event, depth + 1))
        return _joined(line, {str(row): node for row, node in enumerate(nodes)}, [node.value for node in nodes])

    def _mapping(self, line: int, depth: int) -> _Node:
        nodes: dict[str, _Node] = {}
        merged: dict[str, _Node] = {}
        seen: dict[str, int] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key, where = self._key(event)
            if key in seen:
                raise YamlError(f"the key {key[:80]!r} stands twice, first on line {seen[key]}; keep one", where)
            seen[key] = where
            node = self._node(next(self._events), depth + 1)
            if key == "<<" and event.implicit[0]:
                merged = _to_merge(node, where)
            else:
                nodes[key] = replace(node, line=where)
        nodes = {**merged, **nodes}
        return _joined(line, nodes, {key: node.value for key, node in nodes.items()})

    def _key(self, event: Any) -> tuple[str, int]:
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError("a key is no text", line)
        _check_tag(event, "str", line)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Node(event.value, line)
        return event.value, line

    def _aliased(self, name: str, depth: int, line: int) -> _Node:
        """A copy, so that a change of one leaves the other alone."""
        if name not in self._anchors:
            raise YamlError(f"the alias *{name[:80]} has no anchor before it", line)
        node = self._anchors[name]
        if node is None:
            raise YamlError(f"the alias *{name[:80]} stands inside what it names", line)
        if depth + node.depth > DEEPEST:
            raise YamlError(f"nested more than {DEEPEST} deep", line)
        self._most -= node.size
        if self._most < 0:
            raise YamlError("its aliases multiply to too many values; write them out", line)
        return replace(node, value=copy.deepcopy(node.value), line=line)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _joined(line: int, parts: Mapping[str, _Node], value: Any) -> _Node:
    depth = 1 + max((part.depth for part in parts.values()), default=0)
    return _Node(value, line, parts, 1 + sum(part.size for part in parts.values()), depth)


def _lines(node: _Node, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    for key, part in node.parts.items():
        yield (*above, key), part.line
        yield from _lines(part, (*above, key))


def _to_merge(node: _Node, line: int) -> dict[str, _Node]:
    """What a merge key brings: the entries of a mapping, or of several, of which the first wins."""
    mappings = list(node.parts.values()) if isinstance(node.value, list) else [node]
    if not all(isinstance(one.value, dict) for one in mappings):
        raise YamlError("<< merges mappings; quote it if it is a key", line)
    parts = {key: part for one in reversed(mappings) for key, part in one.parts.items()}
    return {key: replace(part, value=copy.deepcopy(part.value)) for key, part in parts.items()}


def _check_tag(event: Any, kind: str, line: int) -> None:
    if event.tag not in (None, "!", _TAGS + kind):
        raise YamlError(f"the tag {event.tag[:80]!r} is not known here; leave it out", line)


def _scalar(event: Any, line: int) -> Any:
    """Null, a truth value, a number or text. A tag of one of these types is heeded, any other refused."""
    text: str = event.value
    plain = event.implicit[0] and event.tag != "!"
    kind = "" if plain else (event.tag or "!").removeprefix(_TAGS)
    if (plain or kind == "null") and _NULL.fullmatch(text):
        return None
    if (plain or kind == "bool") and _BOOL.fullmatch(text):
        return text.lower() == "true"
    if (plain or kind in ("int", "float")) and _INT.fullmatch(text):
        return _integer(text, line) if kind != "float" else float(text)
    if (plain or kind == "float") and _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan"))
    if plain or kind in ("!", "str"):
        return text
    raise YamlError(f"the tag {event.tag[:80]!r} is not known, or does not fit its value; leave it out", line)


def _integer(text: str, line: int) -> int:
    if len(text) > 20:
        raise YamlError(f"an integer of {len(text)} characters; expected one of at most 64 bits", line)
    value = int(text, 0)
    if not -_WIDEST <= value < _WIDEST:
        raise YamlError(f"the integer {text} does not fit into 64 bits", line)
    return value
