"""The wire level of protobuf, and the Kubernetes types that are messages there but plain values in JSON.

Called by `protobuf`. Quantity {1 string}, IntOrString {1 type, 2 int, 3 string}, Time {1 seconds, 2 nanos}, Duration
{1 nanoseconds}, RawExtension, FieldsV1 and JSON {1 bytes of JSON}, lists of strings that are messages {1 items}.
Invariant: every fault in the bytes is a `Fault`; nothing reads past the end of its message.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from api.codec.json_text import is_too_deep

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fault(ValueError):
    """The bytes are no such message."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One field's payload as it stood on the wire."""

    type: int
    payload: int | bytes

    @property
    def is_bytes(self) -> bool:
        return self.type == _BYTES

    @property
    def bytes(self) -> bytes:
        if not isinstance(self.payload, bytes) or self.type != _BYTES:
            raise Fault(f"wrong wireType = {self.type}")
        return self.payload

    @property
    def number(self) -> int:
        if not isinstance(self.payload, int):
            raise Fault(f"wrong wireType = {self.type}")
        return self.payload

    @staticmethod
    def empty(shape: str) -> Wire:
        """The payload of a field nobody wrote."""
        return Wire(_VARINT, 0) if shape in ("bool", "int32", "int64") else Wire(_BYTES, b"")


def read_fields(data: bytes) -> Iterator[tuple[int, Wire]]:
    """Every field of a message in wire order: (number, payload). Raises Fault."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise Fault(f"illegal tag {number} (wire type {wire_type})")
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield number, Wire(_VARINT, value)
        elif wire_type == _BYTES:
            length, position = _varint(data, position)
            if length > end - position:
                raise Fault("unexpected EOF")
            yield number, Wire(_BYTES, data[position : position + length])
            position += length
        elif wire_type in (_FIXED64, _FIXED32):
            width = 8 if wire_type == _FIXED64 else 4
            if width > end - position:
                raise Fault("unexpected EOF")
            yield number, Wire(wire_type, data[position : position + width])
            position += width
        else:
            raise Fault(f"illegal wireType {wire_type}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data):
            raise Fault("unexpected EOF")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift >= 64:
            raise Fault("integer overflow")


def varint_list(shape: str, data: bytes) -> list[Any]:
    """A packed list of integers or booleans."""
    values, position = [], 0
    while position < len(data):
        number, position = _varint(data, position)
        values.append(read_value(shape, Wire(_VARINT, number)))
    return values


def read_value(shape: str, wire: Wire) -> Any:
    """The JSON value of a scalar or special; None for an unset time or JSON."""
    reader = _READERS.get(shape)
    if reader is None:
        raise Fault(f"no reader for {shape}")
    return reader(wire)


def read_text(wire: Wire) -> str:
    try:
        return wire.bytes.decode()
    except UnicodeDecodeError as fault:
        raise Fault("string field contains invalid UTF-8") from fault


def _read_bool(wire: Wire) -> bool:
    return wire.number != 0


def _signed(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _read_int32(wire: Wire) -> int:
    return _signed(wire.number, 32)


def _read_int64(wire: Wire) -> int:
    return _signed(wire.number, 64)


def _read_float64(wire: Wire) -> float:
    if wire.type != _FIXED64 or not isinstance(wire.payload, bytes):
        raise Fault(f"wrong wireType = {wire.type}")
    (number,) = struct.unpack("<d", wire.payload)
    if number != number or number in (float("inf"), float("-inf")):
        raise Fault("JSON has no such number")
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else float(number)


def _read_bytes(wire: Wire) -> str:
    return base64.b64encode(wire.bytes).decode()


def _parts(wire: Wire) -> dict[int, Wire]:
    """The fields of a small message, the last of each number."""
    return dict(read_fields(wire.bytes))


def _read_quantity(wire: Wire) -> str:
    part = _parts(wire).get(1)
    return (read_text(part) if part else "") or "0"


def _read_int_or_string(wire: Wire) -> int | str:
    parts = _parts(wire)
    if 1 in parts and parts[1].number == 1:
        return read_text(parts[3]) if 3 in parts else ""
    return _read_int32(parts[2]) if 2 in parts else 0


def _moment(wire: Wire) -> datetime | None:
    parts = _parts(wire)
    seconds = _read_int64(parts[1]) if 1 in parts else 0
    nanos = _read_int32(parts[2]) if 2 in parts else 0
    if not seconds and not nanos:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as fault:
        raise Fault("a time is out of range") from fault


def _read_time(wire: Wire) -> str | None:
    moment = _moment(wire)
    return None if moment is None else f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%SZ")


def _read_micro_time(wire: Wire) -> str | None:
    moment = _moment(wire)
    return None if moment is None else f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%S.%fZ")


def _read_duration(wire: Wire) -> str:
    part = _parts(wire).get(1)
    return _shown_duration(_read_int64(part) if part else 0)


def _shown_duration(nanos: int) -> str:
    """As Go prints it: 1h30m0s, 1.5s, 250ms."""
    if nanos < 0:
        return "-" + _shown_duration(-nanos)
    if nanos < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if nanos >= size:
                return f"{_trimmed(nanos, size)}{unit}"
        return "0s"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{shown}{_trimmed(rest, 1_000_000_000)}s"


def _trimmed(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if unit > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)


def _read_json(wire: Wire) -> Any:
    part = _parts(wire).get(1)
    if part is None or not part.bytes:
        return None
    try:
        value = orjson.loads(part.bytes)
    except orjson.JSONDecodeError as fault:
        raise Fault(f"embedded JSON: {fault}") from fault
    if is_too_deep(value):
        raise Fault("embedded JSON: exceeded max depth")
    return value


def _read_items(wire: Wire) -> list[str]:
    return [read_text(part) for number, part in read_fields(wire.bytes) if number == 1]


_READERS: dict[str, Callable[[Wire], Any]] = {
    "string": read_text,
    "bool": _read_bool,
    "int32": _read_int32,
    "int64": _read_int64,
    "float64": _read_float64,
    "bytes": _read_bytes,
    "quantity": _read_quantity,
    "intorstring": _read_int_or_string,
    "time": _read_time,
    "microtime": _read_micro_time,
    "duration": _read_duration,
    "raw": _read_json,
    "fields": _read_json,
    "json": _read_json,
    "items": _read_items,
}
