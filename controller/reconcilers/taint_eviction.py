"""Taint eviction: pods leave nodes whose NoExecute taints they do not tolerate, or no longer.

Run by the loop, one key a node; `decide` is pure. On a live node a pod is deleted gracefully. On a node whose heartbeat
ended, ordinary pods are finished by force, so that their replacements start at once and the node, should it return,
removes what is left of them (their uid is no longer in the API). Fenced pods (api/fencing.py) stay until the node is
back, or a person says with the out-of-service taint that it is not coming. Rules: k8s.io/kubernetes
pkg/controller/tainteviction and https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.fencing import is_fenced
from api.objects import Object, condition_of, controller_of, format_time, metadata, name_of
from controller.reconcilers.actions import Action, Delete, Note, Together, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch
from controller.reconcilers.node_lifecycle import BRAKED_RETRY_SECONDS, NODES, PODS, Health
from controller.reconcilers.node_watch import NodeHealth
from controller.reconcilers.replicaset import REPLICA_SETS
from controller.reconcilers.tolerations import (
    NO_EXECUTE,
    OUT_OF_SERVICE,
    UNREACHABLE,
    Taint,
    Toleration,
    read_tolerations,
    stay_until,
    without_defaulted,
)
from controller.reconcilers.views import Views, seconds_of
from controller.store.types import Event, EventType, Key

_FINISHED = ("Succeeded", "Failed")
_REASON = "DeletionByTaintManager"
_MESSAGE = "Taint manager: deleting due to NoExecute taint"


@dataclass(frozen=True)
class PlacedPod:
    """A pod on the node, and how long it tolerates what."""

    pod: Object
    tolerations: tuple[Toleration, ...]
    fenced: bool = False

    @property
    def terminating(self) -> bool:
        return "deletionTimestamp" in metadata(self.pod)


@dataclass(frozen=True)
class Observed:
    """`lost`: the node's heartbeat ended (the fast rule). `out_of_service`: a person says it will not come back."""

    node: str
    taints: tuple[Taint, ...]
    pods: tuple[PlacedPod, ...]
    now: datetime
    lost: bool = False
    out_of_service: bool = False
    braked: bool = False


def decide(observed: Observed) -> Decision:
    if observed.braked:
        return Decision(requeue_after_seconds=BRAKED_RETRY_SECONDS)
    now = observed.now.timestamp()
    due: list[PlacedPod] = []
    waits: list[float] = []
    for pod in observed.pods:
        end = _end_of_stay(observed, pod)
        if end is None:
            continue
        if end <= now:
            due.append(pod)
        else:
            waits.append(end - now)
    requeue = min(waits, default=None)
    if not due:
        return NOTHING if requeue is None else Decision(requeue_after_seconds=requeue)
    return Decision(tuple(_evict(observed, due)), requeue_after_seconds=requeue)


def _end_of_stay(observed: Observed, pod: PlacedPod) -> float | None:
    """When the pod must go; None: it stays. First match wins."""
    forced = _is_forced(observed)
    if pod.terminating and not forced:
        return None  # its node will finish it
    if pod.fenced and observed.lost and not observed.out_of_service:
        return None  # it may still run there, and must not run twice
    if pod.terminating and not _tolerates(observed, pod):
        return 0.0  # nobody will finish it
    return stay_until(observed.taints, pod.tolerations)


def _is_forced(observed: Observed) -> bool:
    return observed.lost or observed.out_of_service


def _tolerates(observed: Observed, pod: PlacedPod) -> bool:
    return stay_until(observed.taints, pod.tolerations) is None


def _evict(observed: Observed, pods: Sequence[PlacedPod]) -> Iterable[Action]:
    """First they are told why, then they go."""
    moment, forced = format_time(observed.now), _is_forced(observed)
    yield Together(tuple(_tell(pod.pod, moment, forced) for pod in pods))
    yield Together(tuple(_delete(pod.pod, forced) for pod in pods))


def _tell(pod: Object, moment: str, forced: bool) -> Write:
    status = pod.get("status") or {}
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": moment,
        "reason": _REASON,
        "message": _MESSAGE,
    }
    others = [one for one in status.get("conditions") or () if one["type"] != "DisruptionTarget"]
    patch: Object = {"conditions": [*others, condition]}
    if forced:
        patch["phase"] = "Failed"
    meta = metadata(pod)
    return Write(
        PODS,
        meta["namespace"],
        meta["name"],
        meta["uid"],
        merge={"status": patch},
        subresource="status",
    )


def _delete(pod: Object, forced: bool) -> Delete:
    meta = metadata(pod)
    text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
    note = Note(pod, "Normal", "TaintManagerEviction", text)
    grace = 0 if forced else None
    return Delete(PODS, meta["namespace"], meta["name"], meta["uid"], grace_seconds=grace, note=note)


class TaintEviction:
    name = "taint-eviction-controller"
    concurrency = 32

    def __init__(self, views: Views, health: NodeHealth, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._health = health
        self._clock = clock
        self._first_seen: dict[tuple[str, str, str], float] = {}

    def sources(self) -> Sequence[Source]:
        return (Watch(NODES.resource, self._on_node), Watch(PODS.resource, self._on_pod))

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del failure
        node = self._views.get(Key(*NODES.resource, "", key))
        if node is None:
            return None
        now = self._clock()
        taints = self._taints(node, now)
        out_of_service = any(taint["key"] == OUT_OF_SERVICE for taint in _spec_taints(node))
        if not taints:
            return Observed(key, (), (), now)
        unreachable = any(taint.key == UNREACHABLE for taint in taints)
        by_heartbeat = self._health.by_heartbeat(node)
        lost = unreachable and by_heartbeat and self._health.judge(node)[0] is Health.SILENT
        return Observed(
            node=key,
            taints=taints,
            pods=tuple(self._placed(pod, lost) for pod in self._pods(key)),
            now=now,
            lost=lost,
            out_of_service=out_of_service and unreachable,
            braked=unreachable and not out_of_service and self._health.braked(by_heartbeat=by_heartbeat),
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _pods(self, node: str) -> Iterable[Object]:
        pods = (record.parse() for record in self._views.store.by_node(node))
        return (pod for pod in pods if _is_unfinished(pod))

    def _taints(self, node: Object, now: datetime) -> tuple[Taint, ...]:
        name, found = name_of(node), []
        for taint in _spec_taints(node):
            if taint["effect"] != NO_EXECUTE:
                continue
            seen = self._first_seen.setdefault((name, taint["key"], taint.get("value") or ""), now.timestamp())
            since = seconds_of(taint.get("timeAdded")) or seen
            found.append(Taint(taint["key"], taint.get("value") or "", NO_EXECUTE, since))
        present = {(name, taint.key, taint.value) for taint in found}
        for known in [known for known in self._first_seen if known[0] == name and known not in present]:
            del self._first_seen[known]
        return tuple(found)

    def _placed(self, pod: Object, lost: bool) -> PlacedPod:
        tolerations = read_tolerations((pod.get("spec") or {}).get("tolerations") or ())
        if lost:
            tolerations = without_defaulted(pod, tolerations, self._template_of(pod))
        return PlacedPod(pod, tolerations, is_fenced(pod))

    def _template_of(self, pod: Object) -> Mapping[str, Any] | None:
        owner = controller_of(pod)
        if owner is None or owner["kind"] != REPLICA_SETS.kind:
            return None
        controller = self._views.get(Key(*REPLICA_SETS.resource, metadata(pod)["namespace"], owner["name"]))
        if controller is None or metadata(controller).get("uid") != owner["uid"]:
            return None
        template: Mapping[str, Any] = controller["spec"]["template"]
        return template

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        tainted = NO_EXECUTE.encode() in event.record.raw
        was_tainted = event.previous is not None and NO_EXECUTE.encode() in event.previous.raw
        return (event.record.key.name,) if tainted or was_tainted else ()

    def _on_pod(self, event: Event) -> Iterable[Hashable]:
        """A pod that is new on a tainted node."""
        node = event.record.fields.get("spec.nodeName", "")
        if not node or event.type is EventType.DELETED:
            return ()
        record = self._views.store.get(Key(*NODES.resource, "", node))
        return (node,) if record is not None and NO_EXECUTE.encode() in record.raw else ()


def _is_unfinished(pod: Mapping[str, Any]) -> bool:
    """Not yet at its end; a pod that an earlier try failed by force and then could not delete is not, either."""
    status = pod.get("status") or {}
    if status.get("phase") not in _FINISHED or "deletionTimestamp" in metadata(pod):
        return True
    return (condition_of(status, "DisruptionTarget") or {}).get("reason") == _REASON


def _spec_taints(node: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    taints: Sequence[Mapping[str, Any]] = (node.get("spec") or {}).get("taints") or ()
    return taints
