"""The identity of a StatefulSet's pods: name, ordinal, labels, host name, volumes.

Called by the StatefulSet's decision and its watch. Pure. Invariant: a pod's name is its ordinal's, and the API holds a
name once, so there is never more than one pod of an ordinal. Rules: k8s.io/kubernetes pkg/controller/statefulset and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object, name_of
from controller.reconcilers.actions import Create, Delete, Note, Write
from controller.reconcilers.history import Revision
from controller.reconcilers.statefulset_claims import claim_names
from controller.reconcilers.views import PodFacts
from controller.reconcilers.workloads import PODS, pod_metadata

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"
REVISION_LABEL = "controller-revision-hash"


def pod_name(stateful_set: Mapping[str, Any], ordinal: int) -> str:
    return f"{name_of(stateful_set)}-{ordinal}"


def ordinal_of(set_name: str, pod: str) -> int | None:
    """A pod's ordinal in the set of this name; None if the name is not one the set would give."""
    parent, dash, digits = pod.rpartition("-")
    if parent != set_name or not dash or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if digits == str(int(digits)) else None


def create_pod(stateful_set: Object, revision: Revision, ordinal: int) -> Create:
    """Not trusted: unlike its template, it has volumes and a host name that nobody has validated yet."""
    name = pod_name(stateful_set, ordinal)
    meta = pod_metadata(stateful_set, revision.template)
    identity = {NAME_LABEL: name, INDEX_LABEL: str(ordinal), REVISION_LABEL: revision.name}
    meta = {"name": name, **meta, "labels": {**(meta.get("labels") or {}), **identity}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": _spec(stateful_set, revision.template, ordinal)}
    return Create(PODS, pod, _done(stateful_set, "create", name), refused=_failed(stateful_set, "create", name))


def _spec(stateful_set: Mapping[str, Any], template: Mapping[str, Any], ordinal: int) -> Object:
    spec: Object = {**(template.get("spec") or {}), "hostname": pod_name(stateful_set, ordinal)}
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claims = claim_names(stateful_set, ordinal)
    if claims:
        own = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claims.items()]
        spec["volumes"] = own + [one for one in spec.get("volumes") or () if one["name"] not in claims]
    return spec


def correct_identity(stateful_set: Object, pod: PodFacts) -> Write | None:
    """Gives an adopted pod the labels that name it; None if it has them."""
    if pod.labels.get(NAME_LABEL) == pod.name:
        return None
    index = str(ordinal_of(name_of(stateful_set), pod.name))
    patch: Object = {"metadata": {"labels": {NAME_LABEL: pod.name, INDEX_LABEL: index}}}
    note = _done(stateful_set, "update", pod.name)
    return Write(PODS, pod.namespace, pod.name, pod.uid, merge=patch, version=pod.version, note=note)


def delete_pod(stateful_set: Object, pod: PodFacts) -> Delete:
    note, refused = _done(stateful_set, "delete", pod.name), _failed(stateful_set, "delete", pod.name)
    return Delete(PODS, pod.namespace, pod.name, pod.uid, note=note, refused=refused)


def _done(stateful_set: Object, verb: str, pod: str) -> Note:
    text = f"{verb} Pod {pod} in StatefulSet {name_of(stateful_set)} successful"
    return Note(stateful_set, "Normal", f"Successful{verb.title()}", text)


def _failed(stateful_set: Object, verb: str, pod: str) -> Note:
    text = f"{verb} Pod {pod} in StatefulSet {name_of(stateful_set)} failed error: "
    return Note(stateful_set, "Warning", f"Failed{verb.title()}", text)
