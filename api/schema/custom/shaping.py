"""What a write does to a custom object before it is judged: unknown fields pruned, nulls dropped, defaults set.

Called by CustomType for every write and, as Kubernetes does, for what an older schema stored. Changes its argument;
metadata, apiVersion and kind of a resource (the root and embedded ones) are not the schema's business: the root's are
left alone, an embedded one's metadata has what every object's has. Invariant: both functions are idempotent. Rules:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-pruning (and
#defaulting).
"""

from __future__ import annotations

from typing import Any

import orjson

from api.schema.custom.structural import Structural
from api.schema.facts import fields_of

_RESOURCE_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


def prune(value: Any, node: Structural, path: str = "", *, resource: bool = False) -> list[str]:
    """Removes from `value` what the schema does not know; the paths of what went (`spec.list[0].foo`).

    `resource`: the value is a whole object, with apiVersion, kind and metadata of its own.
    """
    gone: list[str] = []
    if isinstance(value, dict):
        spared = _RESOURCE_FIELDS if resource or node.embedded else frozenset()
        for name in list(value):
            if name in spared:
                if name == "metadata" and not resource:
                    gone += _prune_struct(value[name], "meta.v1.ObjectMeta", f"{path}.metadata")
                continue
            child = node.child(name)
            where = f"{path}.{name}" if path else name
            if child is not None:
                gone += prune(value[name], child, where)
            elif node.knows_fields:
                del value[name]
                gone.append(where)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            gone += prune(item, node.items, f"{path}[{index}]")
    return gone


def _prune_struct(value: Any, struct: str, path: str) -> list[str]:
    """The metadata of an embedded resource: what every object's has, and nothing else."""
    if not isinstance(value, dict):
        return []
    gone: list[str] = []
    fields = fields_of(struct)
    for name in list(value):
        where = f"{path}.{name}"
        if name not in fields:
            del value[name]
            gone.append(where)
            continue
        kind, item = fields[name].type, value[name]
        if kind.shape == "list" and kind.element is not None and kind.element.shape == "struct":
            for index, each in enumerate(item if isinstance(item, list) else ()):
                gone += _prune_struct(each, kind.element.struct, f"{where}[{index}]")
    return gone


def drop_nulls(value: Any, node: Structural) -> None:
    """Removes nulls from fields that may not be null and have no default; `set_defaults` replaces the others."""
    if isinstance(value, dict):
        for name in list(value):
            child = node.child(name)
            if child is None:
                continue
            if value[name] is None:
                if not child.nullable and not child.has_default:
                    del value[name]
            else:
                drop_nulls(value[name], child)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            drop_nulls(item, node.items)


def set_defaults(value: Any, node: Structural) -> None:
    """Sets every default the schema has for fields that are missing (or null where they may not be)."""
    if isinstance(value, dict):
        for name, child in node.properties.items():
            if child.has_default and (name not in value or (value[name] is None and not child.nullable)):
                value[name] = orjson.loads(orjson.dumps(child.default))
            if name in value:
                set_defaults(value[name], child)
        if isinstance(node.additional, Structural):
            for name, item in value.items():
                if name not in node.properties:
                    set_defaults(item, node.additional)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            set_defaults(item, node.items)
