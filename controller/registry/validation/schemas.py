"""Whether an `openAPIV3Schema` means something: keywords, lists and maps, defaults, rules. `structure` has the rest.

Called by `definitions` for every version of a CustomResourceDefinition. Source: apiextensions-apiserver's
pkg/apis/apiextensions/validation and pkg/apiserver/schema/defaulting; rules at
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from api.errors import FieldError, forbidden, invalid, not_supported, required
from api.objects import Object
from api.schema.custom import rules
from api.schema.custom.formats import is_format
from api.schema.custom.shaping import prune
from api.schema.custom.structural import EMBEDDED, PRESERVE, RULES, parse_structural
from api.schema.custom.values import faults_in
from controller.registry.validation.fieldpaths import BadFieldPath, schema_at
from controller.registry.validation.internal import internal
from controller.registry.validation.structure import structural_faults, unreadable

_TYPES = frozenset({"array", "boolean", "integer", "number", "object", "string"})
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_LIST_TYPES, _MAP_TYPES = ("atomic", "set", "map"), ("atomic", "granular")
_LOGIC = ("allOf", "oneOf", "anyOf")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_META = ("metadata", "kind", "apiVersion")
_KEYS, _LIST, _MAP = "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type"
_AT_ROOT = (
    *("description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required", "items"),
    *("properties", "externalDocs", "example", PRESERVE, RULES),
)
_OLD_SELF = re.compile(r"\boldSelf\b")
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")

Faults = Iterator[FieldError]


@dataclass(frozen=True)
class _Place:
    """Where in a schema we are. `no_default`: why none may stand here; `uncorrelated`: the list or map above whose
    elements have no old selves; `judged`: whether rules are compiled here."""

    path: str
    root: bool = False
    no_default: str = ""
    in_meta: bool = False
    uncorrelated: str = ""
    judged: bool = False

    def below(self, name: str, **changes: Any) -> _Place:
        return replace(self, path=f"{self.path}.{name}", root=False, **changes)


def check_schema(schema: Object, path: str, *, has_status: bool = False) -> list[FieldError]:
    """Every fault of the schema at `path`. `has_status`: status can be written by itself, so it has to stand apart."""
    errors = [*_root_faults(schema, path)] if has_status else []
    if schema.get("nullable"):
        errors.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    why = unreadable(schema)
    shape = [] if why else structural_faults(schema, path) or [*_default_faults(schema, path)]
    errors += shape
    faults, of_rules = _walk(schema, _Place(path, root=True, judged=not why and not shape))
    errors += [*faults, *of_rules]
    if why and not errors:
        errors.append(invalid(path, "", why))
    return errors


def unrecognized_formats(schema: Any) -> Iterator[str]:
    """The formats that say nothing to anybody, in the order Kubernetes finds them."""
    if not isinstance(schema, dict):
        return
    name, kind = schema.get("format") or "", schema.get("type") or "string"
    if name and not is_format(name, kind):
        yield name
    logic = [part for each in ("allOf", "anyOf", "oneOf") for part in schema.get(each) or ()]
    below = [schema.get("not"), *(schema.get("properties") or {}).values(), schema.get("additionalProperties")]
    for inner in (schema.get("items"), *logic, *below):
        yield from unrecognized_formats(inner)


def _root_faults(schema: Object, path: str) -> Faults:
    kind = schema.get("type") or ""
    if kind and kind != "object":
        why = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        yield invalid(f"{path}.type", kind, why)
    elif any(value and name not in _AT_ROOT for name, value in schema.items()):
        names = " ".join(_go_name(name) for name in _AT_ROOT)
        why = f"only [{names}] fields are allowed at the root of the schema if the status subresource is enabled"
        yield invalid(path, internal("apiextensions.v1.JSONSchemaProps", schema), why)


def _go_name(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.replace("kubernetes-", "").split("-"))


def _walk(schema: Object, place: _Place) -> tuple[list[FieldError], list[FieldError]]:
    """The faults of the schema here and below, and those of its rules, which are not compiled in a faulty schema."""
    path, of_rules = place.path, list[FieldError]()
    faults = [*_keyword_faults(schema, place)]
    for child, where in _children(schema, place):
        found, also = _walk(child, where)
        faults += found
        of_rules += also
    if schema.get(PRESERVE) is False:
        faults.append(invalid(f"{path}.{PRESERVE}", False, "must be true or undefined"))
    faults += _map_faults(schema, path)
    faults += _list_faults(schema, path)
    faults += _key_faults(schema, path)
    stated = schema.get(RULES) or ()
    for index, rule in enumerate(stated):
        faults += _rule_faults(schema, rule, f"{path}.{RULES}[{index}]")
    if not faults and place.judged and rules.available():
        for index, rule in enumerate(stated):
            of_rules += _compile_faults(rule, f"{path}.{RULES}[{index}]", place)
    return faults, of_rules


def _children(schema: Object, place: _Place) -> Iterator[tuple[Object, _Place]]:
    additional, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(additional, dict):
        why = " inside additionalProperties applying to object metadata" if place.in_meta else place.no_default
        yield additional, place.below("additionalProperties", no_default=why)
    for name, child in (schema.get("properties") or {}).items():
        inner = place.below(f"properties[{name}]")
        if schema.get(_MAP) == "atomic":
            inner = replace(inner, uncorrelated=place.uncorrelated or place.path)
        if name in _META and (place.root or schema.get(EMBEDDED)):
            why = f" in top-level {name}" if place.root else place.no_default
            inner = replace(inner, in_meta=True, no_default=why)
        yield child, inner
    if isinstance(schema.get("not"), dict):
        yield schema["not"], place.below("not", judged=False)
    for name in _LOGIC:
        for index, part in enumerate(schema.get(name) or ()):
            yield part, place.below(f"{name}[{index}]", judged=False)
    if isinstance(items, dict):
        apart = "" if schema.get(_LIST) == "map" else place.path
        yield items, place.below("items", uncorrelated=place.uncorrelated or apart)


def _keyword_faults(schema: Object, place: _Place) -> Faults:
    path, kind = place.path, schema.get("type") or ""
    if kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    if schema.get("default") is not None and place.no_default:
        yield forbidden(f"{path}.default", f"must not be set{place.no_default}")
    for name in _UNSUPPORTED:
        if schema.get(name) or (name == "additionalItems" and name in schema):
            yield forbidden(f"{path}.{name}", f"{name} is not supported")
    if kind == "null":
        yield forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if place.in_meta and schema.get(EMBEDDED):
        yield forbidden(f"{path}.{EMBEDDED}", "must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", why)
    if schema.get("properties") and schema.get("additionalProperties") not in (None, True):
        why = "additionalProperties and properties are mutual exclusive"
        yield forbidden(f"{path}.additionalProperties", why)


def _wrong_type(path: str, kind: str, detail: str) -> FieldError:
    return invalid(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail)


def _map_faults(schema: Object, path: str) -> Faults:
    kind, map_type = schema.get("type") or "", schema.get(_MAP)
    if map_type is None:
        return
    if kind != "object":
        yield _wrong_type(path, kind, f"must be object if {_MAP} is specified")
    if map_type not in _MAP_TYPES:
        yield not_supported(f"{path}.{_MAP}", map_type, _MAP_TYPES)


def _list_faults(schema: Object, path: str) -> Faults:
    kind, list_type, items = schema.get("type") or "", schema.get(_LIST), schema.get("items")
    if list_type is None:
        return
    if kind != "array":
        yield _wrong_type(path, kind, f"must be array if {_LIST} is specified")
    elif list_type == "set" and isinstance(items, dict):
        why, found = f"must be atomic as item of a list with {_LIST}=set", items.get(_LIST)
        if items.get("type") == "array" and found not in (None, "atomic"):
            yield invalid(f"{path}.items.{_LIST}", found, why)
        if items.get("type") == "object" and items.get(_MAP) != "atomic":
            yield invalid(f"{path}.items.{_MAP}", found, why)
    if list_type not in _LIST_TYPES:
        yield not_supported(f"{path}.{_LIST}", list_type, _LIST_TYPES)


def _key_faults(schema: Object, path: str) -> Faults:
    list_type, keys, items = schema.get(_LIST), schema.get(_KEYS) or [], schema.get("items")
    if keys and list_type != "map":
        why = f"must be map if {_KEYS} is non-empty"
        yield required(f"{path}.{_LIST}", why) if list_type is None else invalid(f"{path}.{_LIST}", list_type, why)
    if list_type == "map":
        if not keys:
            yield required(f"{path}.{_KEYS}", f"must not be empty if {_LIST} is map")
        if items is None:
            yield required(f"{path}.items", f"must have a schema if {_LIST} is map")
        elif not isinstance(items, dict):
            yield invalid(f"{path}.items", items, f"must only have a single schema if {_LIST} is map")
        elif items.get("type") != "object":
            why = f"must be object if parent array's {_LIST} is map"
            yield invalid(f"{path}.items.type", items.get("type") or "", why)
        else:
            yield from _named_key_faults(keys, items, path)
    if list_type in ("set", "map") and isinstance(items, dict):
        if items.get("nullable"):
            yield forbidden(f"{path}.items.nullable", f"cannot be nullable when {_LIST} is {list_type}")
        if list_type == "map":
            yield from _needed_key_faults(keys, items, path)


def _named_key_faults(keys: list[str], items: Object, path: str) -> Faults:
    for index, key in enumerate(keys):
        found = (items.get("properties") or {}).get(key)
        if found is None:
            yield invalid(f"{path}.{_KEYS}", keys, "entries must all be names of item properties")
        elif found.get("type") in ("array", "object"):
            why = f"must be a scalar type if parent array's {_LIST} is map"
            yield invalid(f"{path}.items.properties[{key}].type", items["type"], why)
        if key in keys[:index]:
            yield invalid(f"{path}.{_KEYS}", keys, "must not contain duplicate entries")


def _needed_key_faults(keys: list[str], items: Object, path: str) -> Faults:
    for key in keys:
        found, where = (items.get("properties") or {}).get(key), f"{path}.items.properties[{key}]"
        why = f"this property is in {_KEYS}, so it "
        if found is not None and key not in (items.get("required") or ()) and found.get("default") is None:
            yield required(f"{where}.default", f"{why}must have a default or be a required property")
        if found is not None and found.get("nullable"):
            yield forbidden(f"{where}.nullable", f"{why}cannot be nullable")


def _rule_faults(schema: Object, rule: Object, path: str) -> Faults:
    text, message, expression = (rule.get(name) or "" for name in ("rule", "message", "messageExpression"))
    if not text.strip():
        yield required(f"{path}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid(f"{path}.message", message, "must be non-empty if specified")
    elif _has_breaks(message.strip()):
        yield invalid(f"{path}.message", message, "must not contain line breaks")
    elif _has_breaks(text.strip()) and not message:
        yield required(f"{path}.message", "message must be specified if rule contains line breaks")
    if expression and not expression.strip():
        yield required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    if rule.get("reason") is not None and rule["reason"] not in _REASONS:
        yield not_supported(f"{path}.reason", rule["reason"], _REASONS)
    if where := rule.get("fieldPath"):
        if not where.strip():
            yield invalid(f"{path}.fieldPath", where, "must be non-empty if specified")
        if _has_breaks(where):
            yield invalid(f"{path}.fieldPath", where, "must not contain line breaks")
        try:
            schema_at(where, schema)
        except BadFieldPath:
            yield invalid(f"{path}.fieldPath", where, "must be a valid path")


def _has_breaks(text: str) -> bool:
    return "\n" in text or "\r" in text


def _compile_faults(rule: Object, path: str, place: _Place) -> Faults:
    for name in ("rule", "messageExpression"):
        try:
            if rule.get(name):
                rules.compile_rule(rule[name])
        except rules.BadRule as fault:
            yield invalid(f"{path}.{name}", internal("apiextensions.v1.ValidationRule", rule), str(fault))
    if _OLD_SELF.search(_LITERAL.sub("", rule["rule"])):
        if place.uncorrelated:
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.uncorrelated}"
            yield invalid(f"{path}.rule", rule["rule"], why)
    elif rule.get("optionalOldSelf") is not None:
        why = "may not be set if oldSelf is not used in rule"
        yield invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], why)


def _default_faults(schema: Object, path: str) -> Faults:
    """A default has to be a value that the schema takes as it is; a map's values may have none of their own here."""
    items = schema.get("items")
    below = [(f"{path}.properties[{name}]", child) for name, child in (schema.get("properties") or {}).items()]
    if isinstance(items, dict):
        below.insert(0, (f"{path}.items", items))
    for where, child in below:
        if child.get("default") is not None:
            yield from _faults_of_default(child, where)
        yield from _default_faults(child, where)


def _faults_of_default(schema: Object, path: str) -> Faults:
    node = parse_structural(schema)
    value: Any = orjson.loads(orjson.dumps(schema["default"]))
    if prune(value, node):
        yield invalid(f"{path}.default", schema["default"], "must not have unknown fields")
    for fault in faults_in(value, node, ""):
        where = f"{path}.default" + (f".{fault.field}" if fault.field not in ("", "<nil>") else "")
        yield FieldError(where, fault.reason, fault.body)
