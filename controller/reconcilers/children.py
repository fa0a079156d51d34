"""Which objects of a resource belong to which owner, and which are nobody's and may be adopted.

Called by the workload reconcilers' watches: ReplicaSets, StatefulSets and DaemonSets of pods, Deployments of
ReplicaSets, StatefulSets and DaemonSets of ControllerRevisions. Imports views and store. Invariant: what is remembered
is derived from the events alone, so that it is complete once a watch has listed what exists.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from secrets import token_hex

from api.kinds import Kind
from api.selectors import from_object
from controller.reconcilers.views import Views, controller_of_record
from controller.store import Query
from controller.store.types import Event, EventType, Key, Record

_REMEMBERED_NAMES = 1000
_ERA_BYTES = 6


class Children:
    def __init__(self, views: Views, owner: Kind, child: Kind) -> None:
        self._views = views
        self._owner = owner
        self._child = child
        self._bare: dict[str, set[Key]] = {}

    def keys(self, event: Event) -> Iterable[Hashable]:
        """The owners that a child's change concerns: its present and former one, or all that may adopt it.

        Events come by thousands: only owner references and labels are read here; children are parsed when they are
        looked at.
        """
        record = event.record
        owner = controller_of_record(record)
        before = controller_of_record(event.previous) if event.previous is not None else None
        names = {one.name for one in (before, owner) if one is not None and one.kind == self._owner.kind}
        bare = self._bare.setdefault(record.key.namespace, set())
        bare.discard(record.key)
        if owner is None and event.type is not EventType.DELETED:
            bare.add(record.key)
            names.update(self._adopters(record))
        return [(record.key.namespace, name) for name in names]

    def owned(self, uid: str) -> tuple[Record, ...]:
        """The children that the owner with this uid controls, by name."""
        records = (one for one in self._views.store.by_owner(uid) if one.key.resource == self._child.resource)
        return _by_key(one for one in records if (controller := controller_of_record(one)) and controller.uid == uid)

    def orphans(self, namespace: str) -> tuple[Record, ...]:
        """The children in a namespace that nobody controls, by name."""
        records = (self._views.store.get(key) for key in self._bare.get(namespace, ()))
        return _by_key(one for one in records if one is not None and controller_of_record(one) is None)

    def _adopters(self, child: Record) -> Iterable[str]:
        if not self._views.store.count(self._owner.resource):
            return
        for record in self._views.store.list(self._owner.resource, Query(namespace=child.key.namespace)).records:
            if from_object(self._views.object(record)["spec"]["selector"]).matches(child.labels):
                yield record.key.name


class FormerNames:
    """Names that an owner's pods have had: they do not come back, for logs, metrics and people would mix them up.

    What an earlier process knew is not known here, and memory is bounded: then a new era begins, with other names.
    """

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._eras: dict[str, str] = {}
        self._first_era = token_hex(_ERA_BYTES)

    def of(self, uid: str) -> frozenset[str]:
        return frozenset(self._names.get(uid, ()))

    def era_of(self, uid: str) -> str:
        return self._eras.get(uid, self._first_era)

    def remember(self, uid: str, name: str) -> None:
        names = self._names.setdefault(uid, set())
        names.add(name)
        if len(names) > _REMEMBERED_NAMES:
            names.clear()
            self._eras[uid] = token_hex(_ERA_BYTES)

    def forget(self, uid: str) -> None:
        self._names.pop(uid, None)
        self._eras.pop(uid, None)


def _by_key(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: record.key))
