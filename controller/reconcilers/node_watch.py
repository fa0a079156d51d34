"""The node reconcilers' eyes: who is alive, judged by heartbeat or, without one, by Lease and status.

`NodeHealth` is shared by node lifecycle and taint eviction; `NodeLifecycle` is run by the loop (its `decide` is in
node_lifecycle.py). Imports views, liveness and store. Invariants: a node that has heartbeat once is judged by nothing
else ever after; for the others only the time since this process last saw Lease or Ready change counts, never a clock
of the node (k8s.io/kubernetes pkg/controller/nodelifecycle, nodeHealthData).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.objects import Object, condition_of, name_of
from controller.reconcilers.liveness import Brake, Liveness
from controller.reconcilers.loop import Decision, Enqueue, Failure, Source, Watch
from controller.reconcilers.node_lifecycle import (
    BRAKED_RETRY_SECONDS,
    NODES,
    Health,
    Observed,
    decide,
    heartbeats,
)
from controller.reconcilers.views import Views
from controller.store import Store
from controller.store.types import Event, EventType, Key, Record

LEASES = ("coordination.k8s.io", "leases")
LEASE_NAMESPACE = "kube-node-lease"
STARTUP_GRACE_SECONDS = 60.0
"""A node that has not reported at all yet gets so long: --node-startup-grace-period."""
_BRAKE_MEMORY_SECONDS = 0.05
_OUR_REASON = "NodeStatusUnknown"
"""A condition that this controller wrote is no sign of life."""


@dataclass(slots=True)
class _Probe:
    """What a node without heartbeats last showed, and when this process saw that change."""

    shown: tuple[Any, ...]
    since: float


class NodeHealth:
    """Who is silent, and whether so many are that nothing may be done about it."""

    def __init__(self, views: Views, liveness: Liveness, grace_seconds: float) -> None:
        self.liveness = liveness
        self._views = views
        self._grace = grace_seconds
        self._probes: dict[str, _Probe] = {}
        self._beating: set[str] = set()
        self._brake = Brake(grace_seconds)
        self._brakes: dict[bool, tuple[float, bool]] = {}

    def by_heartbeat(self, node: Object) -> bool:
        """Whether the node is judged by heartbeat, and so by the fast rule."""
        return heartbeats(node) or self.liveness.ever_beat(name_of(node))

    def judge(self, node: Object) -> tuple[Health, float | None]:
        """(health, seconds after which to ask again unless woken before)."""
        name = name_of(node)
        if self.by_heartbeat(node):
            self._beating.add(name)
            self._probes.pop(name, None)
            judgement = self.liveness.judge(name)
            return (Health.SILENT if judgement.silent else Health.ALIVE), None
        probe = self._probe(node)
        reported = condition_of(node.get("status") or {}, "Ready") is not None
        left = probe.since + (self._grace if reported else max(self._grace, STARTUP_GRACE_SECONDS)) - _now()
        return (Health.SILENT, None) if left <= 0 else (Health.ALIVE, left)

    def braked(self, *, by_heartbeat: bool) -> bool:
        """Whether the brake holds for nodes of this sort; nodes with and without heartbeats are counted apart."""
        known = self._brakes.get(by_heartbeat)
        if known is not None and _now() - known[0] < _BRAKE_MEMORY_SECONDS:
            return known[1]
        if by_heartbeat:
            braked = self.liveness.braked(self._beating)
        else:
            braked = self._brake.holds([probe.since for probe in self._probes.values()], _now())
        self._brakes[by_heartbeat] = (_now(), braked)
        return braked

    def forget(self, name: str) -> None:
        self.liveness.forget(name)
        self._probes.pop(name, None)
        self._beating.discard(name)

    def _probe(self, node: Object) -> _Probe:
        name = name_of(node)
        lease = self._views.get(Key(*LEASES, LEASE_NAMESPACE, name)) or {}
        ready = condition_of(node.get("status") or {}, "Ready") or {}
        shown = ((lease.get("spec") or {}).get("renewTime"), ready.get("lastHeartbeatTime"), ready.get("status"))
        probe = self._probes.get(name)
        if probe is None:
            probe = self._probes[name] = _Probe(shown, _now())
        elif probe.shown[0] != shown[0] or (probe.shown != shown and ready.get("reason") != _OUR_REASON):
            probe.shown, probe.since = shown, _now()
        return probe


@dataclass(frozen=True)
class _Woken:
    """Liveness as a source of keys."""

    liveness: Liveness

    def attach(self, store: Store, enqueue: Enqueue) -> Callable[[], None]:
        del store
        return self.liveness.attach(lambda node: enqueue(node))


class NodeLifecycle:
    name = "node-lifecycle-controller"
    concurrency = 32

    def __init__(self, views: Views, health: NodeHealth, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._health = health
        self._clock = clock

    def sources(self) -> Sequence[Source]:
        return (
            Watch(NODES.resource, self._on_node),
            Watch(LEASES, self._on_lease),
            _Woken(self._health.liveness),
        )

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del failure
        node = self._views.get(Key(*NODES.resource, "", key))
        if node is None:
            return None
        health, wait = self._health.judge(node)
        by_heartbeat = self._health.by_heartbeat(node)
        braked = health is Health.SILENT and self._health.braked(by_heartbeat=by_heartbeat)
        return Observed(
            node=node,
            health=health,
            braked=braked,
            now=self._clock(),
            new_heartbeat=self._health.liveness.ever_beat(key) and not heartbeats(node),
            ready_pods=self._ready_pods(node, health),
            requeue_after_seconds=BRAKED_RETRY_SECONDS if braked else wait,
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _ready_pods(self, node: Object, health: Health) -> tuple[Object, ...]:
        """Only looked up when they are about to lose their readiness."""
        ready = condition_of(node.get("status") or {}, "Ready")
        if health is Health.ALIVE and (ready is None or ready["status"] == "True"):
            return ()
        records = self._views.store.by_node(name_of(node))
        return tuple(record.parse() for record in records if self._views.pod(record).ready)

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        name = event.record.key.name
        if event.type is EventType.DELETED:
            self._health.forget(name)
        elif self._shows_life(event):
            self._health.liveness.beat(name)
        return (name,)

    def _shows_life(self, event: Event) -> bool:
        """A node that was given up has reported itself: a sign of life that may be quicker than its first heartbeat."""
        if event.previous is None or not _reports_again(event.previous, event.record):
            return False
        return self._health.by_heartbeat(self._views.object(event.record))

    def _on_lease(self, event: Event) -> Iterable[Hashable]:
        """A renewed Lease matters only for nodes that have no heartbeat."""
        key = event.record.key
        if key.namespace != LEASE_NAMESPACE or self._health.liveness.ever_beat(key.name):
            return ()
        return (key.name,)


def _reports_again(previous: Record, record: Record) -> bool:
    if _OUR_REASON.encode() not in previous.raw:
        return False
    before = condition_of(previous.parse().get("status") or {}, "Ready") or {}
    after = condition_of(record.parse().get("status") or {}, "Ready") or {}
    return before.get("reason") == _OUR_REASON != after.get("reason") and "reason" in after


def _now() -> float:
    return asyncio.get_running_loop().time()
