"""The garbage collector: objects go when their last owner has gone, and owners wait or let go as they were asked to.

Run by the loop, one key an object. `decide` is pure. Rules: k8s.io/kubernetes pkg/controller/garbagecollector and
https://kubernetes.io/docs/concepts/architecture/garbage-collection/. Invariant: an owner counts as absent only if the
same state of the cache that holds the dependent lacks it (an owner exists before anything can refer to its uid), so
nothing is deleted for an owner that is merely not seen yet; an owner of a kind that is not served is never absent.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from api import kinds
from api.kinds import Kind
from api.objects import Object, is_deleting, metadata, name_of, namespace_of, uid_of
from controller.reconcilers.actions import Action, Delete, Disown, DropFinalizer, Together
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, WatchEveryKind
from controller.reconcilers.views import AMBIGUOUS, Views, owner_bytes, owners_of
from controller.store.types import Event, EventType, Key, Record

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_NEVER_OWNERS = frozenset((("", "events"), ("coordination.k8s.io", "leases")))


class OwnerState(StrEnum):
    SOLID = "solid"
    ABSENT = "absent"
    WAITING = "waiting"
    """It is being deleted in the foreground, and this dependent blocks it."""


@dataclass(frozen=True)
class Dependent:
    kind: Kind
    namespace: str
    name: str
    uid: str
    blocks: bool
    deleting_in_foreground: bool


@dataclass(frozen=True)
class Observed:
    """An object, the state of each of its owners by uid, and what depends on it."""

    kind: Kind
    obj: Object
    owners: Mapping[str, OwnerState]
    dependents: tuple[Dependent, ...]


def decide(observed: Observed) -> Decision:
    obj = observed.obj
    finalizers = metadata(obj).get("finalizers") or ()
    if is_deleting(obj):
        if ORPHAN in finalizers:
            return _let_go(observed)
        if FOREGROUND in finalizers:
            return _wait_for_dependents(observed)
        return NOTHING
    return _judge_owners(observed)


def _let_go(observed: Observed) -> Decision:
    """Deletion with orphaning: first every dependent loses the reference, then the owner its finalizer."""
    uid = uid_of(observed.obj)
    disowned = tuple(Disown(one.kind, one.namespace, one.name, one.uid, (uid,)) for one in observed.dependents)
    return Decision((*_together(disowned), _drop(observed, ORPHAN)))


def _wait_for_dependents(observed: Observed) -> Decision:
    """Deletion in the foreground: the owner stays while a dependent that blocks it does. The dependents' own keys
    delete them, because to them this owner is waiting."""
    if any(one.blocks for one in observed.dependents):
        return NOTHING
    return Decision((_drop(observed, FOREGROUND),))


def _judge_owners(observed: Observed) -> Decision:
    gone = tuple(uid for uid, state in observed.owners.items() if state is not OwnerState.SOLID)
    where = _where(observed)
    if not gone:
        return NOTHING
    if len(gone) < len(observed.owners):
        return Decision((Disown(*where, gone),))  # a living owner keeps it; the others lose their reference
    if OwnerState.WAITING in observed.owners.values() and observed.dependents:
        unblock: tuple[Action, ...] = ()
        if any(one.deleting_in_foreground for one in observed.dependents):
            unblock = (Disown(*where, gone, unblock=True),)  # a circle of foreground deletions would wait for ever
        return Decision((*unblock, _delete(observed, "Foreground")))
    finalizers = metadata(observed.obj).get("finalizers") or ()
    if ORPHAN in finalizers:
        return Decision((_delete(observed, "Orphan"),))
    return Decision((_delete(observed, "Foreground" if FOREGROUND in finalizers else "Background"),))


def _where(observed: Observed) -> tuple[Kind, str, str, str]:
    return (observed.kind, namespace_of(observed.obj), name_of(observed.obj), uid_of(observed.obj))


def _delete(observed: Observed, propagation: str) -> Delete:
    return Delete(*_where(observed), propagation=propagation)


def _drop(observed: Observed, finalizer: str) -> DropFinalizer:
    return DropFinalizer(*_where(observed), finalizer)


def _together(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    return (Together(actions),) if actions else ()


class GarbageCollector:
    name = "garbage-collector-controller"
    concurrency = 64

    def __init__(self, views: Views) -> None:
        self._views = views

    def sources(self) -> Sequence[Source]:
        return (WatchEveryKind(self._keys, lambda kind: True),)

    def observe(self, key: Key, failure: Failure | None) -> Observed | None:
        del failure
        record = self._views.store.get(key)
        if record is None:
            return None
        obj = record.parse()
        dependents = tuple(self._dependents(uid_of(obj))) if _may_need_dependents(obj) else ()
        owners = {reference["uid"]: self._state(reference, obj) for reference in _references(obj)}
        return Observed(kinds.by_resource(*key.resource), obj, owners, dependents)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _keys(self, event: Event) -> Iterable[Hashable]:
        """Whom a change may concern. Most objects have neither owners nor finalizers: two byte searches say so."""
        record, previous = event.record, event.previous
        if event.type is EventType.DELETED:
            return self._keys_of_deleted(record)
        keys: list[Key] = []
        owners, before = owner_bytes(record), owner_bytes(previous) if previous is not None else b""
        if owners != before or owners is AMBIGUOUS:
            if owners and not self._all_solid(record):
                keys.append(record.key)
            if before and previous is not None:  # former owners may have waited for this one
                keys.extend(_owner_keys(previous.parse()))
        if b'"deletionTimestamp":"' in record.raw and b'"finalizers":[' in record.raw:
            keys.append(record.key)
            keys.extend(one.key for one in self._views.store.by_owner(uid_of(record.parse())))
        return keys

    def _all_solid(self, record: Record) -> bool:
        """Whether every owner is there and stays: the usual case of a new child, settled without a reconcile."""
        dependent = {"metadata": {"namespace": record.key.namespace}}
        for reference in owners_of(record):
            key = _key_of(reference, dependent)
            owner = self._views.get(key) if key is not None else None
            if owner is None or uid_of(owner) != reference.get("uid") or is_deleting(owner):
                return False
        return True

    def _keys_of_deleted(self, record: Record) -> Iterable[Hashable]:
        if record.key.resource in _NEVER_OWNERS:
            return ()
        obj = record.parse()
        return [one.key for one in self._views.store.by_owner(uid_of(obj))] + list(_owner_keys(obj))

    def _dependents(self, uid: str) -> Iterable[Dependent]:
        for record in self._views.store.by_owner(uid):
            obj = record.parse()
            if uid_of(obj) == uid:
                continue  # what owns itself would wait for itself
            blocks = any(one["uid"] == uid and one.get("blockOwnerDeletion") for one in _references(obj))
            yield Dependent(
                kinds.by_resource(*record.key.resource),
                record.key.namespace,
                record.key.name,
                uid_of(obj),
                blocks,
                is_deleting(obj) and FOREGROUND in (metadata(obj).get("finalizers") or ()),
            )

    def _state(self, reference: Mapping[str, Any], dependent: Object) -> OwnerState:
        key = _key_of(reference, dependent)
        if key is None:
            return OwnerState.SOLID
        record = self._views.store.get(key)
        owner = record.parse() if record is not None else None
        if owner is None or uid_of(owner) != reference["uid"]:
            return OwnerState.ABSENT
        foreground = is_deleting(owner) and FOREGROUND in (metadata(owner).get("finalizers") or ())
        return OwnerState.WAITING if foreground and reference.get("blockOwnerDeletion") else OwnerState.SOLID


def _references(obj: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    references: Sequence[Mapping[str, Any]] = metadata(obj).get("ownerReferences") or ()
    return references


def _may_need_dependents(obj: Mapping[str, Any]) -> bool:
    return is_deleting(obj) or bool(_references(obj))


def _owner_keys(obj: Mapping[str, Any]) -> Iterable[Key]:
    keys = (_key_of(reference, obj) for reference in _references(obj))
    return [key for key in keys if key is not None]


def _key_of(reference: Mapping[str, Any], dependent: Mapping[str, Any]) -> Key | None:
    """Where the owner is kept; None if its kind is not served, or if it could not own across namespaces."""
    group, _, version = reference["apiVersion"].rpartition("/")
    kind = kinds.by_gvk(group, version, reference["kind"])
    if kind is None:
        return None
    namespace = namespace_of(dependent) if kind.namespaced else ""
    if kind.namespaced and not namespace:
        return None
    return Key(*kind.resource, namespace, reference["name"])
