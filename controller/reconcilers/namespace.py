"""Namespaces: one that is being deleted is emptied, then finalized; each step shows in its conditions.

Run by the loop, one key a namespace. `decide` is pure. Pods go first and everything else only when they are gone, so
that nothing a pod relies on (its NetworkPolicy, its Secrets) disappears before the pod (KEP-5080). Rules:
k8s.io/kubernetes pkg/controller/namespace/deletion. Invariant: the finalizer `kubernetes` is dropped only when the
cache shows nothing left in the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api import kinds
from api.errors import qualified
from api.kinds import Kind
from api.objects import Object, format_time, is_deleting, metadata, name_of, uid_of
from controller.reconcilers.actions import Action, DeleteAll, Together, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch, WatchEveryKind
from controller.reconcilers.views import Views
from controller.store import Query
from controller.store.types import Event, EventType, Key

NAMESPACES = kinds.by_resource("", "namespaces")
FINALIZER = "kubernetes"
_PODS = ("", "pods")
_REMAIN_SECONDS = 5.0
"""How often to try again while content with finalizers or grace periods remains."""


@dataclass(frozen=True)
class Content:
    """What is left of one kind. `undeleted`: not yet marked for deletion. `finalizers`: how many objects have each."""

    kind: Kind
    count: int
    undeleted: int
    finalizers: Mapping[str, int]


@dataclass(frozen=True)
class Observed:
    namespace: Object
    contents: tuple[Content, ...]
    now: datetime
    failure: Failure | None = None


def decide(observed: Observed) -> Decision:
    namespace = observed.namespace
    if not is_deleting(namespace):
        return NOTHING
    contents = [one for one in observed.contents if one.count]
    told = _status_write(namespace, _status(observed, contents))
    actions: tuple[Action, ...] = (told,) if told else ()
    if not contents:
        return Decision((*actions, _finalize(namespace)) if FINALIZER in _finalizers(namespace) else actions)
    pods = [one for one in contents if one.kind.resource == _PODS]
    turn = pods or contents
    deletes: tuple[Action, ...] = tuple(DeleteAll(one.kind, name_of(namespace)) for one in turn if one.undeleted)
    if deletes:
        actions = (*actions, Together(deletes))
    return Decision(actions, requeue_after_seconds=_REMAIN_SECONDS)


def _finalizers(namespace: Mapping[str, Any]) -> Sequence[str]:
    finalizers: Sequence[str] = (namespace.get("spec") or {}).get("finalizers") or ()
    return finalizers


def _finalize(namespace: Object) -> Write:
    kept = [one for one in _finalizers(namespace) if one != FINALIZER]
    where = (NAMESPACES, "", name_of(namespace), uid_of(namespace))
    return Write(*where, replace={"spec": {"finalizers": kept}}, subresource="finalize")


def _status_write(namespace: Object, status: Object) -> Write | None:
    if status == namespace.get("status"):
        return None
    where = (NAMESPACES, "", name_of(namespace), uid_of(namespace))
    return Write(*where, replace={"status": status}, subresource="status")


def _status(observed: Observed, contents: Sequence[Content]) -> Object:
    """Phase Terminating and the five deletion conditions, in Kubernetes' words."""
    before = (observed.namespace.get("status") or {}).get("conditions") or []
    told = [*_deletion_facts(observed.failure), _remaining(contents), _finalizing(contents)]
    known = {condition["type"]: condition for condition in before}
    moment = format_time(observed.now)
    conditions = [_condition(known.get(type), type, fact, moment) for type, *fact in told]
    return {"phase": "Terminating", "conditions": conditions}


def _deletion_facts(failure: Failure | None) -> Iterable[tuple[str, str, str, str]]:
    discovered = "All resources successfully discovered"
    yield "NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", discovered
    parsed = "All legacy kube types successfully parsed"
    yield "NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", parsed
    if failure is not None and not failure.error.retryable:
        why = f"Failed to delete all resource types: {failure.error.message}"
        yield "NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", why
    else:
        deleted = "All content successfully deleted, may be waiting on finalization"
        yield "NamespaceDeletionContentFailure", "False", "ContentDeleted", deleted


def _remaining(contents: Sequence[Content]) -> tuple[str, str, str, str]:
    type = "NamespaceContentRemaining"
    if not contents:
        return type, "False", "ContentRemoved", "All content successfully removed"
    parts = sorted(f"{_resource(one.kind)} has {one.count} resource instances" for one in contents)
    return type, "True", "SomeResourcesRemain", f"Some resources are remaining: {', '.join(parts)}"


def _finalizing(contents: Sequence[Content]) -> tuple[str, str, str, str]:
    type = "NamespaceFinalizersRemaining"
    counts: dict[str, int] = {}
    for one in contents:
        for finalizer, count in one.finalizers.items():
            counts[finalizer] = counts.get(finalizer, 0) + count
    if not counts:
        return type, "False", "ContentHasNoFinalizers", "All content-preserving finalizers finished"
    parts = sorted(f"{finalizer} in {count} resource instances" for finalizer, count in counts.items())
    text = f"Some content in the namespace has finalizers remaining: {', '.join(parts)}"
    return type, "True", "SomeFinalizersRemain", text


def _resource(kind: Kind) -> str:
    """`pods.` and `deployments.apps`: the message names the core group by its empty name."""
    return qualified(kind.group, kind.plural) if kind.group else f"{kind.plural}."


def _condition(known: Mapping[str, Any] | None, type: str, fact: Sequence[str], moment: str) -> Object:
    status, reason, message = fact
    since = known["lastTransitionTime"] if known is not None and known["status"] == status else moment
    return {"type": type, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}


class NamespaceReconciler:
    name = "namespace-controller"
    concurrency = 8

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._terminating: set[str] = set()

    def sources(self) -> Sequence[Source]:
        contents = WatchEveryKind(self._on_content, lambda kind: kind.namespaced)
        return (Watch(NAMESPACES.resource, self._on_namespace), contents)

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        namespace = self._views.get(Key(*NAMESPACES.resource, "", key))
        if namespace is None or not is_deleting(namespace):
            return None
        contents = tuple(self._content(kind, key) for kind in kinds.stored_kinds() if kind.namespaced)
        return Observed(namespace, contents, self._clock(), failure)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _content(self, kind: Kind, namespace: str) -> Content:
        finalizers: dict[str, int] = {}
        undeleted = 0
        records = self._views.store.list(kind.resource, Query(namespace=namespace)).records
        for record in records:
            if b'"deletionTimestamp"' not in record.raw:
                undeleted += 1
            if b'"finalizers":[' in record.raw:
                for finalizer in metadata(record.parse()).get("finalizers") or ():
                    finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        return Content(kind, len(records), undeleted, finalizers)

    def _on_namespace(self, event: Event) -> Iterable[Hashable]:
        name = event.record.key.name
        if event.type is not EventType.DELETED and b'"deletionTimestamp"' in event.record.raw:
            self._terminating.add(name)
            return (name,)
        self._terminating.discard(name)
        return ()

    def _on_content(self, event: Event) -> Iterable[Hashable]:
        namespace = event.record.key.namespace
        return (namespace,) if namespace in self._terminating else ()
