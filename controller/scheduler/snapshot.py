"""What the nodes offer and what is placed on them, as numpy matrices that change row by row.

`Snapshot` is fed by the loop from cache events (`set_node`, `place_pod`, ...) and read by the pure `decide`. Row i of
every array is node `views[i]`; a removed node's row is dead (`alive[i]` False) until reused. Columns are resources.
Invariant: `requested` is the sum over `pods`, whatever the order of events; placing a pod twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from api.host_ports import HostPort
from api.objects import Object, is_ready, labels_of, name_of
from controller.scheduler.demand import PodClass, amount_of

Matrix = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

CPU, MEMORY, PODS = 0, 1, 2
_FIRST_COLUMNS = ("cpu", "memory", "pods")
ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class NodeView:
    """The parts of a Node that placement reads."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, Any], ...]
    unschedulable: bool
    ready: bool
    images: Mapping[str, int] = field(repr=False)
    """Image name -> size in bytes."""
    allocatable: Mapping[str, int]

    @property
    def zone(self) -> str:
        return self.labels.get(ZONE_LABEL, "")


def node_view(node: Object) -> NodeView:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    offered = status.get("allocatable") or status.get("capacity") or {}
    images = {n: i.get("sizeBytes") or 0 for i in status.get("images") or () for n in i.get("names") or ()}
    return NodeView(
        name=name_of(node),
        labels=dict(labels_of(node)),
        taints=tuple(spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        ready=is_ready(node),
        images=images,
        allocatable={resource: amount_of(resource, quantity) for resource, quantity in offered.items()},
    )


@dataclass(frozen=True)
class PlacedPod:
    uid: str
    node: str
    pod_class: PodClass


class Snapshot:
    """The scheduler's picture of the cluster. `change` counts node changes; `changed_since` lists their rows."""

    def __init__(self) -> None:
        self.columns: dict[str, int] = {name: i for i, name in enumerate(_FIRST_COLUMNS)}
        self.views: list[NodeView | None] = []
        self.rows: dict[str, int] = {}
        self.alive: Mask = np.zeros(0, dtype=np.bool_)
        self.allocatable: Matrix = np.zeros((0, len(self.columns)), dtype=np.int64)
        self.requested: Matrix = np.zeros((0, len(self.columns)), dtype=np.int64)
        self.nonzero: Matrix = np.zeros((0, 2), dtype=np.int64)
        self.ports: list[dict[HostPort, int]] = []
        self.pods: dict[str, PlacedPod] = {}
        self.uids_by_node: dict[str, set[str]] = {}
        self.uids_by_namespace: dict[str, set[str]] = {}
        self.rows_by_owner: dict[str, dict[int, int]] = {}
        self.anti_affine: dict[str, PlacedPod] = {}
        self.namespace_labels: dict[str, Mapping[str, str]] = {}
        self._free: list[int] = []
        self._journal: list[int] = []
        self._journal_start = 0

    @property
    def node_count(self) -> int:
        return len(self.rows)

    @property
    def change(self) -> int:
        return self._journal_start + len(self._journal)

    def changed_since(self, change: int) -> set[int]:
        if change < self._journal_start:
            return set(range(len(self.views)))
        return set(self._journal[change - self._journal_start :])

    def nodes(self) -> Iterator[tuple[int, NodeView]]:
        for row, view in enumerate(self.views):
            if view is not None:
                yield row, view

    def set_node(self, view: NodeView) -> bool:
        """Adds or replaces a node. False when nothing that placement reads has changed."""
        row = self.rows.get(view.name)
        if row is not None and self.views[row] == view:
            return False
        if row is None:
            row = self._new_row(view.name)
        self.views[row] = view
        self.alive[row] = True
        for resource in view.allocatable:
            self._column(resource)
        self.allocatable[row] = 0
        for resource, amount in view.allocatable.items():
            self.allocatable[row, self.columns[resource]] = amount
        self._note(row)
        return True

    def drop_node(self, name: str) -> None:
        """Forgets a node. Its pods stay known: they count again when a node of that name returns."""
        row = self.rows.pop(name, None)
        if row is None:
            return
        for uid in self.uids_by_node.get(name, ()):
            self._owner_count(self.pods[uid].pod_class, row, -1)
        self.views[row] = None
        self.alive[row] = False
        self.allocatable[row] = self.requested[row] = self.nonzero[row] = 0
        self.ports[row] = {}
        self._free.append(row)
        self._note(row)

    def place_pod(self, pod: PlacedPod) -> bool:
        """Counts a pod on its node. False when it was counted there already."""
        known = self.pods.get(pod.uid)
        if known is not None:
            if known.node == pod.node and known.pod_class.requests == pod.pod_class.requests:
                return False
            self.remove_pod(pod.uid)
        self.pods[pod.uid] = pod
        self.uids_by_node.setdefault(pod.node, set()).add(pod.uid)
        self.uids_by_namespace.setdefault(pod.pod_class.namespace, set()).add(pod.uid)
        if pod.pod_class.anti_affinity_terms:
            self.anti_affine[pod.uid] = pod
        row = self.rows.get(pod.node)
        if row is not None:
            self._count(row, pod.pod_class, 1)
        return True

    def remove_pod(self, uid: str) -> bool:
        """Frees what a pod held. False when it was not placed."""
        pod = self.pods.pop(uid, None)
        if pod is None:
            return False
        self.uids_by_node[pod.node].discard(uid)
        self.uids_by_namespace[pod.pod_class.namespace].discard(uid)
        self.anti_affine.pop(uid, None)
        row = self.rows.get(pod.node)
        if row is not None:
            self._count(row, pod.pod_class, -1)
        return True

    def vector(self, pod_class: PodClass) -> Matrix:
        """A class's requests, one number a column; a resource that no node offers gets a column of zeros."""
        for resource in pod_class.requests:
            self._column(resource)
        vector = np.zeros(len(self.columns), dtype=np.int64)
        for resource, amount in pod_class.requests.items():
            vector[self.columns[resource]] = amount
        return vector

    def placed_in(self, namespace: str) -> Iterator[PlacedPod]:
        for uid in self.uids_by_namespace.get(namespace, ()):
            yield self.pods[uid]

    def _note(self, row: int) -> None:
        self._journal.append(row)
        if len(self._journal) > 4 * len(self.views) + 1024:
            self._journal_start += len(self._journal)
            self._journal.clear()

    def _new_row(self, name: str) -> int:
        row = self._free.pop() if self._free else len(self.views)
        if row == len(self.views):
            self.views.append(None)
            self.ports.append({})
            self._grow_rows(row + 1)
        self.rows[name] = row
        for uid in self.uids_by_node.get(name, ()):
            self._count(row, self.pods[uid].pod_class, 1)
        return row

    def _grow_rows(self, needed: int) -> None:
        if needed <= len(self.alive):
            return
        more = max(64, len(self.alive))
        self.alive = np.concatenate([self.alive, np.zeros(more, dtype=np.bool_)])
        self.allocatable = np.pad(self.allocatable, ((0, more), (0, 0)))
        self.requested = np.pad(self.requested, ((0, more), (0, 0)))
        self.nonzero = np.pad(self.nonzero, ((0, more), (0, 0)))

    def _column(self, resource: str) -> int:
        if resource not in self.columns:
            self.columns[resource] = len(self.columns)
            self.allocatable = np.pad(self.allocatable, ((0, 0), (0, 1)))
            self.requested = np.pad(self.requested, ((0, 0), (0, 1)))
        return self.columns[resource]

    def _count(self, row: int, pod_class: PodClass, sign: int) -> None:
        vector = self.vector(pod_class)  # before the line below: it may add columns
        self.requested[row] += sign * vector
        self.nonzero[row] += sign * np.array(pod_class.nonzero, dtype=np.int64)
        for port in pod_class.host_ports:
            left = self.ports[row].get(port, 0) + sign
            if left:
                self.ports[row][port] = left
            else:
                self.ports[row].pop(port, None)
        self._owner_count(pod_class, row, sign)

    def _owner_count(self, pod_class: PodClass, row: int, sign: int) -> None:
        if not pod_class.owner_uid:
            return
        counts = self.rows_by_owner.setdefault(pod_class.owner_uid, {})
        counts[row] = counts.get(row, 0) + sign
        if counts[row] <= 0:
            del counts[row]
            if not counts:
                del self.rows_by_owner[pod_class.owner_uid]
