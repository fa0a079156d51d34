"""Kubernetes' protobuf request bodies to dicts. Decoding only: replies are always JSON.

Called by `body`. Field numbers, pointer-ness and embedded structs come from `api.schema.facts`; one table a struct,
compiled on first use. Format: `k8s\\0`, then runtime.Unknown {1 typeMeta {1 apiVersion, 2 kind}, 2 raw, 3 encoding,
4 contentType}. An explicit zero of a pointer field is kept, the zero of an optional non-pointer field dropped.
Invariant: the only error is BadRequest. Source: k8s.io/api generated.proto, k8s.io/apimachinery/pkg/runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from api.codec.faults import cannot_be_handled, not_registered, unrecognized
from api.codec.protobuf_values import Fault, Wire, read_fields, read_text, read_value, varint_list
from api.kinds import Kind
from api.objects import Object
from api.schema.facts import Field, Type, embedded_in, own_fields, struct_named

_PREFIX = b"k8s\0"
_DEEPEST = 100

Put = Callable[[Object, Wire, int], None]
"""Puts one decoded field into an object; the last argument is the depth."""


def decode_envelope(body: bytes, kind: Kind | None) -> Object:
    """The object of a protobuf body, with apiVersion and kind as the envelope says. Raises BadRequest."""
    if not body.startswith(_PREFIX):
        why = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        raise unrecognized(kind, body, why)
    try:
        api_version, name, raw, encoding = _unwrap(body)
    except Fault as fault:
        raise unrecognized(kind, body, f"proto: {fault}") from fault
    if encoding:
        raise unrecognized(kind, body, f"content encoding {encoding!r} is not supported")
    api_version, name = api_version or (kind.api_version if kind else ""), name or (kind.kind if kind else "")
    group, _, version = api_version.rpartition("/")
    struct = struct_named(group, version, name)
    if struct is None:
        if kind is None:
            raise unrecognized(kind, body, f'no kind "{name}" is registered for version "{api_version}"')
        raise not_registered(kind, api_version, name)
    try:
        decoded = decode_struct(struct, raw)
    except Fault as fault:
        if kind is None:
            raise unrecognized(kind, body, f"proto: {fault}") from fault
        raise cannot_be_handled(kind, f"proto: {fault}", given_kind=name, given_version=api_version) from fault
    return {"apiVersion": api_version, "kind": name, **decoded}


def _unwrap(body: bytes) -> tuple[str, str, bytes, str]:
    api_version = name = encoding = ""
    raw = b""
    for number, wire in read_fields(body[len(_PREFIX) :]):
        if number == 1:
            for inner, text in read_fields(wire.bytes):
                if inner == 1:
                    api_version = read_text(text)
                elif inner == 2:
                    name = read_text(text)
        elif number == 2:
            raw = wire.bytes
        elif number == 3:
            encoding = read_text(wire)
    return api_version, name, raw, encoding


def decode_struct(struct: str, data: bytes, depth: int = 0) -> Object:
    """One message. Unknown field numbers are skipped, as Go does. Raises Fault."""
    if depth > _DEEPEST:
        raise Fault("exceeded max depth")
    table = _table(struct)
    decoded: Object = {}
    for number, wire in read_fields(data):
        put = table.get(number)
        if put is not None:
            put(decoded, wire, depth)
    return decoded


@cache
def _table(struct: str) -> dict[int, Put]:
    table: dict[int, Put] = {}
    for embedded in embedded_in(struct):
        table[embedded.number] = _put_embedded(embedded.struct)
    for field in own_fields(struct):
        if field.number:
            table[field.number] = _put_field(field)
    return table


def _put_embedded(struct: str) -> Put:
    def put(target: Object, wire: Wire, depth: int) -> None:
        target.update(decode_struct(struct, wire.bytes, depth + 1))

    return put


def _put_field(field: Field) -> Put:
    shape, element = field.type.shape, field.type.element
    if shape == "list" and element is not None:
        return _put_item(field.name, element)
    if shape == "map" and element is not None:
        return _put_entry(field.name, element)
    name, kind, optional = field.name, field.type, field.dropped_when_empty

    def put(target: Object, wire: Wire, depth: int) -> None:
        value = _value(kind, wire, depth)
        if value is None or (optional and not value):
            target.pop(name, None)
        else:
            target[name] = value

    return put


def _put_item(name: str, element: Type) -> Put:
    packable = element.shape in ("int32", "int64", "bool")

    def put(target: Object, wire: Wire, depth: int) -> None:
        items = target.setdefault(name, [])
        if packable and wire.is_bytes:
            items.extend(varint_list(element.shape, wire.bytes))
        else:
            items.append(_value(element, wire, depth))

    return put


def _put_entry(name: str, element: Type) -> Put:
    def put(target: Object, wire: Wire, depth: int) -> None:
        key, value = "", None
        for number, part in read_fields(wire.bytes):
            if number == 1:
                key = read_text(part)
            elif number == 2:
                value = _value(element, part, depth)
        if value is None:
            value = _value(element, Wire.empty(element.shape), depth)
        target.setdefault(name, {})[key] = value

    return put


def _value(kind: Type, wire: Wire, depth: int) -> Any:
    if kind.shape == "struct":
        return decode_struct(kind.struct, wire.bytes, depth + 1)
    choice = _CHOICES.get(kind.shape)
    if choice is not None:
        return _read_choice(choice, wire, depth)
    return read_value(kind.shape, wire)


_PROPS = Type("struct", "v1.JSONSchemaProps", struct="apiextensions.v1.JSONSchemaProps")
_STRING = Type("string", "string")
_CHOICES: dict[str, dict[int, tuple[Type, bool]]] = {
    "propsorbool": {1: (Type("bool", "bool"), False), 2: (_PROPS, False)},
    "propsorarray": {1: (_PROPS, False), 2: (_PROPS, True)},
    "propsorstrings": {1: (_PROPS, False), 2: (_STRING, True)},
}


def _read_choice(fields: dict[int, tuple[Type, bool]], wire: Wire, depth: int) -> Any:
    """A union of JSON schema's: the schema wins over the simpler form, which is always written."""
    simple: Any = None
    schema: Any = None
    for number, part in read_fields(wire.bytes):
        row = fields.get(number)
        if row is None:
            continue
        kind, repeated = row
        value = _value(kind, part, depth + 1)
        if repeated:
            simple = [*(simple or ()), value]
        elif kind is _PROPS:
            schema = value
        else:
            simple = value
    return schema if schema is not None else simple
