"""The arithmetic of rolling updates: how many pods each ReplicaSet of a Deployment may have.

Called by the Deployment reconciler. Pure integers and frozen views, no objects are built here. Invariants, also while
the ReplicaSets' statuses lag behind: growth never asks for more than replicas + maxSurge pods in all, and shrinking
never leaves fewer than replicas - maxUnavailable pods that are known to be available. Rules: k8s.io/kubernetes
pkg/controller/deployment and https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.objects import Object, annotations_of, is_deleting, labels_of, metadata, name_of, uid_of
from controller.reconcilers.views import seconds_of

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"


@dataclass(frozen=True)
class ReplicaSetView:
    """A ReplicaSet as its Deployment sees it. `size` is spec.replicas."""

    obj: Object
    name: str
    uid: str
    created: float
    generation: int
    size: int
    pods: int
    ready: int
    available: int
    terminating: int
    up_to_date: bool
    """Its reconciler has seen its present spec."""
    revision: int
    desired: int | None
    max_replicas: int | None
    deleting: bool

    @property
    def labels(self) -> Mapping[str, str]:
        return labels_of(self.obj)

    @property
    def surely_available(self) -> int:
        """Available pods that stay: the status may still count pods that a smaller size will take away."""
        return min(self.available, self.size)

    @property
    def present(self) -> int:
        """Pods there are or will be: the status may still count pods that a smaller size has not taken away yet."""
        return max(self.size, self.pods)


def view_replica_set(obj: Object) -> ReplicaSetView:
    status, annotations = obj.get("status") or {}, annotations_of(obj)
    size = obj["spec"].get("replicas")
    generation = metadata(obj).get("generation") or 0
    return ReplicaSetView(
        obj=obj,
        name=name_of(obj),
        uid=uid_of(obj),
        created=seconds_of(metadata(obj).get("creationTimestamp")),
        generation=generation,
        size=1 if size is None else size,
        pods=status.get("replicas") or 0,
        ready=status.get("readyReplicas") or 0,
        available=status.get("availableReplicas") or 0,
        terminating=status.get("terminatingReplicas") or 0,
        up_to_date=(status.get("observedGeneration") or 0) >= generation,
        revision=_number(annotations.get(REVISION)) or 0,
        desired=_number(annotations.get(DESIRED_REPLICAS)),
        max_replicas=_number(annotations.get(MAX_REPLICAS)),
        deleting=is_deleting(obj),
    )


@dataclass(frozen=True)
class Limits:
    """What spec.replicas and spec.strategy allow. Recreate has neither surge nor unavailability."""

    replicas: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        return self.replicas + self.surge

    @property
    def least_available(self) -> int:
        return self.replicas - self.unavailable


def limits_of(spec: Mapping[str, Any]) -> Limits:
    """Percentages count of replicas, surge rounded up, unavailability down; both zero would never move, so then one
    pod may be unavailable."""
    replicas = 1 if spec.get("replicas") is None else int(spec["replicas"])
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Limits(replicas, 0, 0)
    rolling = strategy.get("rollingUpdate") or {}
    surge = math.ceil(share(rolling.get("maxSurge", "25%"), replicas))
    unavailable = math.floor(share(rolling.get("maxUnavailable", "25%"), replicas))
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Limits(replicas, surge, min(unavailable, replicas))


def new_size(limits: Limits, new: int, everyone: Iterable[ReplicaSetView], *, recreate: bool) -> int:
    """What the newest ReplicaSet, now of size `new`, may grow (or must shrink) to."""
    if recreate or new > limits.replicas:
        return limits.replicas
    room = limits.most - sum(one.present for one in everyone)
    return new + max(0, min(room, limits.replicas - new))


def shrink_old(limits: Limits, new: ReplicaSetView, old: Sequence[ReplicaSetView]) -> dict[str, int]:
    """New sizes of the old ReplicaSets, by name: first they lose pods that are not available anyway, then available
    ones as far as enough others are."""
    everyone = (*old, new)
    pending = max(0, new.size - new.surely_available)
    spare = sum(one.size for one in everyone) - limits.least_available - pending
    sizes = {one.name: one.size for one in old}
    by_age = sorted(old, key=lambda one: (one.created, one.name))
    for one in by_age:
        idle = min(max(0, spare), one.size - one.surely_available)
        sizes[one.name] -= idle
        spare -= idle
    spare = min(spare, sum(one.surely_available for one in everyone) - limits.least_available)
    for one in by_age:
        taken = min(max(0, spare), sizes[one.name])
        sizes[one.name] -= taken
        spare -= taken
    return {one.name: sizes[one.name] for one in old if sizes[one.name] != one.size}


def spread_proportionally(limits: Limits, active: Sequence[ReplicaSetView], status_replicas: int) -> dict[str, int]:
    """New sizes when a Deployment is scaled in the middle of a rollout: each ReplicaSet changes in proportion to its
    size, what rounding leaves goes to the largest."""
    allowed = limits.most if limits.replicas > 0 else 0
    to_add = allowed - sum(one.size for one in active)
    newest_first = -1 if to_add > 0 else 1
    ordered = sorted(active, key=lambda one: (-one.size, newest_first * one.created, one.name))
    sizes: dict[str, int] = {}
    added = 0
    for one in ordered:
        share = _proportion(one, limits, status_replicas, to_add, added) if to_add else 0
        sizes[one.name] = one.size + share
        added += share
    if ordered and to_add:
        largest = ordered[0].name
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return sizes


def _proportion(one: ReplicaSetView, limits: Limits, status_replicas: int, to_add: int, added: int) -> int:
    left = to_add - added
    if one.size == 0 or left == 0:
        return 0
    fraction = _fraction(one, limits, status_replicas)
    return min(fraction, left) if to_add > 0 else max(fraction, left)


def _fraction(one: ReplicaSetView, limits: Limits, status_replicas: int) -> int:
    if limits.replicas == 0:
        return -one.size
    former = one.max_replicas or status_replicas
    if not former:
        return 0
    return math.floor(one.size * limits.most / former + 0.5) - one.size


def share(value: int | str, total: int) -> float:
    """An IntOrString: a number, or a percentage of `total`."""
    if isinstance(value, int):
        return value
    return int(value.rstrip("%")) * total / 100 if value.endswith("%") else int(value)


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
