"""One store for several views of a kind: what a group or version shows otherwise than it is kept.

Called by the verbs of the registry (`inward`, `outward`) and by the server for reads (`outward`). Kinds that are no
views pass through untouched. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import orjson

from api.kinds import Kind, by_resource
from api.objects import Object
from api.schema import default
from controller.registry import autoscaler_views, event_views
from controller.store.types import Record


class View(NamedTuple):
    """`inward`: as it is stored; `outward`: as it is shown. Both leave their argument alone.

    `defaulted`: the stored kind has defaults that the shown one has not.
    """

    inward: Callable[[Object], Object]
    outward: Callable[[Object], Object]
    defaulted: bool = False


_VIEWS = {
    ("events.k8s.io/v1", "events"): View(event_views.to_core, event_views.to_events_v1),
    ("autoscaling/v1", "horizontalpodautoscalers"): View(
        autoscaler_views.to_v2, autoscaler_views.to_v1, defaulted=True
    ),
}


def stored_kind(kind: Kind) -> Kind:
    """The kind as which objects of `kind` are kept."""
    return by_resource(*kind.stored_as) if kind.stored_as else kind


def inward(kind: Kind, obj: Object) -> Object:
    """An object of `kind` as it is stored."""
    if not kind.is_view:
        return obj
    if kind.custom is not None:
        return {**obj, "apiVersion": stored_kind(kind).api_version}
    view = _VIEWS[kind.api_version, kind.plural]
    stored = view.inward(obj)
    if view.defaulted:
        default(stored_kind(kind), stored)
    return stored


def outward_object(kind: Kind, obj: Object) -> Object:
    if not kind.is_view:
        return obj
    if kind.custom is not None:  # conversion by name only: all versions of the kind have the same fields
        shown = {**obj, "apiVersion": kind.api_version}
        default(kind, shown)
        return shown
    return _VIEWS[kind.api_version, kind.plural].outward(obj)


def outward(kind: Kind, record: Record) -> Record:
    """A stored record as `kind` shows it."""
    if not kind.is_view:
        return record
    return replace(record, raw=orjson.dumps(outward_object(kind, record.parse())))
