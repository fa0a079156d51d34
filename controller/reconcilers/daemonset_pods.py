"""A DaemonSet's pods: on which nodes they belong, what is added to the template, which node a pod is meant for.

Called by the DaemonSet's decision and its watch. Pure. The pod is bound by the scheduler, to the one node that its
required affinity names. Rules: k8s.io/kubernetes pkg/controller/daemon and
https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#how-daemon-pods-are-scheduled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.objects import Object, annotations_of, clone, labels_of, name_of
from api.placement import selects_node, tolerates
from controller.reconcilers.actions import Create, Note
from controller.reconcilers.workloads import PODS, pod_metadata

REVISION_LABEL = "controller-revision-hash"
GENERATION_LABEL = "pod-template-generation"
_GENERATION = "deprecated.daemonset.template.generation"
_NAME_FIELD = "metadata.name"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_TOLERATED_ON_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(frozen=True)
class NodeFacts:
    """A node as a DaemonSet sees it."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Fit:
    """`starts`: a pod belongs on the node; `stays`: one that is there may go on."""

    starts: bool
    stays: bool


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    return NodeFacts(name_of(node), labels_of(node), (node.get("spec") or {}).get("taints") or ())


def fit_of(spec: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]], node: NodeFacts) -> Fit:
    """First match wins. `spec` is the template's; `tolerations` are the pod's (`tolerations_of`)."""
    if (spec.get("nodeName") or node.name) != node.name or not selects_node(spec, node.name, node.labels):
        return Fit(False, False)
    untolerated = {
        taint["effect"] for taint in node.taints if not any(tolerates(toleration, taint) for toleration in tolerations)
    }
    if "NoExecute" in untolerated:
        return Fit(False, False)
    return Fit("NoSchedule" not in untolerated, True)


def tolerations_of(spec: Mapping[str, Any]) -> list[Object]:
    """The template's tolerations, and those that keep a daemon on a node in trouble."""
    given = list(spec.get("tolerations") or ())
    host = (_TOLERATED_ON_HOST_NETWORK,) if spec.get("hostNetwork") else ()
    for key, effect in (*_TOLERATED, *host):
        added = {"key": key, "operator": "Exists", "effect": effect}
        if added not in given:
            given.append(added)
    return given


def create_pod(daemon_set: Object, node: str, revision_hash: str, name: str) -> Create:
    """The pod for one node. Its `name` derives from owner and node, so that a repeated create makes nothing twice."""
    template = daemon_set["spec"]["template"]
    meta = pod_metadata(daemon_set, template)
    labels = {**(meta.get("labels") or {}), REVISION_LABEL: revision_hash}
    if generation_of(daemon_set):
        labels[GENERATION_LABEL] = generation_of(daemon_set)
    spec = {**template["spec"], "tolerations": tolerations_of(template["spec"])}
    spec["affinity"] = _bound_to(template["spec"].get("affinity") or {}, node)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **meta, "labels": labels}, "spec": spec}
    note = Note(daemon_set, "Normal", "SuccessfulCreate", f"Created pod: {name}")
    refused = Note(daemon_set, "Warning", "FailedCreate", "Error creating: ")
    return Create(PODS, pod, note, trusted=True, refused=refused)


def generation_of(daemon_set: Mapping[str, Any]) -> str:
    return annotations_of(daemon_set).get(_GENERATION, "")


def _bound_to(affinity: Mapping[str, Any], node: str) -> Object:
    """The affinity with its required node terms replaced: the node was seen to match them."""
    term = {"matchFields": [{"key": _NAME_FIELD, "operator": "In", "values": [node]}]}
    bound = clone(affinity)
    bound["nodeAffinity"] = {**(bound.get("nodeAffinity") or {}), _REQUIRED: {"nodeSelectorTerms": [term]}}
    return bound


def target_node(pod: Mapping[str, Any]) -> str:
    """The node a pod runs on or waits for; "" if it names none."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == _NAME_FIELD and field.get("operator") == "In" and len(field["values"]) == 1:
                return str(field["values"][0])
    return ""
