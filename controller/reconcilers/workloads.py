"""What the workload decisions share: whose a pod is, how it is made from a template, when it becomes available.

Called by the decisions of ReplicaSets, StatefulSets, DaemonSets and Deployments. Pure. Invariant: a pod is adopted only
at the version that was seen, and released only while it is still the same pod. Rules: k8s.io/kubernetes pkg/controller
(controller_ref_manager, controller_utils).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api import kinds
from api.errors import Conflict
from api.objects import Object, is_deleting, name_of, namespace_of, uid_of
from api.selectors import from_object
from controller.reconcilers.actions import Action, Adopt, Disown, namespace_terminating
from controller.reconcilers.loop import Decision, Failure
from controller.reconcilers.names import generate_base
from controller.reconcilers.views import PodFacts

PODS = kinds.by_resource("", "pods")


@dataclass(frozen=True)
class Claims:
    """`mine`: pods it controls and keeps. `adopted`, `released`: pods that change hands."""

    mine: tuple[PodFacts, ...]
    adopted: tuple[PodFacts, ...]
    released: tuple[PodFacts, ...]


def any_pod(pod: PodFacts) -> bool:
    del pod
    return True


def claim_pods(
    owner: Mapping[str, Any],
    pods: Iterable[PodFacts],
    orphans: Iterable[PodFacts],
    is_member: Callable[[PodFacts], bool] = any_pod,
) -> Claims:
    """Whose is each pod? First match wins. `is_member`: what it takes besides the selector."""
    selector, deleting = from_object(owner["spec"]["selector"]), is_deleting(owner)
    mine, adopted, released = [], [], []
    for pod in pods:
        if not pod.active or (selector.matches(pod.labels) and is_member(pod)):
            mine.append(pod)  # ours, or on its way out anyway
        elif deleting:
            mine.append(pod)  # we are going ourselves: nothing is released any more
        else:
            released.append(pod)  # its labels no longer match
    if not deleting:
        adopted = [pod for pod in orphans if pod.active and selector.matches(pod.labels) and is_member(pod)]
    return Claims(tuple(mine), tuple(adopted), tuple(released))


def claim_actions(owner: Mapping[str, Any], claims: Claims) -> Iterable[Action]:
    reference = owner_reference(owner)
    for pod in claims.released:
        yield Disown(PODS, pod.namespace, pod.name, pod.uid, (uid_of(owner),))
    for pod in claims.adopted:
        yield Adopt(PODS, pod.namespace, pod.name, pod.uid, pod.version, reference)


def owner_reference(owner: Mapping[str, Any]) -> Object:
    """The controlling owner reference to put on a child."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_metadata(owner: Mapping[str, Any], template: Mapping[str, Any]) -> Object:
    """The metadata of a pod of this owner, all but the name; its parts are shared with the template."""
    given = template.get("metadata") or {}
    shared: Object = {
        "generateName": generate_base(name_of(owner)),
        "namespace": namespace_of(owner),
        "ownerReferences": [owner_reference(owner)],
    }
    return shared | {part: given[part] for part in ("labels", "annotations", "finalizers") if given.get(part)}


def replicas_of(owner: Mapping[str, Any]) -> int:
    replicas = owner["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def min_ready_of(owner: Mapping[str, Any]) -> int:
    return int(owner["spec"].get("minReadySeconds") or 0)


def seconds_to_availability(pods: Iterable[PodFacts], min_ready: int, now: float) -> float | None:
    """Until the next ready pod has been ready for minReadySeconds; None if none waits for that."""
    if not min_ready:
        return None
    waits = [
        pod.ready_since + min_ready - now
        for pod in pods
        if pod.active and pod.ready and not pod.available(min_ready, now)
    ]
    return min(waits, default=None)


def is_refusal(failure: Failure | None) -> bool:
    """Refusals are worth telling; lost races and a store that does not answer are not the user's business."""
    if failure is None or failure.error.retryable or isinstance(failure.error, Conflict):
        return False
    return not namespace_terminating(failure.error)


def with_status(
    actions: tuple[Action, ...], write: Action | None, *, first: bool, requeue_after_seconds: float | None
) -> Decision:
    """The status is written once the pods are as decided, or, if it must be known before the actions, `first`."""
    if write is None or (actions and not first):
        return Decision(actions, requeue_after_seconds=requeue_after_seconds)
    if actions:
        return Decision((write, *actions), requeue_after_seconds=requeue_after_seconds)
    return Decision(status=write, requeue_after_seconds=requeue_after_seconds)
