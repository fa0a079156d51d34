"""The PersistentVolumeClaims of a StatefulSet's pods: their names, how they are made, and who owns them.

Called by the StatefulSet's decision. Pure. Invariants: a claim outlives its pod, and is deleted only by the garbage
collector, through an owner that persistentVolumeClaimRetentionPolicy names; a claim that somebody else controls, or
that belongs to a former set or pod of the same name, is let be. Rules: k8s.io/kubernetes pkg/controller/statefulset and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api import kinds
from api.objects import Object, clone, is_deleting, metadata, name_of, namespace_of, uid_of
from controller.reconcilers.actions import Create, Note, Write
from controller.reconcilers.views import PodFacts
from controller.reconcilers.workloads import owner_reference

CLAIMS = kinds.by_resource("", "persistentvolumeclaims")
_CONFLICT = "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a managing controller, " + (
    "the retention policy is ignored for this claim"
)

Reference = Mapping[str, Any]


def claim_names(stateful_set: Mapping[str, Any], ordinal: int) -> dict[str, str]:
    """The claims of one pod: their names by the volume's name."""
    names = [name_of(one) for one in stateful_set["spec"].get("volumeClaimTemplates") or ()]
    return {name: f"{name}-{name_of(stateful_set)}-{ordinal}" for name in names}


def missing_claims(
    stateful_set: Mapping[str, Any], pod_name: str, ordinal: int, claims: Mapping[str, Object]
) -> Iterable[Create]:
    """Makes the claims that a pod lacks."""
    for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
        name = claim_names(stateful_set, ordinal)[name_of(template)]
        if name not in claims:
            yield _create(stateful_set, template, name, pod_name)


def _create(stateful_set: Mapping[str, Any], template: Mapping[str, Any], name: str, pod_name: str) -> Create:
    given, labels = metadata(template), stateful_set["spec"]["selector"].get("matchLabels") or {}
    meta: Object = {"name": name, "namespace": namespace_of(stateful_set)}
    meta["labels"] = {**(given.get("labels") or {}), **labels}
    if given.get("annotations"):
        meta["annotations"] = dict(given["annotations"])
    if _policy(stateful_set, "whenDeleted"):
        meta["ownerReferences"] = [owner_reference(stateful_set)]
    claim = {"apiVersion": "v1", "kind": CLAIMS.kind, "metadata": meta, "spec": clone(template["spec"])}
    whole, owner = name_of(stateful_set), dict(stateful_set)
    done = f"create Claim {name} Pod {pod_name} in StatefulSet {whole} success"
    failed = f"create Claim {name} for Pod {pod_name} in StatefulSet {whole} failed error: "
    return Create(
        CLAIMS,
        claim,
        Note(owner, "Normal", "SuccessfulCreate", done),
        refused=Note(owner, "Warning", "FailedCreate", failed),
    )


def blocks_creation(stateful_set: Mapping[str, Any], pod_name: str, claim: Mapping[str, Any]) -> bool:
    """A claim on its way out, or one that goes with a former pod of the name, is not for the next pod."""
    if is_deleting(claim):
        return True
    return _policy(stateful_set, "whenScaled") and any(_is_pod(one, pod_name) for one in _references(claim))


def settle_owners(
    stateful_set: Mapping[str, Any], pod: PodFacts, claim: Mapping[str, Any], *, in_range: bool
) -> Write | None:
    """Gives a pod's claim the owner that the retention policy names; None if it has it. First match wins.

    Deleted with the set: the set owns it. Deleted with scaling down: the pod owns it once it is out of range.
    """
    references, name = _references(claim), pod.name
    ours = [one for one in references if _is_set(one, stateful_set) or _is_pod(one, name)]
    if any(one["uid"] not in (uid_of(stateful_set), pod.uid) for one in ours):
        return None  # left by a former set or pod of this name
    others = [one for one in references if one not in ours]
    if _has_policy(stateful_set) and any(one.get("controller") for one in others):
        if not ours:
            return None  # somebody else's, rightly
        told = Note(dict(stateful_set), "Warning", "ConflictingController", _CONFLICT.format(name_of(claim)))
        return _write(claim, others, told)
    wanted = _wanted(stateful_set, pod, in_range=in_range)
    if [_identity(one) for one in ours] == [_identity(one) for one in wanted]:
        return None
    return _write(claim, [*others, *wanted])


def _wanted(stateful_set: Mapping[str, Any], pod: PodFacts, *, in_range: bool) -> Sequence[Reference]:
    if _policy(stateful_set, "whenScaled") and not in_range:
        return [_pod_reference(pod)]
    return [owner_reference(stateful_set)] if _policy(stateful_set, "whenDeleted") else []


def _pod_reference(pod: PodFacts) -> Reference:
    of_pod = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
    return {**of_pod, "controller": True, "blockOwnerDeletion": True}


def _write(claim: Mapping[str, Any], references: Sequence[Reference], note: Note | None = None) -> Write:
    where = (CLAIMS, namespace_of(claim), name_of(claim), uid_of(claim))
    patch: Object = {"metadata": {"ownerReferences": [dict(one) for one in references] or None}}
    return Write(*where, merge=patch, version=metadata(claim).get("resourceVersion") or "", note=note)


def _policy(stateful_set: Mapping[str, Any], when: str) -> bool:
    """Whether claims are deleted then."""
    policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return bool(policy.get(when) == "Delete")


def _has_policy(stateful_set: Mapping[str, Any]) -> bool:
    return _policy(stateful_set, "whenDeleted") or _policy(stateful_set, "whenScaled")


def _references(claim: Mapping[str, Any]) -> Sequence[Reference]:
    references: Sequence[Reference] = metadata(claim).get("ownerReferences") or ()
    return references


def _is_set(reference: Reference, stateful_set: Mapping[str, Any]) -> bool:
    named = (reference["apiVersion"], reference["kind"], reference["name"])
    return named == (stateful_set["apiVersion"], stateful_set["kind"], name_of(stateful_set))


def _is_pod(reference: Reference, name: str) -> bool:
    return (reference["apiVersion"], reference["kind"], reference["name"]) == ("v1", "Pod", name)


def _identity(reference: Reference) -> tuple[str, bool]:
    return reference["uid"], bool(reference.get("controller"))
