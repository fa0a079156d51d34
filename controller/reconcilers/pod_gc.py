"""Pod garbage: pods of nodes that no longer exist, and the oldest of too many finished pods.

Run by the loop under one key, again every 20 s. `decide` is pure. Invariant: a pod is orphaned only if its node has
been absent for the whole quarantine, so a node that registers again keeps its pods. Rules: k8s.io/kubernetes
pkg/controller/podgc.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from api.objects import Object, format_time, metadata
from controller.reconcilers.actions import Action, Delete, Together, Write
from controller.reconcilers.loop import Decision, Failure, Once, Source
from controller.reconcilers.node_lifecycle import NODES, PODS
from controller.reconcilers.views import Views
from controller.store.types import Key, Record

CHECK_SECONDS = 20.0
QUARANTINE_SECONDS = 40.0
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Observed:
    """`orphans`: pods whose node is gone for good. `finished`: ended pods beyond the threshold, oldest first."""

    orphans: tuple[Object, ...]
    finished: tuple[Object, ...]
    now: datetime


def decide(observed: Observed) -> Decision:
    actions: list[Action] = []
    running = [pod for pod in observed.orphans if (pod.get("status") or {}).get("phase") not in _FINISHED]
    if running:
        actions.append(Together(tuple(_fail(pod, observed.now) for pod in running)))
    doomed = [pod for pod in (*observed.orphans, *observed.finished) if not _is_leaving(pod)]
    if doomed:
        actions.append(Together(tuple(_delete(pod) for pod in doomed)))
    return Decision(tuple(actions), requeue_after_seconds=CHECK_SECONDS)


def _fail(pod: Object, now: datetime) -> Write:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(now),
        "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
    }
    others = [one for one in pod["status"].get("conditions") or () if one["type"] != "DisruptionTarget"]
    patch = {"status": {"phase": "Failed", "conditions": [*others, condition]}}
    meta = metadata(pod)
    return Write(PODS, meta["namespace"], meta["name"], meta["uid"], merge=patch, subresource="status")


def _is_leaving(pod: Object) -> bool:
    """Deleted without grace already; what is left of it waits for its finalizers."""
    meta = metadata(pod)
    return bool(meta.get("deletionTimestamp")) and not meta.get("deletionGracePeriodSeconds")


def _delete(pod: Object) -> Delete:
    meta = metadata(pod)
    return Delete(PODS, meta["namespace"], meta["name"], meta["uid"], grace_seconds=0)


class PodGarbageCollector:
    name = "pod-garbage-collector-controller"
    concurrency = 1

    def __init__(self, views: Views, threshold: int, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._threshold = threshold
        self._clock = clock
        self._absent_since: dict[str, float] = {}

    def sources(self) -> Sequence[Source]:
        return (Once("pods"),)

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del key, failure
        records = self._views.store.list(PODS.resource).records
        lost = self._lost_nodes(record.fields.get("spec.nodeName", "") for record in records)
        orphans = [record for record in records if record.fields.get("spec.nodeName", "") in lost]
        orphan_keys = {record.key for record in orphans}
        ended = [one for one in records if one.fields.get("status.phase") in _FINISHED and one.key not in orphan_keys]
        surplus = self._oldest(ended, len(ended) - self._threshold) if self._threshold > 0 else []
        return Observed(tuple(one.parse() for one in orphans), tuple(surplus), self._clock())

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _lost_nodes(self, names: Iterable[str]) -> set[str]:
        """The nodes that pods name and that have not existed for the quarantine."""
        now = asyncio.get_running_loop().time()
        absent = {name for name in set(names) if name and self._views.store.get(Key(*NODES.resource, "", name)) is None}
        self._absent_since = {name: self._absent_since.get(name, now) for name in absent}
        return {name for name, since in self._absent_since.items() if now - since >= QUARANTINE_SECONDS}

    def _oldest(self, records: Iterable[Record], count: int) -> list[Object]:
        if count <= 0:
            return []
        by_age = sorted(records, key=lambda record: (self._views.pod(record).created, record.key))
        return [record.parse() for record in by_age[:count]]
