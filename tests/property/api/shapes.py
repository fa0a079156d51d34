"""Random schemas and objects that fit them: structural schemas of custom kinds, and built-in kinds read as such."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st

from api.kinds import Kind, by_gvk
from api.schema import Node, merge_schema
from api.schema.custom.type import CustomType
from api.schema.facts import fields_of
from tests.property.api.reference import Schema

NAMES = "abcd"
_DEPTH = 3
scalars = st.sampled_from(["1", "2", "3"])
_scalar: st.SearchStrategy[Schema] = st.just({"type": "string"})


@st.composite
def _structs(draw: st.DrawFn, depth: int) -> Schema:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    schema: Schema = {"type": "object", "properties": {name: draw(schemas(depth - 1)) for name in names}}
    if draw(st.integers(0, 5)) == 0:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


@st.composite
def _list_maps(draw: st.DrawFn, depth: int) -> Schema:
    item = {**draw(_structs(depth - 1))}
    item.pop("x-kubernetes-map-type", None)
    keys = draw(st.sampled_from([("k",), ("k", "l")]))
    properties: Schema = {key: {"type": "string"} for key in keys}
    if draw(st.booleans()):
        properties[keys[-1]] = {"type": "string", "default": "1"}
    item["properties"] = {**item["properties"], **properties}
    return {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
    }


def schemas(depth: int = _DEPTH) -> st.SearchStrategy[Schema]:
    """Structs, maps, sets, list-maps and atomic lists in one another."""
    if depth <= 0:
        return _scalar
    return st.one_of(
        _scalar,
        _structs(depth),
        schemas(depth - 1).map(lambda inner: {"type": "object", "additionalProperties": inner}),
        st.just({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
        _list_maps(depth),
        schemas(depth - 2).map(lambda inner: {"type": "array", "items": inner}),
    )


roots = _structs(_DEPTH + 1).map(lambda schema: {key: value for key, value in schema.items() if key[0] != "x"})


def node_of(schema: Schema) -> Node:
    """What api.patch is given for a custom kind of this schema."""
    kind = Kind("example.test", "v1", "Thing", "things", custom=CustomType.of({"schema": {"openAPIV3Schema": schema}}))
    node = merge_schema(kind)
    assert node is not None
    return node


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that fit, empty and half-filled ones among them; no empty sets and list-maps, which nobody can own."""
    return st.composite(lambda draw: _value(draw, schema))()


def _value(draw: st.DrawFn, schema: Schema) -> Any:
    """Plain recursion: a strategy for each part would be printed with its schema, which takes longer than all else."""
    if schema.get("type") == "object":
        below: Schema = schema.get("properties") or dict.fromkeys(NAMES, schema["additionalProperties"])
        nested = [name for name in sorted(below) if below[name].get("type") != "string"]
        names = draw(st.lists(st.sampled_from(nested or sorted(below)) | st.sampled_from(sorted(below)), max_size=3))
        return {name: _value(draw, below[name]) for name in dict.fromkeys(names)}
    if schema.get("type") != "array":
        return draw(scalars)
    if schema.get("x-kubernetes-list-type") == "set":
        return draw(st.lists(scalars, min_size=1, max_size=3, unique=True))
    keys = schema.get("x-kubernetes-list-map-keys")
    count = draw(st.integers(1 if keys else 0, 3))
    items = [_value(draw, schema["items"]) for _ in range(count)]
    return items if keys is None else _keyed(draw, schema, keys, items)


def _keyed(draw: st.DrawFn, schema: Schema, keys: list[str], items: list[Any]) -> list[Any]:
    found: dict[tuple[str, ...], Any] = {}
    for item in items:
        defaults = [schema["items"]["properties"][key].get("default") for key in keys]
        item |= {key: draw(scalars) for key in keys}
        identity = tuple(item[key] for key in keys)
        for key, default in zip(keys, defaults, strict=True):
            if default == item[key] and draw(st.booleans()):
                del item[key]
        found[identity] = item
    return list(found.values())


# ---- built-in kinds ----

BUILT_IN = [
    *(("", kind) for kind in ("Pod", "Service", "ConfigMap", "Node", "ServiceAccount")),
    ("apps", "Deployment"),
    ("networking.k8s.io", "Ingress"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
]


@cache
def built_in(group: str, kind: str) -> Node:
    found = by_gvk(group, "v1", kind)
    node = merge_schema(found) if found is not None else None
    assert node is not None
    return node


def schema_of(node: Node | None, depth: int = 6) -> Schema:
    """A built-in type as a JSON schema, as far down as objects are made here."""
    if node is None or depth <= 0 or node.type not in ("object", "map", "array"):
        return {"type": "string"}
    if node.type == "array":
        schema: Schema = {"type": "array", "items": schema_of(node.element, depth - 1)}
        if node.list_type == "map" and "properties" not in schema["items"]:
            return {"type": "string"}  # too far down for its keys
        if node.list_type in ("set", "map"):
            schema["x-kubernetes-list-type"] = node.list_type
        if node.list_type == "map":
            schema["x-kubernetes-list-map-keys"] = list(node.list_map_keys)
        if node.list_type == "map" and "protocol" in node.list_map_keys:
            schema["items"]["properties"]["protocol"] = {"type": "string", "default": "TCP"}
        return schema
    if node.type == "map":
        schema = {"type": "object", "additionalProperties": schema_of(node.element, depth - 1)}
    else:
        schema = {"type": "object", "properties": _fields(node, depth)}
    return {**schema, "x-kubernetes-map-type": "atomic"} if node.map_type == "atomic" else schema


def _fields(node: Node, depth: int) -> Schema:
    return {name: schema_of(node.field(name), depth - 1) for name in fields_of(node.struct)}


@cache
def built_in_schema(group: str, kind: str) -> Schema:
    """Without what every object has and nobody owns."""
    schema = schema_of(built_in(group, kind))
    schema["properties"] = {
        name: below for name, below in schema["properties"].items() if name not in ("apiVersion", "kind", "metadata")
    }
    return schema


built_ins = st.sampled_from(BUILT_IN).map(lambda row: (built_in_schema(*row), built_in(*row)))
customs = roots.map(lambda schema: (schema, node_of(schema)))


# ---- for strategic merge ----


def mergeable(node: Node | None) -> st.SearchStrategy[Any]:
    """Values of a built-in type whose merged lists name each element once, by the merge key."""
    return st.composite(lambda draw: _mergeable(draw, node, 6))()


def _mergeable(draw: st.DrawFn, node: Node | None, depth: int) -> Any:
    if node is None or depth <= 0 or node.type not in ("object", "map", "array"):
        return draw(scalars)
    if node.type != "array":
        names = sorted(fields_of(node.struct)) if node.struct else list(NAMES)
        nested = [name for name in names if (below := node.field(name)) and below.type in ("object", "map", "array")]
        chosen = draw(st.lists(st.sampled_from(nested or names) | st.sampled_from(names), max_size=3, unique=True))
        return {name: _mergeable(draw, node.field(name), depth - 1) for name in chosen}
    if node.element is None or node.element.type not in ("object", "map", "array"):
        return draw(st.lists(scalars, max_size=3, unique="merge" in node.patch_strategy))
    items = [_mergeable(draw, node.element, depth - 1) for _ in range(draw(st.integers(0, 3)))]
    if not node.patch_merge_key:
        return items
    keys = draw(st.permutations(["1", "2", "3"]))
    return [{**item, node.patch_merge_key: key} for item, key in zip(items, keys, strict=False)]
