"""Which of a ReplicaSet's pods go first when there are too many.

Called by the ReplicaSet reconciler. Pure. The order is Kubernetes' (k8s.io/kubernetes pkg/controller,
ActivePodsWithRanks, and the page "ReplicaSet", section "Scaling a ReplicaSet"): pods that have not got far go first,
then those whose loss costs least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cmp_to_key
from itertools import groupby

from controller.reconcilers.views import PodFacts

_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


def first_to_go(
    pods: Iterable[PodFacts], count: int, related_on_node: Mapping[str, int], now: float
) -> tuple[PodFacts, ...]:
    """The `count` pods to delete. `related_on_node`: how many pods of the same owner's ReplicaSets run on each node."""

    def coarse(pod: PodFacts) -> tuple[object, ...]:
        return (
            pod.node != "",  # not yet on a node before assigned
            _PHASE_RANK.get(pod.phase, 2),  # Pending before Unknown before Running
            pod.ready,  # not ready before ready
            pod.deletion_cost,  # cheap before dear, as the user says
            -related_on_node.get(pod.node, 0),  # crowded nodes before spread ones
        )

    def finer(one: PodFacts, other: PodFacts) -> int:
        return _compare_in_rank(one, other, now)

    chosen: list[PodFacts] = []
    ordered = sorted(sorted(pods, key=lambda pod: pod.uid), key=coarse)
    for _, group in groupby(ordered, key=coarse):
        members: Sequence[PodFacts] = list(group)
        missing = count - len(chosen)
        if missing <= 0:
            break
        if len(members) > missing:
            members = sorted(members, key=cmp_to_key(finer))[:missing]
        chosen.extend(members)
    return tuple(chosen)


def _compare_in_rank(one: PodFacts, other: PodFacts, now: float) -> int:
    """Younger ready pods first, then more restarts, then younger pods; ages compare by powers of two, so that among
    pods of similar age the choice does not always hit the newest node."""
    if one.ready and other.ready and one.ready_since != other.ready_since:
        return _compare_ages(one, other, one.ready_since, other.ready_since, now)
    if one.restarts != other.restarts:
        return other.restarts - one.restarts
    if one.created != other.created:
        return _compare_ages(one, other, one.created, other.created, now)
    return -1 if one.uid < other.uid else int(one.uid > other.uid)


def _compare_ages(one: PodFacts, other: PodFacts, since: float, other_since: float, now: float) -> int:
    if not since or not other_since:
        return -1 if not since else 1  # unknown counts as youngest
    difference = _age_rank(now - since) - _age_rank(now - other_since)
    if difference:
        return difference
    return -1 if one.uid < other.uid else 1


def _age_rank(seconds: float) -> int:
    return int(math.log2(seconds * 1e9)) if seconds > 0 else -1
