"""One store for two views of an Event: core/v1 and events.k8s.io/v1.

Events are kept as core/v1. What comes in through the other group is translated before it is stored, and back when it is
shown: called by the verbs of the registry (`inward`, `outward`) and by the server for reads (`outward`). Other kinds
pass through untouched. Pure; the pairs of names are those of k8s.io/kubernetes/pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from api.kinds import Kind, by_resource
from api.objects import Object
from controller.store.types import Record

_PAIRS = (
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
)
_INWARD = dict(_PAIRS)
_OUTWARD = {core: view for view, core in _PAIRS}


def stored_kind(kind: Kind) -> Kind:
    """The kind as which objects of `kind` are kept."""
    return by_resource(*kind.stored_as) if kind.stored_as else kind


def inward(kind: Kind, obj: Object) -> Object:
    """An object of `kind` as it is stored."""
    if kind.stored_as is None:
        return obj
    stored = {_INWARD.get(field, field): value for field, value in obj.items()}
    core = stored_kind(kind)
    stored["apiVersion"], stored["kind"] = core.api_version, core.kind
    stored.setdefault("involvedObject", {})
    return stored


def outward_object(kind: Kind, obj: Object) -> Object:
    if kind.stored_as is None:
        return obj
    shown = {_OUTWARD.get(field, field): value for field, value in obj.items()}
    shown["apiVersion"], shown["kind"] = kind.api_version, kind.kind
    return shown


def outward(kind: Kind, record: Record) -> Record:
    """A stored record as `kind` shows it."""
    if kind.stored_as is None:
        return record
    return replace(record, raw=orjson.dumps(outward_object(kind, record.parse())))
