"""What a DELETE does to an object: remove it, mark it, or nothing yet. Pure.

    plan_deletion      every kind: finalizers, propagation, grace period
    plan_namespace     namespaces: Terminating until spec.finalizers is empty
    plan_definition    CustomResourceDefinitions: Terminating until their objects are gone
    is_released        after an update: was that the last thing that held a deleted object?

Called by delete and update. Rules from k8s.io/apiserver/pkg/registry/rest/delete.go, .../generic/registry/store.go and
https://kubernetes.io/docs/concepts/architecture/garbage-collection/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from api.errors import ApiError, FieldError, conflict, invalid_object, not_supported
from api.objects import Object
from controller.registry.strategies import Strategy
from controller.registry.system_fields import mark_deleting, shorten_grace, timestamp
from controller.registry.types import DeleteOptions, Target

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
_POLICIES = ("Foreground", "Background", "Orphan", "nil")


class Step(Enum):
    REMOVE = "remove"
    MARK = "mark"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Plan:
    """`obj` is the object as it is stored (MARK), answered (REMOVE), or stays (NOTHING)."""

    step: Step
    obj: Object


def check_options(options: DeleteOptions) -> None:
    """Raises Invalid for a propagation policy that does not exist, or one that contradicts orphanDependents."""
    errors: list[FieldError] = []
    if options.propagation and options.propagation not in _POLICIES[:3]:
        errors.append(not_supported("propagationPolicy", options.propagation, _POLICIES))
    if options.propagation and options.orphan_dependents is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(
            FieldError("propagationPolicy", "FieldValueInvalid", f'Invalid value: "{options.propagation}": {why}')
        )
    if errors:
        raise invalid_object("meta.k8s.io", "DeleteOptions", "", errors)


def check_preconditions(target: Target, options: DeleteOptions, obj: Mapping[str, Any]) -> None:
    """Raises Conflict when the object is not the one, or not the version, that the caller saw."""
    metadata = obj["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        raise _unmet(target, "UID", options.uid, metadata["uid"], "deleted and then recreated")
    if options.resource_version and options.resource_version != metadata["resourceVersion"]:
        raise _unmet(target, "ResourceVersion", options.resource_version, metadata["resourceVersion"], "modified")


def _unmet(target: Target, what: str, asked: str, found: str, guess: str) -> ApiError:
    if target.kind.resource in (("", "namespaces"), _DEFINITIONS):
        why = f"Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
        return conflict(target.kind.group, target.kind.plural, target.name, why)
    why = (
        f"the {what} in the precondition ({asked}) does not match the {what} in record ({found}). "
        f"The object might have been {guess}"
    )
    return conflict(target.kind.group, target.kind.kind, target.name, why)


def plan_deletion(strategy: Strategy, obj: Object, options: DeleteOptions, now: datetime) -> Plan:
    """Plans the deletion of `obj`, which becomes the plan's."""
    metadata = obj["metadata"]
    grace = _graceful_step(strategy, obj, options, now)
    if grace is Step.NOTHING:
        return Plan(Step.NOTHING, obj)
    changed = _set_finalizers(strategy, metadata, options)
    pending = bool(metadata.get("finalizers"))
    if grace is Step.MARK:
        dies_now = not pending and metadata["deletionGracePeriodSeconds"] == 0
        return Plan(Step.REMOVE if dies_now else Step.MARK, obj)
    if not pending:
        return Plan(Step.REMOVE, obj)
    marked = _mark_pending(metadata, now)
    return Plan(Step.MARK if marked or changed else Step.NOTHING, obj)


def _graceful_step(strategy: Strategy, obj: Object, options: DeleteOptions, now: datetime) -> Step:
    """MARK: a grace period begins or shrinks. NOTHING: one is running and stays. REMOVE: none applies."""
    metadata = obj["metadata"]
    grace = strategy.grace(obj, options.grace_seconds)
    if grace is None:
        return Step.REMOVE
    running = metadata.get("deletionGracePeriodSeconds")
    if not metadata.get("deletionTimestamp"):
        mark_deleting(metadata, now, grace)
        return Step.MARK
    if running is None:
        return Step.REMOVE
    if options.grace_seconds is None or (asked := _at_least_zero(options.grace_seconds)) >= running:
        return Step.NOTHING if running or metadata.get("finalizers") else Step.MARK
    shorten_grace(metadata, asked)
    return Step.MARK


def _at_least_zero(seconds: int) -> int:
    return 1 if seconds < 0 else seconds


def _mark_pending(metadata: Object, now: datetime) -> bool:
    """Marks an object that only its finalizers keep; False when it was marked before."""
    if metadata.get("deletionTimestamp"):
        if metadata.get("deletionGracePeriodSeconds") == 0:
            return False
        metadata["deletionGracePeriodSeconds"] = 0
        return True
    mark_deleting(metadata, now, 0)
    return True


def _set_finalizers(strategy: Strategy, metadata: Object, options: DeleteOptions) -> bool:
    """Puts the garbage collector's finalizer (orphan or foregroundDeletion) as the options say; True on change."""
    if strategy.garbage_collection == "unsupported":
        return False
    before: list[str] = metadata.get("finalizers") or []
    wanted = _collector_finalizer(strategy, before, options)
    after = [each for each in before if each not in (ORPHAN, FOREGROUND)]
    if wanted:
        after.append(wanted)
    if set(after) == set(before):
        return False
    if after:
        metadata["finalizers"] = after
    else:
        metadata.pop("finalizers", None)
    return True


def _collector_finalizer(strategy: Strategy, present: list[str], options: DeleteOptions) -> str:
    if options.orphan_dependents is not None:
        return ORPHAN if options.orphan_dependents else ""
    if options.propagation:
        return {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(options.propagation, "")
    default = ORPHAN if strategy.garbage_collection == "orphan" else ""
    return next((each for each in (ORPHAN, FOREGROUND) if each in present), default)


def plan_namespace(obj: Object, options: DeleteOptions, now: datetime) -> Plan:
    """A namespace turns Terminating; it is removed when its content, and with it every finalizer, is gone."""
    metadata = obj["metadata"]
    _set_finalizers(Strategy(), metadata, options)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(now)
        obj.setdefault("status", {})["phase"] = "Terminating"
        return Plan(Step.MARK, obj)
    held = (obj.get("spec") or {}).get("finalizers") or metadata.get("finalizers")
    return Plan(Step.NOTHING if held else Step.REMOVE, obj)


def plan_definition(obj: Object, options: DeleteOptions, now: datetime) -> Plan:
    """A definition goes when its custom resources, and with them the finalizer set here, have gone."""
    metadata = obj["metadata"]
    _set_finalizers(Strategy(), metadata, options)
    if metadata.get("deletionTimestamp"):
        return Plan(Step.NOTHING if metadata.get("finalizers") else Step.REMOVE, obj)
    metadata["deletionTimestamp"] = timestamp(now)
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), CLEANUP]
    why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    terminating = {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": timestamp(now),
        "reason": "InstanceDeletionPending",
        "message": why,
    }
    status = obj.setdefault("status", {})
    status["conditions"] = [*(c for c in status.get("conditions") or () if c["type"] != "Terminating"), terminating]
    return Plan(Step.MARK, obj)


def is_released(target: Target, obj: Mapping[str, Any]) -> bool:
    """Whether an update took the last finalizer of an object that was only waiting for it."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if target.kind.resource == ("", "namespaces"):
        return not (obj.get("spec") or {}).get("finalizers")
    return not metadata.get("deletionGracePeriodSeconds")
