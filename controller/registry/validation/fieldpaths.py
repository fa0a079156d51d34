"""Paths to fields of a schema, as rules' `fieldPath` and selectable fields have them: `.spec.a`, `.spec['a.b']`.

Called by `schemas` and `definitions`. Pure. Source: apiextensions-apiserver's pkg/apiserver/schema/cel/validation.go.
"""

from __future__ import annotations

import re

from api.objects import Object

_STEP = re.compile(r"\.([^.\[\]]+)|\[('(?:[^'\\]|\\.)*')\]")


class BadFieldPath(ValueError):
    """The path leads to no field; the message says why, in Kubernetes' words."""


def schema_at(path: str, schema: Object, *, quoted: bool = True) -> tuple[tuple[str, ...], Object]:
    """The names on the path and the schema it leads to. `quoted`: brackets may be used. Raises BadFieldPath."""
    names: list[str] = []
    rest = path
    while rest:
        if rest.startswith("[") and not quoted:
            raise BadFieldPath("array notation is not allowed")
        step = _STEP.match(rest)
        if step is None:
            raise BadFieldPath(_said(rest))
        name = step[1] or re.sub(r"\\(.)", r"\1", step[2][1:-1])
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        found = properties.get(name) if properties else additional
        if not isinstance(found, dict):
            raise BadFieldPath("does not refer to a valid field")
        names.append(name)
        schema, rest = found, rest[step.end() :]
    return tuple(names), schema


def _said(rest: str) -> str:
    if rest in (".", "["):
        return "unexpected end of JSON path"
    if rest[0] == "[":
        return f"expected single quoted string but got {re.split(r'[].[]', rest[1:], maxsplit=1)[0] or rest[1]}"
    if rest[0] == ".":
        return "does not refer to a valid field"
    return f"expected [ or . but got: {re.split(r'[].[]', rest, maxsplit=1)[0] or rest[0]}"
