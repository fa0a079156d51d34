"""Objects that are well-formed JSON and wrong: types, unknown fields, names, rules. Read by test_malformed.py.

A row is what is done to a good object: (path of the field, the bad value, what the answer must name). `DROP` removes
the field. The status is 400 for what cannot be decoded and 422 for what can be, but must not be.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

CORE = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
DROP = object()

LABELS = {"app": "x"}
CONTAINER = {"name": "c", "image": "localhost/busybox:1"}
GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "ConfigMap": (f"{CORE}/configmaps", {"data": {"k": "v"}}),
    "Secret": (f"{CORE}/secrets", {"type": "Opaque", "data": {"k": "dg=="}}),
    "Namespace": ("/api/v1/namespaces", {}),
    "Pod": (f"{CORE}/pods", {"spec": {"containers": [CONTAINER]}}),
    "Node": ("/api/v1/nodes", {}),
    "ServiceAccount": (f"{CORE}/serviceaccounts", {}),
    "Deployment": (
        f"{APPS}/deployments",
        {
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}},
            }
        },
    ),
    "ReplicaSet": (
        f"{APPS}/replicasets",
        {
            "spec": {
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}},
            }
        },
    ),
    "Role": (
        f"{RBAC}/namespaces/default/roles",
        {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    ),
    "RoleBinding": (
        f"{RBAC}/namespaces/default/rolebindings",
        {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}],
        },
    ),
    "Lease": ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"spec": {"holderIdentity": "h"}}),
}
_GROUPS = {
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
}


@dataclass(frozen=True)
class Case:
    """One bad request, and what its answer must be and say."""

    name: str
    method: str
    path: str
    body: bytes | None
    status: tuple[int, ...]
    says: str
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def good(kind: str, name: str = "bad") -> dict[str, Any]:
    _, rest = GOOD[kind]
    head = {"apiVersion": _GROUPS.get(kind, "v1"), "kind": kind, "metadata": {"name": name}}
    return head | copy.deepcopy(rest)


def altered(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`obj` with the field at `a.b.0.c` set or, for DROP, removed."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = obj
    for step in parents:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is DROP:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return obj


Row = tuple[str, Any, str]

WRONG_TYPES: dict[str, list[Row]] = {
    "ConfigMap": [
        ("metadata", "x", "metadata"),
        ("metadata", [], "metadata"),
        ("metadata.name", 5, "name"),
        ("metadata.labels", ["a"], "labels"),
        ("metadata.labels", {"a": 1}, "labels"),
        ("metadata.annotations", {"a": {}}, "annotations"),
        ("metadata.finalizers", "x", "finalizers"),
        ("metadata.ownerReferences", {}, "ownerReferences"),
        ("metadata.creationTimestamp", "yesterday", "yesterday"),
        ("data", "text", "data"),
        ("data", ["k"], "data"),
        ("data.k", 1, "data"),
        ("data.k", True, "data"),
        ("data.k", {"deep": "er"}, "data"),
        ("binaryData", {"k": "*not base64*"}, "base64"),
        ("immutable", "yes", "immutable"),
        ("immutable", 1, "immutable"),
    ],
    "Secret": [("data.k", "***", "base64"), ("stringData", [], "stringData"), ("type", 5, "type")],
    "Pod": [
        ("spec", "x", "spec"),
        ("spec", [], "spec"),
        ("spec.containers", {}, "containers"),
        ("spec.containers.0", "busybox", "containers"),
        ("spec.containers.0.image", ["a"], "image"),
        ("spec.containers.0.command", "sleep 5", "command"),
        ("spec.containers.0.command", [1], "command"),
        ("spec.containers.0.env", {"A": "b"}, "env"),
        ("spec.containers.0.env", [{"name": "A", "value": 1}], "value"),
        ("spec.containers.0.ports", [{"containerPort": "http"}], "containerPort"),
        ("spec.containers.0.ports", [{"containerPort": 1.5}], "containerPort"),
        ("spec.containers.0.ports", [{"containerPort": 1 << 40}], "containerPort"),
        ("spec.containers.0.resources", {"limits": {"cpu": "a lot"}}, "quantities"),
        ("spec.containers.0.resources", {"limits": ["cpu"]}, "limits"),
        ("spec.containers.0.tty", "true", "tty"),
        ("spec.containers.0.livenessProbe", {"periodSeconds": "5s"}, "periodSeconds"),
        ("spec.hostNetwork", "yes", "hostNetwork"),
        ("spec.terminationGracePeriodSeconds", "30", "terminationGracePeriodSeconds"),
        ("spec.terminationGracePeriodSeconds", 1e99, "terminationGracePeriodSeconds"),
        ("spec.nodeSelector", ["a"], "nodeSelector"),
        ("spec.volumes", [{"name": "v", "emptyDir": "x"}], "emptyDir"),
        ("spec.tolerations", "all", "tolerations"),
    ],
    "Deployment": [
        ("spec.replicas", "three", "replicas"),
        ("spec.replicas", 1.5, "replicas"),
        ("spec.replicas", 1 << 33, "replicas"),
        ("spec.selector", "app=x", "selector"),
        ("spec.template", [], "template"),
        ("spec.paused", 0, "paused"),
        ("spec.strategy", "RollingUpdate", "strategy"),
    ],
}

UNKNOWN_FIELDS: dict[str, list[Row]] = {
    "ConfigMap": [("dat", {}, "dat"), ("metadata.lables", {}, "metadata.lables"), ("spec", {}, "spec")],
    "Namespace": [("spec.finalizer", ["x"], "spec.finalizer")],
    "Pod": [
        ("spec.container", [], "spec.container"),
        ("spec.containers.0.img", "x", "spec.containers[0].img"),
        ("spec.containers.0.securityContext", {"privilegd": True}, "securityContext.privilegd"),
        ("spec.containers.0.env", [{"nam": "x", "name": "x"}], "env[0].nam"),
        ("spec.RestartPolicy", "Never", "spec.RestartPolicy"),
    ],
    "Deployment": [
        ("spec.replica", 2, "spec.replica"),
        ("spec.template.spec.hostnetwork", True, "spec.template.spec.hostnetwork"),
        ("spec.strategy", {"rollingupdate": {}}, "spec.strategy.rollingupdate"),
        ("spec.template.spec.containers.0.Image", "x", "containers[0].Image"),
    ],
    "Role": [("rules.0.verb", "get", "rules[0].verb")],
    "Lease": [("spec.holder", "x", "spec.holder")],
}

_LONG = "a" * 254
BAD_NAMES: dict[str, list[Row]] = {
    "ConfigMap": [
        ("metadata.name", "", "metadata.name"),
        ("metadata.name", DROP, "metadata.name"),
        ("metadata.name", "Upper", "metadata.name"),
        ("metadata.name", "under_score", "metadata.name"),
        ("metadata.name", "-dash", "metadata.name"),
        ("metadata.name", "dot.", "metadata.name"),
        ("metadata.name", "a/b", "metadata.name"),
        ("metadata.name", "a b", "metadata.name"),
        ("metadata.name", "ä", "metadata.name"),
        ("metadata.name", "..", "metadata.name"),
        ("metadata.name", "a\0b", "metadata.name"),
        ("metadata.name", "a\nb", "metadata.name"),
        ("metadata.name", "\U0001f600", "metadata.name"),
        ("metadata.name", _LONG, "metadata.name"),
        ("metadata.namespace", "other", "namespace"),
        ("metadata.generateName", "Bad_", "metadata."),
        ("metadata.labels", {"a b": "c"}, "metadata.labels"),
        ("metadata.labels", {"a": "b c"}, "metadata.labels"),
        ("metadata.labels", {"a": "x" * 64}, "metadata.labels"),
        ("metadata.labels", {"": "x"}, "metadata.labels"),
        ("metadata.annotations", {"a b": "c"}, "metadata.annotations"),
        ("metadata.annotations", {"a": "x" * (257 << 10)}, "metadata.annotations"),
        ("metadata.finalizers", ["nodomain"], "metadata.finalizers"),
        ("metadata.ownerReferences", [{"kind": "Pod", "name": "x"}], "metadata.ownerReferences"),
        ("metadata.resourceVersion", "5", "resourceVersion"),
        ("data", {"a/b": "c"}, "data[a/b]"),
        ("data", {"..": "c"}, "data[..]"),
        ("data", {"k": "x" * (1025 << 10)}, "1048576"),
    ],
    "Namespace": [("metadata.name", "with.dot", "metadata.name"), ("metadata.name", "a" * 64, "metadata.name")],
    "Secret": [("type", "kubernetes.io/tls", "data[tls.crt]"), ("data", {"a b": "eA=="}, "data[a b]")],
    "ServiceAccount": [("metadata.name", "A", "metadata.name")],
}

BROKEN_RULES: dict[str, list[Row]] = {
    "Pod": [
        ("spec.containers", [], "spec.containers"),
        ("spec.containers", None, "spec.containers"),
        ("spec", DROP, "spec.containers"),
        ("spec.containers.0.name", "", "spec.containers[0].name"),
        ("spec.containers.0.name", "A_b", "spec.containers[0].name"),
        ("spec.containers.0.image", "", "spec.containers[0].image"),
        ("spec.containers.0.image", " x", "spec.containers[0].image"),
        ("spec.containers.1", CONTAINER, "spec.containers[1].name"),
        ("spec.containers.0.ports", [{"containerPort": 0}], "ports[0].containerPort"),
        ("spec.containers.0.ports", [{"containerPort": 70000}], "ports[0].containerPort"),
        ("spec.containers.0.ports", [{"containerPort": 80, "protocol": "ICMP"}], "ports[0].protocol"),
        ("spec.containers.0.env", [{"name": ""}], "env[0].name"),
        ("spec.containers.0.env", [{"name": "A", "value": "b", "valueFrom": {}}], "env[0].valueFrom"),
        ("spec.containers.0.volumeMounts", [{"name": "no", "mountPath": "/x"}], "volumeMounts[0].name"),
        ("spec.containers.0.resources", {"limits": {"cpu": "-1"}}, "resources.limits[cpu]"),
        ("spec.containers.0.resources", {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}, "resources.requests"),
        ("spec.containers.0.imagePullPolicy", "Sometimes", "imagePullPolicy"),
        ("spec.containers.0.livenessProbe", {}, "livenessProbe"),
        ("spec.restartPolicy", "Perhaps", "spec.restartPolicy"),
        ("spec.dnsPolicy", "None", "spec.dnsConfig"),
        ("spec.hostname", "Bad_Host", "spec.hostname"),
        ("spec.activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds"),
        ("spec.nodeName", "Bad_Node", "spec.nodeName"),
        ("spec.nodeSelector", {"a b": "c"}, "spec.nodeSelector"),
        ("spec.volumes", [{"name": "v"}, {"name": "v", "emptyDir": {}}], "spec.volumes[1].name"),
        ("spec.volumes", [{"name": "v", "hostPath": {"path": "../x"}}], "hostPath.path"),
        ("spec.volumes", [{"name": "v", "hostPath": {"path": "/"}, "emptyDir": {}}], "spec.volumes[0]"),
        ("spec.tolerations", [{"operator": "Equals"}], "spec.tolerations[0].operator"),
    ],
    "Deployment": [
        ("spec.replicas", -1, "spec.replicas"),
        ("spec.selector", DROP, "spec.selector"),
        ("spec.selector", {}, "spec.selector"),
        ("spec.selector", {"matchLabels": {"app": "y"}}, "spec.template.metadata.labels"),
        ("spec.selector", {"matchExpressions": [{"key": "a", "operator": "Is"}]}, "operator"),
        ("spec.template", DROP, "spec.template"),
        ("spec.template.spec.restartPolicy", "Never", "spec.template.spec.restartPolicy"),
        ("spec.minReadySeconds", -5, "spec.minReadySeconds"),
        ("spec.progressDeadlineSeconds", 0, "spec.progressDeadlineSeconds"),
        ("spec.strategy", {"type": "Sudden"}, "spec.strategy"),
        ("spec.strategy", {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}, "maxUnavailable"),
        ("spec.strategy", {"rollingUpdate": {"maxSurge": "x%"}}, "maxSurge"),
    ],
    "ReplicaSet": [("spec.selector", {}, "spec.selector"), ("spec.replicas", -2, "spec.replicas")],
    "Role": [("rules.0.verbs", [], "rules[0].verbs"), ("rules.0.resources", [], "rules[0].resources")],
    "RoleBinding": [
        ("roleRef.kind", "Pod", "roleRef.kind"),
        ("roleRef.name", "", "roleRef.name"),
        ("subjects.0.kind", "Dog", "subjects[0].kind"),
    ],
    "Lease": [("spec.leaseDurationSeconds", 0, "spec.leaseDurationSeconds")],
}


def object_cases() -> Iterator[Case]:
    tables = (
        ("wrong type", WRONG_TYPES, (400,), ""),
        ("unknown field", UNKNOWN_FIELDS, (400,), "?fieldValidation=Strict"),
        ("bad name", BAD_NAMES, (400, 422), ""),
        ("broken rule", BROKEN_RULES, (422,), ""),
    )
    for title, table, status, query in tables:
        for kind, rows in table.items():
            for path, value, says in rows:
                obj = altered(good(kind), path, value)
                shown = "dropped" if value is DROP else repr(value)[:60]
                yield Case(
                    f"{title}: {kind} {path} {shown}", "POST", GOOD[kind][0] + query, orjson.dumps(obj), status, says
                )
