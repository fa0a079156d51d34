"""Kubernetes' conditional defaults: what one field is when it is absent depends on another.

Read by `defaults` only. A rule is a function of one struct's dict, called before the struct's constants are set and
its children visited; it only adds (but see `_secret`). `ROOT_RULES` run on the whole object, so they may cross
structs. Sources: the API reference of each kind, https://kubernetes.io/docs/reference/kubernetes-api/, and observed
replies.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from api.objects import Object

Rule = Callable[[Object], None]
_RBAC = "rbac.authorization.k8s.io"


def pull_policy(image: str) -> str:
    """`Always` for the tag latest (or none), else `IfNotPresent`; a digest counts as a tag."""
    rest, _, digest = image.partition("@")
    name = rest.rsplit("/", 1)[-1]
    tag = name.rpartition(":")[2] if ":" in name else ("" if digest else "latest")
    return "Always" if tag == "latest" else "IfNotPresent"


def _container(container: Object) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")


def _pod_spec(spec: Object) -> None:
    """The old name of serviceAccountName is kept equal to it."""
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def _volume(volume: Object) -> None:
    if len(volume) == ("name" in volume):
        volume["emptyDir"] = {}
    image = volume.get("image")
    if image is not None and not image.get("pullPolicy"):
        image["pullPolicy"] = pull_policy(image.get("reference") or "")


def _pod(pod: Object) -> None:
    """What holds for pods but not for templates: requests follow limits, host ports follow container ports."""
    spec = pod.get("spec") or {}
    spec.setdefault("enableServiceLinks", True)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1
    on_host = spec.get("hostNetwork")
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources")
        limits = resources and resources.get("limits")
        if limits:
            resources["requests"] = {**limits, **(resources.get("requests") or {})}
        if on_host:
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort", 0)


def _namespace(namespace: Object) -> None:
    metadata = namespace["metadata"]
    name = metadata.get("name")
    if name:
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": name}


def _node_status(status: Object) -> None:
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _node_spec(spec: Object) -> None:
    """The first of podCIDRs and the podCIDR of old are one; where they differ, the old one counts."""
    first, networks = spec.get("podCIDR"), spec.get("podCIDRs") or []
    if first and first != next(iter(networks), None):
        spec["podCIDRs"] = [first]
    elif networks:
        spec["podCIDR"] = networks[0]


def _limit_range_item(item: Object) -> None:
    if item.get("type") != "Container":
        return
    defaults = {**(item.get("max") or {}), **(item.get("default") or {})}
    requests = {**(item.get("min") or {}), **defaults, **(item.get("defaultRequest") or {})}
    for name, minimum in (item.get("min") or {}).items():
        if name not in defaults and name not in (item.get("defaultRequest") or {}):
            requests[name] = minimum
    if defaults:
        item["default"] = defaults
    if requests:
        item["defaultRequest"] = requests


def _replication_controller(controller: Object) -> None:
    spec = controller["spec"]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        _copy_labels(controller, labels)


def _copy_labels(owner: Object, labels: Object) -> None:
    if not owner["metadata"].get("labels"):
        owner["metadata"]["labels"] = dict(labels)


def _deployment_strategy(strategy: Object) -> None:
    if strategy.get("type") in (None, "", "RollingUpdate"):
        strategy.setdefault("rollingUpdate", {})


def _stateful_set_strategy(strategy: Object) -> None:
    if strategy.get("type") in (None, "", "RollingUpdate"):
        strategy.setdefault("rollingUpdate", {})


def _stateful_set(stateful_set: Object) -> None:
    for claim in stateful_set["spec"].get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")


def _service_spec(spec: Object) -> None:
    kind = spec.get("type") or "ClusterIP"
    if spec.get("sessionAffinity") in (None, "", "None"):
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        affinity = spec.setdefault("sessionAffinityConfig", {})
        affinity.setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if external and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _service(service: Object) -> None:
    """Who does not say means that traffic arrives with the balancer's address (KEP-1860)."""
    if service["spec"].get("type") == "LoadBalancer":
        for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip") and ingress.get("ipMode") is None:
                ingress["ipMode"] = "VIP"


def _service_port(port: Object) -> None:
    if port.get("targetPort") in (None, 0, ""):
        port["targetPort"] = port.get("port", 0)


def _job(job: Object) -> None:
    spec = job["spec"]
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else 0x7FFFFFFF)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault(
        "podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") is not None else "TerminatingOrFailed"
    )
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = labels  # one map in Kubernetes, too: what is generated into it shows in both


_DOUBLE = {"type": "Percent", "value": 100, "periodSeconds": 15}
_FOUR_PODS = {"type": "Pods", "value": 4, "periodSeconds": 15}


def _scaling_behavior(behavior: Object) -> None:
    up = behavior.setdefault("scaleUp", {})
    up.setdefault("stabilizationWindowSeconds", 0)
    for scaling, policies in ((up, (_FOUR_PODS, _DOUBLE)), (behavior.setdefault("scaleDown", {}), (_DOUBLE,))):
        scaling.setdefault("selectPolicy", "Max")
        if scaling.get("policies") is None:
            scaling["policies"] = copied(policies)


def _network_policy_spec(spec: Object) -> None:
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _subject(subject: Object) -> None:
    if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
        subject["apiGroup"] = _RBAC


def _custom_resource_definition(definition: Object) -> None:
    spec = definition["spec"]
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if kind and not names.get("listKind"):
        names["listKind"] = kind + "List"
    status = definition["status"]
    if not status.get("storedVersions"):
        stored = [version.get("name", "") for version in spec.get("versions") or () if version.get("storage")]
        if stored:
            status["storedVersions"] = stored[:1]


RULES: dict[str, Rule] = {
    "core.v1.PodSpec": _pod_spec,
    "core.v1.Container": _container,
    "core.v1.EphemeralContainer": _container,
    "core.v1.Volume": _volume,
    "core.v1.NodeSpec": _node_spec,
    "core.v1.NodeStatus": _node_status,
    "core.v1.LimitRangeItem": _limit_range_item,
    "core.v1.Service": _service,
    "core.v1.ServiceSpec": _service_spec,
    "core.v1.ServicePort": _service_port,
    "apps.v1.DeploymentStrategy": _deployment_strategy,
    "apps.v1.DaemonSetUpdateStrategy": _deployment_strategy,
    "apps.v1.StatefulSetUpdateStrategy": _stateful_set_strategy,
    "autoscaling.v2.HorizontalPodAutoscalerBehavior": _scaling_behavior,
    "networking.v1.NetworkPolicySpec": _network_policy_spec,
    "rbac.v1.Subject": _subject,
}


def _secret(secret: Object) -> None:
    """stringData is for writing only: it is merged into data, and nobody owns or sees it (but who applies it)."""
    plain = secret.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}


ROOT_RULES: dict[str, Rule] = {
    "core.v1.Secret": _secret,
    "core.v1.Pod": _pod,
    "core.v1.Namespace": _namespace,
    "core.v1.ReplicationController": _replication_controller,
    "apps.v1.StatefulSet": _stateful_set,
    "batch.v1.Job": _job,
    "apiextensions.v1.CustomResourceDefinition": _custom_resource_definition,
}


DEFAULTED_WHOLE = frozenset(
    (
        "core.v1.Service",
        "core.v1.ReplicationController",
        "batch.v1.Job",
        "apiextensions.v1.CustomResourceDefinition",
    )
)
"""Kinds whose rules read one top-level field to set something in another: no part of one is defaulted alone."""


def copied(value: Any) -> Any:
    """A fresh copy of a constant default, which is shared data."""
    kind = type(value)
    if kind is dict:
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if kind is list or kind is tuple else value
