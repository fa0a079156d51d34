"""The DaemonSet reconciler's eyes: which changes concern which DaemonSet, and what a decision gets to see.

Run by the loop; `decide` is in daemonset.py. Imports views and store. Invariant: an observation is one state of the
cache; what is remembered besides (names of pods that went, how often a node's pod failed) only saves work.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from api.errors import AlreadyExists
from api.objects import Object, labels_of, uid_of
from controller.reconcilers.children import Children, FormerNames
from controller.reconcilers.daemonset import DAEMON_SETS, Observed, decide
from controller.reconcilers.daemonset_pods import NodeFacts, node_facts, target_node
from controller.reconcilers.history import CONTROLLER_REVISIONS, find_current, planned_name, revisions_of
from controller.reconcilers.loop import Decision, Failure, Source, Watch, own_key
from controller.reconcilers.node_lifecycle import NODES
from controller.reconcilers.views import PodFacts, Views, controller_of_record
from controller.reconcilers.workloads import PODS
from controller.store.types import Event, EventType, Key

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 900.0


@dataclass(frozen=True)
class Failures:
    """How often a node's pod was taken away because it had failed, and when last (seconds since the epoch)."""

    count: int
    last: float

    def next(self, now: float) -> Failures:
        """One more; after twice the longest wait without any it counts as the first."""
        return Failures(1 if now - self.last > 2 * LAST_RETRY_SECONDS else self.count + 1, now)

    @property
    def retry_at(self) -> float:
        return self.last + min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self.count - 1, 30))


class DaemonSetReconciler:
    name = "daemonset-controller"
    concurrency = 8

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._gone = FormerNames()
        self._failures: dict[str, dict[str, Failures]] = {}
        self._pods = Children(views, DAEMON_SETS, PODS)
        self._revisions = Children(views, DAEMON_SETS, CONTROLLER_REVISIONS)

    def sources(self) -> Sequence[Source]:
        return (
            Watch(DAEMON_SETS.resource, self._on_daemon_set),
            Watch(PODS.resource, self._on_pod),
            Watch(CONTROLLER_REVISIONS.resource, self._revisions.keys),
            Watch(NODES.resource, self._on_node),
        )

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        record = self._views.store.get(Key(*DAEMON_SETS.resource, *key))
        if record is None:
            return None
        daemon_set = self._views.object(record)
        uid = uid_of(daemon_set)
        if failure is not None and isinstance(failure.error, AlreadyExists):
            self._gone.remember(uid, failure.error.details.get("name") or "")  # somebody else's pod has that name
        pods = self._views.pods_of(uid)
        records = (*self._revisions.owned(uid), *self._revisions.orphans(key[0]))
        revisions = tuple(self._views.object(one) for one in records)
        return Observed(
            daemon_set=daemon_set,
            pods=pods,
            revisions=revisions,
            nodes=self._nodes(),
            now=self._clock(),
            orphans=tuple(self._views.pod(one) for one in self._pods.orphans(key[0])),
            targets=self._targets(pods),
            gone=self._gone.of(uid),
            era=self._gone.era_of(uid),
            retry_at={node: one.retry_at for node, one in self._failures.get(uid, {}).items()},
            occupied=self._occupied(daemon_set, revisions, key[0]),
            failure=failure,
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _nodes(self) -> tuple[NodeFacts, ...]:
        return tuple(node_facts(self._views.object(one)) for one in self._views.store.list(NODES.resource).records)

    def _targets(self, pods: Iterable[PodFacts]) -> Mapping[str, str]:
        unbound = ((pod, self._views.store.get(Key(*PODS.resource, pod.namespace, pod.name))) for pod in pods)
        return {pod.uid: target_node(record.parse()) for pod, record in unbound if record is not None and not pod.node}

    def _occupied(self, daemon_set: Object, revisions: Iterable[Object], namespace: str) -> bool:
        """Looked up only when there is a revision to make: hashing a template takes its time."""
        if find_current(daemon_set["spec"]["template"], revisions_of(daemon_set, revisions)) is not None:
            return False
        planned = Key(*CONTROLLER_REVISIONS.resource, namespace, planned_name(daemon_set))
        return self._views.store.get(planned) is not None

    def _on_daemon_set(self, event: Event) -> Iterable[Hashable]:
        if event.type is EventType.DELETED:
            uid = uid_of(event.record.parse())
            self._gone.forget(uid)
            self._failures.pop(uid, None)
        return own_key(event)

    def _on_pod(self, event: Event) -> Iterable[Hashable]:
        if event.type is EventType.DELETED:
            key, owner = event.record.key, controller_of_record(event.record)
            if owner is not None and self._views.store.get(Key(*DAEMON_SETS.resource, key.namespace, owner.name)):
                self._gone.remember(owner.uid, key.name)
                self._count_failure(owner.uid, event)
        return self._pods.keys(event)

    def _count_failure(self, uid: str, event: Event) -> None:
        node = event.record.fields.get("spec.nodeName", "")
        if event.record.fields.get("status.phase") == "Failed" and node:
            now, failures = self._clock().timestamp(), self._failures.setdefault(uid, {})
            failures[node] = failures.get(node, Failures(0, now)).next(now)

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        """All of them, when a node comes, goes, or may be used by others than before; not for its status."""
        if event.previous is not None and event.type is not EventType.DELETED:
            node, before = self._views.object(event.record), event.previous.parse()
            if labels_of(node) == labels_of(before) and node.get("spec") == before.get("spec"):
                return ()
        return [(one.key.namespace, one.key.name) for one in self._views.store.list(DAEMON_SETS.resource).records]
