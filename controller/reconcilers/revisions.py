"""Which ReplicaSet is a Deployment's newest, and the annotations by which `kubectl rollout undo` finds the others.

Called by the Deployment reconciler. Pure. Rules: k8s.io/kubernetes pkg/controller/deployment/util. Invariant: revision
numbers only rise; the newest ReplicaSet has the highest one; what it gave up is kept in its revision history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.objects import Object, annotations_of, clone, metadata, name_of, namespace_of
from controller.reconcilers.names import template_hash
from controller.reconcilers.rollout import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
    Limits,
    ReplicaSetView,
)
from controller.reconcilers.workloads import owner_reference

HASH_LABEL = "pod-template-hash"
_HISTORY_LENGTH = 2000
_NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
    )
)


def find_new(template: Mapping[str, Any], sets: Iterable[ReplicaSetView]) -> ReplicaSetView | None:
    """The oldest ReplicaSet with this template; the hash label does not count."""
    wanted = _comparable(template)
    for one in sorted(sets, key=lambda one: (one.created, one.name)):
        if _comparable(one.obj["spec"]["template"]) == wanted:
            return one
    return None


def next_revision(old: Iterable[ReplicaSetView]) -> int:
    return max((one.revision for one in old), default=0) + 1


def planned_name(deployment: Mapping[str, Any]) -> str:
    """The name of the ReplicaSet that the Deployment's present template asks for."""
    return f"{name_of(deployment)}-{_hash(deployment)}"


def new_replica_set(deployment: Mapping[str, Any], limits: Limits, revision: int, size: int) -> Object:
    """The ReplicaSet object to create for the Deployment's present template."""
    spec, hashed = deployment["spec"], {HASH_LABEL: _hash(deployment)}
    template = clone(spec["template"])
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), **hashed}
    selector = clone(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **hashed}
    wanted: Object = {"replicas": size, "selector": selector, "template": template}
    if spec.get("minReadySeconds"):
        wanted["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": planned_name(deployment),
            "namespace": namespace_of(deployment),
            "labels": dict(meta["labels"]),
            "annotations": {**_copied(deployment), REVISION: str(revision), **size_annotations(limits)},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": wanted,
    }


def size_annotations(limits: Limits) -> dict[str, str]:
    """What proportional scaling needs to know later: the sizes this one was set for."""
    return {DESIRED_REPLICAS: str(limits.replicas), MAX_REPLICAS: str(limits.most)}


def sync_new(deployment: Mapping[str, Any], new: ReplicaSetView, revision: int) -> Object:
    """The merge patch that brings an existing newest ReplicaSet up to date; {} if it is."""
    have = annotations_of(new.obj)
    wanted = {key: value for key, value in _copied(deployment).items() if have.get(key) != value}
    if new.revision < revision:
        wanted[REVISION] = str(revision)
        if REVISION in have:
            wanted[REVISION_HISTORY] = _longer_history(have.get(REVISION_HISTORY, ""), have[REVISION])
    patch: Object = {"metadata": {"annotations": wanted}} if wanted else {}
    ready = deployment["spec"].get("minReadySeconds") or 0
    if (new.obj["spec"].get("minReadySeconds") or 0) != ready:
        patch["spec"] = {"minReadySeconds": ready or None}
    return patch


def beyond_history(old: Sequence[ReplicaSetView], limit: int | None) -> tuple[ReplicaSetView, ...]:
    """Old ReplicaSets past spec.revisionHistoryLimit, oldest revision first; only those that are empty and settled."""
    if limit is None:
        return ()
    kept = [one for one in old if not one.deleting]
    surplus = sorted(kept, key=lambda one: (one.revision, one.created, one.name))[: max(0, len(kept) - limit)]
    return tuple(one for one in surplus if one.size == 0 and one.pods == 0 and one.up_to_date)


def _hash(deployment: Mapping[str, Any]) -> str:
    collisions = (deployment.get("status") or {}).get("collisionCount") or 0
    return template_hash(_comparable(deployment["spec"]["template"]), collisions)


def _comparable(template: Mapping[str, Any]) -> Object:
    """A template without what does not make it different: the hash label, nulls, empty metadata."""
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if key != "creationTimestamp"}
    labels = {key: value for key, value in (meta.pop("labels", None) or {}).items() if key != HASH_LABEL}
    if labels:
        meta["labels"] = labels
    rest = {key: value for key, value in template.items() if key != "metadata"}
    comparable: Object = _without_nulls({"metadata": {key: value for key, value in meta.items() if value}, **rest})
    return comparable


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _copied(deployment: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}


def _longer_history(history: str, revision: str) -> str:
    """The revisions a ReplicaSet had before, oldest dropped when the list grows too long."""
    past = [part for part in history.split(",") if part]
    past.append(revision)
    while len(",".join(past)) > _HISTORY_LENGTH:
        del past[0]
    return ",".join(past)


def revision_of(deployment: Mapping[str, Any]) -> str:
    annotations: Mapping[str, str] = metadata(deployment).get("annotations") or {}
    return annotations.get(REVISION, "")
