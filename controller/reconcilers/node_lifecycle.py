"""Node lifecycle: what a node's silence and its own report mean for its conditions and taints.

Run by the loop, one key a node; `decide` is pure. A silent node becomes Ready=Unknown, is closed for new pods, and gets
the NoExecute taint that makes taint_eviction.py act; a node that is back and reports Ready loses those taints. The
brake (see liveness.py) keeps NoExecute and everything that hurts pods away. Rules: k8s.io/kubernetes
pkg/controller/nodelifecycle and https://kubernetes.io/docs/reference/node/node-status/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from api import kinds
from api.objects import Object, annotations_of, condition_of, format_time, metadata, name_of, uid_of
from controller.reconcilers.actions import Action, Note, Together, Write
from controller.reconcilers.loop import NOTHING, Decision
from controller.reconcilers.tolerations import NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE
from controller.reconcilers.views import seconds_of

NODES = kinds.by_resource("", "nodes")
PODS = kinds.by_resource("", "pods")
HEARTBEATS = "wherry/heartbeats"
"""Annotation of a node that has heartbeat: from then on its silence is death after the TTL, also for a new leader."""
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
BRAKED_RETRY_SECONDS = 1.0
EVICTION_HEAD_START_SECONDS = 1.0
_WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_MANAGED = frozenset((*_PRESSURES.values(), UNSCHEDULABLE, NOT_READY, UNREACHABLE))
_READY_TAINTS = {"False": NOT_READY, "Unknown": UNREACHABLE}


class Health(StrEnum):
    ALIVE = "alive"
    SILENT = "silent"


@dataclass(frozen=True)
class Observed:
    """`new_heartbeat`: it has heartbeat but is not marked so. `ready_pods`: pods on it that count as Ready."""

    node: Object
    health: Health
    braked: bool
    now: datetime
    new_heartbeat: bool = False
    ready_pods: tuple[Object, ...] = ()
    requeue_after_seconds: float | None = None


def decide(observed: Observed) -> Decision:
    """One write of the node a decision, because each is judged by the version it saw; taints first, so that nothing is
    placed on a node that is about to be told dead."""
    actions = _next_actions(observed)
    requeue = observed.requeue_after_seconds
    if observed.ready_pods and not actions and not observed.braked:
        requeue = EVICTION_HEAD_START_SECONDS
    if not actions and requeue is None:
        return NOTHING
    return Decision(tuple(actions), requeue_after_seconds=requeue)


def _next_actions(observed: Observed) -> Sequence[Action]:
    node = observed.node
    conditions = _conditions(observed)
    ready = (condition_of({"conditions": conditions}, "Ready") or {}).get("status")
    taints = _taints(observed, conditions, ready)
    if taints != _present_taints(node):
        return (_write(node, {"spec": {"taints": taints or None}}),)
    if conditions != _present_conditions(node):
        return (_write(node, {"status": {"conditions": conditions}}, "status"), *_notes(observed, ready))
    if observed.new_heartbeat:
        return (_write(node, {"metadata": {"annotations": {HEARTBEATS: "true"}}}),)
    if ready != "True" and not observed.braked and not _just_lost(observed, conditions):
        return tuple(_mark_pods(observed))
    return ()


def _just_lost(observed: Observed, conditions: Sequence[Object]) -> bool:
    """Eviction takes most pods of a silent node away at once: only those that it left are marked."""
    since = seconds_of((condition_of({"conditions": conditions}, "Ready") or {}).get("lastTransitionTime"))
    return observed.health is Health.SILENT and 0 <= observed.now.timestamp() - since < EVICTION_HEAD_START_SECONDS


def _conditions(observed: Observed) -> list[Object]:
    """The node's own report; Unknown instead of it once the node is silent."""
    reported = _present_conditions(observed.node)
    if observed.health is Health.ALIVE:
        return list(reported)
    known = {condition["type"]: condition for condition in reported}
    moment = format_time(observed.now)
    unknown = {type: _unknown(known.get(type), type, observed.node, moment) for type in _WATCHED}
    others = [unknown.pop(condition["type"], condition) for condition in reported]
    return [*others, *unknown.values()]


def _unknown(known: Mapping[str, Any] | None, type: str, node: Object, moment: str) -> Object:
    if known is None:
        return {
            "type": type,
            "status": "Unknown",
            "lastHeartbeatTime": metadata(node).get("creationTimestamp"),
            "lastTransitionTime": moment,
            "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
        }
    if known["status"] == "Unknown":
        return dict(known)
    told = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    return {**known, "status": "Unknown", "lastTransitionTime": moment, **told}


def _taints(observed: Observed, conditions: Sequence[Object], ready: str | None) -> list[Object]:
    """Foreign taints stay as they are; ours follow the conditions. One that is there already keeps its time."""
    present = _present_taints(observed.node)
    wanted = dict.fromkeys(_wanted(observed, conditions, ready))
    kept = [taint for taint in present if taint["key"] not in _MANAGED or _identity(taint) in wanted]
    have = {_identity(taint) for taint in kept}
    moment = format_time(observed.now)
    added = [{"key": key, "effect": effect, "timeAdded": moment} for key, effect in wanted if (key, effect) not in have]
    return [*kept, *added]


def _wanted(observed: Observed, conditions: Sequence[Object], ready: str | None) -> Iterable[tuple[str, str]]:
    for condition in conditions:
        key = _PRESSURES.get(condition["type"])
        if key is not None and condition["status"] == "True":
            yield key, NO_SCHEDULE
    if (observed.node.get("spec") or {}).get("unschedulable"):
        yield UNSCHEDULABLE, NO_SCHEDULE
    if ready is None:  # it has not reported yet: what admission gave it stays
        yield from (identity for identity in map(_identity, _present_taints(observed.node)) if identity[0] == NOT_READY)
        return
    lost = _READY_TAINTS.get(ready)
    if lost is not None:
        yield lost, NO_SCHEDULE
        kept = (lost, NO_EXECUTE) in map(_identity, _present_taints(observed.node))
        returning = ready == "Unknown" and observed.health is Health.ALIVE  # it is heard, its report is on its way
        if kept or not (observed.braked or returning):
            yield lost, NO_EXECUTE


def _notes(observed: Observed, ready: str | None) -> Iterable[Note]:
    before = (condition_of(observed.node.get("status") or {}, "Ready") or {}).get("status")
    if before == ready or ready == "True":
        return
    name = name_of(observed.node)
    yield Note(observed.node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
    if observed.braked:
        text = "More than half of the nodes vanished together: nothing is evicted until some are back"
        yield Note(observed.node, "Warning", "EvictionHeld", text)


def _mark_pods(observed: Observed) -> Iterable[Action]:
    """Pods on a node that is not ready serve nobody: they are not Ready, so that traffic goes elsewhere."""
    if not observed.ready_pods:
        return
    moment = format_time(observed.now)
    yield Together(tuple(_mark(pod, moment) for pod in observed.ready_pods))


def _mark(pod: Object, moment: str) -> Write:
    conditions = [
        {**condition, "status": "False", "lastTransitionTime": moment} if condition["type"] == "Ready" else condition
        for condition in pod["status"]["conditions"]
    ]
    meta = metadata(pod)
    note = Note(pod, "Warning", "NodeNotReady", "Node is not ready")
    return Write(
        PODS,
        meta["namespace"],
        meta["name"],
        meta["uid"],
        merge={"status": {"conditions": conditions}},
        subresource="status",
        version=meta.get("resourceVersion") or "",
        note=note,
    )


def _write(node: Object, patch: Object, subresource: str = "") -> Write:
    version = metadata(node).get("resourceVersion") or ""
    return Write(NODES, "", name_of(node), uid_of(node), merge=patch, subresource=subresource, version=version)


def _identity(taint: Mapping[str, Any]) -> tuple[str, str]:
    return taint["key"], taint["effect"]


def _present_taints(node: Mapping[str, Any]) -> list[Object]:
    return list((node.get("spec") or {}).get("taints") or ())


def _present_conditions(node: Mapping[str, Any]) -> list[Object]:
    return list((node.get("status") or {}).get("conditions") or ())


def heartbeats(node: Mapping[str, Any]) -> bool:
    """Whether the node is judged by its heartbeat."""
    return annotations_of(node).get(HEARTBEATS) == "true"
