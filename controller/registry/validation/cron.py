"""Whether a text is a cron schedule, in the words of the parser that Kubernetes uses (robfig/cron v3, standard form).

Called by batch. Five fields of numbers, names, `*`, `?`, ranges and steps, or a descriptor: `@daily`, `@every 1h`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DESCRIPTORS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_match_duration = re.compile(r"[-+]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+").fullmatch
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True)
class _Field:
    low: int
    high: int
    names: tuple[str, ...] = ()
    first: int = 0

    def number(self, text: str) -> int:
        lowered = text.lower()
        if lowered in self.names:
            return self.names.index(lowered) + self.first
        return _number(text)


_FIELDS = (_Field(0, 59), _Field(0, 23), _Field(1, 31), _Field(1, 12, _MONTHS, 1), _Field(0, 6, _DAYS))


def schedule_fault(text: str) -> str:
    """What is wrong with a schedule, "" for a good one."""
    try:
        _check(text)
    except ValueError as fault:
        return str(fault)
    return ""


def _check(text: str) -> None:
    if text.startswith("@"):
        if text.startswith("@every "):
            duration = text.removeprefix("@every ")
            if not _match_duration(duration):
                raise ValueError(f'failed to parse duration {text}: time: invalid duration "{duration}"')
        elif text not in _DESCRIPTORS:
            raise ValueError(f"unrecognized descriptor: {text}")
        return
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    for part, field in zip(parts, _FIELDS, strict=True):
        for piece in part.split(","):
            if piece:
                _check_range(piece, field)


def _check_range(text: str, field: _Field) -> None:
    span, *steps = text.split("/")
    ends = span.split("-")
    if ends[0] in ("*", "?"):
        start, end = field.low, field.high
    else:
        start = field.number(ends[0])
        end = field.number(ends[1]) if len(ends) == 2 else start
        if len(ends) > 2:
            raise ValueError(f"too many hyphens: {text}")
    step = 1
    if len(steps) == 1:
        step = _number(steps[0])
        end = field.high if len(ends) == 1 else end
    elif steps:
        raise ValueError(f"too many slashes: {text}")
    if start < field.low:
        raise ValueError(f"beginning of range ({start}) below minimum ({field.low}): {text}")
    if end > field.high:
        raise ValueError(f"end of range ({end}) above maximum ({field.high}): {text}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")


def _number(text: str) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if text.startswith("-"):
        raise ValueError(f"negative number ({text}) not allowed: {text}")
    return int(text)
