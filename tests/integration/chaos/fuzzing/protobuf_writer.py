"""Objects as Kubernetes protobuf, by the same facts that the reader goes by; what does not fit is written wrongly.

For the fuzzer: a value of another type than the field's is written as the wire type that it would have, so that the
reader meets wrong wire types as well.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

from api.schema.facts import Type, embedded_in, own_fields, struct_named


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def chunk(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(obj: dict[str, Any]) -> bytes:
    """The whole body of an object of a built-in kind; what it is comes from its apiVersion and kind."""
    version, kind = str(obj.get("apiVersion") or ""), str(obj.get("kind") or "")
    group, _, short = version.rpartition("/")
    known = struct_named(group, short, kind)
    raw = written(known, obj) if known else b""
    meta = chunk(1, _utf8(version)) + chunk(2, _utf8(kind))
    return b"k8s\0" + chunk(1, meta) + chunk(2, raw) + chunk(3, b"") + chunk(4, b"")


def written(name: str, obj: dict[str, Any]) -> bytes:
    out = bytearray()
    for part in embedded_in(name):
        out += chunk(part.number, written(part.struct, obj))
    for field in own_fields(name):
        if field.name in obj and field.number and obj[field.name] is not None:
            out += _field(field.number, field.type, obj[field.name])
    return bytes(out)


def _field(number: int, kind: Type, value: Any) -> bytes:
    if kind.shape == "list" and kind.element is not None and isinstance(value, list):
        return b"".join(_field(number, kind.element, item) for item in value)
    if kind.shape == "map" and kind.element is not None and isinstance(value, dict):
        element = kind.element
        return b"".join(chunk(number, chunk(1, _utf8(key)) + _field(2, element, each)) for key, each in value.items())
    if kind.shape == "struct" and isinstance(value, dict):
        return chunk(number, written(kind.struct, value))
    if kind.shape == "intorstring":
        text = chunk(3, _utf8(value)) if isinstance(value, str) else b""
        whole = int(value) if isinstance(value, int) else 0
        return chunk(number, varint(8) + varint(bool(text)) + varint(16) + varint(whole) + text)
    if kind.shape in ("time", "microtime"):
        return chunk(number, varint(8) + varint(1_700_000_000 if isinstance(value, str) else _whole(value)))
    if kind.shape in ("raw", "fields", "json"):
        return chunk(number, chunk(1, _utf8(json.dumps(value))))
    if kind.shape == "quantity" and isinstance(value, str):
        return chunk(number, chunk(1, _utf8(value)))
    if kind.shape == "bytes" and isinstance(value, str):
        return chunk(number, _unpacked(value))
    return _as_it_is(number, value)


def _as_it_is(number: int, value: Any) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        return chunk(number, _utf8(value))
    return chunk(number, repr(value).encode("utf-8", "replace")[:200])


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _utf8(text: str) -> bytes:
    return str(text).encode("utf-8", "surrogatepass")


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return _utf8(text)
