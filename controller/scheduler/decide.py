"""Pending pods + a snapshot -> bindings and refusals. Pure: works on copies, reads no clock.

Pods are taken in order of priority, then age; equal neighbours form a batch. A batch of an ordinary class is placed
with heaps, one a zone (a node's score depends on that node and on how many of the owner's pods its zone holds); a class
with constraints between pods is placed one pod at a time on whole columns. Called by `loop.py`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from api.host_ports import HostPort, clash
from controller.scheduler.demand import PendingPod, PodClass
from controller.scheduler.filters import StaticFit, fits, lacking
from controller.scheduler.scores import SPREAD_NODE_COST, SPREAD_ZONE_COST, resource_score, resource_scores
from controller.scheduler.snapshot import CPU, MEMORY, Mask, Matrix, Scores, Snapshot
from controller.scheduler.topology import TopologyFit, is_topological

PORTS_TAKEN = "node(s) didn't have free ports for the requested pod ports"
_LONE_PODS = 3
"""Batches up to this size are placed by whole columns; filling heaps pays only for larger ones."""


@dataclass(frozen=True)
class Binding:
    pod: PendingPod
    node: str


@dataclass(frozen=True)
class Refusal:
    """Why a pod fits nowhere, as the text of its PodScheduled condition."""

    pod: PendingPod
    message: str


@dataclass(frozen=True)
class Decision:
    bindings: tuple[Binding, ...]
    refusals: tuple[Refusal, ...]


def decide(snapshot: Snapshot, pending: Iterable[PendingPod], static_fits: dict[bytes, StaticFit]) -> Decision:
    """Places what fits. `static_fits` is a cache across calls (class key -> StaticFit); it may start empty."""
    bindings: list[Binding] = []
    refusals: list[Refusal] = []
    plan: _Plan | None = None
    ordered = sorted(pending, key=lambda pod: pod.rank)
    for _key, group in groupby(ordered, key=lambda pod: pod.pod_class.key):
        batch = list(group)
        pod_class = batch[0].pod_class
        snapshot.vector(pod_class)  # a resource nobody asked for before gets its column now
        if plan is None or len(plan.columns) < len(snapshot.columns):
            plan = _Plan(snapshot, bindings)
        static = static_fits.setdefault(pod_class.key, StaticFit(pod_class)).refresh(snapshot)
        rows = _place(plan, static, pod_class, len(batch))
        for pod, row in zip(batch, rows, strict=False):
            bindings.append(Binding(pod, plan.name(row)))
        if len(rows) < len(batch):
            message = _explain(plan, static, pod_class)
            refusals.extend(Refusal(pod, message) for pod in batch[len(rows) :])
    return Decision(tuple(bindings), tuple(refusals))


class _Plan:
    """The snapshot as it would be after the placements decided so far."""

    def __init__(self, snapshot: Snapshot, bindings: Iterable[Binding]) -> None:
        self.snapshot = snapshot
        self.columns = dict(snapshot.columns)
        self.requested = snapshot.requested.copy()
        self.nonzero = snapshot.nonzero.copy()
        self.ports: dict[int, set[HostPort]] = {}
        self.placed: list[tuple[PodClass, int]] = []
        self.owners: dict[str, Counter[int]] = {}
        for binding in bindings:
            self.place(binding.pod.pod_class, snapshot.rows[binding.node])

    def name(self, row: int) -> str:
        view = self.snapshot.views[row]
        return view.name if view is not None else ""

    def owner_counts(self, owner_uid: str) -> Counter[int]:
        if owner_uid not in self.owners:
            self.owners[owner_uid] = Counter(self.snapshot.rows_by_owner.get(owner_uid, {}))
        return self.owners[owner_uid]

    def place(self, pod_class: PodClass, row: int) -> None:
        self.requested[row] += self.snapshot.vector(pod_class)
        self.nonzero[row] += pod_class.nonzero
        self.placed.append((pod_class, row))
        if pod_class.host_ports:
            self.ports.setdefault(row, set()).update(pod_class.host_ports)
        if pod_class.owner_uid:
            self.owner_counts(pod_class.owner_uid)[row] += 1

    def free(self) -> Matrix:
        left: Matrix = self.snapshot.allocatable - self.requested
        return left

    def ports_taken(self, pod_class: PodClass, row: int) -> bool:
        if not pod_class.host_ports:
            return False
        taken = [*self.snapshot.ports[row], *self.ports.get(row, ())]
        return any(clash(wanted, used) for wanted in pod_class.host_ports for used in taken)

    def rows_with_ports(self, pod_class: PodClass, mask: Mask) -> Mask:
        if not pod_class.host_ports:
            return mask
        open_rows: Mask = mask.copy()
        for row in np.flatnonzero(mask):
            open_rows[row] = not self.ports_taken(pod_class, int(row))
        return open_rows


def _place(plan: _Plan, static: StaticFit, pod_class: PodClass, count: int) -> list[int]:
    """Rows for as many of `count` pods as fit, each already counted in the plan."""
    if is_topological(pod_class, plan.snapshot) or any(c.anti_affinity_terms for c, _row in plan.placed):
        return _place_by_topology(plan, static, pod_class, count)
    if count <= _LONE_PODS:
        return list(_place_alone(plan, static, pod_class, count))
    return list(_place_with_heaps(plan, static, pod_class, count))


def _open_rows(plan: _Plan, static: StaticFit, pod_class: PodClass) -> Mask:
    mask: Mask = static.mask & plan.snapshot.alive & fits(plan.free(), plan.snapshot.vector(pod_class))
    return plan.rows_with_ports(pod_class, mask)


def _node_scores(plan: _Plan, static: StaticFit, pod_class: PodClass) -> Scores:
    scores: Scores = static.score + resource_scores(plan.snapshot.allocatable, plan.nonzero, pod_class.nonzero)
    if pod_class.owner_uid:
        for row, pods in plan.owner_counts(pod_class.owner_uid).items():
            scores[row] -= SPREAD_NODE_COST * pods
    return scores


def _zone_counts(plan: _Plan, pod_class: PodClass) -> Counter[str]:
    counts: Counter[str] = Counter()
    if pod_class.owner_uid:
        for row, pods in plan.owner_counts(pod_class.owner_uid).items():
            view = plan.snapshot.views[row]
            counts[view.zone if view is not None else ""] += pods
    return counts


def _place_alone(plan: _Plan, static: StaticFit, pod_class: PodClass, count: int) -> Iterator[int]:
    for _ in range(count):
        mask = _open_rows(plan, static, pod_class)
        if not mask.any():
            return
        scores = _node_scores(plan, static, pod_class)
        zones = _zone_counts(plan, pod_class)
        if zones:
            for row, node in plan.snapshot.nodes():
                scores[row] -= SPREAD_ZONE_COST * zones[node.zone]
        row = int(np.argmax(np.where(mask, scores, -np.inf)))
        plan.place(pod_class, row)
        yield row


@dataclass
class _Zone:
    heap: list[tuple[float, int]] = field(default_factory=list)
    pods: int = 0

    def best(self) -> float:
        return -self.heap[0][0] - SPREAD_ZONE_COST * self.pods


def _place_with_heaps(plan: _Plan, static: StaticFit, pod_class: PodClass, count: int) -> Iterator[int]:
    scores = _node_scores(plan, static, pod_class)
    counts = _zone_counts(plan, pod_class)
    zones: dict[str, _Zone] = {}
    for index in np.flatnonzero(_open_rows(plan, static, pod_class)):
        row = int(index)
        view = plan.snapshot.views[row]
        if view is None:
            continue
        zone = zones.setdefault(view.zone, _Zone(pods=counts[view.zone]))
        zone.heap.append((-float(scores[row]), row))
    for zone in zones.values():
        heapq.heapify(zone.heap)
    wanted = plan.snapshot.vector(pod_class)
    for _ in range(count):
        zone = max((z for z in zones.values() if z.heap), key=_Zone.best, default=_Zone())
        if not zone.heap:
            return
        row = zone.heap[0][1]
        plan.place(pod_class, row)
        zone.pods += 1
        if _still_fits(plan, pod_class, row, wanted):
            heapq.heapreplace(zone.heap, (-_row_score(plan, static, pod_class, row), row))
        else:
            heapq.heappop(zone.heap)
        yield row


def _still_fits(plan: _Plan, pod_class: PodClass, row: int, wanted: Matrix) -> bool:
    """On one row numpy's calls cost more than the numbers: plain integers are faster."""
    if pod_class.host_ports:
        return False
    offered, requested = plan.snapshot.allocatable[row].tolist(), plan.requested[row].tolist()
    return all(
        free - used >= need for free, used, need in zip(offered, requested, wanted.tolist(), strict=True) if need
    )


def _row_score(plan: _Plan, static: StaticFit, pod_class: PodClass, row: int) -> float:
    offered, used = plan.snapshot.allocatable[row], plan.nonzero[row]
    score = resource_score(
        (int(offered[CPU]), int(offered[MEMORY])), (int(used[CPU]), int(used[MEMORY])), pod_class.nonzero
    )
    if pod_class.owner_uid:
        score -= SPREAD_NODE_COST * plan.owner_counts(pod_class.owner_uid)[row]
    return float(static.score[row]) + score


def _place_by_topology(plan: _Plan, static: StaticFit, pod_class: PodClass, count: int) -> list[int]:
    topology = _topology(plan, pod_class)
    rows: list[int] = []
    for _ in range(count):
        mask = _open_rows(plan, static, pod_class)
        for refused in topology.refusals().values():
            mask &= ~refused
        if not mask.any():
            break
        scores = _node_scores(plan, static, pod_class) + topology.scores()
        row = int(np.argmax(np.where(mask, scores, -np.inf)))
        plan.place(pod_class, row)
        topology.placed(row)
        rows.append(row)
    return rows


def _topology(plan: _Plan, pod_class: PodClass) -> TopologyFit:
    return TopologyFit(pod_class, plan.snapshot, plan.placed)


def _explain(plan: _Plan, static: StaticFit, pod_class: PodClass) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`, most telling reason per node."""
    nodes = plan.snapshot.node_count
    if nodes == 0:
        return "no nodes available to schedule pods"
    wanted, free = plan.snapshot.vector(pod_class), plan.free()
    topological = is_topological(pod_class, plan.snapshot) or any(c.anti_affinity_terms for c, _row in plan.placed)
    refusals = _topology(plan, pod_class).refusals() if topological else {}
    reasons: Counter[str] = Counter()
    for row, _node in plan.snapshot.nodes():
        if row in static.reasons:
            reasons[static.reasons[row]] += 1
        elif plan.ports_taken(pod_class, row):
            reasons[PORTS_TAKEN] += 1
        elif short := lacking(free[row], wanted, plan.snapshot.columns):
            reasons.update(short)
        else:
            reasons.update(next(([reason] for reason, refused in refusals.items() if refused[row]), []))
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return f"0/{nodes} nodes are available: {listed}."
