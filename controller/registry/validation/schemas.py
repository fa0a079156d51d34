"""Whether an `openAPIV3Schema` is a structural schema, and its values mean something.

Called by `definitions` for every version of a CustomResourceDefinition. Source: apiextensions-apiserver's
pkg/apis/apiextensions/validation and pkg/apiserver/schema/validation.go; rules at
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from api.errors import FieldError, forbidden, invalid, not_supported, required
from api.objects import Object
from api.schema.custom import rules
from api.schema.custom.patterns import BadPattern, check_pattern
from api.schema.custom.shaping import prune
from api.schema.custom.structural import EMBEDDED, INT_OR_STRING, PRESERVE, RULES, parse_structural
from api.schema.custom.values import faults_in

_TYPES = frozenset({"array", "boolean", "integer", "number", "object", "string"})
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_LIST_TYPES, _MAP_TYPES = ("atomic", "set", "map"), ("atomic", "granular")
_LOGIC = ("allOf", "anyOf", "oneOf")
_NOT_IN_LOGIC = ("title", "description", "default", "type", "nullable", "additionalProperties")
_EXTENSIONS = (PRESERVE, EMBEDDED, INT_OR_STRING)


def check_schema(schema: Object, path: str) -> list[FieldError]:
    """Every fault of the schema at `path`."""
    errors: list[FieldError] = []
    if not schema.get("type"):
        errors.append(required(f"{path}.type", "must not be empty at the root"))
    elif schema["type"] != "object":
        errors.append(invalid(f"{path}.type", schema["type"], "must be object at the root"))
    if schema.get("nullable"):
        errors.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    errors += _metadata_faults(schema, path)
    errors += _faults(schema, path)
    if not errors:
        errors += _default_faults(schema, path)
    return errors


def _faults(schema: Object, path: str) -> Iterator[FieldError]:
    yield from _keyword_faults(schema, path)
    yield from _extension_faults(schema, path)
    for name in _LOGIC:
        for index, part in enumerate(schema.get(name) or ()):
            yield from _logic_faults(part, schema, f"{path}.{name}[{index}]")
    if isinstance(schema.get("not"), dict):
        yield from _logic_faults(schema["not"], schema, f"{path}.not")
    yield from _rule_faults(schema, path)
    for where, child, words in _children(schema, path):
        if not _may_be_untyped(child) and not child.get("type"):
            yield required(f"{where}.type", f"must not be empty for specified {words}")
        yield from _faults(child, where)


def _children(schema: Object, path: str) -> Iterator[tuple[str, Object, str]]:
    for name, child in (schema.get("properties") or {}).items():
        yield f"{path}.properties[{name}]", child, "object fields"
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}.additionalProperties", schema["additionalProperties"], "object fields"
    if isinstance(schema.get("items"), dict):
        yield f"{path}.items", schema["items"], "array items"


def _may_be_untyped(schema: Object) -> bool:
    return bool(schema.get(INT_OR_STRING) or schema.get(PRESERVE))


def _keyword_faults(schema: Object, path: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if kind == "null":
        yield forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    elif kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    for name in _UNSUPPORTED:
        if schema.get(name):
            yield forbidden(f"{path}.{name}", f"{name} is not supported")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", why)
    if schema.get("additionalProperties") is False:
        yield forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    elif schema.get("additionalProperties") is not None and schema.get("properties"):
        why = "additionalProperties and properties are mutual exclusive"
        yield forbidden(f"{path}.additionalProperties", why)
    yield from _pattern_faults(schema, path)


def _pattern_faults(schema: Object, path: str) -> Iterator[FieldError]:
    if pattern := schema.get("pattern"):
        try:
            check_pattern(pattern)
        except BadPattern as fault:
            yield invalid(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {fault}")


def _extension_faults(schema: Object, path: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if schema.get(INT_OR_STRING) and kind:
        why = "must be empty if x-kubernetes-int-or-string is true"
        yield invalid(f"{path}.type", kind, why)
    if schema.get(PRESERVE) is False:
        yield invalid(f"{path}.{PRESERVE}", False, "must be true or undefined")
    if schema.get(EMBEDDED):
        if kind != "object":
            why = "must be object if x-kubernetes-embedded-resource is true"
            yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
        if not schema.get("properties") and not schema.get(PRESERVE):
            why = f"must not be empty if {EMBEDDED} is true without {PRESERVE}"
            yield required(f"{path}.properties", why)
    yield from _list_faults(schema, path, kind)
    if map_type := schema.get("x-kubernetes-map-type"):
        if kind != "object":
            yield invalid(f"{path}.type", kind, "must be object if x-kubernetes-map-type is specified")
        if map_type not in _MAP_TYPES:
            yield not_supported(f"{path}.x-kubernetes-map-type", map_type, _MAP_TYPES)


def _list_faults(schema: Object, path: str, kind: str) -> Iterator[FieldError]:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if list_type is None:
        if keys:
            yield required(f"{path}.x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty")
        return
    if kind != "array":
        why = "must be array if x-kubernetes-list-type is specified"
        yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    if list_type not in _LIST_TYPES:
        yield not_supported(f"{path}.x-kubernetes-list-type", list_type, _LIST_TYPES)
    items = schema.get("items")
    if list_type != "map":
        if keys:
            yield required(f"{path}.x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty")
        if list_type == "set" and isinstance(items, dict) and items.get("nullable"):
            why = "cannot be nullable when x-kubernetes-list-type is set"
            yield forbidden(f"{path}.items.nullable", why)
        return
    if not keys:
        yield required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    if not isinstance(items, dict):
        yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
        return
    if items.get("type") != "object":
        yield invalid(
            f"{path}.items.type",
            items.get("type") or "",
            "must be object if parent array's x-kubernetes-list-type is map",
        )
    for index, key in enumerate(keys):
        found = (items.get("properties") or {}).get(key)
        if found is None:
            why = "entries must all be names of item properties"
            yield invalid(f"{path}.x-kubernetes-list-map-keys[{index}]", key, why)
        elif key not in (items.get("required") or ()) and "default" not in found:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield required(f"{path}.items.properties[{key}].default", why)


def _logic_faults(part: Object, outer: Object, path: str) -> Iterator[FieldError]:
    """Inside allOf, anyOf, oneOf and not only values may be judged, of fields that the schema itself names."""
    whole = part if not _is_int_or_string_choice(part, outer) else {k: v for k, v in part.items() if k != "type"}
    for name in _NOT_IN_LOGIC:
        if name in whole:
            yield forbidden(f"{path}.{name}", "must be empty to be structural")
    for name in _EXTENSIONS:
        if whole.get(name):
            yield forbidden(f"{path}.{name}", "must be false to be structural")
    yield from _pattern_faults(part, path)
    for name, child in (part.get("properties") or {}).items():
        known = (outer.get("properties") or {}).get(name)
        additional = outer.get("additionalProperties")
        below = known if known is not None else additional if isinstance(additional, dict) else None
        if below is None:
            yield required(
                f"{path.split('.' + _logic_name(path))[0]}.properties[{name}]",
                f"because it is defined in {path}.properties[{name}]",
            )
        else:
            yield from _logic_faults(child, below, f"{path}.properties[{name}]")
    if isinstance(part.get("items"), dict):
        if not isinstance(outer.get("items"), dict):
            yield required(f"{path}.items", f"because it is defined in {path}.items")
        else:
            yield from _logic_faults(part["items"], outer["items"], f"{path}.items")
    for name in _LOGIC:
        for index, inner in enumerate(part.get(name) or ()):
            yield from _logic_faults(inner, outer, f"{path}.{name}[{index}]")
    if isinstance(part.get("not"), dict):
        yield from _logic_faults(part["not"], outer, f"{path}.not")


def _logic_name(path: str) -> str:
    found = re.search(r"\.((?:allOf|anyOf|oneOf)\[\d+\]|not)", path)
    return found[1] if found else path


def _is_int_or_string_choice(part: Object, outer: Object) -> bool:
    return bool(outer.get(INT_OR_STRING)) and part.get("type") in ("integer", "string")


def _metadata_faults(schema: Object, path: str) -> Iterator[FieldError]:
    metadata = (schema.get("properties") or {}).get("metadata")
    if not isinstance(metadata, dict):
        return
    where = f"{path}.properties[metadata]"
    if metadata.get("type") not in (None, "", "object"):
        yield invalid(f"{where}.type", metadata["type"], "must be object")
    if set(metadata.get("properties") or ()) - {"name", "generateName"}:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(where, why)


def _rule_faults(schema: Object, path: str) -> Iterator[FieldError]:
    for index, rule in enumerate(schema.get(RULES) or ()):
        where = f"{path}.{RULES}[{index}]"
        if not (rule.get("rule") or "").strip():
            yield required(f"{where}.rule", "rule is not specified")
            continue
        if "message" in rule and not rule["message"].strip():
            yield invalid(f"{where}.message", rule["message"], "message must be non-empty if specified")
        if not rules.available():
            continue
        for name in ("rule", "messageExpression"):
            if not rule.get(name):
                continue
            try:
                rules.compile_rule(rule[name])
            except rules.BadRule as fault:
                shown = {"rule": rule["rule"], **{k: v for k, v in rule.items() if k == "message"}}
                yield invalid(f"{where}.{name}", shown, str(fault))


def _default_faults(schema: Object, path: str) -> Iterator[FieldError]:
    """A default has to be a value that the schema takes as it is."""
    for where, child, _ in _children(schema, path):
        if "default" in child:
            yield from _faults_of_default(child, where)
        yield from _default_faults(child, where)


def _faults_of_default(schema: Object, path: str) -> Iterator[FieldError]:
    node = parse_structural(schema)
    value: Any = orjson.loads(orjson.dumps(schema["default"]))
    if prune(value, node):
        yield invalid(f"{path}.default", schema["default"], "must not have unknown fields")
    for fault in faults_in(value, node, ""):
        where = f"{path}.default" + (f".{fault.field}" if fault.field not in ("", "<nil>") else "")
        yield FieldError(where, fault.reason, fault.body)
