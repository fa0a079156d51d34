"""The one reader of `data/types.json`: facts about every field of every type, parsed on demand and kept.

Everybody in `api.schema` and `api.codec.protobuf` starts here. The file holds, per Go struct, its fields as
`[type, protobuf number, flags, merge facts]`, the structs it embeds (whose fields appear as its own in JSON, but as a
separate message in protobuf), whether it carries apiVersion and kind, and whether it merges atomically.

Types are spelled `string`, `bool`, `int32`, `int64`, `float64`, `bytes`, `items` (a list of strings that is a message
of its own in protobuf), a special name (`time`, `quantity`, ...), `@id` (struct), `[]T` (list), `{K}T` (map whose keys
Go calls K), each optionally with the name Go prints in error messages: `string:v1.RestartPolicy`, `=v1.Name=T`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from api.kinds import Kind

POINTER, OMITEMPTY, OMITZERO, REQUIRED = 1, 2, 4, 8

SCALARS = frozenset({"string", "bool", "int32", "int64", "float64", "bytes"})
GO_STRUCTS = frozenset({"struct", "time", "microtime", "duration", "quantity", "intorstring", "raw", "fields", "json"})
"""Shapes that are structs in Go: encoding/json never omits them as empty, only as zero where a field says so."""

_GO_NAMES = {
    "time": "v1.Time",
    "microtime": "v1.MicroTime",
    "duration": "v1.Duration",
    "quantity": "resource.Quantity",
    "intorstring": "intstr.IntOrString",
    "raw": "runtime.RawExtension",
    "fields": "v1.FieldsV1",
    "json": "v1.JSON",
    "bytes": "[]uint8",
    "items": "[]string",
}


@dataclass(frozen=True, slots=True)
class Type:
    """`shape` is a scalar, a special, struct, list or map; `go` is the name Go prints; `struct` the id of a struct."""

    shape: str
    go: str
    element: Type | None = None
    struct: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `merge` is (list type, list map keys, patch merge key, patch strategy, map type), "" when absent."""

    name: str
    type: Type
    number: int
    flags: int
    merge: tuple[str, str, str, str, str]

    @property
    def pointer(self) -> bool:
        return bool(self.flags & POINTER)

    @property
    def required(self) -> bool:
        return bool(self.flags & REQUIRED)

    @property
    def dropped_when_empty(self) -> bool:
        """Go leaves the field out when its value is empty."""
        return self.flags & (POINTER | OMITEMPTY) == OMITEMPTY and self.type.shape not in GO_STRUCTS

    @property
    def zero(self) -> Any:
        """What Go writes for the field when nobody set it and it is not left out; a fresh object each time."""
        return None if self.pointer else zero_of(self.type)

    @property
    def filled(self) -> bool:
        """We write the field when nobody set it: as Go does, except that required ones are never written as null.

        Their object is about to be refused, and code that reads it expects no null.
        """
        if self.flags & OMITZERO or (self.flags & OMITEMPTY and (self.pointer or self.type.shape not in GO_STRUCTS)):
            return False
        return not (self.required and self.zero is None)

    @property
    def null_when_unset(self) -> bool:
        return self.filled and self.zero is None


@dataclass(frozen=True, slots=True)
class Embedded:
    """An embedded Go struct: one message in protobuf, no level of its own in JSON."""

    number: int
    struct: str


def zero_of(kind: Type) -> Any:
    """Go's zero value of a type as encoding/json writes it (null for lists, maps, times); a fresh object each time."""
    return {} if kind.shape == "struct" else _ZEROS.get(kind.shape)


_ZEROS: dict[str, Any] = {
    "string": "",
    "bool": False,
    "int32": 0,
    "int64": 0,
    "float64": 0,
    "quantity": "0",
    "intorstring": 0,
    "duration": "0s",
}
_NO_MERGE = ("", "", "", "", "")
_STRING = Type("string", "string")
_TYPE_META = (Field("apiVersion", _STRING, 0, OMITEMPTY, _NO_MERGE), Field("kind", _STRING, 0, OMITEMPTY, _NO_MERGE))


@cache
def _document() -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads((files("api.schema") / "data" / "types.json").read_bytes())
    return loaded


def struct_of(kind: Kind) -> str | None:
    """The struct id of a kind, None when its types are not built in (custom resources)."""
    return struct_named(kind.group, kind.version, kind.kind)


def struct_named(group: str, version: str, kind: str) -> str | None:
    if kind == "DeleteOptions":
        return "meta.v1.DeleteOptions"
    found: str | None = _document()["kinds"].get(f"{group}/{version}/{kind}")
    return found


def known_kinds() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) -> struct id, of everything built in."""
    kinds: dict[str, str] = _document()["kinds"]
    rows = {}
    for name, struct in kinds.items():
        group, version, kind = name.split("/")
        rows[group, version, kind] = struct
    return rows


@cache
def parse_type(spelling: str) -> Type:
    if spelling[0] == "@":
        struct = spelling[1:]
        return Type("struct", ".".join(struct.split(".")[-2:]), struct=struct)
    if spelling[0] == "=":
        go, rest = spelling[1:].split("=", 1)
        inner = parse_type(rest)
        return Type(inner.shape, go, inner.element, inner.struct)
    if spelling[:2] == "[]":
        element = parse_type(spelling[2:])
        return Type("list", "[]" + element.go, element)
    if spelling[0] == "{":
        key, rest = spelling[1:].split("}", 1)
        element = parse_type(rest)
        return Type("map", f"map[{key or 'string'}]{element.go}", element)
    shape, _, go = spelling.partition(":")
    element_of_items = _STRING if shape == "items" else None
    return Type(shape, go or _GO_NAMES.get(shape, shape), element_of_items)


@cache
def own_fields(struct: str) -> tuple[Field, ...]:
    """The fields written in the struct itself, without embedded ones."""
    rows = _document()["types"][struct]["f"]
    return tuple(_parse_field(name, row) for name, row in rows.items())


def _parse_field(name: str, row: list[Any]) -> Field:
    merge = _NO_MERGE
    if len(row) > 3:
        parts = row[3].split(";")
        parts += [""] * (5 - len(parts))
        merge = (parts[0], parts[1], parts[2], parts[3], parts[4])
    return Field(name, parse_type(row[0]), row[1], row[2], merge)


@cache
def embedded_in(struct: str) -> tuple[Embedded, ...]:
    rows = _document()["types"][struct].get("i", ())
    return tuple(Embedded(number, target) for number, target in rows)


@cache
def fields_of(struct: str) -> dict[str, Field]:
    """Every field as JSON shows it: own, embedded, and apiVersion and kind where the struct carries them."""
    fields: dict[str, Field] = {}
    if _document()["types"][struct].get("t"):
        fields.update((meta.name, meta) for meta in _TYPE_META)
    for embedded in embedded_in(struct):
        fields.update(fields_of(embedded.struct))
    fields.update((own.name, own) for own in own_fields(struct))
    return fields


def reaches(struct: str, holds: Callable[[str], bool]) -> bool:
    """Whether `holds` is true of this struct or of one somewhere below it."""
    seen: set[str] = set()
    waiting = [struct]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if holds(current):
            return True
        for field in fields_of(current).values():
            kind = field.type
            while kind.element is not None:
                kind = kind.element
            if kind.shape == "struct":
                waiting.append(kind.struct)
    return False


def is_atomic(struct: str) -> bool:
    """The struct is owned and replaced as a whole."""
    return bool(_document()["types"][struct].get("m") == "atomic")


def short_name(struct: str) -> str:
    """`Container`: the struct's name in error messages."""
    return struct.rsplit(".", 1)[1]
