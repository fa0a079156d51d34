"""YAML to JSON values as Kubernetes reads it: YAML 1.1 without its traps, and nothing that JSON cannot say.

Called by `body` (one document) and `manifests` (many, with lines). Timestamps and sexagesimal numbers (`12:30`) stay
text, keys become text, duplicates are noted by path. Invariant: aliases cannot make the result much larger than the
text (a budget of nodes and characters), an anchor cannot contain itself, and the only error is `YamlFault`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml

_BUDGET = 25_000
_DEEPEST = 180
_MOST_DIRECTIVES = 100
_MOST_REPEATED = 100
_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})


class YamlFault(ValueError):
    """The text cannot be read; `line` counts from 1, 0 when unknown."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(f"yaml: line {line}: {why}" if line else f"yaml: {why}")
        self.why = why
        self.line = line


@dataclass
class Document:
    """One document: its value, paths of duplicate keys, and the line of each path ("" is the document's own).

    `repeated` says the duplicates in the words of Go's YAML decoder.
    """

    value: Any
    duplicates: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)


class _Loader(yaml.CSafeLoader):
    """libyaml's parser with our own idea of what a plain word is. It composes nodes only; `_Reader` reads them."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)


_INTEGER = r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_WORDS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (
        "bool",
        r"true|True|TRUE|false|False|FALSE|[yY]|yes|Yes|YES|[nN]|no|No|NO|on|On|ON|off|Off|OFF",
        list("tTfFyYnNoO"),
    ),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
    ("merge", "<<", ["<"]),
)
for _name, _pattern, _starts in _WORDS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _starts)


def read_documents(text: str, *, with_lines: bool = False, most: int = 0) -> Iterator[Document]:
    """Every document of a text that holds anything. Raises YamlFault, also beyond `most` values (0: no limit)."""
    _check_shape(text, most)
    try:
        loader = _Loader(text)
    except yaml.YAMLError as fault:
        raise _translated(fault) from fault
    try:
        reader = _Reader(len(text) * 2 + _BUDGET, with_lines)
        while (node := _next_node(loader)) is not None:
            yield reader.document(node)
    finally:
        loader.dispose()


def _check_shape(text: str, most: int) -> None:
    """Before nodes are composed: PyYAML does that recursively, in C, and a deep text would overflow the stack; and a
    kilobyte of gzip may hold a million values, each of which costs some microseconds.

    libyaml compares every directive with all others.
    """
    if text.count("\n%") > _MOST_DIRECTIVES:
        raise YamlFault("too many directives")
    depth = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            if most and count > most:
                raise YamlFault(f"more than {most} values and brackets; JSON may have more", _line_of(event))
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST + 1:
                    raise YamlFault("exceeded max depth", _line_of(event))
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError as fault:
        raise _translated(fault) from fault


def _line_of(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark is not None else 0


def _next_node(loader: _Loader) -> yaml.Node | None:
    try:
        while loader.check_node():
            node: yaml.Node | None = loader.get_node()
            if node is not None and not _is_empty(node):
                return node
    except yaml.YAMLError as fault:
        raise _translated(fault) from fault
    except RecursionError as fault:
        raise YamlFault("exceeded max depth") from fault
    return None


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"


def _translated(fault: yaml.YAMLError) -> YamlFault:
    mark = getattr(fault, "problem_mark", None)
    why = getattr(fault, "problem", None) or str(fault).splitlines()[0]
    return YamlFault(str(why), mark.line + 1 if mark is not None else 0)


class _Reader:
    """Turns nodes into values; one budget for all documents of a text."""

    def __init__(self, budget: int, with_lines: bool) -> None:
        self._budget = budget
        self._with_lines = with_lines
        self._open: set[int] = set()
        self._noted: set[str] = set()
        self._document = Document(None)

    def document(self, node: yaml.Node) -> Document:
        self._document = Document(None)
        self._noted.clear()
        self._document.value = self._read(node, "", 0)
        if self._with_lines:
            self._document.lines[""] = node.start_mark.line + 1
        return self._document

    def _read(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._spend(1, node)
        if isinstance(node, yaml.ScalarNode):
            self._spend(len(node.value), node)
            return _scalar(node)
        if id(node) in self._open:
            raise YamlFault("an anchor contains itself", _line(node))
        if depth > _DEEPEST:
            raise YamlFault("exceeded max depth", _line(node))
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._item(item, f"{path}[{index}]", depth) for index, item in enumerate(node.value)]
            return self._mapping(node, path, depth)
        finally:
            self._open.discard(id(node))

    def _item(self, node: yaml.Node, path: str, depth: int) -> Any:
        if self._with_lines:
            self._document.lines[path] = node.start_mark.line + 1
        return self._read(node, path, depth + 1)

    def _mapping(self, node: yaml.Node, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged += self._merged(value_node, path, depth)
                continue
            key = _key(key_node)
            place = f"{path}.{key}" if path else key
            if key in found:
                self._note_repeated(key_node, value_node, place)
            if self._with_lines:
                self._document.lines[place] = key_node.start_mark.line + 1
            found[key] = self._read(value_node, place, depth + 1)
        base: dict[str, Any] = {}
        for other in reversed(merged):
            base.update(other)
        return base | found if base else found

    def _note_repeated(self, key: yaml.Node, value: yaml.Node, place: str) -> None:
        """Go's decoder names the line of the value, and every repetition; a path is noted once."""
        if place not in self._noted:
            self._noted.add(place)
            self._document.duplicates.append(place)
        if len(self._document.repeated) < _MOST_REPEATED:
            name = _scalar(key) if isinstance(key, yaml.ScalarNode) else place
            shown = orjson.dumps(name).decode()
            self._document.repeated.append(f"line {_line(value)}: key {shown} already set in map")

    def _merged(self, node: yaml.Node, path: str, depth: int) -> list[dict[str, Any]]:
        """The mappings that `<<` names; the earlier one wins."""
        value = self._read(node, path, depth + 1)
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, dict) for item in values):
            raise YamlFault("map merge requires map or sequence of maps as the value", _line(node))
        return values

    def _spend(self, cost: int, node: yaml.Node) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise YamlFault("document contains excessive aliasing", _line(node))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise YamlFault("a key must be a plain word", _line(node))
    value = _scalar(node)
    if value is None:
        raise YamlFault("a key must not be null", _line(node))
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _scalar(node: yaml.ScalarNode) -> Any:
    text, tag = node.value, node.tag.removeprefix(_TAG)
    try:
        match tag:
            case "str" | "timestamp" | "binary" | "merge":
                return text
            case "null":
                return None
            case "bool":
                return text in _TRUE
            case "int":
                return _integer(text)
            case "float":
                return _float(text)
    except ValueError as fault:
        raise YamlFault(f"cannot read {text!r} as {tag}", _line(node)) from fault
    raise YamlFault(f"unknown tag {node.tag}", _line(node))


def _integer(text: str) -> int | float:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567":
        number = int(digits, 8)
    else:
        number = int(digits, 0)
    number *= sign
    try:
        return number if -(1 << 63) <= number < (1 << 64) else float(number)
    except OverflowError as fault:
        raise ValueError("JSON has no such number") from fault


def _float(text: str) -> int | float:
    number = float(text.replace("_", ""))
    if not math.isfinite(number):
        raise ValueError("JSON has no such number")
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
