"""How fields merge: what strategic merge patch and server-side apply ask of the schema.

Called by `api.patch` and by managedFields bookkeeping. A node is one place in an object: a field with its merge facts.
Nodes are built on demand and kept, so walking down a large schema costs what is walked. Source of the facts: the
published OpenAPI extensions x-kubernetes-list-type, -list-map-keys, -patch-merge-key, -patch-strategy, -map-type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from api.kinds import Kind
from api.schema.custom.structural import Structural
from api.schema.custom.type import custom_of
from api.schema.facts import Field, Type, fields_of, is_atomic, struct_of

_JSON_TYPES = {
    "struct": "object",
    "map": "map",
    "list": "array",
    "items": "array",
    "bool": "boolean",
    "int32": "integer",
    "int64": "integer",
    "float64": "number",
    "raw": "any",
    "fields": "any",
    "json": "any",
    "intorstring": "any",
}
_PORT_KEYS = {"protocol": "TCP"}
_CUSTOM_TYPES = {name: name for name in ("object", "array", "string", "integer", "number", "boolean")}


@dataclass(frozen=True)
class Node:
    """One place's schema. `type` is object, map, array, string, integer, number, boolean or any.

    `patch_strategy` holds "merge", "retainKeys", "replace"; `list_type` is atomic, set, map or "" (then atomic for
    apply); `map_type` is atomic or "" (granular). `list_map_keys` of ports are (containerPort, protocol).
    """

    type: str = "any"
    patch_merge_key: str = ""
    patch_strategy: tuple[str, ...] = ()
    list_type: str = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: str = ""
    struct: str = ""
    """The struct id of an object's type; "" for everything else."""
    element_type: Type | None = None
    custom: Structural | None = None
    """The place in a custom resource's schema."""

    def field(self, name: str) -> Node | None:
        """The schema of a field of an object, or of any value of a map; None when there is no such field."""
        if self.custom is not None:
            return _custom_field(self.custom, name)
        if self.type == "map":
            return self.element
        return _struct_nodes(self.struct).get(name) if self.struct else None

    def declares(self, name: str) -> bool:
        """Whether `name` is a field of this type, not just a key that a map may have."""
        if self.custom is not None:
            return name in self.custom.properties or (self.custom.embedded and name == "metadata")
        return bool(self.struct) and name in _struct_nodes(self.struct)

    @cached_property
    def key_defaults(self) -> Mapping[str, Any]:
        """What the keys of a list's elements are where an element leaves them out."""
        if self.custom is None or self.custom.items is None:
            return _PORT_KEYS if "protocol" in self.list_map_keys else {}
        keys = {name: self.custom.items.properties.get(name) for name in self.list_map_keys}
        return {name: key.default for name, key in keys.items() if key is not None and key.has_default}

    @cached_property
    def element(self) -> Node | None:
        """The schema of an array's elements or a map's values."""
        if self.custom is not None and self.custom.items is not None:
            return _custom_node(self.custom.items)
        return _node_of(self.element_type) if self.element_type is not None else None


def merge_schema(kind: Kind) -> Node | None:
    """The root node of `kind`, None when nothing is known of its types."""
    struct = struct_of(kind)
    if struct is not None:
        return struct_node(struct)
    schema = custom_of(kind)
    return _resource_node(schema.root) if schema is not None else None


def _custom_field(schema: Structural, name: str) -> Node | None:
    if schema.embedded and name == "metadata":
        return struct_node("meta.v1.ObjectMeta")
    child = schema.child(name)
    return _custom_node(child) if child is not None else None


def _resource_node(root: Structural) -> Node:
    """The root of a custom resource is a resource, too: its metadata is the built-in one."""
    return _custom_node(replace(root, embedded=True))


def _custom_node(schema: Structural) -> Node:
    """Lists without a type are atomic, objects granular unless their map type says otherwise."""
    return Node(
        type=_CUSTOM_TYPES.get(schema.type, "any"),
        list_type=schema.list_type,
        list_map_keys=schema.list_map_keys,
        map_type=schema.map_type,
        custom=schema,
    )


@cache
def struct_node(struct: str) -> Node:
    """The node of an object of a struct, by itself (`core.v1.PodTemplateSpec`)."""
    return Node(type="object", struct=struct, map_type="atomic" if is_atomic(struct) else "")


@cache
def _struct_nodes(struct: str) -> dict[str, Node]:
    return {name: _field_node(field) for name, field in fields_of(struct).items()}


def _field_node(field: Field) -> Node:
    bare = _node_of(field.type)
    list_type, keys, merge_key, strategy, map_type = field.merge
    return Node(
        type=bare.type,
        patch_merge_key=merge_key,
        patch_strategy=tuple(strategy.split(",")) if strategy else (),
        list_type=list_type,
        list_map_keys=tuple(keys.split(",")) if keys else (),
        map_type=map_type or bare.map_type,
        struct=bare.struct,
        element_type=bare.element_type,
    )


def _node_of(kind: Type) -> Node:
    if kind.shape == "struct":
        return struct_node(kind.struct)
    return Node(type=_JSON_TYPES.get(kind.shape, "string"), element_type=kind.element)
