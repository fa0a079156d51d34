"""Which nodes a class of pods may use, and why not the others, in kubectl users' words.

Each static filter looks at one node and a class: it returns "" (may run) or the reason. The first refusal counts, in
kube-scheduler's order (NodeUnschedulable, TaintToleration, NodeAffinity). `StaticFit` remembers the answers of a class
and re-asks only for nodes that changed. Resource fit is vectorised (`fits`). Called by `decide.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from api.placement import selects_node
from controller.scheduler.demand import PodClass
from controller.scheduler.matching import is_tolerated
from controller.scheduler.scores import static_score
from controller.scheduler.snapshot import Mask, Matrix, NodeView, Scores, Snapshot

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
_HARD_EFFECTS = ("NoSchedule", "NoExecute")


def refuse_cordoned(pod_class: PodClass, node: NodeView) -> str:
    taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    if node.unschedulable and not is_tolerated(pod_class, taint):
        return "node(s) were unschedulable"
    return ""


def refuse_untolerated_taint(pod_class: PodClass, node: NodeView) -> str:
    for taint in node.taints:
        if taint.get("effect") in _HARD_EFFECTS and not is_tolerated(pod_class, taint):
            return f"node(s) had untolerated taint {{{taint.get('key', '')}: {taint.get('value') or ''}}}"
    return ""


def refuse_not_ready(pod_class: PodClass, node: NodeView) -> str:
    """The condition is newer than the taint that follows from it; a class that tolerates the taint may go there."""
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    if not node.ready and not is_tolerated(pod_class, taint):
        return "node(s) were not ready"
    return ""


def refuse_affinity_mismatch(pod_class: PodClass, node: NodeView) -> str:
    matches = selects_node(pod_class.spec, node.name, node.labels)
    return "" if matches else "node(s) didn't match Pod's node affinity/selector"


STATIC_FILTERS: tuple[Callable[[PodClass, NodeView], str], ...] = (
    refuse_cordoned,
    refuse_untolerated_taint,
    refuse_not_ready,
    refuse_affinity_mismatch,
)


class StaticFit:
    """What one class may use by the nodes' own properties, kept current node by node."""

    def __init__(self, pod_class: PodClass) -> None:
        self._class = pod_class
        self._seen = 0
        self.mask: Mask = np.zeros(0, dtype=np.bool_)
        self.score: Scores = np.zeros(0, dtype=np.float64)
        self.reasons: dict[int, str] = {}

    def refresh(self, snapshot: Snapshot) -> StaticFit:
        grown = len(snapshot.alive) - len(self.mask)
        if grown > 0:
            self.mask = np.concatenate([self.mask, np.zeros(grown, dtype=np.bool_)])
            self.score = np.concatenate([self.score, np.zeros(grown)])
        for row in snapshot.changed_since(self._seen):
            self._look(row, snapshot.views[row])
        self._seen = snapshot.change
        return self

    def _look(self, row: int, node: NodeView | None) -> None:
        self.reasons.pop(row, None)
        self.mask[row] = False
        if node is None:
            return
        reason = next((why for refuse in STATIC_FILTERS if (why := refuse(self._class, node))), "")
        if reason:
            self.reasons[row] = reason
            return
        self.mask[row] = True
        self.score[row] = static_score(self._class, node)


def fits(free: Matrix, wanted: Matrix) -> Mask:
    """Rows whose free resources cover every wanted one; what is not wanted may be overcommitted."""
    asked = wanted > 0
    covered: Mask = np.all(free[:, asked] >= wanted[asked], axis=1)
    return covered


def lacking(free: Matrix, wanted: Matrix, columns: Mapping[str, int]) -> list[str]:
    """Why one row does not fit: `Insufficient cpu`, `Too many pods`."""
    short = [name for name, column in columns.items() if wanted[column] > 0 and free[column] < wanted[column]]
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in short]
