"""The ReplicaSet reconciler's eyes: which changes concern which ReplicaSet, and what a decision gets to see.

Run by the loop; `decide` is in replicaset.py. Imports views and store. Invariant: an observation is one state of the
cache; what is remembered besides (names of pods that went) only makes names nicer, nothing depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime

from api.errors import AlreadyExists
from api.objects import Object, controller_of, uid_of
from controller.reconcilers.children import Children, FormerNames
from controller.reconcilers.loop import Decision, Failure, Source, Watch, own_key
from controller.reconcilers.replicaset import REPLICA_SETS, Observed, decide
from controller.reconcilers.views import PodFacts, Views, controller_of_record
from controller.reconcilers.workloads import PODS
from controller.store.types import Event, EventType, Key


class ReplicaSetReconciler:
    name = "replicaset-controller"
    concurrency = 16

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._gone = FormerNames()
        self._pods = Children(views, REPLICA_SETS, PODS)

    def sources(self) -> Sequence[Source]:
        return (Watch(REPLICA_SETS.resource, self._on_replica_set), Watch(PODS.resource, self._on_pod))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        record = self._views.store.get(Key(*REPLICA_SETS.resource, *key))
        if record is None:
            return None
        replica_set = self._views.object(record)
        uid = uid_of(replica_set)
        if failure is not None and isinstance(failure.error, AlreadyExists):
            self._gone.remember(uid, failure.error.details.get("name") or "")  # somebody else's pod has that name
        pods = self._views.pods_of(uid)
        return Observed(
            replica_set=replica_set,
            pods=pods,
            now=self._clock(),
            orphans=tuple(self._views.pod(record) for record in self._pods.orphans(key[0])),
            gone=self._gone.of(uid),
            era=self._gone.era_of(uid),
            related_on_node=self._related_on_node(replica_set, pods),
            failure=failure,
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _related_on_node(self, replica_set: Object, pods: Iterable[PodFacts]) -> Mapping[str, int]:
        """How many active pods of the same Deployment each node has; only looked up when some must go."""
        if sum(pod.active for pod in pods) <= (replica_set["spec"].get("replicas") or 0):
            return {}
        owner = controller_of(replica_set)
        related = list(pods)
        if owner is not None:
            siblings = self._views.store.by_owner(owner["uid"])
            uids = [uid_of(self._views.object(one)) for one in siblings if one.key.resource == REPLICA_SETS.resource]
            related += [pod for uid in uids if uid != uid_of(replica_set) for pod in self._views.pods_of(uid)]
        return Counter(pod.node for pod in related if pod.active and pod.node)

    def _on_replica_set(self, event: Event) -> Iterable[Hashable]:
        if event.type is EventType.DELETED:
            self._gone.forget(uid_of(event.record.parse()))
        return own_key(event)

    def _on_pod(self, event: Event) -> Iterable[Hashable]:
        if event.type is EventType.DELETED:
            key, owner = event.record.key, controller_of_record(event.record)
            if owner is not None and self._exists(key.namespace, owner.name):
                self._gone.remember(owner.uid, key.name)
        return self._pods.keys(event)

    def _exists(self, namespace: str, name: str) -> bool:
        return self._views.store.get(Key(*REPLICA_SETS.resource, namespace, name)) is not None
