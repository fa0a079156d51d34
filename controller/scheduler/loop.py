"""The scheduler's loop: cache events keep the snapshot, `decide` places, the registry binds.

`run_scheduler` is called by `controller.main` while this controller leads; the request's guards make a former leader's
binds fail. A binding counts as placed from the moment it is decided; if the write is refused it is taken back and the
next event tells the truth. Pods that fit nowhere wait until a node or a placement changes, with the reason in their
PodScheduled condition (kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions) and in an event.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime

import structlog

from api import kinds
from api.errors import ApiError
from api.objects import Object, format_time, metadata, uid_of
from controller.admission.types import Request
from controller.registry.recorder import Recorder
from controller.registry.registry import Registry
from controller.scheduler import metrics
from controller.scheduler.decide import Binding, Decision, Refusal, decide
from controller.scheduler.demand import DEFAULT_SCHEDULER, PendingPod, class_of, is_pending, pending_pod, uses_node
from controller.scheduler.filters import StaticFit
from controller.scheduler.snapshot import PlacedPod, Snapshot, node_view
from controller.store.types import Event, EventType, Key, Record

log = structlog.get_logger()

PODS = kinds.by_resource("", "pods")
NODES = kinds.by_resource("", "nodes")
NAMESPACES = kinds.by_resource("", "namespaces")

_FINISHED = ("Succeeded", "Failed")
_RETRY_SECONDS = 1.0
_SETTLE_SECONDS = 0.02
"""How long a change of the nodes may gather others before the waiting pods are looked at again."""


@dataclass(frozen=True)
class SchedulerSettings:
    concurrent_writes: int = 256
    remembered_classes: int = 4096


async def run_scheduler(
    registry: Registry, request: Request, recorder: Recorder, settings: SchedulerSettings | None = None
) -> None:
    """Schedules until cancelled. Raises what a lost leadership raises; any other refusal is retried."""
    await Scheduler(registry, request, recorder, settings or SchedulerSettings()).run()


class Scheduler:
    def __init__(self, registry: Registry, request: Request, recorder: Recorder, settings: SchedulerSettings) -> None:
        self._registry = registry
        self._request = request
        self._recorder = recorder
        self._settings = settings
        self._snapshot = Snapshot()
        self._static_fits: dict[bytes, StaticFit] = {}
        self._uids: dict[tuple[str, str], str] = {}
        self._pending: dict[str, PendingPod] = {}
        self._waiting: dict[str, PendingPod] = {}
        self._told: dict[str, str] = {}
        self._opened = False
        self._wake = asyncio.Event()
        self._writes = asyncio.Semaphore(settings.concurrent_writes)

    async def run(self) -> None:
        store = self._registry.store
        handlers = ((NAMESPACES, self._on_namespace), (NODES, self._on_node), (PODS, self._on_pod))
        stops = [store.subscribe(kind.resource, handler, existing=True) for kind, handler in handlers]
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    if not self._pending:
                        await asyncio.sleep(_SETTLE_SECONDS)
                    self._schedule(tasks)
        finally:
            for stop in stops:
                stop()

    def _schedule(self, tasks: asyncio.TaskGroup) -> None:
        if self._opened:
            self._pending.update(self._waiting)
            self._waiting.clear()
            self._opened = False
        if not self._pending:
            return
        started = time.perf_counter()
        decision = self._decide()
        for binding in decision.bindings:
            self._snapshot.place_pod(PlacedPod(binding.pod.uid, binding.node, binding.pod.pod_class))
            tasks.create_task(self._bind(binding))
        self._pending.clear()
        for refusal in decision.refusals:
            self._waiting[refusal.pod.uid] = refusal.pod
            if self._told.get(refusal.pod.uid) != refusal.message:
                self._told[refusal.pod.uid] = refusal.message
                tasks.create_task(self._tell(refusal))
        self._forget_old_classes()
        metrics.observe(decision, time.perf_counter() - started, len(self._waiting))

    def _decide(self) -> Decision:
        """The decision about all pending pods. When that fails, each is tried alone, and one on which it fails waits
        until it changes: it must not keep the others from being placed."""
        try:
            return decide(self._snapshot, self._pending.values(), self._static_fits)
        except Exception:
            for uid, pod in tuple(self._pending.items()):
                try:
                    decide(self._snapshot, (pod,), self._static_fits)
                except Exception:
                    log.exception("pod_put_aside", namespace=pod.namespace, pod=pod.name)
                    del self._pending[uid]
            return decide(self._snapshot, self._pending.values(), self._static_fits)

    def _forget_old_classes(self) -> None:
        while len(self._static_fits) > self._settings.remembered_classes:
            self._static_fits.pop(next(iter(self._static_fits)))

    async def _bind(self, binding: Binding) -> None:
        pod = binding.pod
        async with self._writes:
            try:
                record = await self._registry.bind(self._request, pod.namespace, pod.name, binding.node, pod.uid)
            except ApiError as error:
                self._take_back(binding)
                log.info("bind_refused", namespace=pod.namespace, pod=pod.name, node=binding.node, error=error.message)
                if not error.retryable:
                    return
                await asyncio.sleep(_RETRY_SECONDS)
                self._look_again(pod)
                return
        metrics.bound(pod.created)
        message = f"Successfully assigned {pod.namespace}/{pod.name} to {binding.node}"
        self._recorder.event(record.parse(), "Normal", "Scheduled", message)

    def _take_back(self, binding: Binding) -> None:
        placed = self._snapshot.pods.get(binding.pod.uid)
        if placed is not None and placed.node == binding.node:
            self._snapshot.remove_pod(binding.pod.uid)

    def _look_again(self, pod: PendingPod) -> None:
        record = self._registry.store.get(Key(*PODS.resource, pod.namespace, pod.name))
        if record is not None:
            self._on_pod(Event(EventType.MODIFIED, record, None))

    async def _tell(self, refusal: Refusal) -> None:
        """Writes why the pod waits; the pod being gone by now is fine."""
        pod = refusal.pod
        async with self._writes:
            try:
                record = await self._registry.modify(
                    self._request,
                    PODS,
                    pod.namespace,
                    pod.name,
                    lambda found: _with_reason(found, refusal, self._request.now()),
                    subresource="status",
                )
            except ApiError as error:
                self._told.pop(pod.uid, None)
                log.info("condition_refused", namespace=pod.namespace, pod=pod.name, error=error.message)
                return
        if record is not None:
            self._recorder.event(record.parse(), "Warning", "FailedScheduling", refusal.message)

    def _on_namespace(self, event: Event) -> None:
        name = event.record.key.name
        if event.type is EventType.DELETED:
            self._snapshot.namespace_labels.pop(name, None)
        else:
            self._snapshot.namespace_labels[name] = event.record.labels

    def _on_node(self, event: Event) -> None:
        if event.type is EventType.DELETED:
            self._snapshot.drop_node(event.record.key.name)
        elif self._snapshot.set_node(node_view(event.record.parse())):
            self._open()

    def _on_pod(self, event: Event) -> None:
        record = event.record
        if event.type is EventType.DELETED:
            self._drop(record)
            return
        name = (record.key.namespace, record.key.name)
        uid = self._uids.get(name)
        if uid is None and _is_anothers(record):
            return
        if uid in self._snapshot.pods and record.fields.get("status.phase") not in _FINISHED:
            placed = self._snapshot.pods[uid] if uid else None
            if placed is not None and placed.node == record.fields.get("spec.nodeName"):
                return
        pod = record.parse()
        uid = self._uids[name] = pod["metadata"]["uid"]
        self._pending.pop(uid, None)
        self._waiting.pop(uid, None)
        if uses_node(pod):
            self._told.pop(uid, None)
            if self._snapshot.place_pod(PlacedPod(uid, pod["spec"]["nodeName"], class_of(pod))) and self._waiting:
                self._open()
        elif is_pending(pod) and uid not in self._snapshot.pods:
            self._pending[uid] = pending_pod(pod)
            self._wake.set()
        elif not is_pending(pod) and self._snapshot.remove_pod(uid):
            self._open()

    def _drop(self, record: Record) -> None:
        uid = self._uids.pop((record.key.namespace, record.key.name), "")
        self._pending.pop(uid, None)
        self._waiting.pop(uid, None)
        self._told.pop(uid, None)
        if self._snapshot.remove_pod(uid):
            self._open()

    def _open(self) -> None:
        """Something changed that may let waiting pods fit."""
        if self._waiting:
            self._opened = True
            self._wake.set()


def _is_anothers(record: Record) -> bool:
    """Whether a pod waits for another scheduler; told without a parse."""
    scheduler = record.fields.get("spec.schedulerName") or DEFAULT_SCHEDULER
    return scheduler != DEFAULT_SCHEDULER and not record.fields.get("spec.nodeName")


def _with_reason(pod: Object, refusal: Refusal, now: datetime) -> Object | None:
    """The pod with its PodScheduled condition saying why it waits; None when it waits no more or says so already."""
    if uid_of(pod) != refusal.pod.uid or not is_pending(pod):
        return None
    conditions: list[Object] = pod.setdefault("status", {}).setdefault("conditions", [])
    known = next((c for c in conditions if c.get("type") == "PodScheduled"), {})
    if known.get("status") == "False" and known.get("message") == refusal.message:
        return None
    since = known.get("lastTransitionTime") if known.get("status") == "False" else None
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": refusal.message,
        "observedGeneration": metadata(pod).get("generation"),
        "lastProbeTime": None,
        "lastTransitionTime": since or format_time(now),
    }
    pod["status"]["conditions"] = [c for c in conditions if c.get("type") != "PodScheduled"] + [condition]
    return pod
