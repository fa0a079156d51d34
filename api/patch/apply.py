"""Server-side apply, and who owns which field (`metadata.managedFields`).

Called by the registry: `apply` for PATCH with application/apply-patch+yaml, `track_update` for every other write, after
defaulting and before admission. Pure; both take the moment as text in `Writer`. Invariants: applying the same
configuration twice changes nothing the second time; without force nobody's field changes its value; a field that its
last owner no longer applies goes. https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from api.errors import ApiError, BadRequest, Cause, Conflict
from api.objects import Object, clone
from api.patch.fields import (
    FieldSet,
    applied_fields,
    compare,
    created_fields,
    difference,
    element_key,
    grouped,
    intersection,
    is_associative,
    is_granular,
    is_readable,
    ordered,
    paths,
    refitted,
    union,
    unowned,
)
from api.schema.nodes import Node

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE_FIRST_APPLY = "before-first-apply"
_ANCIENT = "ancient-changes"
_MOST_UPDATERS = 10
_IDENTITY: FieldSet = {"f:metadata": {"f:name": {}}}
"""Whatever an applier withdraws, the object stays one."""


@dataclass(frozen=True)
class Writer:
    """Who writes: the field manager, in which version of the API, to which subresource, when (RFC 3339).

    `reset` names the top-level fields that this endpoint ignores (`status` on the main one): nobody owns them by it.
    """

    manager: str
    api_version: str
    time: str
    subresource: str = ""
    reset: tuple[str, ...] = ()


class Versions(Protocol):
    """The versions of a kind, for fields owned in another one than is written. None in its place: all are alike."""

    def shown(self, obj: Object, api_version: str) -> Object | None:
        """`obj` in that version; None when there is no such version. May raise what makes the caller start again."""
        ...

    def schema(self, api_version: str) -> Node | None:
        """The root node of that version; None when there is no such version."""
        ...


Change = tuple[FieldSet, FieldSet]
"""What was changed or added, and what was removed."""


@dataclass(frozen=True)
class _Entry:
    """One entry of managedFields."""

    manager: str
    operation: str
    api_version: str
    time: str
    subresource: str
    fields: FieldSet

    def same_owner(self, writer: Writer, operation: str) -> bool:
        if (self.manager, self.operation, self.subresource) != (writer.manager, operation, writer.subresource):
            return False
        return operation == "Apply" or self.api_version == writer.api_version

    def wire(self) -> Object:
        entry: Object = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.time:
            entry["time"] = self.time
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": self.fields}
        return entry | {"subresource": self.subresource} if self.subresource else entry

    def shown(self) -> str:
        """How a conflict names this owner."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


def track_update(
    old: Object | None, new: Object, writer: Writer, schema: Node | None, versions: Versions | None = None
) -> None:
    """Sets `new`'s managedFields after an ordinary write: the writer takes what it changed from everybody else.

    `old` is None for a create. A client may edit managedFields itself ([] or [{}] drops them); one that omits them
    keeps the stored ones. Objects without managedFields stay without, as in Kubernetes.
    """
    metadata = new.setdefault("metadata", {})
    given = metadata.get("managedFields")
    if old is None and not given:
        metadata.pop("managedFields", None)
        fields = _without_reset(created_fields(new, schema), writer)
        if fields:
            metadata["managedFields"] = [_owned(writer, "Update", fields).wire()]
        return
    entries = _refitted(_stored_or_given(old, given, writer), writer, schema, versions)
    if old is not None and not entries:
        metadata.pop("managedFields", None)
        return
    changed, removed = compare(old, new, schema) if old is not None else (created_fields(new, schema), {})
    changed = _without_reset(changed, writer)
    elsewhere = _elsewhere(entries, old or {}, new, writer, versions)
    metadata.pop("managedFields", None)
    if changed or removed or elsewhere:
        entries = _after_update(entries, (changed, removed), writer, elsewhere)
    if entries:
        metadata["managedFields"] = _listed(entries)


def apply(
    live: Object | None,
    applied: Object,
    writer: Writer,
    schema: Node | None,
    *,
    force: bool = False,
    versions: Versions | None = None,
) -> Object:
    """`live` (untouched; None to create) with the applied configuration merged in, managedFields included.

    Raises Conflict, one cause a field, when another manager owns a field whose value would change (unless `force`), and
    BadRequest when the configuration carries managedFields, or repeats an element of a list.
    """
    _refuse_unowned(applied, schema)
    before: Object = clone(live) if live is not None else {}
    entries = _decoded((before.get("metadata") or {}).pop("managedFields", None)) or []
    entries = _refitted(entries, writer, schema, versions)
    if live is not None and not entries:
        entries = [_before_first_apply(before, applied, writer, schema)]
    own = next((entry for entry in entries if entry.same_owner(writer, "Apply")), None)
    others = [entry for entry in entries if entry is not own]
    fields = _without_reset(applied_fields(applied, schema), writer)
    merged: Object = _merge(clone(before), clone(applied), schema)
    if own is not None:
        merged = _without_abandoned(merged, own, [_owned(writer, "Apply", fields), *others], schema, versions)
    changed, removed = compare(before, merged, schema)
    taken = _without_reset(changed, writer)
    elsewhere = _elsewhere(others, before, merged, writer, versions)
    if not force:
        allowed = _client_applied(before, schema) if writer.manager == "kubectl" else {}
        _refuse_conflicts(others, difference(taken, allowed), elsewhere)
    unchanged = not changed and not removed and own is not None and own.fields == fields
    unchanged = unchanged and own is not None and own.api_version == writer.api_version
    mine = own if unchanged else _owned(writer, "Apply", ordered(fields))
    kept = [entry for entry in _reduced(others, (taken, removed), elsewhere) if entry.fields]
    if mine is not None and mine.fields:
        kept.append(mine)
    metadata = merged.setdefault("metadata", {})
    if kept:
        metadata["managedFields"] = _listed(kept)
    _renew_last_applied(merged, applied, writer)
    return merged


# ---- versions ----


def _refitted(entries: list[_Entry], writer: Writer, schema: Node | None, versions: Versions | None) -> list[_Entry]:
    """The entries as the schema of today lets them own: who owned parts of what is atomic now, owns it as a whole.

    What became granular needs nothing: its owner keeps the field itself. Only custom schemas change.
    """
    if schema is None or schema.custom is None:
        return entries
    found = []
    for entry in entries:
        same = versions is None or entry.api_version == writer.api_version
        node = schema if versions is None or same else versions.schema(entry.api_version)
        fields = refitted(entry.fields, node)
        found.append(entry if fields is entry.fields else replace(entry, fields=fields))
    return found


def _elsewhere(
    entries: Iterable[_Entry], old: Object, new: Object, writer: Writer, versions: Versions | None
) -> dict[str, Change | None]:
    """What a write changed as other versions see it, for those that fields are owned in; None: no such version."""
    found: dict[str, Change | None] = {}
    if versions is None:
        return found
    for version in sorted({entry.api_version for entry in entries} - {writer.api_version}):
        before, after = versions.shown(old, version) if old else {}, versions.shown(new, version)
        if before is None or after is None:
            found[version] = None
            continue
        changed, removed = compare(before, after, versions.schema(version))
        found[version] = _without_reset(changed, writer), removed
    return found


def _without_abandoned(
    merged: Object, own: _Entry, owners: list[_Entry], schema: Node | None, versions: Versions | None
) -> Object:
    """`merged` without what its applier once applied and nobody owns now. The first of `owners` is what it applies.

    The fields were owned in the version of that time: there they go, unless somebody owns them in yet another one.
    """
    if versions is None:
        owned = _IDENTITY
        for entry in owners:
            owned = union(owned, entry.fields)
        _prune(merged, own.fields, owned, schema)
        return merged
    owned_in: dict[str, FieldSet] = {own.api_version: _IDENTITY}
    for entry in owners:
        owned_in[entry.api_version] = union(owned_in.get(entry.api_version, _IDENTITY), entry.fields)
    left = versions.shown(merged, own.api_version)
    if left is None:
        return merged
    left = clone(left)
    _prune(left, own.fields, owned_in.pop(own.api_version), versions.schema(own.api_version))
    for version, owned in owned_in.items():
        whole, rest = versions.shown(merged, version), versions.shown(left, version)
        if whole is None or rest is None:
            continue
        known = versions.schema(version)
        whole, gone = clone(whole), difference(created_fields(whole, known), created_fields(rest, known))
        _prune(whole, gone, owned, known)
        left = whole
    return versions.shown(left, owners[0].api_version) or merged


# ---- entries ----


def _owned(writer: Writer, operation: str, fields: FieldSet) -> _Entry:
    return _Entry(writer.manager, operation, writer.api_version, writer.time, writer.subresource, fields)


def _decoded(wire: Any) -> list[_Entry] | None:
    """The entries of managedFields, None when they cannot be read."""
    if not isinstance(wire, list):
        return None
    entries = []
    for entry in wire:
        if not isinstance(entry, dict) or not isinstance(entry.get("fieldsV1") or {}, dict):
            return None
        names = ("manager", "operation", "apiVersion", "time", "subresource")
        manager, operation, version, time, subresource = (entry.get(name) or "" for name in names)
        fields = entry.get("fieldsV1") or {}
        entries.append(_Entry(manager, operation, version, time, subresource, fields))
    return entries


def _stored_or_given(old: Object | None, given: Any, writer: Writer) -> list[_Entry]:
    """Whose word counts on managedFields: the request's, unless it has none or goes through a subresource."""
    stored = (old or {}).get("metadata", {}).get("managedFields")
    if given is None or writer.subresource or (given != stored and not are_readable(given)):
        return _decoded(stored) or []
    if given in ([], [{}]):
        return []
    if given == stored:
        return _decoded(stored) or []
    entries = _decoded(given) or _decoded(stored) or []
    return [replace(entry, fields=ordered(entry.fields)) for entry in entries]


def are_readable(wire: Any) -> bool:
    """Whether these are managedFields; [] and [{}], which drop them, are."""
    if wire in ([], [{}]):
        return True
    return _decoded(wire) is not None and all(
        entry.get("fieldsType") == "FieldsV1" and is_readable(entry.get("fieldsV1") or {}) for entry in wire
    )


def _listed(entries: Iterable[_Entry]) -> list[Object]:
    def order(entry: _Entry) -> tuple[str, ...]:
        return entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource

    return [entry.wire() for entry in sorted(entries, key=order)]


def _reduced(entries: Iterable[_Entry], change: Change, elsewhere: Mapping[str, Change | None]) -> list[_Entry]:
    """The entries without what the change took from them, each in its own version; without those of lost versions."""
    found = []
    for entry in entries:
        seen = elsewhere.get(entry.api_version, change)
        if seen is None:
            continue
        left = entry.fields
        for fields in seen:
            left = difference(left, fields) if fields else left
        found.append(entry if left is entry.fields else replace(entry, fields=left))
    return found


def _after_update(
    entries: list[_Entry], change: Change, writer: Writer, elsewhere: Mapping[str, Change | None]
) -> list[_Entry]:
    changed, removed = change
    own = next((entry for entry in entries if entry.same_owner(writer, "Update")), None)
    others = _reduced((entry for entry in entries if entry is not own), change, elsewhere)
    fields = union(difference(own.fields, removed) if own else {}, changed)
    kept = [entry for entry in others if entry.fields]
    if fields:
        same = own is not None and own.fields == fields and not changed
        kept.append(own if own is not None and same else _owned(writer, "Update", ordered(fields)))
    return _capped(kept)


def _capped(entries: list[_Entry]) -> list[_Entry]:
    """At most ten updaters: the oldest are forgotten into one entry, so that objects do not grow for ever."""
    updaters = sorted((entry for entry in entries if entry.operation == "Update"), key=lambda entry: entry.time)
    surplus = len(updaters) - _MOST_UPDATERS
    if surplus <= 0:
        return entries
    oldest = updaters[: surplus + 1]
    fields: FieldSet = {}
    for entry in oldest:
        fields = union(fields, entry.fields)
    merged = replace(oldest[-1], manager=_ANCIENT, subresource="", fields=ordered(fields))
    return [entry for entry in entries if all(entry is not old for old in oldest)] + [merged]


def _without_reset(fields: FieldSet, writer: Writer) -> FieldSet:
    if not writer.reset or not any(f"f:{name}" in fields for name in writer.reset):
        return fields
    return {key: node for key, node in fields.items() if key[2:] not in writer.reset}


def _before_first_apply(before: Object, applied: Object, writer: Writer, schema: Node | None) -> _Entry:
    """Everything in an object that nobody tracked belongs to an unknown updater."""
    fields = created_fields(before, schema)
    version = before.get("apiVersion") or applied.get("apiVersion") or writer.api_version
    return _Entry(_BEFORE_FIRST_APPLY, "Update", version, writer.time, "", fields)


def _refuse_unowned(applied: Object, schema: Node | None) -> None:
    metadata = applied.get("metadata") or {}
    if metadata.get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    if faults := list(unowned(applied, schema)):
        group, _, version = str(applied.get("apiVersion")).rpartition("/")
        raise untyped(applied, f"{group}/{version}, Kind={applied.get('kind')}", faults)


def untyped(applied: Object, kind: str, faults: list[str]) -> BadRequest:
    """That a configuration does not fit its type, in Kubernetes' words. `kind`: "GROUP/VERSION, Kind=KIND"."""
    metadata = applied.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    shown = f"{named.get('namespace', '')}/{named.get('name', '')}; {kind}"
    told = faults[0] if len(faults) == 1 else "\n  ".join(["errors:", *faults])
    return BadRequest(f"failed to create typed patch object ({shown}): {told}")


# ---- conflicts ----


def _refuse_conflicts(others: list[_Entry], taken: FieldSet, elsewhere: Mapping[str, Change | None]) -> None:
    """Raises Conflict when another manager owns a field that this write would change."""
    conflicts = []
    for entry in others:
        seen = elsewhere.get(entry.api_version, (taken, {}))
        if seen is not None:
            conflicts += [(entry, path) for path in paths(intersection(entry.fields, seen[0]))]
    if conflicts:
        raise _conflict(conflicts)


def _client_applied(before: Object, schema: Node | None) -> FieldSet:
    """kubectl may take over what kubectl applied client-side: what its last-applied annotation says and still holds."""
    text = ((before.get("metadata") or {}).get("annotations") or {}).get(_LAST_APPLIED)
    if not text:
        return {}
    try:
        last = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(last, dict) or last.get("apiVersion") != before.get("apiVersion"):
        return {}
    changed, removed = compare(last, before, schema)
    return difference(difference(applied_fields(last, schema), changed), removed)


def _conflict(conflicts: list[tuple[_Entry, str]]) -> ApiError:
    causes = [Cause("FieldManagerConflict", f"conflict with {entry.shown()}", path).wire() for entry, path in conflicts]
    if len(conflicts) == 1:
        entry, path = conflicts[0]
        return Conflict(f"Apply failed with 1 conflict: conflict with {entry.shown()}: {path}", {"causes": causes})
    by_owner: dict[str, list[str]] = {}
    for entry, path in conflicts:
        by_owner.setdefault(entry.shown(), []).append(f"- {path}")
    listed = "\n".join(f"conflicts with {owner}:\n" + "\n".join(by_owner[owner]) for owner in sorted(by_owner))
    return Conflict(f"Apply failed with {len(conflicts)} conflicts: {listed}", {"causes": causes})


def _renew_last_applied(merged: Object, applied: Mapping[str, Any], writer: Writer) -> None:
    """Keeps a client-side `kubectl apply` working after a server-side one."""
    annotations = merged["metadata"].get("annotations") or {}
    if writer.manager == "kubectl" and writer.subresource != "scale" and annotations.get(_LAST_APPLIED):
        annotations[_LAST_APPLIED] = orjson.dumps(applied, option=orjson.OPT_APPEND_NEWLINE).decode()


# ---- merging ----


def _merge(live: Any, applied: Any, node: Node | None) -> Any:
    """`live` (changed) with `applied` merged in; a null in the configuration removes."""
    if isinstance(live, dict) and isinstance(applied, dict) and is_granular(node):
        for key, value in applied.items():
            child = node.field(key) if node is not None else None
            if value is None:
                live.pop(key, None)
            else:
                live[key] = _merge(live.get(key), value, child)
        return live
    if isinstance(live, list) and isinstance(applied, list) and node is not None and is_associative(node):
        return _merge_lists(live, applied, node)
    return applied


def _merge_lists(live: list[Any], applied: list[Any], node: Node) -> list[Any]:
    """The applied order rules; elements only in `live` keep their place between their neighbours."""
    stored = grouped(live, node)
    wanted = {element_key(item, node): item for item in applied}
    shared = [key for key in wanted if key in stored]
    out: dict[str, list[Any]] = {}
    left, right, due = list(stored), list(wanted), 0
    while left or right:
        if left and left[0] not in wanted:
            key = left.pop(0)
            out[key] = stored[key]
        elif left and (left[0] in out or (right and due < len(shared) and shared[due] != left[0])):
            left.pop(0)  # the applied order places it
        else:
            key = right.pop(0)
            if key in stored:
                due += 1
            known = stored.get(key, [])
            out[key] = [_merge(known[0] if len(known) == 1 else None, wanted[key], node.element)]
    return [item for items in out.values() for item in items]


def _prune(value: Any, last: FieldSet, owned: FieldSet, node: Node | None) -> None:
    """Removes from `value` what was in `last` and is in nobody's set now."""
    if isinstance(value, dict):
        for key in [key for key in last if key.startswith("f:") and key[2:] in value]:
            name = key[2:]
            declared = node is not None and node.declares(name)
            if key not in owned if declared else _goes(last[key], owned.get(key)):
                del value[name]
            else:
                _prune(value[name], last[key], owned.get(key, {}), node.field(name) if node is not None else None)
    elif isinstance(value, list) and node is not None and is_associative(node):
        kept = []
        for item in value:
            key = element_key(item, node)
            if _goes(last.get(key), owned.get(key)):
                continue
            if key in last:
                _prune(item, last[key], owned.get(key) or {}, node.element)
            kept.append(item)
        value[:] = kept


def _goes(last: FieldSet | None, owned: FieldSet | None) -> bool:
    was_mine = last is not None and (not last or "." in last)
    return was_mine and (owned is None or (bool(owned) and "." not in owned))
