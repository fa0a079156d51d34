"""The Deployment reconciler's eyes: which changes concern which Deployment, and what a decision gets to see.

Run by the loop; `decide` is in deployment.py. Imports views and store. Invariant: an observation is one state of the
cache. Pods are not watched: their ReplicaSet's status says what a rollout needs to know, deleted pods included.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime

from api.objects import Object, controller_of, labels_of, uid_of
from api.selectors import from_object
from controller.reconcilers.deployment import DEPLOYMENTS, Observed, decide
from controller.reconcilers.loop import Decision, Failure, Source, Watch, own_key
from controller.reconcilers.replicaset import REPLICA_SETS
from controller.reconcilers.revisions import planned_name
from controller.reconcilers.views import Views
from controller.store import Query
from controller.store.types import Event, EventType, Key


class DeploymentReconciler:
    name = "deployment-controller"
    concurrency = 16

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._owners: dict[Key, str] = {}
        self._bare: dict[str, set[Key]] = {}

    def sources(self) -> Sequence[Source]:
        return (Watch(DEPLOYMENTS.resource, own_key), Watch(REPLICA_SETS.resource, self._on_replica_set))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        record = self._views.store.get(Key(*DEPLOYMENTS.resource, *key))
        if record is None:
            return None
        deployment = self._views.object(record)
        sets = self._replica_sets(deployment, key[0])
        planned = Key(*REPLICA_SETS.resource, key[0], planned_name(deployment))
        return Observed(
            deployment=deployment,
            replica_sets=sets,
            now=self._clock(),
            pods_running=self._pods_running(deployment, sets),
            occupied=self._views.store.get(planned) is not None,
            failure=failure,
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _replica_sets(self, deployment: Object, namespace: str) -> tuple[Object, ...]:
        owned = [one for one in self._views.store.by_owner(uid_of(deployment)) if one.key.plural == "replicasets"]
        bare = [self._views.store.get(key) for key in self._bare.get(namespace, ())]
        records = sorted((one for one in (*owned, *bare) if one is not None), key=lambda one: one.key)
        return tuple(self._views.object(one) for one in records)

    def _pods_running(self, deployment: Object, sets: Iterable[Object]) -> Mapping[str, int]:
        """Counted for Recreate only: nothing else asks."""
        if (deployment["spec"].get("strategy") or {}).get("type") != "Recreate":
            return {}
        return {uid_of(one): sum(not pod.finished for pod in self._views.pods_of(uid_of(one))) for one in sets}

    def _on_replica_set(self, event: Event) -> Iterable[Hashable]:
        key = event.record.key
        obj = self._views.object(event.record)
        owner = controller_of(obj)
        names = {self._owners.pop(key, "")}
        bare = self._bare.setdefault(key.namespace, set())
        bare.discard(key)
        if owner is not None and owner["kind"] == DEPLOYMENTS.kind:
            names.add(owner["name"])
            if event.type is not EventType.DELETED:
                self._owners[key] = owner["name"]
        elif owner is None and event.type is not EventType.DELETED:
            bare.add(key)
            names.update(self._matching(obj, key.namespace))
        return [(key.namespace, name) for name in names if name]

    def _matching(self, replica_set: Object, namespace: str) -> Iterable[str]:
        """The Deployments that may adopt a ReplicaSet nobody controls."""
        for record in self._views.store.list(DEPLOYMENTS.resource, Query(namespace=namespace)).records:
            if from_object(self._views.object(record)["spec"]["selector"]).matches(labels_of(replica_set)):
                yield record.key.name
