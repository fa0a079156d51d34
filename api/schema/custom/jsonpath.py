"""The JSONPaths a CustomResourceDefinition may name: printer columns, selectable fields, scale paths.

Called when a definition is validated (`parse_path` refuses what is no path) and when columns are printed. The dialect
is kubectl's, reduced to what such paths use: `.a.b`, `['a.b']`, `[0]`, `[-1]`, `[*]`, `[1:3]`, `..a` and filters of
one comparison, `[?(@.type=="Ready")]`. Pure. https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_FIELD = re.compile(r"\.?((?:[A-Za-z0-9_$-]|\\.)+)")
_QUOTED = re.compile(r"\[\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\s*\]")
_INDEX = re.compile(r"\[\s*(-?\d+)\s*\]")
_SLICE = re.compile(r"\[\s*(-?\d*)\s*:\s*(-?\d*)\s*\]")
_ALL = re.compile(r"\[\s*\*\s*\]|\.\*")
_FILTER = re.compile(r"\[\?\(\s*@((?:\.[A-Za-z0-9_$-]+)*)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*\)\]")


class BadPath(ValueError):
    """The text is no JSONPath; the message says where it stops being one."""


@dataclass(frozen=True)
class Step:
    """One step of a path. `how`: field, deep, index, slice, all or filter; `what` is its argument."""

    how: str
    what: Any = None


@lru_cache(maxsize=1024)
def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path such as `.status.conditions[?(@.type=="Ready")].status`. Raises BadPath."""
    rest = text.strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1].strip()
    if rest.startswith("$"):
        rest = rest[1:]
    steps: list[Step] = []
    while rest:
        step, length = _next_step(rest, first=not steps)
        steps.append(step)
        rest = rest[length:]
    return tuple(steps)


def _next_step(rest: str, *, first: bool) -> tuple[Step, int]:
    if rest.startswith(".."):
        if match := _FIELD.match(rest[2:]):
            return Step("deep", _unescaped(match[1])), 2 + match.end()
        raise BadPath(f"a field name must follow .. in {rest!r}")
    if rest == ".":
        return Step("self"), 1
    if match := _ALL.match(rest):
        return Step("all"), match.end()
    if (rest.startswith(".") or first) and (match := _FIELD.match(rest)):
        return Step("field", _unescaped(match[1])), match.end()
    if match := _QUOTED.match(rest):
        return Step("field", _unescaped(match[1] if match[1] is not None else match[2])), match.end()
    if match := _INDEX.match(rest):
        return Step("index", int(match[1])), match.end()
    if match := _SLICE.match(rest):
        bounds = tuple(int(bound) if bound else None for bound in match.groups())
        return Step("slice", bounds), match.end()
    if match := _FILTER.match(rest):
        return Step("filter", (tuple(part for part in match[1].split(".") if part), match[2], match[3])), match.end()
    raise BadPath(f"unexpected {rest!r}")


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def find(value: Any, path: tuple[Step, ...]) -> list[Any]:
    """Everything a path leads to; [] when it leads nowhere."""
    found = [value]
    for step in path:
        found = [each for item in found for each in _taken(item, step)]
    return found


def _taken(value: Any, step: Step) -> Iterable[Any]:
    match step.how:
        case "self":
            return (value,)
        case "field":
            return (value[step.what],) if isinstance(value, dict) and step.what in value else ()
        case "deep":
            return _deep(value, step.what)
        case "all":
            return _children(value)
    if not isinstance(value, list):
        return ()
    if step.how == "index":
        return value[step.what : step.what + 1 or None]
    if step.how == "slice":
        return value[slice(*step.what)]
    return (item for item in value if _holds(item, *step.what))


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _deep(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict) and name in value:
        yield value[name]
    for child in _children(value):
        yield from _deep(child, name)


def _holds(item: Any, path: tuple[str, ...], operator: str | None, literal: str | None) -> bool:
    for name in path:
        if not isinstance(item, dict) or name not in item:
            return False
        item = item[name]
    if operator is None:
        return True
    wanted = _literal(literal or "")
    if operator in ("==", "!="):
        return (item == wanted) is (operator == "==")
    if type(item) is not type(wanted) and not _both_numbers(item, wanted):
        return False
    return bool({"<": item < wanted, "<=": item <= wanted, ">": item > wanted, ">=": item >= wanted}[operator])


def _both_numbers(one: Any, other: Any) -> bool:
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))


def _literal(text: str) -> Any:
    if text[:1] in "'\"" and text[-1:] == text[:1]:
        return _unescaped(text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text
