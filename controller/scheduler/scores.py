"""Which of the possible nodes is best. All scores are 0..100 before their weight, larger is better.

Weights are kube-scheduler's defaults: resources 1 + 1, image 1, preferred node affinity 2, soft taints 3. Spreading of
one owner's pods is a cost a pod (`SPREAD_*`), so that a node's score depends on that node and its zone alone and a
batch of equal pods can be placed with heaps. Called by `filters.py` (static part) and `decide.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from api.placement import term_matches
from controller.scheduler.demand import PodClass
from controller.scheduler.matching import is_tolerated
from controller.scheduler.snapshot import CPU, MEMORY, Matrix, NodeView, Scores

SPREAD_NODE_COST = 25.0
SPREAD_ZONE_COST = 3.0
_IMAGE_MIN_BYTES = 23 * 1024 * 1024
_IMAGE_MAX_BYTES = 1024 * 1024 * 1024


def static_score(pod_class: PodClass, node: NodeView) -> float:
    """The part that depends on the node's own properties: images, preferred affinity, soft taints."""
    return _image_score(pod_class, node) + 2 * _affinity_score(pod_class, node) + 3 * _taint_score(pod_class, node)


def _image_score(pod_class: PodClass, node: NodeView) -> float:
    present = sum(node.images.get(image, 0) for image in pod_class.images)
    most = _IMAGE_MAX_BYTES * max(1, len(pod_class.images))
    return 100.0 * (min(max(present, _IMAGE_MIN_BYTES), most) - _IMAGE_MIN_BYTES) / (most - _IMAGE_MIN_BYTES)


def _affinity_score(pod_class: PodClass, node: NodeView) -> float:
    preferred: list[Mapping[str, Any]] = (
        pod_class.affinity("nodeAffinity").get("preferredDuringSchedulingIgnoredDuringExecution") or []
    )
    total = sum(term.get("weight") or 0 for term in preferred)
    name, labels = node.name, node.labels
    won = sum(t.get("weight") or 0 for t in preferred if term_matches(t.get("preference") or {}, name, labels))
    return 100.0 * won / total if total else 0.0


def _taint_score(pod_class: PodClass, node: NodeView) -> float:
    soft = [taint for taint in node.taints if taint.get("effect") == "PreferNoSchedule"]
    disliked = sum(not is_tolerated(pod_class, taint) for taint in soft)
    return 100.0 / (1 + disliked)


def resource_scores(allocatable: Matrix, nonzero: Matrix, wanted: tuple[int, int]) -> Scores:
    """Least allocated + balanced, for every row, as if one pod more of `wanted` (millicores, bytes) ran there."""
    offered = np.maximum(allocatable[:, (CPU, MEMORY)], 1)
    fraction = np.minimum((nonzero + np.array(wanted, dtype=np.int64)) / offered, 1.0)
    least = 100.0 * (1.0 - fraction.mean(axis=1))
    balanced = 100.0 * (1.0 - np.abs(fraction[:, 0] - fraction[:, 1]) / 2.0)
    scores: Scores = least + balanced
    return scores


def resource_score(allocatable: tuple[int, int], nonzero: tuple[int, int], wanted: tuple[int, int]) -> float:
    """`resource_scores` for one row, in plain numbers: the inner step of a batch."""
    cpu = min((nonzero[0] + wanted[0]) / max(allocatable[0], 1), 1.0)
    memory = min((nonzero[1] + wanted[1]) / max(allocatable[1], 1), 1.0)
    return 100.0 * (1.0 - (cpu + memory) / 2.0) + 100.0 * (1.0 - abs(cpu - memory) / 2.0)
