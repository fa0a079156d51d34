"""ReplicaSet: keep `replicas` pods made from the template.

Run by the loop; imports views, names, actions. `decide` is pure. Safety: a pod's name derives from the owner and the
slot (see names.py), so a repeated create is the same create; pods are adopted only by version, released by uid; status
is written once the pods are as decided, or at once when an attempt failed. Rules: k8s.io/kubernetes
pkg/controller/replicaset and https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from api import kinds
from api.objects import Object, condition_of, format_time, is_deleting, metadata, name_of, uid_of
from controller.reconcilers.actions import Action, Create, Delete, Note, Together, put_status
from controller.reconcilers.deletion_order import first_to_go
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.names import child_names
from controller.reconcilers.views import PodFacts
from controller.reconcilers.workloads import (
    PODS,
    Claims,
    claim_actions,
    claim_pods,
    is_refusal,
    min_ready_of,
    pod_metadata,
    replicas_of,
    seconds_to_availability,
)

REPLICA_SETS = kinds.by_resource("apps", "replicasets")
BURST = 2500
"""So many pods are created or deleted before looking again."""
_FAILURE = "ReplicaFailure"


@dataclass(frozen=True)
class Observed:
    """`pods`: those it controls. `orphans`: its namespace's pods that nobody controls. `gone`: names of former pods;
    `era`: of their names."""

    replica_set: Object
    pods: tuple[PodFacts, ...]
    now: datetime
    orphans: tuple[PodFacts, ...] = ()
    gone: frozenset[str] = frozenset()
    related_on_node: Mapping[str, int] = field(default_factory=dict)
    failure: Failure | None = None
    era: str = ""


def decide(observed: Observed) -> Decision:
    """What brings the pods to `spec.replicas`, and the status that tells of it."""
    replica_set = observed.replica_set
    claims = claim_pods(replica_set, observed.pods, observed.orphans)
    missing = 0 if is_deleting(replica_set) else _missing(replica_set, claims)
    actions = [*claim_actions(replica_set, claims), *_count_actions(observed, claims, missing)]
    failed = is_refusal(observed.failure)
    status = _status(observed, claims, missing)
    writes: Action | None = None
    if status != replica_set.get("status") and (failed or not actions):
        writes = put_status(REPLICA_SETS, replica_set, status)
    if failed and writes is not None:
        return Decision((writes, *actions))
    if not actions and writes is None and not _waits_for_availability(observed, claims):
        return NOTHING
    return Decision(tuple(actions), writes, _next_availability(observed, claims))


def _missing(replica_set: Mapping[str, Any], claims: Claims) -> int:
    """How many pods to create; negative: how many to delete. A fenced pod that still runs keeps its place, because it
    must never run twice."""
    active = sum(pod.active for pod in claims.mine) + len(claims.adopted)
    lingering = sum(pod.terminating and pod.fenced for pod in claims.mine)
    wanted = replicas_of(replica_set)
    return max(0, wanted - active - lingering) if wanted >= active else wanted - active


def _count_actions(observed: Observed, claims: Claims, missing: int) -> Iterable[Action]:
    if missing > 0:
        yield Together(tuple(_creates(observed, claims, min(missing, BURST))))
    elif missing < 0:
        surplus = [pod for pod in (*claims.mine, *claims.adopted) if pod.active]
        count = min(-missing, BURST)
        chosen = first_to_go(surplus, count, observed.related_on_node, observed.now.timestamp())
        yield Together(tuple(_deletion(observed.replica_set, pod) for pod in chosen))


def _creates(observed: Observed, claims: Claims, count: int) -> Iterable[Create]:
    replica_set = observed.replica_set
    taken = observed.gone.union(pod.name for pod in (*claims.mine, *claims.released, *claims.adopted))
    names = child_names(name_of(replica_set), uid_of(replica_set), taken, observed.era)
    template = replica_set["spec"]["template"]
    shared = pod_metadata(replica_set, template)
    refused = Note(replica_set, "Warning", "FailedCreate", "Error creating: ")
    for _ in range(count):
        name = next(names)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **shared}, "spec": template["spec"]}
        note = Note(replica_set, "Normal", "SuccessfulCreate", f"Created pod: {name}")
        yield Create(PODS, pod, note, trusted=True, refused=refused)


def _deletion(replica_set: Object, pod: PodFacts) -> Delete:
    note = Note(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")
    refused = Note(replica_set, "Warning", "FailedDelete", f'Error deleting pod "{pod.name}": ')
    return Delete(PODS, pod.namespace, pod.name, pod.uid, note=note, refused=refused)


def _status(observed: Observed, claims: Claims, missing: int) -> Object:
    """The whole status; counts of zero are left out as Kubernetes leaves them out."""
    replica_set = observed.replica_set
    wanted_labels = ((replica_set["spec"]["template"].get("metadata") or {}).get("labels") or {}).items()
    now, min_ready = observed.now.timestamp(), min_ready_of(replica_set)
    active = [pod for pod in (*claims.mine, *claims.adopted) if pod.active]
    counts = {
        "fullyLabeledReplicas": sum(wanted_labels <= pod.labels.items() for pod in active),
        "readyReplicas": sum(pod.ready for pod in active),
        "availableReplicas": sum(pod.available(min_ready, now) for pod in active),
    }
    status: Object = {"replicas": len(active)} | {name: count for name, count in counts.items() if count}
    status["terminatingReplicas"] = sum(pod.terminating for pod in claims.mine)
    status["observedGeneration"] = metadata(replica_set).get("generation") or 1
    conditions = _conditions(observed, missing)
    if conditions:
        status["conditions"] = conditions
    return status


def _conditions(observed: Observed, missing: int) -> Sequence[Object]:
    """ReplicaFailure appears when creating or deleting fails and goes when nothing is missing any more."""
    before = (observed.replica_set.get("status") or {}).get("conditions") or []
    others = [condition for condition in before if condition["type"] != _FAILURE]
    known = condition_of({"conditions": before}, _FAILURE)
    failure = observed.failure
    if failure is None or not is_refusal(failure):
        return [*others, dict(known)] if known and missing else others
    reason = "FailedDelete" if missing < 0 else "FailedCreate"
    if known and known.get("status") == "True" and known.get("reason") == reason:
        return [*others, dict(known)]
    moment = format_time(observed.now)
    told = {"type": _FAILURE, "status": "True", "lastTransitionTime": moment, "reason": reason}
    return [*others, {**told, "message": failure.error.message}]


def _waits_for_availability(observed: Observed, claims: Claims) -> bool:
    return _next_availability(observed, claims) is not None


def _next_availability(observed: Observed, claims: Claims) -> float | None:
    pods = (*claims.mine, *claims.adopted)
    return seconds_to_availability(pods, min_ready_of(observed.replica_set), observed.now.timestamp())
