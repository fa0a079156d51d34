"""One store for several views of a kind: what a group or version shows otherwise than it is kept.

Called by the verbs of the registry (`inward`, `outward`) and by the Registry for reads. Kinds that are no views pass
through untouched. Built-in views are pure functions and judged as the kind they are stored as; versions of a custom
kind are judged as they were asked for and converted when they are stored (`conversion`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from api.kinds import Kind, by_resource
from api.objects import Object, clone
from api.schema import default
from api.schema.custom.type import custom_of
from controller.registry import autoscaler_views, event_views
from controller.registry.conversion import Converter, in_version
from controller.store import Query
from controller.store.selectable import fields_shown, labels_of
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


def judged_kind(kind: Kind) -> Kind:
    """The kind as which a write to `kind` is admitted and validated."""
    return kind if kind.custom is not None else stored_kind(kind)


def is_converted(kind: Kind) -> bool:
    """Whether a webhook may show labels and fields otherwise than they are stored."""
    schema = custom_of(kind)
    return schema is not None and schema.family.webhook is not None


def inward(kind: Kind, obj: Object) -> Object:
    """An object of a built-in `kind` as it is judged and stored; custom ones are judged as they are."""
    if not kind.is_view or kind.custom is not None:
        return obj
    view = _VIEWS[kind.api_version, kind.plural]
    stored = view.inward(obj)
    if view.defaulted:
        default(stored_kind(kind), stored)
    return stored


def outward_object(kind: Kind, obj: Object) -> Object:
    """A judged object as `kind` shows it: only built-in views show another one."""
    if not kind.is_view or kind.custom is not None:
        return obj
    return _VIEWS[kind.api_version, kind.plural].outward(obj)


async def stored_object(converter: Converter, kind: Kind, obj: Object) -> Object:
    """A judged object as it goes into the store. Raises ApiError."""
    schema = custom_of(kind)
    if schema is None or not kind.is_view:
        return obj
    return (await converter.convert(in_version(kind, schema.family.storage), [obj]))[0]


async def judged_object(converter: Converter, kind: Kind, record: Record) -> Object:
    """A stored object as a write to `kind` judges it. Raises ApiError."""
    obj = record.parse()
    if kind.custom is None or not kind.is_view:
        return obj
    return (await converter.read(kind, [obj]))[0]


def outward_judged(kind: Kind, record: Record) -> Record:
    """What was judged but not stored, as `kind` shows it."""
    if not kind.is_view or kind.custom is not None:
        return record
    return replace(record, raw=orjson.dumps(outward_object(kind, record.parse())))


async def outward(converter: Converter, kind: Kind, record: Record) -> Record:
    """A stored record as `kind` shows it. Raises ApiError."""
    return (await outward_all(converter, kind, [record]))[0]


async def outward_all(converter: Converter, kind: Kind, records: list[Record]) -> list[Record]:
    """Stored records as `kind` shows them, converted together. Raises ApiError."""
    if not kind.is_view:
        return records
    objs = [record.parse() for record in records]
    if kind.custom is not None:
        shown = await converter.read(kind, objs)
    else:
        shown = [outward_object(kind, obj) for obj in objs]
    return [replace(record, raw=orjson.dumps(obj)) for record, obj in zip(records, shown, strict=True)]


def stored_query(kind: Kind, query: Query) -> tuple[Query, Query | None]:
    """(what the store is asked, what has to hold on what is shown then; None: nothing more).

    The store knows the fields of custom objects as they were selectable when it got them: it is not asked about those.
    """
    if not query.selects or kind.custom is None:
        return query, None
    fields = query.fields.fields if query.fields is not None else ()
    labels = is_converted(kind) and query.labels is not None and not query.labels.everything
    if not labels and all(field.startswith("metadata.") for field in fields):
        return query, None
    return replace(query, labels=None, fields=None, limit=0), query


def selected(kind: Kind, records: list[Record], query: Query | None) -> list[Record]:
    """Those of the shown records that a query selects."""
    return records if query is None else [one for one in records if query.matches(indexed(kind, one))]


def indexed(kind: Kind, record: Record) -> Record:
    """A shown record of a custom kind with the labels and fields that selectors look at."""
    obj = record.parse()
    fields = fields_shown(kind, record.key.namespace, record.key.name, obj)
    return replace(record, fields=fields, labels=labels_of(obj["metadata"]))


@dataclass(frozen=True)
class Translations:
    """Versions of a kind for admission: `attributes.Translator`."""

    converter: Converter

    async def translate(self, source: Kind, target: Kind, obj: Mapping[str, Any]) -> Object:
        """`obj` (left alone), which is of kind `source`, as `target`. Raises ApiError."""
        if target.custom is not None:
            return (await self.converter.convert(target, [clone(obj)]))[0]
        stored = inward(source, clone(obj))
        return outward_object(target, stored)
