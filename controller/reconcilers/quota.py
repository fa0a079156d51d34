"""ResourceQuota: `status.used` is what there is.

Run by the loop, one key a quota. Writes charge the quota themselves (controller/registry/ledger.py); here is counted
what went, what a charge was made for and never came, and what an edited quota bounds anew. `decide` is pure.
Safety: a create that was charged commits only while the quota is unchanged. So before a wrong sum is replaced it is
taken away: that ends every create under way, and what committed before is in the cache when the sum is made anew.
Rules: k8s.io/kubernetes/pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from api import kinds
from api.objects import Object, name_of, namespace_of, uid_of
from controller.admission.quota import QUOTAS, count, hard_of
from controller.reconcilers.actions import Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch, own_key
from controller.reconcilers.views import Views
from controller.registry.ledger import MEASURED
from controller.store.types import Event, EventType, Key

PODS = ("", "pods")
REST_SECONDS = 1.0
"""A quota is corrected at most so often: each correction makes creates under way start again."""


@dataclass(frozen=True)
class Observed:
    """`used`: counted from the same state of the cache. `rest_seconds`: how long the quota is still to be let alone."""

    quota: Object
    used: dict[str, str]
    rest_seconds: float = 0.0


def decide(observed: Observed) -> Decision:
    quota = observed.quota
    status: Object = {"hard": dict(hard_of(quota)), "used": observed.used}
    if quota.get("status") == status:
        return NOTHING
    if (quota.get("status") or {}).get("used") is None:
        return Decision(status=_put(quota, status))
    if observed.rest_seconds > 0:
        return Decision(requeue_after_seconds=observed.rest_seconds)
    return Decision((_put(quota, {"hard": status["hard"]}),))


def _put(quota: Object, status: Object) -> Write:
    """Only over the version that was counted with: a charge in between voids the count."""
    version = quota["metadata"]["resourceVersion"]
    where = (QUOTAS, namespace_of(quota), name_of(quota), uid_of(quota))
    return Write(*where, replace={"status": status}, subresource="status", version=version)


class ResourceQuotaReconciler:
    name = "resourcequota-controller"
    concurrency = 4

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._quotas: dict[str, set[str]] = {}
        self._corrected: dict[tuple[str, str], float] = {}

    def sources(self) -> Sequence[Source]:
        """The quotas first: what happens to other objects concerns namespaces that have one."""
        others = [kind for kind in kinds.stored_kinds() if kind.namespaced and kind.resource != QUOTAS.resource]
        return (Watch(QUOTAS.resource, self._on_quota), *(Watch(kind.resource, self._on_object) for kind in others))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        record = self._views.store.get(Key(*QUOTAS.resource, *key))
        if record is None:
            self._corrected.pop(key, None)
            return None
        quota, now = record.parse(), self._clock().timestamp()
        passed = now - self._corrected.get(key, 0.0)
        rest = REST_SECONDS - passed if 0 <= passed < REST_SECONDS else 0.0
        if rest == 0.0:
            self._corrected[key] = now
        return Observed(quota, count(self._views.store, quota), rest)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _on_quota(self, event: Event) -> Iterable[Hashable]:
        key = event.record.key
        names = self._quotas.setdefault(key.namespace, set())
        if event.type is EventType.DELETED:
            names.discard(key.name)
            if not names:
                del self._quotas[key.namespace]
        else:
            names.add(key.name)
        if event.type is EventType.MODIFIED:
            return own_key(event)
        return {(key.namespace, key.name), *((key.namespace, name) for name in names)}  # quotas may count quotas

    def _on_object(self, event: Event) -> Iterable[Hashable]:
        namespace = event.record.key.namespace
        if namespace not in self._quotas or not _changes_costs(event):
            return ()
        return [(namespace, name) for name in self._quotas[namespace]]


def _changes_costs(event: Event) -> bool:
    if event.type is not EventType.MODIFIED or event.previous is None:
        return True
    if event.record.key.resource != PODS:
        return (*event.record.key.resource, "") in MEASURED
    phases = [one.fields.get("status.phase") for one in (event.record, event.previous)]
    sizes = [one.parse()["metadata"].get("generation") for one in (event.record, event.previous)]
    return phases[0] != phases[1] or sizes[0] != sizes[1]
