"""Deployment: roll its ReplicaSets from one template to the next.

Run by the loop; imports rollout (arithmetic), revisions (history), deployment_status. `decide` is pure. Each decision
takes one step that is safe by itself: the new ReplicaSet grows before old ones shrink, old ones shrink only as far as
enough pods are available, and Recreate starts nothing while an old pod may still run. Rules: k8s.io/kubernetes
pkg/controller/deployment and https://kubernetes.io/docs/concepts/workloads/controllers/deployment/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from api import kinds
from api.objects import Object, condition_of, controller_of, is_deleting, metadata, name_of, namespace_of, uid_of
from api.selectors import from_object
from controller.reconcilers.actions import Action, Adopt, Create, Delete, Disown, Note, Write
from controller.reconcilers.deployment_status import (
    Context,
    Progress,
    create_failed,
    created,
    found,
    is_complete,
    seconds_to_deadline,
    status_of,
)
from controller.reconcilers.loop import Decision, Failure
from controller.reconcilers.replicaset import REPLICA_SETS
from controller.reconcilers.revisions import (
    beyond_history,
    find_new,
    new_replica_set,
    next_revision,
    planned_name,
    revision_of,
    size_annotations,
    sync_new,
)
from controller.reconcilers.rollout import (
    REVISION,
    Limits,
    ReplicaSetView,
    limits_of,
    new_size,
    shrink_old,
    spread_proportionally,
    view_replica_set,
)
from controller.reconcilers.workloads import is_refusal, owner_reference

DEPLOYMENTS = kinds.by_resource("apps", "deployments")


@dataclass(frozen=True)
class Observed:
    """`replica_sets`: those it controls, and its namespace's orphans. `pods_running`: by ReplicaSet uid, how many pods
    are not finished, deleted ones included. `occupied`: the planned ReplicaSet name is somebody else's."""

    deployment: Object
    replica_sets: tuple[Object, ...]
    now: datetime
    pods_running: Mapping[str, int]
    occupied: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class _Step:
    """Part of a decision: what to do, and what Progressing shall say of it."""

    actions: tuple[Action, ...] = ()
    begun: Progress | None = None
    estimate: bool = True
    collision: bool = False


@dataclass(frozen=True)
class _Rollout:
    """Where a Deployment stands."""

    observed: Observed
    limits: Limits
    new: ReplicaSetView | None
    old: tuple[ReplicaSetView, ...]

    @property
    def deployment(self) -> Object:
        return self.observed.deployment

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.deployment["spec"]
        return spec

    @property
    def recreates(self) -> bool:
        return (self.spec.get("strategy") or {}).get("type") == "Recreate"

    @cached_property
    def everyone(self) -> tuple[ReplicaSetView, ...]:
        return (*self.old, self.new) if self.new else self.old

    @property
    def active(self) -> tuple[ReplicaSetView, ...]:
        return tuple(one for one in self.everyone if one.size > 0)

    @property
    def revision(self) -> int:
        return next_revision(self.old)


def decide(observed: Observed) -> Decision:
    """The next safe step of the rollout, and the status that tells where it stands."""
    deployment = observed.deployment
    claims = tuple(_claim_actions(observed))
    if claims and not is_deleting(deployment):
        return Decision(claims)  # first settle whose is what
    rollout = _rollout(observed)
    if is_deleting(deployment):
        step = _Step(estimate=False)
    else:
        step = _next_step(rollout)
    status = _status(rollout, step)
    write = _status_write(rollout, step, status)
    requeue = seconds_to_deadline(deployment, status, observed.now) if step.estimate else None
    if step.begun is not None and step.begun.status == "False" and write is not None:
        return Decision(
            (write, *step.actions), requeue_after_seconds=requeue
        )  # tell of the failure before trying again
    return Decision(step.actions, write, requeue)


def _rollout(observed: Observed) -> _Rollout:
    uid = uid_of(observed.deployment)
    mine = [obj for obj in observed.replica_sets if (controller_of(obj) or {}).get("uid") == uid]
    views = [view_replica_set(obj) for obj in mine]
    new = find_new(observed.deployment["spec"]["template"], views)
    old = tuple(one for one in views if new is None or one.uid != new.uid)
    return _Rollout(observed, limits_of(observed.deployment["spec"]), new, old)


def _claim_actions(observed: Observed) -> Iterable[Action]:
    """Adopts matching orphans, releases own ReplicaSets whose labels no longer match."""
    deployment = observed.deployment
    selector, uid = from_object(deployment["spec"]["selector"]), uid_of(deployment)
    for obj in observed.replica_sets:
        owner, meta = controller_of(obj), metadata(obj)
        matches = selector.matches(meta.get("labels") or {})
        where = (REPLICA_SETS, namespace_of(obj), name_of(obj), uid_of(obj))
        if owner is None and matches and not is_deleting(obj):
            yield Adopt(*where, meta.get("resourceVersion") or "", owner_reference(deployment))
        elif owner is not None and owner["uid"] == uid and not matches:
            yield Disown(*where, (uid,))


def _next_step(rollout: _Rollout) -> _Step:
    """First match wins."""
    if rollout.new is not None:
        patch = sync_new(rollout.deployment, rollout.new, rollout.revision)
        if patch:
            return _Step(
                (_patch(rollout.new, patch),), _begun(rollout)
            )  # its annotations or minReadySeconds are behind
    if rollout.spec.get("paused"):
        return _Step((*_scale(rollout), *_cleanup(rollout)), estimate=False)  # only size and history may change
    if any(one.desired is not None and one.desired != rollout.limits.replicas for one in rollout.active):
        return _Step(tuple(_scale(rollout)), _begun(rollout), estimate=False)  # spec.replicas changed: size comes first
    if rollout.recreates:
        return _recreate(rollout)
    return _roll(rollout)


def _begun(rollout: _Rollout) -> Progress | None:
    """A ReplicaSet that already is there for a Deployment that never told of progress."""
    known = condition_of(rollout.deployment.get("status") or {}, "Progressing")
    return found(rollout.new.name) if rollout.new is not None and known is None else None


def _roll(rollout: _Rollout) -> _Step:
    if rollout.new is None:
        return _create_new(rollout)
    grown = new_size(rollout.limits, rollout.new.size, rollout.everyone, recreate=False)
    if grown != rollout.new.size:
        return _Step((_resize(rollout, rollout.new, grown),), _begun(rollout))
    sizes = shrink_old(rollout.limits, rollout.new, rollout.old)
    shrunk = tuple(_resize(rollout, one, sizes[one.name]) for one in rollout.old if one.name in sizes)
    return _Step(shrunk or _finish(rollout), _begun(rollout))


def _recreate(rollout: _Rollout) -> _Step:
    stopped = tuple(_resize(rollout, one, 0) for one in rollout.old if one.size > 0)
    if stopped:
        return _Step(stopped)
    if _old_pods_may_run(rollout):
        return _Step()
    if rollout.new is None:
        return _create_new(rollout)
    if rollout.new.size != rollout.limits.replicas:
        return _Step((_resize(rollout, rollout.new, rollout.limits.replicas),), _begun(rollout))
    return _Step(_finish(rollout), _begun(rollout))


def _old_pods_may_run(rollout: _Rollout) -> bool:
    """Until an old ReplicaSet has seen its size 0 it may still create."""
    running = rollout.observed.pods_running
    return any(one.pods or not one.up_to_date or running.get(one.uid) for one in rollout.old)


def _create_new(rollout: _Rollout) -> _Step:
    name, failure = planned_name(rollout.deployment), rollout.observed.failure
    if rollout.observed.occupied:
        return _Step(collision=True)  # the next decision has another hash
    size = new_size(rollout.limits, 0, rollout.old, recreate=rollout.recreates)
    obj = new_replica_set(rollout.deployment, rollout.limits, rollout.revision, size)
    text = f"Scaled up replica set {name} from 0 to {size}"
    note = Note(rollout.deployment, "Normal", "ScalingReplicaSet", text) if size else None
    refused = Note(
        rollout.deployment, "Warning", "ReplicaSetCreateError", f'Failed to create new replica set "{name}": '
    )
    begun = created(name)
    if failure is not None and is_refusal(failure):
        begun = create_failed(name, failure.error.message)
    return _Step((Create(REPLICA_SETS, obj, note, refused=refused),), begun)


def _scale(rollout: _Rollout) -> Iterable[Action]:
    """Brings the sizes to spec.replicas without moving the rollout."""
    active = rollout.active
    only = _active_or_latest(rollout)
    if only is not None:
        yield from _resized(rollout, {only.name: rollout.limits.replicas}, (only,))
        return
    if rollout.new is not None and _is_saturated(rollout, rollout.new):
        old = tuple(one for one in active if one.uid != rollout.new.uid)
        yield from _resized(rollout, {one.name: 0 for one in old}, old)
        return
    if not rollout.recreates:
        present = (rollout.deployment.get("status") or {}).get("replicas") or 0
        yield from _resized(rollout, spread_proportionally(rollout.limits, active, present), active)


def _active_or_latest(rollout: _Rollout) -> ReplicaSetView | None:
    """The one ReplicaSet that has pods; if none has, the newest there is; None if several have."""
    active = rollout.active
    if len(active) == 1:
        return active[0]
    if active or not rollout.everyone:
        return None
    return rollout.new or max(rollout.old, key=lambda one: (one.created, one.name))


def _is_saturated(rollout: _Rollout, new: ReplicaSetView) -> bool:
    return new.size == new.desired == new.available == rollout.limits.replicas


def _resized(rollout: _Rollout, sizes: Mapping[str, int], sets: Sequence[ReplicaSetView]) -> Iterable[Action]:
    annotations = size_annotations(rollout.limits)
    for one in sets:
        have = metadata(one.obj).get("annotations") or {}
        if one.size != sizes[one.name] or any(have.get(key) != value for key, value in annotations.items()):
            yield _resize(rollout, one, sizes[one.name])


def _resize(rollout: _Rollout, one: ReplicaSetView, size: int) -> Write:
    patch = {"metadata": {"annotations": size_annotations(rollout.limits)}, "spec": {"replicas": size}}
    note = None
    if size != one.size:
        direction = "up" if size > one.size else "down"
        text = f"Scaled {direction} replica set {one.name} from {one.size} to {size}"
        note = Note(rollout.deployment, "Normal", "ScalingReplicaSet", text)
    return _patch(one, patch, note)


def _patch(one: ReplicaSetView, patch: Object, note: Note | None = None) -> Write:
    where = (REPLICA_SETS, namespace_of(one.obj), one.name, one.uid)
    return Write(*where, merge=patch, generation=one.generation, note=note)


def _finish(rollout: _Rollout) -> tuple[Action, ...]:
    done = is_complete(rollout.limits, rollout.deployment, rollout.deployment.get("status") or {})
    return tuple(_cleanup(rollout)) if done else ()


def _cleanup(rollout: _Rollout) -> Iterable[Action]:
    for one in beyond_history(rollout.old, rollout.spec.get("revisionHistoryLimit")):
        version = metadata(one.obj).get("resourceVersion") or ""
        yield Delete(REPLICA_SETS, namespace_of(one.obj), one.name, one.uid, version)


def _status(rollout: _Rollout, step: _Step) -> Object:
    before = (rollout.deployment.get("status") or {}).get("collisionCount")
    collisions = (before or 0) + 1 if step.collision else before
    context = Context(
        deployment=rollout.deployment,
        limits=rollout.limits,
        new=rollout.new,
        old=rollout.old,
        now=rollout.observed.now,
        estimate=step.estimate,
        begun=step.begun,
        collisions=collisions,
    )
    return status_of(context)


def _status_write(rollout: _Rollout, step: _Step, status: Object) -> Write | None:
    """Status and the revision annotation go in one write; it moves no generation."""
    deployment = rollout.deployment
    revision = _told_revision(rollout, step)
    annotations = {} if revision == revision_of(deployment) else {REVISION: revision}
    if status == deployment.get("status") and not annotations:
        return None
    return Write(
        DEPLOYMENTS,
        namespace_of(deployment),
        name_of(deployment),
        uid_of(deployment),
        merge={"metadata": {"annotations": annotations}} if annotations else {},
        replace={"status": status},
        subresource="status",
    )


def _told_revision(rollout: _Rollout, step: _Step) -> str:
    """The revision of the newest ReplicaSet, also of the one just created or moved up."""
    created_now = any(isinstance(action, Create) for action in step.actions)
    if created_now or (rollout.new is not None and rollout.new.revision < rollout.revision):
        return str(rollout.revision)
    return str(rollout.new.revision) if rollout.new is not None else revision_of(rollout.deployment)
