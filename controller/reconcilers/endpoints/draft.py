"""EndpointSlices as they shall be, and the writes that make them so: for slices of Services and of mirrored Endpoints.

Pure but for `slices_of`, which reads the store. Invariants: what would be deleted takes the place of what would be
created; every write carries the version it was decided on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from api.objects import Object, annotations_of, is_deleting, labels_of, metadata, name_of, namespace_of, uid_of
from api.selectors import from_labels
from controller.reconcilers.actions import Create, Delete, Write
from controller.reconcilers.endpoints.facts import MANAGED_BY, SERVICE_NAME, SLICES
from controller.reconcilers.names import child_names, generate_base
from controller.reconcilers.workloads import owner_reference
from controller.store import Query, Store
from controller.store.types import Event, Key

Ports = tuple[tuple[str, ...], ...]
"""A set of ports as a key: sorted, so that their order does not matter."""
_PORT_PARTS = ("name", "port", "protocol", "appProtocol")


@dataclass(frozen=True)
class Draft:
    """A slice as it shall be; `slice` is the one that becomes it, None for a new one."""

    family: str
    ports: Sequence[Object]
    endpoints: Sequence[Object]
    slice: Object | None = None


@dataclass(frozen=True)
class Marks:
    """What slices carry besides. Annotations that are None go; those not named stay."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str | None]


def ports_key(ports: Iterable[Mapping[str, Any]] | None) -> Ports:
    return tuple(sorted(tuple(str(one.get(part) or "") for part in _PORT_PARTS) for one in ports or ()))


def reuse(drafts: Sequence[Draft], spare: Sequence[Object]) -> tuple[list[Draft], list[Object]]:
    """(drafts, what is left to delete). All are of one address family, which never changes."""
    waiting = iter(spare)
    reused = [draft if draft.slice is not None else replace(draft, slice=next(waiting, None)) for draft in drafts]
    return reused, list(waiting)


def differs(draft: Draft, present: Object) -> bool:
    return (present.get("endpoints") or [], present.get("ports") or []) != (draft.endpoints, draft.ports)


def create(owner: Object, name: str, draft: Draft, marks: Marks) -> Create:
    annotations = {key: value for key, value in marks.annotations.items() if value is not None}
    meta: Object = {
        "name": name,
        "generateName": generate_base(name_of(owner)),
        "namespace": namespace_of(owner),
        "labels": dict(marks.labels),
        "ownerReferences": [owner_reference(owner)],
    }
    meta |= {"annotations": annotations} if annotations else {}
    head: Object = {"apiVersion": SLICES.api_version, "kind": SLICES.kind, "metadata": meta}
    return Create(SLICES, head | {"addressType": draft.family, **_body(draft)}, trusted=True)


def update(present: Object, draft: Draft, marks: Marks) -> Write:
    meta: Object = {"labels": dict.fromkeys(labels_of(present)) | dict(marks.labels)}
    known = annotations_of(present)
    annotations = {key: value for key, value in marks.annotations.items() if value != known.get(key)}
    meta |= {"annotations": annotations} if annotations else {}
    where = (SLICES, namespace_of(present), name_of(present), uid_of(present))
    return Write(*where, merge={"metadata": meta}, replace=_body(draft), version=metadata(present)["resourceVersion"])


def delete(one: Object) -> Delete:
    return Delete(SLICES, namespace_of(one), name_of(one), uid_of(one), version=metadata(one)["resourceVersion"])


def _body(draft: Draft) -> Object:
    """Kubernetes shows empty lists of a slice as null."""
    return {"endpoints": list(draft.endpoints) or None, "ports": list(draft.ports) or None}


def slices_of(store: Store, service: tuple[str, str], manager: str) -> tuple[Object, ...]:
    """The slices that `manager` keeps for a Service; those that are going are gone already."""
    namespace, name = service
    marked = from_labels({SERVICE_NAME: name, MANAGED_BY: manager})
    records = store.list(SLICES.resource, Query(namespace=namespace, labels=marked)).records
    return tuple(one for one in (record.parse() for record in records) if not is_deleting(one))


def services_of(event: Event, manager: str) -> set[Hashable]:
    """The Services whose slices an event is about, before it and after it, if `manager` keeps them."""
    records = [record for record in (event.record, event.previous) if record is not None]
    marked = [record for record in records if record.labels.get(MANAGED_BY) == manager]
    return {(one.key.namespace, one.labels[SERVICE_NAME]) for one in marked if SERVICE_NAME in one.labels}


def free_names(store: Store, owner: Object, count: int) -> tuple[str, ...]:
    """The names of the next `count` slices of an owner."""
    names = child_names(name_of(owner), uid_of(owner), ())
    return tuple(islice(_unused(store, namespace_of(owner), names), count))


def _unused(store: Store, namespace: str, names: Iterator[str]) -> Iterator[str]:
    return (name for name in names if store.get(Key(*SLICES.resource, namespace, name)) is None)
