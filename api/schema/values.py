"""Reading and rewriting the types that have their own JSON form in Kubernetes: quantities, times, durations, bytes.

Called by the careful pass of `walker` for one value at a time. Results are the canonical form: what Kubernetes would
write back. Two faults: `Unreadable` (the JSON type is wrong; carries what Go wanted) and `Fault` (the text is wrong;
its message is Kubernetes').
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from api.quantity import canonical


class Fault(ValueError):
    """A value of the right JSON type whose text cannot be read."""


class Unreadable(Exception):
    """A value of the wrong JSON type; `go` is the Go type that was wanted, `found` more than the value's JSON type."""

    def __init__(self, go: str, found: str = "") -> None:
        super().__init__(go)
        self.go, self.found = go, found


def read_special(shape: str, value: Any) -> Any:
    """The canonical form of a value. Raises Fault or Unreadable."""
    return _READERS[shape](value)


def _read_quantity(value: Any) -> str:
    if isinstance(value, (bool, dict, list)):
        raise Fault("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    try:
        return canonical(value.strip() if isinstance(value, str) else value)
    except ValueError as fault:
        raise Fault(str(fault)) from fault


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))",
)
_LAYOUT = "2006-01-02T15:04:05Z07:00"
_TWO = r"\d\d"
_LAYOUT_STEPS = (
    *(("2006", r"\d{4}"), ("-", "-"), ("01", _TWO), ("-", "-"), ("02", _TWO), ("T", "T")),
    *(("15", _TWO), (":", ":"), ("04", _TWO), (":", ":"), ("05", r"\d\d(?:[.,]\d+)?")),
)


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise Unreadable("string")
    match = _RFC3339.fullmatch(value)
    if match is None:
        raise Fault(_time_fault(value))
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    micros = int((match[7] or "0")[:6].ljust(6, "0"))
    try:
        moment = datetime(year, month, day, hour, minute, second, micros, UTC)
        if match[8]:
            offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
            moment = moment - offset if match[8] == "+" else moment + offset
    except (ValueError, OverflowError) as fault:
        raise Fault(f'parsing time "{value}": {_out_of_range(str(fault))} out of range') from fault
    return moment


def _out_of_range(fault: str) -> str:
    for part in ("month", "day", "hour", "minute", "second"):
        if part in fault:
            return part
    return "year"


def _time_fault(value: str) -> str:
    """Go names the first element of the layout that does not fit and what it found there."""
    rest = value
    for element, pattern in _LAYOUT_STEPS:
        match = re.match(pattern, rest)
        if match is None:
            return f'parsing time "{value}" as "{_LAYOUT}": cannot parse "{rest}" as "{element}"'
        rest = rest[match.end() :]
    zone = re.match(r"Z|[+-]\d\d:\d\d", rest)
    if zone is None:
        return f'parsing time "{value}" as "{_LAYOUT}": cannot parse "{rest}" as "Z07:00"'
    return f'parsing time "{value}": extra text: "{rest[zone.end() :]}"'


def _read_time(value: Any) -> str:
    moment = _moment(value)
    return f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%SZ")


def _read_micro_time(value: Any) -> str:
    moment = _moment(value)
    return f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%S.%fZ")


_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|[-+]?0")


def _read_duration(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable("string")
    if _DURATION.fullmatch(value) is None:
        raise Fault(f'time: invalid duration "{value}"')
    return value


def _read_bytes(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable("[]uint8")
    text = value.replace("\n", "").replace("\r", "")
    try:
        return base64.b64encode(binascii.a2b_base64(text, strict_mode=True)).decode()
    except ValueError as fault:
        raise Fault(f"illegal base64 data at input byte {_first_bad_byte(text)}") from fault


def _first_bad_byte(text: str) -> int:
    bad = re.search(r"[^A-Za-z0-9+/]", text)
    if bad is None:
        return len(text) - len(text) % 4
    return bad.start()


def _read_int_or_string(value: Any) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, dict, list)):
        raise Unreadable("int32")
    if isinstance(value, float) or not -(1 << 31) <= value < (1 << 31):
        raise Unreadable("int32", f"number {value}")
    return int(value)


def _read_anything(value: Any) -> Any:
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "quantity": _read_quantity,
    "time": _read_time,
    "microtime": _read_micro_time,
    "duration": _read_duration,
    "bytes": _read_bytes,
    "intorstring": _read_int_or_string,
    "raw": _read_anything,
    "fields": _read_anything,
    "json": _read_anything,
}
