"""Checking an object against its kind's schema: unknown fields, type errors, and the form Kubernetes writes it in.

Called by the registry for every body and by patch. `check` first asks `fast` whether there is anything to do at all;
only if so does the careful pass here rebuild the object, with paths for what it finds. Rules and wording are those of
encoding/json as Kubernetes uses it (case-sensitive, integers kept): a field path in an error names no list index,
a strict error does. Invariant: never raises, never changes its argument, `check(check(x).obj)` finds nothing new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.kinds import Kind
from api.objects import Object
from api.quick import quick_dataclass
from api.schema.custom.type import custom_of
from api.schema.facts import Field, Type, fields_of, short_name, struct_of, zero_of
from api.schema.fast import struct_test
from api.schema.values import Fault, Unreadable, read_special

_STRICT_LIMIT = 100
_DEEPEST = 200
_INTEGER_BITS = {"int32": 31, "int64": 63}


@quick_dataclass(frozen=True, slots=True)
class Checked:
    """`obj` is the object without unknown fields and nulls; `unknown` holds their paths (`spec.containers[0].foo`).

    `type_errors` are sentences as Kubernetes' decoder words them, first found first; an object with any is unusable.
    """

    obj: Object
    unknown: list[str] = field(default_factory=list)
    type_errors: list[str] = field(default_factory=list)


def check(kind: Kind, obj: Object, *, prune: bool = True) -> Checked:
    """Checks every field of `obj` against the schema of `kind`.

    With `prune` the returned object is the one Kubernetes would store: no unknown fields, no nulls, no empty optional
    values, quantities and times in canonical form. It is `obj` itself when nothing had to change, else a new object
    (which may share parts with `obj`). Without `prune` it is always `obj`. A custom resource is checked against its
    own schema.
    """
    struct = struct_of(kind)
    if struct is None:
        return _check_custom(kind, obj, prune)
    return check_struct(struct, obj, prune=prune)


def check_struct(struct: str, obj: Any, *, prune: bool = True) -> Checked:
    """`check` by struct id."""
    try:
        if struct_test(struct)(obj):
            return Checked(obj)
        walk = _Walk()
        rebuilt = walk.struct(struct, obj, _TOP)
    except RecursionError:
        return Checked(obj, type_errors=["json: exceeded max depth"])
    usable = rebuilt if prune and isinstance(rebuilt, dict) and not walk.type_errors else obj
    return Checked(usable, walk.unknown[:_STRICT_LIMIT], walk.type_errors)


def _check_custom(kind: Kind, obj: Any, prune: bool) -> Checked:
    """A custom resource: its metadata by the built-in facts, all else by its own schema; unknown kinds as they are."""
    if not isinstance(obj, dict):
        return Checked(obj, type_errors=[f"json: cannot unmarshal {json_kind(obj)} into Go value of type {kind.kind}"])
    walk = _Walk()
    try:
        found = walk.struct("meta.v1.ObjectMeta", obj.get("metadata") or {}, _Place("metadata", "metadata"))
        shaped: Object = orjson.loads(orjson.dumps(obj))
        schema = custom_of(kind)
        unknown = schema.shape(shaped) if schema is not None else []
    except (RecursionError, orjson.JSONEncodeError):
        return Checked(obj, type_errors=["json: exceeded max depth"])
    if walk.type_errors:
        return Checked(obj, type_errors=walk.type_errors)
    shaped["metadata"] = found
    return Checked(shaped if prune else obj, (walk.unknown + unknown)[:_STRICT_LIMIT])


def json_kind(value: Any) -> str:
    """What encoding/json calls a value: string, number, bool, array, object."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk is: `path` with indexes for strict errors, `fields` without for type errors, `owner` struct."""

    path: str = ""
    fields: str = ""
    owner: str = ""
    depth: int = 0

    def field(self, owner: str, name: str) -> _Place:
        path = f"{self.path}.{name}" if self.path else name
        fields = f"{self.fields}.{name}" if self.fields else name
        return _Place(path, fields, owner, self.depth + 1)

    def item(self, index: int) -> _Place:
        return _Place(f"{self.path}[{index}]", self.fields, self.owner, self.depth + 1)

    def key(self, key: str) -> _Place:
        return _Place(f"{self.path}.{key}" if self.path else key, self.fields, self.owner, self.depth + 1)


_TOP = _Place()
_ABSENT = object()


class _Walk:
    """One careful pass over one object; collects what it finds and rebuilds the object as it goes."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.type_errors: list[str] = []

    def struct(self, struct: str, value: Any, place: _Place) -> Any:
        if not isinstance(value, dict):
            return self._mismatch(json_kind(value), ".".join(struct.split(".")[-2:]), place)
        fields, owner = fields_of(struct), short_name(struct)
        rebuilt: Object = {}
        for name, item in value.items():
            known = fields.get(name)
            if known is None:
                self.unknown.append(place.field(owner, name).path)
                continue
            found = self._field(known, item, place.field(owner, name))
            if found is not _ABSENT:
                rebuilt[name] = found
        return rebuilt

    def _field(self, known: Field, item: Any, place: _Place) -> Any:
        if item is None:
            return None if known.null_when_unset else _ABSENT
        if known.name in ("labels", "annotations") and known.type.shape == "map" and isinstance(item, dict):
            item = {key: text for key, text in item.items() if text is not None}
        found = self._value(known.type, item, place)
        if not found and found is not _ABSENT and known.dropped_when_empty:
            return _ABSENT
        return found

    def _value(self, kind: Type, value: Any, place: _Place) -> Any:
        if place.depth > _DEEPEST:
            raise RecursionError
        match kind.shape:
            case "struct":
                return self.struct(kind.struct, value, place)
            case "list" | "items":
                return self._list(kind, value, place)
            case "map":
                return self._map(kind, value, place)
            case "string" | "bool" | "int32" | "int64" | "float64":
                return self._scalar(kind, value, place)
            case "propsorbool" | "propsorarray" | "propsorstrings":
                return self._schema_choice(kind.shape, value, place)
        return self._special(kind, value, place)

    def _list(self, kind: Type, value: Any, place: _Place) -> Any:
        assert kind.element is not None
        if not isinstance(value, list):
            return self._mismatch(json_kind(value), kind.go, place)
        found = []
        for index, item in enumerate(value):
            kept = self._element(kind.element, item, place.item(index))
            if kept is not _ABSENT:
                found.append(kept)
        return found

    def _map(self, kind: Type, value: Any, place: _Place) -> Any:
        assert kind.element is not None
        if not isinstance(value, dict):
            return self._mismatch(json_kind(value), kind.go, place)
        found = {}
        for key, item in value.items():
            kept = self._element(kind.element, item, place.key(key))
            if kept is not _ABSENT:
                found[key] = kept
        return found

    def _element(self, kind: Type, item: Any, place: _Place) -> Any:
        """A null inside a list or map is the zero value of its type."""
        if item is None:
            return zero_of(kind)
        return self._value(kind, item, place)

    def _scalar(self, kind: Type, value: Any, place: _Place) -> Any:
        wanted = {"string": str, "bool": bool}.get(kind.shape)
        if wanted is not None:
            if type(value) is wanted:
                return value
            return self._mismatch(json_kind(value), kind.go, place)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self._mismatch(json_kind(value), kind.go, place)
        bits = _INTEGER_BITS.get(kind.shape)
        if bits is None:
            return value
        if isinstance(value, float) or not -(1 << bits) <= value < (1 << bits):
            return self._mismatch(f"number {_shown_number(value)}", kind.go, place)
        return value

    def _special(self, kind: Type, value: Any, place: _Place) -> Any:
        try:
            return read_special(kind.shape, value)
        except Unreadable as unreadable:
            return self._mismatch(unreadable.found or json_kind(value), unreadable.go, place)
        except Fault as fault:
            self.type_errors.append(str(fault))
            return _ABSENT

    def _schema_choice(self, shape: str, value: Any, place: _Place) -> Any:
        """The JSON schema fields that take a schema or something simpler."""
        props = Type("struct", "v1.JSONSchemaProps", struct="apiextensions.v1.JSONSchemaProps")
        if isinstance(value, dict):
            return self.struct(props.struct, value, place)
        if shape == "propsorbool" and isinstance(value, bool):
            return value
        if shape == "propsorarray" and isinstance(value, list):
            return self._list(Type("list", "[]v1.JSONSchemaProps", props), value, place)
        if shape == "propsorstrings" and isinstance(value, list):
            return self._list(Type("list", "[]string", Type("string", "string")), value, place)
        choice = {"propsorbool": "boolean or JSON schema expected"}.get(shape, "JSON schema or array expected")
        self.type_errors.append(choice)
        return _ABSENT

    def _mismatch(self, found: str, wanted: str, place: _Place) -> Any:
        if place.owner:
            target = f"Go struct field {place.owner}.{place.fields}"
        else:
            target = "Go value"
        self.type_errors.append(f"json: cannot unmarshal {found} into {target} of type {wanted}")
        return _ABSENT


def _shown_number(value: int | float) -> str:
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) >= 1e16:
        return str(int(value))
    return str(value)
