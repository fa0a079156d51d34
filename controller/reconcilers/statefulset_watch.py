"""The StatefulSet reconciler's eyes: which changes concern which StatefulSet, and what a decision gets to see.

Run by the loop; `decide` is in statefulset.py. Imports views and store. Invariant: an observation is one state of the
cache.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime

from api.objects import Object, name_of, uid_of
from controller.reconcilers.children import Children
from controller.reconcilers.history import CONTROLLER_REVISIONS, find_current, planned_name, revisions_of
from controller.reconcilers.loop import Decision, Failure, Source, Watch, own_key
from controller.reconcilers.statefulset import STATEFUL_SETS, Observed, decide
from controller.reconcilers.statefulset_claims import CLAIMS, claim_names
from controller.reconcilers.statefulset_pods import ordinal_of
from controller.reconcilers.views import PodFacts, Views
from controller.reconcilers.workloads import PODS, replicas_of
from controller.store import Query
from controller.store.types import Event, Key


class StatefulSetReconciler:
    name = "statefulset-controller"
    concurrency = 16

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._pods = Children(views, STATEFUL_SETS, PODS)
        self._revisions = Children(views, STATEFUL_SETS, CONTROLLER_REVISIONS)

    def sources(self) -> Sequence[Source]:
        return (
            Watch(STATEFUL_SETS.resource, own_key),
            Watch(PODS.resource, self._pods.keys),
            Watch(CONTROLLER_REVISIONS.resource, self._revisions.keys),
            Watch(CLAIMS.resource, self._on_claim),
        )

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        record = self._views.store.get(Key(*STATEFUL_SETS.resource, *key))
        if record is None:
            return None
        stateful_set = self._views.object(record)
        pods = self._views.pods_of(uid_of(stateful_set))
        records = (*self._revisions.owned(uid_of(stateful_set)), *self._revisions.orphans(key[0]))
        revisions = tuple(self._views.object(one) for one in records)
        return Observed(
            stateful_set=stateful_set,
            pods=pods,
            revisions=revisions,
            now=self._clock(),
            orphans=tuple(self._views.pod(one) for one in self._pods.orphans(key[0])),
            claims=self._claims(stateful_set, pods, key[0]),
            occupied=self._occupied(stateful_set, revisions, key[0]),
            failure=failure,
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _claims(self, stateful_set: Object, pods: Iterable[PodFacts], namespace: str) -> Mapping[str, Object]:
        if not stateful_set["spec"].get("volumeClaimTemplates"):
            return {}
        start = int((stateful_set["spec"].get("ordinals") or {}).get("start") or 0)
        ordinals = {ordinal_of(name_of(stateful_set), pod.name) for pod in pods}
        ordinals.update(range(start, start + replicas_of(stateful_set)))
        names = [name for one in ordinals if one is not None for name in claim_names(stateful_set, one).values()]
        found = ((name, self._views.get(Key(*CLAIMS.resource, namespace, name))) for name in names)
        return {name: claim for name, claim in found if claim is not None}

    def _occupied(self, stateful_set: Object, revisions: Iterable[Object], namespace: str) -> bool:
        """Looked up only when there is a revision to make: hashing a template takes its time."""
        if find_current(stateful_set["spec"]["template"], revisions_of(stateful_set, revisions)) is not None:
            return False
        planned = Key(*CONTROLLER_REVISIONS.resource, namespace, planned_name(stateful_set))
        return self._views.store.get(planned) is not None

    def _on_claim(self, event: Event) -> Iterable[Hashable]:
        """The sets whose claims' names look like this one's."""
        key = event.record.key
        for record in self._views.store.list(STATEFUL_SETS.resource, Query(namespace=key.namespace)).records:
            templates = self._views.object(record)["spec"].get("volumeClaimTemplates") or ()
            bases = (f"{name_of(one)}-{record.key.name}" for one in templates)
            if any(ordinal_of(base, key.name) is not None for base in bases):
                yield key.namespace, record.key.name
