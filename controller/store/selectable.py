"""What selectors and indexes see of an object: labels, selectable fields, uid, owners.

Used by values.py for every object that enters the cache, so it is written for speed: per resource a prepared table.
Which fields a kind has stands in `api.kinds`; how they are computed follows the strategies of Kubernetes
(pkg/registry/core/*/strategy.go, ToSelectableFields): absent is "", booleans are "true"/"false". Strings that many
objects share are interned. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from typing import Any

from api.kinds import EVENT_FIELDS_STORED, Kind, by_resource, cached_by_table

_TRUE_OR_FALSE = frozenset({"spec.unschedulable", "spec.hostNetwork"})
# Accepted in selectors, but never filled in: by Kubernetes, or because a selector is asked under the stored name.
_ALWAYS_EMPTY = frozenset({"status.podIPs", *EVENT_FIELDS_STORED})
_UNSHARED = frozenset({"status.podIP", "involvedObject.name", "involvedObject.uid", "involvedObject.resourceVersion"})
_NOTHING: Mapping[str, Any] = {}


Row = tuple[str, str, str, bool]


@cached_by_table
def _table(resource: tuple[str, str]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """The rows of a stored kind. Raises KeyError for a resource without a row in the table of kinds."""
    return _sections(by_resource(*resource).selectable_fields)


@lru_cache(maxsize=256)
def _sections(names: tuple[str, ...]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """For each section ("" is the object itself) its rows: (field, leaf, what absence means, whether shared)."""
    sections: dict[str, list[Row]] = {}
    for name in names:
        section, _, leaf = name.rpartition(".")
        if name not in _ALWAYS_EMPTY:
            absent = "false" if name in _TRUE_OR_FALSE else ""
            sections.setdefault(section, []).append((name, leaf, absent, name not in _UNSHARED))
    return tuple((section, tuple(rows)) for section, rows in sections.items())


def _rows(resource: tuple[str, str]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    try:
        return _table(resource)
    except KeyError:
        return ()


def fields_of(resource: tuple[str, str], namespace: str, name: str, obj: Mapping[str, Any]) -> dict[str, str]:
    """Selectable field -> value, metadata.name and metadata.namespace included."""
    fields = {"metadata.name": name, "metadata.namespace": namespace}
    _fill(fields, obj, _rows(resource))
    if resource == ("", "events"):
        _complete_event(fields, obj)
    elif resource == ("batch", "jobs"):
        fields["status.successful"] = str(_section(obj, "status").get("succeeded") or 0)
    return fields


def fields_shown(kind: Kind, namespace: str, name: str, obj: Mapping[str, Any]) -> dict[str, str]:
    """`fields_of` for an object of a custom kind that is shown in another version than it is stored in."""
    fields = {"metadata.name": name, "metadata.namespace": namespace}
    _fill(fields, obj, _sections(kind.selectable_fields))
    return fields


def _fill(fields: dict[str, str], obj: Mapping[str, Any], sections: tuple[tuple[str, tuple[Row, ...]], ...]) -> None:
    for where, rows in sections:
        section = _section(obj, where)
        for field, leaf, absent, shared in rows:
            value = section.get(leaf)
            if value is None:
                fields[field] = absent
            elif type(value) is str:
                fields[field] = intern(value) if shared else value
            else:
                fields[field] = _text(value, absent)


def labels_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Shared by all objects with the same labels, which are often thousands: do not change it."""
    labels = metadata.get("labels")
    if not isinstance(labels, dict):
        return _shared_labels(())
    try:
        return _shared_labels(tuple(labels.items()))
    except TypeError:  # a value that is no string, in an object that was not written by us
        return {key: value for key, value in labels.items() if isinstance(value, str)}


@lru_cache(maxsize=4096)
def _shared_labels(entries: tuple[tuple[str, Any], ...]) -> dict[str, str]:
    return {intern(key): intern(value) for key, value in entries if isinstance(value, str)}


def owners_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    references = metadata.get("ownerReferences")
    if not references:
        return ()
    return tuple(intern(str(reference.get("uid") or "")) for reference in references)


def _section(obj: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "." in where:
        outer, _, inner = where.partition(".")
        return _section(_section(obj, outer), inner)
    section = obj.get(where) if where else obj
    return section if isinstance(section, dict) else _NOTHING


def _text(value: Any, absent: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return absent if isinstance(value, dict | list) else str(value)


def _complete_event(fields: dict[str, str], obj: Mapping[str, Any]) -> None:
    """An event's source is its source.component, or else who reports it."""
    component = _section(obj, "source").get("component")
    fields["source"] = str(component or obj.get("reportingComponent") or "")
