"""The Deployment reconciler's eyes: which changes concern which Deployment, and what a decision gets to see.

Run by the loop; `decide` is in deployment.py. Imports views and store. Invariant: an observation is one state of the
cache. Pods are not watched: their ReplicaSet's status says what a rollout needs to know, deleted pods included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from api.objects import Object, uid_of
from controller.reconcilers.children import Children
from controller.reconcilers.deployment import DEPLOYMENTS, Observed, decide
from controller.reconcilers.loop import Decision, Failure, Source, Watch, own_key
from controller.reconcilers.replicaset import REPLICA_SETS
from controller.reconcilers.revisions import planned_name
from controller.reconcilers.views import Views
from controller.store.types import Key


class DeploymentReconciler:
    name = "deployment-controller"
    concurrency = 16

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._sets = Children(views, DEPLOYMENTS, REPLICA_SETS)

    def sources(self) -> Sequence[Source]:
        return (Watch(DEPLOYMENTS.resource, own_key), Watch(REPLICA_SETS.resource, self._sets.keys))

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
        records = (*self._sets.owned(uid_of(deployment)), *self._sets.orphans(namespace))
        return tuple(self._views.object(one) for one in records)

    def _pods_running(self, deployment: Object, sets: Iterable[Object]) -> Mapping[str, int]:
        """Counted for Recreate only: nothing else asks."""
        if (deployment["spec"].get("strategy") or {}).get("type") != "Recreate":
            return {}
        return {uid_of(one): sum(not pod.finished for pod in self._views.pods_of(uid_of(one))) for one in sets}
