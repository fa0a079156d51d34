"""What selectors and indexes see of an object: labels, selectable fields, uid, owners.

Used by values.py for every object that enters the cache, so it is written for speed: per resource a prepared table of
(field, section, leaf). Which fields a kind has stands in `api.kinds`; how they are computed follows the strategies of
Kubernetes (pkg/registry/core/*/strategy.go, ToSelectableFields): absent is "", booleans are "true"/"false".
Strings that many objects share are interned. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from sys import intern
from typing import Any

from api.kinds import by_resource

_TRUE_OR_FALSE = frozenset({"spec.unschedulable", "spec.hostNetwork"})
# Accepted in selectors, but Kubernetes never fills it in.
_ALWAYS_EMPTY = frozenset({"status.podIPs"})
_UNSHARED = frozenset({"status.podIP", "involvedObject.name", "involvedObject.uid", "involvedObject.resourceVersion"})
_NOTHING: Mapping[str, Any] = {}


@cache
def _table(resource: tuple[str, str]) -> tuple[tuple[str, str, str, bool], ...]:
    """(field, section, leaf, shared); section "" is the object itself."""
    try:
        names = by_resource(*resource).selectable_fields
    except KeyError:
        return ()
    rows = []
    for name in names:
        section, _, leaf = name.rpartition(".")
        if name not in _ALWAYS_EMPTY:
            rows.append((name, section, leaf, name not in _UNSHARED))
    return tuple(rows)


def fields_of(resource: tuple[str, str], namespace: str, name: str, obj: Mapping[str, Any]) -> dict[str, str]:
    """Selectable field -> value, metadata.name and metadata.namespace included."""
    fields = {"metadata.name": name, "metadata.namespace": namespace}
    seen, section = None, _NOTHING
    for field, where, leaf, shared in _table(resource):
        if where != seen:
            seen, section = where, _section(obj, where)
        value = section.get(leaf)
        if isinstance(value, str):
            fields[field] = intern(value) if shared else value
        else:
            fields[field] = _text(field, value)
    if resource == ("", "events"):
        _complete_event(fields, obj)
    return fields


def labels_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    labels = metadata.get("labels")
    if not isinstance(labels, dict):
        return {}
    return {intern(key): intern(value) for key, value in labels.items() if isinstance(value, str)}


def owners_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    references = metadata.get("ownerReferences")
    if not references:
        return ()
    return tuple(intern(str(reference.get("uid") or "")) for reference in references)


def _section(obj: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    section = obj.get(where) if where else obj
    return section if isinstance(section, dict) else _NOTHING


def _text(field: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, dict | list):
        return "false" if field in _TRUE_OR_FALSE else ""
    return str(value)


def _complete_event(fields: dict[str, str], obj: Mapping[str, Any]) -> None:
    """An event's source is its source.component, or else who reports it."""
    component = _section(obj, "source").get("component")
    fields["source"] = str(component or obj.get("reportingComponent") or "")
