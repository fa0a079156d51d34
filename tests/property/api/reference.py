"""Server-side apply once more, the slow way: ownership as plain sets of paths, rules read from a JSON schema.

Written from the rules of structured-merge-diff (KEP-555) for comparison with api.patch.apply, with which it shares
nothing. A path is a tuple of the steps of FieldsV1 (`f:name`, `k:{...}`, `v:...`). A value is compared through
`canonical`, which sorts lists whose elements have an identity: their order is no matter of ownership.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Path = tuple[str, ...]
Paths = frozenset[Path]
Schema = dict[str, Any]

ANYTHING: Schema = {}


class Clash(Exception):
    """Somebody else owns these fields and the write changes them."""

    def __init__(self, fields: dict[str, Paths]) -> None:
        super().__init__(fields)
        self.fields = fields


# ---- one level of a value ----


def text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def listed(schema: Schema) -> str:
    return str(schema.get("x-kubernetes-list-type", "atomic"))


def opens(value: Any, schema: Schema) -> bool:
    """Whether the parts of a value are owned one by one."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") != "atomic"
    return isinstance(value, list) and listed(schema) != "atomic"


def declared(schema: Schema, name: str) -> bool:
    return name in schema.get("properties", {})


def child(schema: Schema, name: str) -> Schema:
    found: Schema = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or ANYTHING
    return found


def step(item: Any, schema: Schema) -> str:
    if listed(schema) == "set":
        return "v:" + text(item)
    keys = {}
    for name in schema["x-kubernetes-list-map-keys"]:
        found = item.get(name, schema["items"]["properties"][name].get("default"))
        if found is not None:
            keys[name] = found
    return "k:" + text(keys)


def parts(value: Any, schema: Schema) -> Iterator[tuple[str, Any, Schema, bool]]:
    """(step, value, schema, whether it is a declared field) of each part of a value that opens."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "f:" + name, inner, child(schema, name), declared(schema, name)
    else:
        for item in value:
            yield step(item, schema), item, schema.get("items", ANYTHING), False


def canonical(value: Any, schema: Schema) -> Any:
    if not opens(value, schema):
        return value
    found = {name: canonical(inner, below) for name, inner, below, _ in parts(value, schema)}
    return found if isinstance(value, dict) else ["list", found]


# ---- sets ----


def claimed(value: Any, schema: Schema, at: Path = ()) -> Paths:
    """What applying a configuration claims."""
    found: set[Path] = set()
    for name, inner, below, known in parts(value, schema):
        here = (*at, name)
        if not opens(inner, below) or inner == {} or not known:
            found.add(here)
        if opens(inner, below):
            found |= claimed(inner, below, here)
    return frozenset(found)


def everything(value: Any, schema: Schema, at: Path) -> Paths:
    found = {at}
    if opens(value, schema):
        for name, inner, below, _ in parts(value, schema):
            found |= everything(inner, below, (*at, name))
    return frozenset(found)


def changes(old: Any, new: Any, schema: Schema, at: Path = ()) -> tuple[Paths, Paths]:
    """(changed or added, removed)."""
    changed: set[Path] = set()
    removed: set[Path] = set()
    before = {name: (inner, below) for name, inner, below, _ in parts(old, schema)}
    after = {name: (inner, below) for name, inner, below, _ in parts(new, schema)}
    for name, (inner, below) in after.items():
        here = (*at, name)
        if name not in before:
            changed |= everything(inner, below, here)
        elif canonical(before[name][0], below) != canonical(inner, below):
            if opens(inner, below) and opens(before[name][0], below):
                more, less = changes(before[name][0], inner, below, here)
                changed |= more
                removed |= less
            else:
                changed.add(here)
    for name, (inner, below) in before.items():
        if name not in after:
            removed |= everything(inner, below, (*at, name))
    return frozenset(changed), frozenset(removed)


def with_named(fields: Paths, schema: Schema) -> Paths:
    """A set with the declared fields on the way to its members: a struct goes when all that was in it goes."""
    found = set(fields)
    for path in fields:
        place: Schema = schema
        for depth, name in enumerate(path[:-1], 1):
            if name.startswith("f:"):
                if declared(place, name[2:]):
                    found.add(path[:depth])
                place = child(place, name[2:])
            else:
                place = place.get("items", ANYTHING)
    return frozenset(found)


def without(value: Any, gone: Paths, schema: Schema, at: Path = ()) -> Any:
    """The value without the parts that `gone` names."""
    kept = [
        (name, without(inner, gone, below, (*at, name)) if opens(inner, below) else inner)
        for name, inner, below, _ in parts(value, schema)
        if (*at, name) not in gone
    ]
    return {name[2:]: inner for name, inner in kept} if isinstance(value, dict) else [inner for _, inner in kept]


def merged(live: Any, applied: Any, schema: Schema) -> Any:
    if not (opens(live, schema) and opens(applied, schema)):
        return applied
    before = {name: inner for name, inner, _, _ in parts(live, schema)}
    after = {name: (inner, below) for name, inner, below, _ in parts(applied, schema)}
    found = dict(before)
    for name, (inner, below) in after.items():
        found[name] = merged(before[name], inner, below) if name in before else inner
    return {name[2:]: inner for name, inner in found.items()} if isinstance(live, dict) else list(found.values())


# ---- verbs ----


class Model:
    """One object, and who owns what of it; managers are told apart by (name, operation)."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.value: dict[str, Any] = {}
        self.owners: dict[tuple[str, str], Paths] = {}

    def update(self, manager: str, new: dict[str, Any]) -> None:
        own = (manager, "Update")
        changed, removed = changes(self.value, new, self.schema)
        owners = {other: fields - changed - removed for other, fields in self.owners.items() if other != own}
        owners[own] = self.owners.get(own, frozenset()) - removed | changed
        self._become(new, owners)

    def apply(self, manager: str, applied: dict[str, Any], *, force: bool) -> None:
        """Raises Clash."""
        own = (manager, "Apply")
        last = self.owners.get(own, frozenset())
        owners = {**self.owners, own: claimed(applied, self.schema)}
        new = self._pruned(merged(self.value, applied, self.schema), last, owners)
        changed, removed = changes(self.value, new, self.schema)
        others = {other: fields for other, fields in owners.items() if other != own}
        clashes = {other[0]: fields & changed for other, fields in others.items() if fields & changed}
        if clashes and not force:
            raise Clash(clashes)
        kept = {other: fields - changed - removed for other, fields in others.items()}
        self._become(new, {**kept, own: owners[own]})

    def _pruned(self, value: Any, last: Paths, owners: dict[tuple[str, str], Paths]) -> Any:
        schema = self.schema
        last = with_named(last, schema)
        whole = with_named(claimed(value, schema), schema)
        rest = with_named(claimed(without(value, last, schema), schema), schema)
        owned = with_named(frozenset().union(*owners.values()), schema)
        rest = with_named(claimed(without(value, whole - rest - owned, schema), schema), schema)
        return without(value, (whole - rest) & last, schema)

    def _become(self, value: dict[str, Any], owners: dict[tuple[str, str], Paths]) -> None:
        self.value = value
        self.owners = {owner: fields for owner, fields in owners.items() if fields}


def decoded(fields: dict[str, Any], at: Path = ()) -> Paths:
    """FieldsV1 as a set of paths."""
    found: set[Path] = set()
    for name, inner in fields.items():
        if name == ".":
            found.add(at)
        else:
            found |= decoded(inner, (*at, name)) if inner else {(*at, name)}
    return frozenset(found)


def encoded(paths: Paths) -> dict[str, Any]:
    """A set of paths as FieldsV1."""
    found: dict[str, Any] = {}
    for name in {path[0] for path in paths}:
        below = frozenset(path[1:] for path in paths if path[0] == name)
        inner = encoded(below - {()})
        found[name] = {".": {}, **inner} if inner and () in below else inner
    return found
