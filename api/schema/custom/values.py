"""Whether a custom object's values are what its schema allows, said in Kubernetes' words.

Called by CustomType when an object is validated. Wording and order follow k8s.io/kube-openapi/pkg/validation and
apiextensions-apiserver/pkg/apiserver/validation: every fault is listed, required fields last in their object. On an
update, what stays as it was stored is not judged again, so that a schema may become stricter (KEP-4008). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from api.errors import FieldError, duplicate, invalid, not_supported, required, too_long, too_many
from api.names import is_dns_1035_label
from api.objects import Object
from api.schema.custom.formats import matches_format
from api.schema.custom.patterns import matches
from api.schema.custom.structural import Structural, parse_structural

NEW = object()
"""In the place of an old value: there is none."""
WHOLE = "<nil>"
"""What Kubernetes calls the field of a fault that has none."""
Faults = Iterator[FieldError]
_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def faults_in(value: Any, node: Structural, path: str, old: Any = NEW, *, resource: bool = False) -> Faults:
    """Every fault of a value and of what is in it. `resource`: the root, whose metadata is judged elsewhere."""
    if (value is None and node.nullable) or (old is not NEW and value == old):
        return
    if not _has_type(value, node):
        yield _type_fault(value, node, path)
        return
    yield from _keyword_faults(value, node, path)
    for name, item, child, before in children(value, old, node):
        if not (resource and name == "metadata"):
            yield from faults_in(item, child, below(path, name), before)
    if isinstance(value, dict):
        yield from _required_faults(value, node, path)


def children(value: Any, old: Any, node: Structural) -> Iterator[tuple[str, Any, Structural, Any]]:
    """(name or `[index]`, value, schema, what it replaces or NEW) of everything directly below a value.

    Elements have a predecessor in lists of type map only, found by their keys.
    """
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, item in value.items():
            if (child := node.child(name)) is not None:
                yield name, item, child, before.get(name, NEW)
    elif isinstance(value, list) and node.items is not None:
        partners = _partners(old, node)
        for index, item in enumerate(value):
            yield f"[{index}]", item, node.items, partners.get(_map_identity(item, node), NEW)


def _partners(old: Any, node: Structural) -> dict[bytes, Any]:
    if not isinstance(old, list) or node.list_type != "map":
        return {}
    return {_map_identity(item, node): item for item in old}


def _map_identity(item: Any, node: Structural) -> bytes:
    if node.list_type != "map" or not isinstance(item, dict):
        return b""
    return orjson.dumps([item.get(key) for key in node.list_map_keys])


def _has_type(value: Any, node: Structural) -> bool:
    if node.int_or_string:
        return isinstance(value, str) or _is_integer(value)
    match node.type:
        case "":
            return True
        case "integer":
            return _is_integer(value)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
    return _NAMES.get(type(value)) == node.type


def _is_integer(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _type_fault(value: Any, node: Structural, path: str) -> FieldError:
    wanted = "integer,string" if node.int_or_string else node.type
    found = _NAMES.get(type(value), "null")
    body = f'{path} in body must be of type {wanted}: "{found}"'
    return FieldError(path or WHOLE, "FieldValueTypeInvalid", f'Invalid value: "{found}": {body}')


def _required_faults(value: Object, node: Structural, path: str) -> Faults:
    for name in node.keywords.get("required") or ():
        if name not in value:
            yield required(f"{path}.{name}" if path else name)


def _keyword_faults(value: Any, node: Structural, path: str) -> Faults:
    words = node.keywords
    if not words:
        return
    if isinstance(value, str):
        yield from _string_faults(value, words, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_faults(value, words, path)
    elif isinstance(value, list):
        yield from _list_faults(value, words, path)
    elif isinstance(value, dict):
        yield from _size_faults(value, words, path)
    if "enum" in words and value not in words["enum"]:
        yield not_supported(path, value, [_enum_text(each) for each in words["enum"]])
    if "format" in words and isinstance(value, str) and not matches_format(words["format"], value):
        shown = orjson.dumps(value).decode()
        body = f"{path} in body must be of type {words['format']}: {shown}"
        yield FieldError(path, "FieldValueTypeInvalid", f"Invalid value: {shown}: {body}")
    yield from _logic_faults(value, words, path)


def _enum_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _said(path: str, value: Any, what: str) -> FieldError:
    return invalid(path or WHOLE, value, f"{path} in body {what}")


def _string_faults(value: str, words: Any, path: str) -> Faults:
    if "maxLength" in words and len(value) > words["maxLength"]:
        yield too_long(path, value, words["maxLength"])
    if "minLength" in words and len(value) < words["minLength"]:
        yield _said(path, value, f"should be at least {words['minLength']} chars long")
    if "pattern" in words and not matches(words["pattern"], value):
        yield _said(path, value, f"should match '{words['pattern']}'")


def _number_faults(value: float, words: Any, path: str) -> Faults:
    if "format" in words and not matches_format(words["format"], value):
        yield invalid(WHOLE, "", f"Checked value must be of type integer with format {words['format']} in {path}")
    if "multipleOf" in words and not _is_multiple(value, words["multipleOf"]):
        yield _said(path, value, f"should be a multiple of {_number(words['multipleOf'])}")
    if (limit := words.get("maximum")) is not None:
        exclusive = bool(words.get("exclusiveMaximum"))
        if value > limit or (exclusive and value == limit):
            yield _said(path, value, f"should be less than {'' if exclusive else 'or equal to '}{_number(limit)}")
    if (limit := words.get("minimum")) is not None:
        exclusive = bool(words.get("exclusiveMinimum"))
        if value < limit or (exclusive and value == limit):
            yield _said(path, value, f"should be greater than {'' if exclusive else 'or equal to '}{_number(limit)}")


def _is_multiple(value: float, factor: float) -> bool:
    """As Go judges it: floats may miss a whole number by a billionth, and nothing is a multiple of 0 or less."""
    if factor <= 0:
        return False
    times = 1 / factor * value if factor < 1 else value / factor
    return abs(times) <= 1 << 53 and abs(times - round(times)) <= 1e-9 * max(1.0, 2 * abs(times))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _list_faults(value: list[Any], words: Any, path: str) -> Faults:
    if "minItems" in words and len(value) < words["minItems"]:
        yield _said(path, len(value), f"should have at least {words['minItems']} items")
    if "maxItems" in words and len(value) > words["maxItems"]:
        yield too_many(path, len(value), words["maxItems"])
    if words.get("uniqueItems") and len({_identity(item) for item in value}) < len(value):
        yield _said(path, None, "shouldn't contain duplicates")


def _identity(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _size_faults(value: Object, words: Any, path: str) -> Faults:
    if "minProperties" in words and len(value) < words["minProperties"]:
        yield _said(path, len(value), f"should have at least {words['minProperties']} properties")
    if "maxProperties" in words and len(value) > words["maxProperties"]:
        yield too_many(path, len(value), words["maxProperties"])


# ---- allOf, anyOf, oneOf, not ----


def _logic_faults(value: Any, words: Any, path: str) -> Faults:
    for schema in words.get("allOf") or ():
        yield from _faults_of(value, schema, path)
    if "anyOf" in words:
        outcomes = [list(_faults_of(value, schema, path)) for schema in words["anyOf"]]
        if all(outcomes):
            yield _logic_fault(f'"{path}" must validate at least one schema (anyOf)')
            yield from min(outcomes, key=len)
    if "oneOf" in words:
        outcomes = [list(_faults_of(value, schema, path)) for schema in words["oneOf"]]
        valid = sum(not outcome for outcome in outcomes)
        if valid != 1:
            found = f"Found {valid} valid alternatives" if valid else "Found none valid"
            yield _logic_fault(f'"{path}" must validate one and only one schema (oneOf). {found}')
            if not valid:
                yield from min(outcomes, key=len)
    if "not" in words and not list(_faults_of(value, words["not"], path)):
        yield _logic_fault(f'"{path}" must not validate the schema (not)')


def _logic_fault(body: str) -> FieldError:
    return invalid(WHOLE, "", body)


def _faults_of(value: Any, schema: Object, path: str) -> Faults:
    """The faults by a schema inside allOf and its like: value validations only, which may look into the value."""
    return faults_in(value, _parsed(orjson.dumps(schema)), path)


@lru_cache(maxsize=1024)
def _parsed(schema: bytes) -> Structural:
    return parse_structural(orjson.loads(schema))


# ---- lists that are sets or maps; embedded resources ----


def list_faults(value: Any, node: Structural, path: str) -> Faults:
    """Duplicates in lists of type set and map."""
    if isinstance(value, list) and node.list_type in ("set", "map"):
        yield from _duplicates(value, node, path)
    for name, item, child, _ in children(value, NEW, node):
        yield from list_faults(item, child, below(path, name))


def _duplicates(value: list[Any], node: Structural, path: str) -> Faults:
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        shown = item
        if node.list_type == "map":
            if not isinstance(item, dict):
                yield invalid(f"{path}[{index}]", item, "must be an object for an array of list-type map")
                continue
            shown = {key: item[key] for key in sorted(node.list_map_keys) if key in item}
        identity = _identity(shown)
        if identity in seen:
            yield duplicate(f"{path}[{index}]", shown)
        seen.add(identity)


def embedded_faults(value: Any, node: Structural, path: str) -> Faults:
    """What makes an embedded resource none: apiVersion or kind missing."""
    if isinstance(value, dict) and node.embedded:
        for name in ("apiVersion", "kind"):
            given = value.get(name)
            if name not in value:
                yield required(f"{path}.{name}")
            elif not isinstance(given, str) or not given:
                why = "must not be empty" if given == "" else "must be a string"
                yield invalid(f"{path}.{name}", given, why)
            elif name == "apiVersion" and given.count("/") > 1:
                yield invalid(f"{path}.{name}", given, f"unexpected GroupVersion string: {given}")
            elif name == "kind" and (faults := is_dns_1035_label(given.lower())):
                why = f"may have mixed case, but should otherwise match: {','.join(faults)}"
                yield invalid(f"{path}.{name}", given, why)
    for name, item, child, _ in children(value, NEW, node):
        yield from embedded_faults(item, child, below(path, name))


def below(path: str, name: str) -> str:
    """`spec.list` and `[0]`, `spec` and `list`: one step deeper."""
    return f"{path}{name}" if not path or name.startswith("[") else f"{path}.{name}"
