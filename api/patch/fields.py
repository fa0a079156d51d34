"""Sets of fields as `managedFields` writes them (FieldsV1), and how to compute them from objects.

A set is the wire form itself, nested dicts: `f:NAME` a field, `k:{...}` a list element by its keys, `v:...` a list
element by value, `.` the node itself. `{}` below the top is a leaf that belongs to the set; a node with children
belongs only when it has `.`; an empty top is the empty set. Sets are frozen: every function returns new
dicts and shares what it did not change. Used by api.patch.apply only.
Rules: KEP-555, sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from api.objects import Object
from api.schema.nodes import Node

FieldSet = dict[str, Any]

_SELF = "."
_UNTRACKED = frozenset({"apiVersion", "kind"})
_UNTRACKED_METADATA = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)
# Go structs that are never nil: they exist in an empty object, so nobody adds them.
_ALWAYS_THERE = frozenset(
    {"metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "containers"}
)
_OMITS_KEYS = (
    "associative list with keys has an element that omits all key fields [%s] (and doesn't have default values for any "
    "key fields)"
)
_CACHED_SECTIONS = 1024
_LONGEST_CACHED = 16_384
_LONGEST_ORDERED = 4096


# ---- algebra ----


def _belongs(node: FieldSet) -> bool:
    return not node or _SELF in node


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Everything in either set."""
    out = dict(left)
    for key, node in right.items():
        out[key] = _joined(out[key], node) if key in out and key != _SELF else node
    return out


def _joined(left: FieldSet, right: FieldSet) -> FieldSet:
    if not left:
        return right if _belongs(right) else {_SELF: {}, **right}
    if not right:
        return left if _belongs(left) else {_SELF: {}, **left}
    return union(left, right)


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in `left` and not in `right`."""
    if not left or not right:
        return left
    return _without(left, right) or {}


def _without(left: FieldSet, right: FieldSet) -> FieldSet | None:
    """None when nothing is left."""
    if not left:
        return None if _belongs(right) else left
    if not right:
        return {key: node for key, node in left.items() if key != _SELF} or None
    out: FieldSet = {}
    for key, node in left.items():
        if key not in right:
            out[key] = node
        elif key != _SELF:
            rest = _without(node, right[key])
            if rest is not None:
                out[key] = rest
    if not out:
        return None
    return {} if len(out) == 1 and _SELF in out else out


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in both sets."""
    out: FieldSet = {}
    for key, node in left.items():
        if key in right and key != _SELF:
            common = _common(node, right[key])
            if common is not None:
                out[key] = common
    return out


def _common(left: FieldSet, right: FieldSet) -> FieldSet | None:
    out = intersection(left, right)
    if _belongs(left) and _belongs(right):
        return {_SELF: {}, **out} if out else {}
    return out or None


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """The members as Kubernetes writes paths: `.spec.containers[name="c"].image`."""
    for key, node in fields.items():
        if key == _SELF:
            continue
        path = prefix + _step(key)
        if _belongs(node):
            yield path
        yield from paths(node, path)


def _step(key: str) -> str:
    kind, _, rest = key.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        keys = orjson.loads(rest)
        return "[" + ",".join(f"{name}={orjson.dumps(keys[name]).decode()}" for name in keys) + "]"
    return f"[={rest}]" if kind == "v" else f"[{rest}]"


def is_readable(fields: Any) -> bool:
    """Whether a client's value is a set at all."""
    if not isinstance(fields, dict):
        return False
    return all(not node if key == _SELF else _is_step(key) and is_readable(node) for key, node in fields.items())


def _is_step(key: str) -> bool:
    kind, colon, rest = key.partition(":")
    if kind == "f" or not colon:
        return bool(colon)
    try:
        value = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return False
    return kind == "v" or (kind == "k" and isinstance(value, dict)) or (kind == "i" and type(value) is int)


def ordered(fields: FieldSet) -> FieldSet:
    """`in_order`, remembered: thousands of status updates write few different sets."""
    text = orjson.dumps(fields)
    return in_order(fields) if len(text) > _LONGEST_ORDERED else _ordered(text)


@lru_cache(maxsize=256)
def _ordered(text: bytes) -> FieldSet:
    return in_order(orjson.loads(text))


def in_order(fields: FieldSet) -> FieldSet:
    """The same set as Kubernetes writes it: the node itself, fields, list elements by keys, by value, by place."""
    if len(fields) < 2:
        keys = list(fields)
    elif all(key[0] in ".f" for key in fields):
        keys = sorted(fields)
    else:
        keys = sorted(fields, key=_place)
    return {key: in_order(fields[key]) if fields[key] else {} for key in keys}


_KINDS = {kind: place for place, kind in enumerate(".fkvi")}


def _place(key: str) -> tuple[Any, ...]:
    """Numbers are compared as numbers: port 80 comes before 443."""
    kind, _, rest = key.partition(":")
    if kind in (_SELF, "f"):
        return _KINDS[kind], rest
    value = orjson.loads(rest)
    if kind == "k":
        return _KINDS[kind], *((name, _rank(value[name])) for name in sorted(value))
    return _KINDS.get(kind, len(_KINDS)), _rank(value)


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool):
        return 2, value
    if isinstance(value, int | float):
        return 0, value
    return (1, value) if isinstance(value, str) else (3, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


# ---- list elements ----


def is_associative(node: Node | None) -> bool:
    """Whether elements of this list have an identity (list types map and set)."""
    return node is not None and node.list_type in ("map", "set")


def is_granular(node: Node | None) -> bool:
    """Whether fields of this map are owned one by one."""
    return node is None or node.map_type != "atomic"


def element_key(item: Any, node: Node) -> str:
    """The path element of a list's item. A key that the item leaves out counts as its default, else not at all."""
    if node.list_type == "map" and isinstance(item, dict):
        given = {**node.key_defaults, **item}
        keys = {name: given[name] for name in node.list_map_keys if name in given}
        return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()
    return "v:" + orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()


def grouped(items: list[Any], node: Node) -> dict[str, list[Any]]:
    """A list's items by their path elements: several where an update repeated one, which cannot be told apart."""
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(element_key(item, node), []).append(item)
    return found


def unowned(value: Any, node: Node | None, path: str = "") -> Iterator[str]:
    """Why an applied configuration cannot be owned: elements that are repeated, or lack what tells them apart."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from unowned(item, _child(node, key), f"{path}.{key}")
    elif isinstance(value, list) and node is not None and is_associative(node):
        seen = set()
        for place, item in enumerate(value):
            key = element_key(item, node)
            if key == "k:{}":
                keys = " ".join(orjson.dumps(name).decode() for name in node.list_map_keys)
                yield f"{path}: element {place}: {_OMITS_KEYS % keys}"
                return
            if key in seen:
                yield f"{path}: duplicate entries for key {_step(key)}"
                return
            seen.add(key)
            yield from unowned(item, node.element, path + _step(key))


def _child(node: Node | None, key: str) -> Node | None:
    return node.field(key) if node is not None else None


def tracked(obj: Object) -> Object:
    """The object without the fields that nobody owns: identity, and what the server alone writes."""
    kept = {key: value for key, value in obj.items() if key not in _UNTRACKED}
    if isinstance(kept.get("metadata"), dict):
        metadata = kept["metadata"].items()
        kept["metadata"] = {key: value for key, value in metadata if key not in _UNTRACKED_METADATA}
    return kept


def refitted(fields: FieldSet, node: Node | None) -> FieldSet:
    """The set under another schema: what is owned inside of an atomic list or map becomes the whole of it."""
    if node is None or not fields:
        return fields
    parts = [key for key in fields if key != _SELF]
    whole = not is_granular(node) if node.type != "array" else not is_associative(node)
    if parts and whole:
        return {}
    changed = {key: inner for key in parts if (inner := refitted(fields[key], _node_of(node, key))) is not fields[key]}
    return {**fields, **changed} if changed else fields


def _node_of(node: Node, key: str) -> Node | None:
    return node.field(key[2:]) if key[:2] == "f:" else node.element


# ---- from objects ----


def applied_fields(obj: Object, schema: Node | None) -> FieldSet:
    """What an applied configuration claims: leaves, list elements, and empty maps."""
    kept = tracked(obj)
    if not kept.get("metadata"):
        kept.pop("metadata", None)
    return _claimed(kept, schema) or {}


def _claimed(value: Any, node: Node | None) -> FieldSet | None:
    """None: nothing. What is a key of a map, no field of a type, is claimed with its content."""
    out: FieldSet = {}
    if isinstance(value, dict) and is_granular(node):
        for key, item in value.items():
            inner = _claimed(item, _child(node, key))
            if item == {} or node is None or not node.declares(key):
                out[f"f:{key}"] = {_SELF: {}, **inner} if inner else {}
            elif inner is not None:
                out[f"f:{key}"] = inner
        return out or None
    if isinstance(value, list) and node is not None and is_associative(node):
        for item in value:
            out[element_key(item, node)] = {_SELF: {}, **inner} if (inner := _claimed(item, node.element)) else {}
        return out or None
    return {}


def all_fields(value: Any, node: Node | None) -> FieldSet:
    """Every path of a value that is new as a whole, itself included."""
    if isinstance(value, dict) and value and is_granular(node):
        out: FieldSet = {_SELF: {}}
        for key, item in value.items():
            out["f:" + key] = all_fields(item, _child(node, key)) if isinstance(item, (dict, list)) else {}
        return out
    if isinstance(value, list) and value and node is not None and is_associative(node):
        out = {_SELF: {}}
        for item in value:
            key = element_key(item, node)
            out[key] = {} if key in out else all_fields(item, node.element)
        return out
    return {}


def created_fields(obj: Object, schema: Node | None) -> FieldSet:
    """What the creator of an object set, in order. The sets of large sections are cached: many share one template."""
    out: FieldSet = {}
    for key, value in obj.items():
        if key in _UNTRACKED:
            continue
        node = _child(schema, key)
        if key == "metadata":
            fields = in_order(_created({k: v for k, v in value.items() if k not in _UNTRACKED_METADATA}, node))
        elif isinstance(value, dict) and node is not None and node.struct:
            fields = _section(key, value, node)
        else:
            out["f:" + key] = in_order(all_fields(value, node))
            continue
        if fields or key not in _ALWAYS_THERE:
            out["f:" + key] = fields
    return {key: out[key] for key in sorted(out)}


_sections: dict[tuple[int, str, bytes], tuple[Node, FieldSet]] = {}


def _section(key: str, value: Object, node: Node) -> FieldSet:
    compute = _created if key in _ALWAYS_THERE else all_fields
    text = orjson.dumps(value)
    if len(text) > _LONGEST_CACHED:
        return in_order(compute(value, node))
    cached = _sections.get((id(node), key, text))
    if cached is None:
        if len(_sections) >= _CACHED_SECTIONS:
            _sections.clear()
        # The node is kept with its set, so that its id stays its own.
        cached = _sections[id(node), key, text] = (node, in_order(compute(value, node)))
    return cached[1]


def _created(value: Object, node: Node | None) -> FieldSet:
    """As all_fields, but what exists in an empty object is not itself a member."""
    out: FieldSet = {}
    for key, item in value.items():
        if not isinstance(item, (dict, list)):
            out["f:" + key] = {}
            continue
        child = _child(node, key)
        if key not in _ALWAYS_THERE:
            out["f:" + key] = all_fields(item, child)
        elif isinstance(item, dict):
            if fields := _created(item, child):
                out["f:" + key] = fields
        elif fields := {name: inner for name, inner in all_fields(item, child).items() if name != _SELF}:
            out["f:" + key] = fields
    return out


def compare(old: Object, new: Object, schema: Node | None) -> tuple[FieldSet, FieldSet]:
    """(changed or added, removed) fields between two states of an object."""
    changed, removed = _compare_maps(tracked(old), tracked(new), schema)
    return changed, removed


def _compare(old: Any, new: Any, node: Node | None) -> tuple[FieldSet | None, FieldSet | None]:
    """The differences of two values that both exist; None for none, {} for the value as a whole."""
    if isinstance(old, dict) and isinstance(new, dict) and is_granular(node):
        changed, removed = _compare_maps(old, new, node)
        return changed or None, removed or None
    if isinstance(old, list) and isinstance(new, list) and node is not None and is_associative(node):
        changed, removed = _compare_lists(old, new, node)
        return changed or None, removed or None
    return {}, None


def _compare_maps(old: Object, new: Object, node: Node | None) -> tuple[FieldSet, FieldSet]:
    changed: FieldSet = {}
    removed: FieldSet = {}
    for key, value in new.items():
        if key not in old:
            changed["f:" + key] = all_fields(value, _child(node, key))
        elif old[key] != value:
            _note("f:" + key, _compare(old[key], value, _child(node, key)), changed, removed)
    for key, value in old.items():
        if key not in new:
            removed["f:" + key] = all_fields(value, _child(node, key))
    return changed, removed


def _compare_lists(old: list[Any], new: list[Any], node: Node) -> tuple[FieldSet, FieldSet]:
    left = {element_key(item, node): item for item in old}
    right = {element_key(item, node): item for item in new}
    if len(left) < len(old) or len(right) < len(new):
        return _compare_repeated(grouped(old, node), grouped(new, node), node)
    changed: FieldSet = {}
    removed = {key: all_fields(item, node.element) for key, item in left.items() if key not in right}
    for key, item in right.items():
        if key not in left:
            changed[key] = all_fields(item, node.element)
        elif left[key] != item:
            _note(key, _compare(left[key], item, node.element), changed, removed)
    return changed, removed


def _compare_repeated(old: dict[str, list[Any]], new: dict[str, list[Any]], node: Node) -> tuple[FieldSet, FieldSet]:
    """Elements that are there several times are one field, together."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    for key in {**old, **new}:
        before, after = old.get(key, []), new.get(key, [])
        if len(before) < 2 and len(after) < 2:
            more, less = _compare_lists(before, after, node)
            changed |= more
            removed |= less
        elif len(before) > 1 and len(after) > 1:
            changed |= {key: {}} if before != after else {}
        else:
            changed |= {key: {} if len(after) > 1 else all_fields(after[0], node.element)} if after else {}
            removed |= {key: {} if len(before) > 1 else all_fields(before[0], node.element)} if before else {}
    return changed, removed


def _note(key: str, found: tuple[FieldSet | None, FieldSet | None], changed: FieldSet, removed: FieldSet) -> None:
    more, less = found
    if more is not None:
        changed[key] = more
    if less is not None:
        removed[key] = less
