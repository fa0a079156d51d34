"""JSON bodies: orjson for the value, and duplicate keys found without paying for a slow parser.

Called by `body` and `manifests`. orjson keeps the last of two equal keys silently. Without escapes (`\\u003a`), every
colon of a text stays a colon when the value is written again, except those of dropped entries: so the two texts have
equally many colons exactly if no key was dropped. Only a difference, or an escape, makes us parse again, slowly.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

_WRITABLE, _DEEPEST = 254, 190
"""The difference is room for what is put around an object: lists, reviews, documents about its schema."""


class Unparsable(ValueError):
    """The text is not JSON; the message is what Go's decoder says."""


def parse_json(body: bytes) -> tuple[Any, list[str]]:
    """(value, paths of duplicate keys). Raises Unparsable."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise Unparsable(_go_message(body, fault)) from fault
    text = _written(value)
    if text is None:
        raise Unparsable("exceeded max depth")
    if b"\\u" not in body and body.count(b":") == text.count(b":"):
        return value, []
    return value, find_duplicates(body)


def is_too_deep(value: Any) -> bool:
    """Whether a value is nested deeper than _DEEPEST: nobody may keep what cannot be written inside a list."""
    return _written(value) is None


def _written(value: Any) -> bytes | None:
    """The value as JSON; None when it is too deep. orjson itself writes _WRITABLE levels."""
    try:
        text = orjson.dumps(value)
        if text.count(b"{") + text.count(b"[") > _DEEPEST:
            for _ in range(_WRITABLE - _DEEPEST):
                value = [value]
            orjson.dumps(value)
    except TypeError:
        return None
    return text


def find_duplicates(body: bytes) -> list[str]:
    """Paths (`spec.containers[0].image`) of keys that occur more than once in one object, each once."""
    repeated: dict[int, list[str]] = {}
    kept: list[dict[str, Any]] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            repeated[id(found)] = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            kept.append(found)
        return found

    try:
        value = json.loads(body, object_pairs_hook=collect)
    except (ValueError, RecursionError):
        return []
    return list(dict.fromkeys(_paths(value, repeated))) if repeated else []


def _paths(value: Any, repeated: dict[int, list[str]]) -> list[str]:
    found: list[str] = []
    waiting: list[tuple[Any, str]] = [(value, "")]
    while waiting:
        current, path = waiting.pop()
        if isinstance(current, dict):
            prefix = f"{path}." if path else ""
            found += [prefix + key for key in repeated.get(id(current), ())]
            waiting += [(item, prefix + key) for key, item in reversed(current.items())]
        elif isinstance(current, list):
            waiting += [(item, f"{path}[{index}]") for index, item in reversed(list(enumerate(current)))]
    return found


def _go_message(body: bytes, fault: orjson.JSONDecodeError) -> str:
    text = body.decode("utf-8", "replace")
    rest = text[fault.pos :]
    if not rest.strip() or not text.strip():
        return "unexpected end of JSON input"
    at = rest.lstrip()[0]
    shown = {"'": r"'\''", '"': "'\"'"}.get(at, f"'{at}'" if at.isprintable() else f"'\\x{ord(at):02x}'")
    return f"invalid character {shown} looking for beginning of value"
