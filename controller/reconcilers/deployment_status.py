"""The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

Called by the Deployment reconciler. Pure. Reasons and messages are Kubernetes' (k8s.io/kubernetes
pkg/controller/deployment/progress.go, sync.go), because `kubectl rollout status` and people read them. Invariant:
lastUpdateTime of Progressing moves exactly when the rollout moved; the progress deadline is counted from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from api.objects import Object, condition_of, format_time, metadata, name_of, parse_time
from controller.reconcilers.rollout import Limits, ReplicaSetView

_NO_DEADLINE = 2**31 - 1
_DEADLINE_SLACK_SECONDS = 1.0
_COMPLETE = "NewReplicaSetAvailable"
_TIMED_OUT = "ProgressDeadlineExceeded"
_PAUSED = "DeploymentPaused"
_MOVED = ("updatedReplicas", "readyReplicas", "availableReplicas")


@dataclass(frozen=True)
class Progress:
    """One thing to say in the Progressing condition: (status, reason, message)."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class Context:
    """What the status is computed from. `estimate`: whether to judge progress (not while paused or just scaling).
    `begun`: what this decision started or found, as Progressing shall tell it."""

    deployment: Object
    limits: Limits
    new: ReplicaSetView | None
    old: Sequence[ReplicaSetView]
    now: datetime
    estimate: bool
    begun: Progress | None = None
    collisions: int | None = None


def created(name: str) -> Progress:
    return Progress("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')


def found(name: str) -> Progress:
    return Progress("True", "FoundNewReplicaSet", f'Found new replica set "{name}"')


def create_failed(name: str, why: str) -> Progress:
    return Progress("False", "ReplicaSetCreateError", f'Failed to create new replica set "{name}": {why}')


def has_deadline(spec: Mapping[str, Any]) -> bool:
    seconds = spec.get("progressDeadlineSeconds")
    return seconds is not None and seconds != _NO_DEADLINE


def is_complete(limits: Limits, deployment: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Every replica is new and available, none is left over, and this is known of the present spec."""
    observed = (status.get("observedGeneration") or 0) >= (metadata(deployment).get("generation") or 0)
    counts = ("updatedReplicas", "replicas", "availableReplicas")
    return observed and all((status.get(count) or 0) == limits.replicas for count in counts)


def status_of(context: Context) -> Object:
    """The whole status; counts of zero are left out as Kubernetes leaves them out."""
    before = context.deployment.get("status") or {}
    status = _counts(context)
    conditions = [dict(condition) for condition in before.get("conditions") or []]
    _tell_pause(conditions, context)
    if context.begun is not None and has_deadline(context.deployment["spec"]):
        _put(conditions, _progressing(context.begun, context.now))
    _put(conditions, _availability(context, status))
    if context.estimate:
        _tell_progress(conditions, context, before, status)
        _tell_failure(conditions, context)
    if conditions:
        status["conditions"] = conditions
    return status


def seconds_to_deadline(deployment: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> float | None:
    """When to look again whether the rollout is stuck; None if nothing can be."""
    progress = condition_of(status, "Progressing")
    if progress is None or not has_deadline(deployment["spec"]) or progress.get("reason") in (_COMPLETE, _TIMED_OUT):
        return None
    deadline = parse_time(progress["lastUpdateTime"]) + timedelta(seconds=_deadline(deployment))
    return max(0.0, (deadline - now).total_seconds()) + _DEADLINE_SLACK_SECONDS


def _counts(context: Context) -> Object:
    everyone = (*context.old, *((context.new,) if context.new else ()))
    available = sum(one.available for one in everyone)
    counts = {
        "replicas": sum(one.pods for one in everyone),
        "updatedReplicas": context.new.pods if context.new else 0,
        "readyReplicas": sum(one.ready for one in everyone),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(one.size for one in everyone) - available),
        "collisionCount": context.collisions,
    }
    status: Object = {name: count for name, count in counts.items() if count}
    status["terminatingReplicas"] = sum(one.terminating for one in everyone)
    status["observedGeneration"] = metadata(context.deployment).get("generation") or 1
    return status


def _tell_pause(conditions: list[Object], context: Context) -> None:
    spec = context.deployment["spec"]
    known = condition_of({"conditions": conditions}, "Progressing") or {}
    if not has_deadline(spec) or known.get("reason") == _TIMED_OUT:
        return  # a reported lack of progress is not hidden by a pause
    told_paused = known.get("reason") == _PAUSED
    if spec.get("paused") and not told_paused:
        _put(conditions, _progressing(Progress("Unknown", _PAUSED, "Deployment is paused"), context.now))
    elif told_paused and not spec.get("paused"):
        resumed = Progress("Unknown", "DeploymentResumed", "Deployment is resumed")
        _put(conditions, _progressing(resumed, context.now))


def _availability(context: Context, status: Mapping[str, Any]) -> Object:
    enough = (status.get("availableReplicas") or 0) >= context.limits.least_available
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    message = f"Deployment {'has' if enough else 'does not have'} minimum availability."
    return _condition("Available", Progress(str(enough), reason, message), context.now)


def _tell_progress(conditions: list[Object], context: Context, before: Mapping[str, Any], status: Object) -> None:
    deployment = context.deployment
    if not has_deadline(deployment["spec"]):
        conditions[:] = [condition for condition in conditions if condition["type"] != "Progressing"]
        return
    known = condition_of({"conditions": conditions}, "Progressing")
    all_new = (status.get("replicas") or 0) == (status.get("updatedReplicas") or 0)
    if all_new and known is not None and known.get("reason") == _COMPLETE:
        return  # complete before; scaling is not a rollout
    subject = f'ReplicaSet "{context.new.name}"' if context.new else f'Deployment "{name_of(deployment)}"'
    if is_complete(context.limits, deployment, status):
        done = Progress("True", _COMPLETE, f"{subject} has successfully progressed.")
        _put(conditions, _progressing(done, context.now))
    elif _moved(before, status):
        moving = _progressing(Progress("True", "ReplicaSetUpdated", f"{subject} is progressing."), context.now)
        if known is not None and known["status"] == "True":
            moving["lastTransitionTime"] = known["lastTransitionTime"]
        conditions[:] = [condition for condition in conditions if condition["type"] != "Progressing"]
        conditions.append(moving)
    elif known is not None and _timed_out(deployment, known, context.now):
        stuck = Progress("False", _TIMED_OUT, f"{subject} has timed out progressing.")
        _put(conditions, _progressing(stuck, context.now))


def _moved(before: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """More new, ready or available pods than before, or fewer old ones."""
    if any((status.get(count) or 0) > (before.get(count) or 0) for count in _MOVED):
        return True
    old_before = (before.get("replicas") or 0) - (before.get("updatedReplicas") or 0)
    return (status.get("replicas") or 0) - (status.get("updatedReplicas") or 0) < old_before


def _timed_out(deployment: Mapping[str, Any], progress: Mapping[str, Any], now: datetime) -> bool:
    if progress["reason"] == _COMPLETE:
        return False
    if progress["reason"] == _TIMED_OUT:
        return True
    return parse_time(progress["lastUpdateTime"]) + timedelta(seconds=_deadline(deployment)) < now


def _tell_failure(conditions: list[Object], context: Context) -> None:
    """ReplicaFailure of the newest ReplicaSet, else of an old one, is the Deployment's too."""
    sets = ((context.new,) if context.new else ()) + tuple(context.old)
    conditions[:] = [condition for condition in conditions if condition["type"] != "ReplicaFailure"]
    for one in sets:
        failure = condition_of(one.obj.get("status") or {}, "ReplicaFailure")
        if failure is not None:
            conditions.append({**failure, "lastUpdateTime": failure["lastTransitionTime"]})
            return


def _put(conditions: list[Object], new: Object) -> None:
    """Same status and reason: nothing to tell. Same status: the transition is as old as it was."""
    known = condition_of({"conditions": conditions}, new["type"])
    if known is not None and known["status"] == new["status"]:
        if known["reason"] == new["reason"]:
            return
        new["lastTransitionTime"] = known["lastTransitionTime"]
    conditions[:] = [condition for condition in conditions if condition["type"] != new["type"]]
    conditions.append(new)


def _progressing(progress: Progress, now: datetime) -> Object:
    return _condition("Progressing", progress, now)


def _condition(type: str, progress: Progress, now: datetime) -> Object:
    moment = format_time(now)
    return {
        "type": type,
        "status": progress.status,
        "lastUpdateTime": moment,
        "lastTransitionTime": moment,
        "reason": progress.reason,
        "message": progress.message,
    }


def _deadline(deployment: Mapping[str, Any]) -> int:
    return int(deployment["spec"]["progressDeadlineSeconds"])
