"""Whether an `openAPIV3Schema` is structural: its shape stands outside of logic, so that objects can be pruned.

Called by `schemas` for every schema that can be read at all. Source: apiextensions-apiserver's
pkg/apiserver/schema/validation.go; rules at
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.errors import FieldError, forbidden, invalid, required
from api.objects import Object
from api.schema.custom.patterns import BadPattern, check_pattern
from api.schema.custom.structural import EMBEDDED, INT_OR_STRING, PRESERVE, RULES

_UNSUPPORTED = ("id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions")
_LOGIC = ("anyOf", "allOf", "oneOf")
_CHOICE = [{"type": "integer"}, {"type": "string"}]
_LEVELS = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
_KEYS, _LIST, _MAP = "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type"
_NEVER_NESTED = {
    "type": "empty",
    "additionalProperties": "undefined",
    "default": "undefined",
    "title": "empty",
    "description": "empty",
    "nullable": "false",
    PRESERVE: "false",
    EMBEDDED: "false",
    INT_OR_STRING: "false",
    _KEYS: "empty",
    _LIST: "undefined",
    _MAP: "undefined",
    RULES: "empty",
}
"""What may not stand inside allOf, anyOf, oneOf and not, and how it has to be instead."""


def unreadable(schema: Any) -> str:
    """Why a schema cannot be taken as a structural one at all, "" if it can."""
    if not isinstance(schema, dict):
        return ""
    for name in _UNSUPPORTED:
        if schema.get(name) or (name == "additionalItems" and name in schema):
            return f"OpenAPIV3Schema '{name.removeprefix('$') if name == '$schema' else name}' is not supported"
    inner = [schema.get("not"), *(part for name in ("allOf", "anyOf", "oneOf") for part in schema.get(name) or ())]
    if found := next(filter(None, map(unreadable, inner)), ""):
        return found
    if schema.get(PRESERVE) is False:
        return f"internal error: '{PRESERVE}' must be true or undefined"
    if isinstance(schema.get("items"), list):
        return "OpenAPIV3Schema 'items' must be a schema, but is an array"
    below = [schema.get("items"), *(schema.get("properties") or {}).values(), schema.get("additionalProperties")]
    return next(filter(None, map(unreadable, below)), "")


def structural_faults(schema: Object, path: str) -> list[FieldError]:
    """Every fault of the schema's structure, sorted as they read."""
    faults = [*_invariants(schema, path, "root"), *_completeness(schema, schema, path, path)]
    return sorted(faults, key=lambda fault: f"{fault.field}: {fault.body}")


def _invariants(schema: Object, path: str, level: str) -> Iterator[FieldError]:
    kind, items, additional = schema.get("type") or "", schema.get("items"), schema.get("additionalProperties")
    properties = schema.get("properties") or {}
    if kind == "array" and items is None:
        yield required(f"{path}.items", "must be specified")
    if isinstance(items, dict):
        yield from _invariants(items, f"{path}.items", "item")
    for name, child in properties.items():
        yield from _invariants(child, f"{path}.properties[{name}]", "field")
    if additional is not None and level == "root":
        yield forbidden(f"{path}.additionalProperties", "must not be used at the root")
    if isinstance(additional, dict):
        yield from _invariants(additional, f"{path}.additionalProperties", "field")
    for name in (PRESERVE, EMBEDDED):
        if schema.get(INT_OR_STRING) and schema.get(name):
            yield invalid(f"{path}.{name}", True, "must be false if x-kubernetes-int-or-string is true")
    first: Object = next(iter(schema.get("allOf") or ()), {})
    choice = first.get("anyOf") == _CHOICE
    yield from _value_faults(schema, path, skip=schema.get("anyOf") == _CHOICE, skip_first=choice)
    yield from _type_faults(schema, path, level)
    checked = level == "root" or bool(schema.get(EMBEDDED))
    for name in ("kind", "apiVersion"):
        if checked and name in properties and (found := properties[name].get("type") or "") != "string":
            yield invalid(f"{path}.properties[{name}].type", found, "must be string")
    if "metadata" in properties:
        yield from _metadata_faults(properties["metadata"], f"{path}.properties[metadata]", level, checked=checked)
    if schema.get(EMBEDDED) and not schema.get(PRESERVE) and not properties:
        why = f"must not be empty if {EMBEDDED} is true without {PRESERVE}"
        yield required(f"{path}.properties", why)


def _type_faults(schema: Object, path: str, level: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if schema.get(EMBEDDED) and kind != "object":
        why = f"must be object if {EMBEDDED} is true"
        yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield required(f"{path}.type", f"must not be empty {_LEVELS[level]}")
    if schema.get(EMBEDDED) and schema.get("additionalProperties") is not None:
        yield forbidden(f"{path}.additionalProperties", f"must not be used if {EMBEDDED} is set")
    if level == "root" and kind and kind != "object":
        yield invalid(f"{path}.type", kind, "must be object at the root")


def _metadata_faults(metadata: Object, path: str, level: str, *, checked: bool) -> Iterator[FieldError]:
    if checked and metadata.get("type") != "object":
        yield invalid(f"{path}.type", metadata.get("type") or "", "must be object")
    if level != "root":
        return
    rest = {name: value for name, value in metadata.items() if name not in ("type", "default") and value}
    if set(rest.get("properties") or ()) <= {"name", "generateName"}:
        rest.pop("properties", None)
    if rest:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(path, why)


def _value_faults(schema: Object, path: str, *, skip: bool = False, skip_first: bool = False) -> Iterator[FieldError]:
    """What a schema says of values. `skip`: anyOf is the choice of integer or string; `skip_first`: that of allOf."""
    for name in _LOGIC:
        for index, part in enumerate(schema.get(name) or ()):
            if not (skip and name == "anyOf"):
                known = skip_first and name == "allOf" and index == 0
                yield from _nested_faults(part, f"{path}.{name}[{index}]", skip=known)
    if isinstance(schema.get("not"), dict):
        yield from _nested_faults(schema["not"], f"{path}.not")
    if pattern := schema.get("pattern"):
        try:
            check_pattern(pattern)
        except BadPattern as fault:
            yield invalid(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {fault}")


def _nested_faults(part: Object, path: str, *, skip: bool = False) -> Iterator[FieldError]:
    yield from _value_faults(part, path, skip=skip)
    if isinstance(part.get("items"), dict):
        yield from _nested_faults(part["items"], f"{path}.items")
    for name, child in (part.get("properties") or {}).items():
        yield from _nested_faults(child, f"{path}.properties[{name}]")
    for name, how in _NEVER_NESTED.items():
        value = part.get(name)
        if value is not None if how == "undefined" and value is not False else value:
            yield forbidden(f"{path}.{name}", f"must be {how} to be structural")
    if "metadata" in (part.get("properties") or ()):
        yield forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _completeness(part: Object, outer: Object | None, path: str, where: str) -> Iterator[FieldError]:
    """What `part` says at `where` of the values of `outer`, which is at `path`, has to exist there."""
    for name in ("allOf", "anyOf", "oneOf"):
        for index, each in enumerate(part.get(name) or ()):
            yield from _nested_completeness(each, outer, path, f"{where}.{name}[{index}]")
    if isinstance(part.get("not"), dict):
        yield from _nested_completeness(part["not"], outer, path, f"{where}.not")


def _nested_completeness(part: Object, outer: Object | None, path: str, where: str) -> Iterator[FieldError]:
    if outer is None:
        yield required(path, f"because it is defined in {where}")
        return
    yield from _completeness(part, outer, path, where)
    if isinstance(part.get("items"), dict):
        yield from _nested_completeness(part["items"], outer.get("items"), f"{path}.items", f"{where}.items")
    for name, child in (part.get("properties") or {}).items():
        known = (outer.get("properties") or {}).get(name)
        yield from _nested_completeness(child, known, f"{path}.properties[{name}]", f"{where}.properties[{name}]")
