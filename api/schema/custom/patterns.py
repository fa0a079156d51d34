"""Regular expressions that users give: Go's dialect, in time that is linear in the text.

Called for `pattern` of schemas and by the CEL functions that search. The engine is RE2, whose dialect is that of Go's
`regexp`: no backreferences, no look-around, and so no text that takes for ever, which Python's `re` cannot promise.
Invariant: each of _COMPILED patterns kept takes no more than _MEMORY_BYTES, each of the _LARGE_COMPILED larger ones no
more than _LARGE_MEMORY_BYTES; what needs more is no pattern.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Any

import re2

_MEMORY_BYTES = 2 << 20
_COMPILED = 512
_LARGE_MEMORY_BYTES = 32 << 20
"""What `\\p{L}{1000}` takes."""
_LARGE_COMPILED = 4
_MOST_FOUND = 100_000
_TOO_LARGE = "pattern too large - compile failed"
_IN_GO = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid repetition size": "invalid repeat count",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
    _TOO_LARGE: "expression too large",
}


class BadPattern(ValueError):
    """No regular expression; the message is Go's."""


def matches(pattern: str, text: str) -> bool:
    """Whether some part of the text matches. Raises BadPattern."""
    return _compiled(pattern).search(_bytes(text)) is not None


def find_all(pattern: str, text: str, most: int = _MOST_FOUND) -> list[str]:
    """The parts that match, from the left, not overlapping. Raises BadPattern; ValueError for too many."""
    found = [each[0] for each in islice(_compiled(pattern).finditer(_bytes(text)), most + 1)]
    if len(found) > _MOST_FOUND:
        raise ValueError("the text has too many matches")
    return [each.decode("utf-8", "replace") for each in found[:most]]


def check_pattern(pattern: str) -> None:
    """Raises BadPattern."""
    _compiled(pattern)


def _compiled(pattern: str) -> Any:
    found = _small(pattern)
    return _large(pattern) if found is None else found


@lru_cache(maxsize=_COMPILED)
def _small(pattern: str) -> Any:
    """None for one that takes more."""
    try:
        return _made(pattern, _MEMORY_BYTES)
    except re2.error as error:
        if _reason(error) == _TOO_LARGE:
            return None
        raise BadPattern(_said(error)) from error


@lru_cache(maxsize=_LARGE_COMPILED)
def _large(pattern: str) -> Any:
    try:
        return _made(pattern, _LARGE_MEMORY_BYTES)
    except re2.error as error:
        raise BadPattern(_said(error)) from error


def _made(pattern: str, memory_bytes: int) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = memory_bytes
    return re2.compile(_bytes(pattern), options)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _reason(error: Exception) -> str:
    (raw,) = error.args
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _said(error: Exception) -> str:
    what, colon, where = _reason(error).partition(": ")
    return f"error parsing regexp: {_IN_GO.get(what, what)}" + (f": `{where}`" if colon else "")
