"""PodDisruptionBudgets: how many of a budget's pods may be evicted now.

Run by the loop, one key a budget; `decide` is pure. Evictions spend `disruptionsAllowed`
(controller/registry/eviction.py) and leave the pod's name in `disruptedPods`; here the pod is not counted as healthy
until it is seen to go, or two minutes have passed. Invariant: the status is written over the version that was counted
with, so no spent disruption is given out again. Rules: k8s.io/kubernetes/pkg/controller/disruption.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

from api import kinds
from api.objects import Object, controller_of, format_time, name_of, namespace_of, uid_of
from api.selectors import LabelSelector
from controller.reconcilers.actions import Action, Note, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch, own_key
from controller.reconcilers.rollout import share
from controller.reconcilers.views import PodFacts, Views, seconds_of
from controller.registry.eviction import BUDGETS, PODS, SYNC_FAILED, allowance, selector_of, with_allowance
from controller.store import Query
from controller.store.types import Event, EventType, Key

DELETION_SECONDS = 120.0
"""An evicted pod that is still there after so long counts again."""
_SCALED = (("", "replicationcontrollers"), ("apps", "replicasets"), ("apps", "statefulsets"), ("apps", "deployments"))
_KINDS = {kind.kind: kind for kind in (kinds.by_resource(*resource) for resource in _SCALED)}

_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)


@dataclass(frozen=True)
class Observed:
    """`scales`: the replicas that the controllers of the pods are asked to keep, by uid. `unmanaged`: pods without a
    controller. `problem`: why the scales are not known."""

    budget: Object
    pods: tuple[PodFacts, ...]
    now: datetime
    scales: Mapping[str, int]
    unmanaged: tuple[str, ...] = ()
    problem: str = ""


def decide(observed: Observed) -> Decision:
    """The status that tells how many pods may go."""
    budget = observed.budget
    before = budget.get("status") or {}
    moment = format_time(observed.now)
    if observed.problem and _needs_scale(budget):
        failed = {**before, "disruptionsAllowed": 0}
        failed["conditions"] = with_allowance(before, moment, "False", SYNC_FAILED, observed.problem)
        status, disrupted = failed, {}
    else:
        disrupted = _still_going(observed)
        status = _counted(observed, disrupted)
        same = {**status, "conditions": before.get("conditions")} == before
        status["conditions"] = before["conditions"] if same and before.get("conditions") else allowance(status, moment)
    wait = min((until - observed.now.timestamp() for until in disrupted.values()), default=None)
    if status == before:
        return NOTHING if wait is None else Decision(requeue_after_seconds=wait)
    return Decision(tuple(_notes(observed)), _put(budget, status), wait)


def _put(budget: Object, status: Object) -> Write:
    where = (BUDGETS, namespace_of(budget), name_of(budget), uid_of(budget))
    version = budget["metadata"]["resourceVersion"]
    return Write(*where, replace={"status": status}, subresource="status", version=version)


def _counted(observed: Observed, disrupted: Mapping[str, float]) -> Object:
    healthy = sum(pod.ready and not pod.deleting and pod.name not in disrupted for pod in observed.pods)
    expected, desired = _wanted(observed)
    allowed = max(0, healthy - desired) if expected > 0 else 0
    before = observed.budget.get("status") or {}
    names = {name: moment for name, moment in (before.get("disruptedPods") or {}).items() if name in disrupted}
    others = {key: value for key, value in before.items() if key not in ("disruptedPods", "conditions")}
    counts = {"currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected}
    counts |= {"disruptionsAllowed": allowed}
    generation = observed.budget["metadata"].get("generation") or 1
    status: Object = {**others, **counts, "observedGeneration": generation, "conditions": before.get("conditions")}
    return status | ({"disruptedPods": names} if names else {})


def _wanted(observed: Observed) -> tuple[int, int]:
    """(pods expected, pods that must be healthy). Shares are rounded up, and are of what the controllers shall keep."""
    spec, scale = observed.budget["spec"], sum(observed.scales.values())
    if spec.get("maxUnavailable") is not None:
        return scale, max(0, scale - ceil(share(spec["maxUnavailable"], scale)))
    least = spec.get("minAvailable")
    if isinstance(least, str):
        return scale, ceil(share(least, scale))
    return (len(observed.pods), least) if least is not None else (0, 0)


def _needs_scale(budget: Object) -> bool:
    spec = budget["spec"]
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def _still_going(observed: Observed) -> dict[str, float]:
    """Evicted pods that have not gone yet, and until when they do not count."""
    now = observed.now.timestamp()
    present = {pod.name for pod in observed.pods if not pod.deleting}
    told = (observed.budget.get("status") or {}).get("disruptedPods") or {}
    until = {name: seconds_of(moment) + DELETION_SECONDS for name, moment in told.items() if name in present}
    return {name: end for name, end in until.items() if end > now}


def _notes(observed: Observed) -> Iterable[Action]:
    budget = observed.budget
    if not observed.pods:
        yield Note(budget, "Normal", "NoPods", "No matching pods found")
    if observed.problem and _needs_scale(budget):
        text = f"Failed to calculate the number of expected pods: {observed.problem}"
        yield Note(budget, "Warning", "CalculateExpectedPodCountFailed", text)
    elif observed.unmanaged and _needs_scale(budget):
        yield Note(budget, "Warning", "UnmanagedPods", _UNMANAGED.format(selector_of(budget)))


class DisruptionReconciler:
    name = "disruption-controller"
    concurrency = 4

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock
        self._selectors: dict[str, dict[str, LabelSelector]] = {}

    def sources(self) -> Sequence[Source]:
        """Budgets last: what else exists at the start is looked at for them anyway."""
        scaled = (Watch(resource, self._on_scaled) for resource in _SCALED)
        return (*scaled, Watch(PODS.resource, self._on_pod), Watch(BUDGETS.resource, self._on_budget))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        budget = self._views.get(Key(*BUDGETS.resource, *key))
        if budget is None:
            return None
        query = Query(namespace=key[0], labels=selector_of(budget))
        pods = tuple(self._views.pod(record) for record in self._views.store.list(PODS.resource, query).records)
        scales, problem = self._scales(pods) if _needs_scale(budget) else ({}, "")
        unmanaged = tuple(pod.name for pod in pods if pod.owner is None)
        return Observed(budget, pods, self._clock(), scales, unmanaged, problem)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _scales(self, pods: Iterable[PodFacts]) -> tuple[dict[str, int], str]:
        """(replicas by the uid of who keeps them, why some are not known). Pods of a Deployment count by that."""
        scales: dict[str, int] = {}
        owners = {pod.owner.uid: pod for pod in pods if pod.owner is not None}
        for pod in owners.values():
            assert pod.owner is not None
            keeper = self._keeper(pod.namespace, pod.owner.kind, pod.owner.name, pod.owner.uid)
            if keeper is None and pod.owner.kind in _KINDS:
                return {}, f'found no controllers for pod "{pod.name}"'
            if keeper is None:
                group = pod.owner.api_version.partition("/")[0]
                return {}, f"{pod.owner.kind.lower()}s.{group} does not implement the scale subresource"
            replicas = keeper["spec"].get("replicas")
            scales[uid_of(keeper)] = 1 if replicas is None else int(replicas)
        return scales, ""

    def _keeper(self, namespace: str, kind: str, name: str, uid: str) -> Mapping[str, Any] | None:
        """The topmost controller of a pod that has replicas."""
        known = _KINDS.get(kind)
        found = self._views.get(Key(*known.resource, namespace, name)) if known is not None else None
        if found is None or uid_of(found) != uid:
            return None
        above = controller_of(found)
        if kind == "ReplicaSet" and above is not None and above["kind"] == "Deployment":
            return self._keeper(namespace, "Deployment", above["name"], above["uid"])
        return found

    def _on_budget(self, event: Event) -> Iterable[Hashable]:
        key = event.record.key
        selectors = self._selectors.setdefault(key.namespace, {})
        if event.type is EventType.DELETED:
            selectors.pop(key.name, None)
        else:
            selectors[key.name] = selector_of(event.record.parse())
        if not selectors:
            del self._selectors[key.namespace]
        return own_key(event)

    def _on_pod(self, event: Event) -> Iterable[Hashable]:
        """Labels are compared without a parse; most namespaces have no budget at all."""
        namespace = event.record.key.namespace
        seen = [record.labels for record in (event.record, event.previous) if record is not None]
        selectors = self._selectors.get(namespace, {})
        return [(namespace, name) for name, chosen in selectors.items() if any(chosen.matches(one) for one in seen)]

    def _on_scaled(self, event: Event) -> Iterable[Hashable]:
        namespace = event.record.key.namespace
        return [(namespace, name) for name in self._selectors.get(namespace, ())]
