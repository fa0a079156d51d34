"""However much of an object is missing, validation answers with field errors, never with an exception."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from api.kinds import by_gvk
from api.objects import Object, clone
from api.schema import check, default
from controller.registry.validation import validate

_PROBE = {"httpGet": {"path": "/", "port": 80, "httpHeaders": [{"name": "a", "value": "b"}]}, "periodSeconds": 1}
_SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
_TERM = {"labelSelector": _SELECTOR, "topologyKey": "zone", "namespaces": ["n"]}
_NODE_TERM = {
    "matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}],
    "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}],
}
_CONTAINER = {
    "name": "c",
    "image": "i",
    "ports": [{"name": "http", "containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "B", "value": "x"}],
    "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}],
    "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s", "mountPropagation": "None"}],
    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "hugepages-2Mi": "2Mi"}},
    "livenessProbe": _PROBE,
    "readinessProbe": {"tcpSocket": {"port": "http"}},
    "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
    "securityContext": {"runAsUser": 1, "seccompProfile": {"type": "Localhost", "localhostProfile": "p"}},
}
_SPEC = {
    "containers": [_CONTAINER],
    "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}],
    "volumes": [
        {
            "name": "v",
            "projected": {
                "sources": [
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                    {"serviceAccountToken": {"path": "t"}},
                ]
            },
        },
        {
            "name": "w",
            "downwardAPI": {
                "items": [{"path": "p", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]
            },
        },
        {"name": "h", "hostPath": {"path": "/h", "type": "Directory"}},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODE_TERM]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": _NODE_TERM}],
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [_TERM],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": _TERM}],
        },
    },
    "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "z",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": _SELECTOR,
            "matchLabelKeys": ["x"],
        }
    ],
    "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots"}]},
    "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}],
    "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}], "fsGroup": 1},
}
_META = {
    "name": "x",
    "namespace": "n",
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "finalizers": ["a/b"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": True}],
}
_RBAC = "rbac.authorization.k8s.io"
OBJECTS: list[Object] = [
    {"apiVersion": "v1", "kind": "Pod", "metadata": _META, "spec": _SPEC},
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _META,
        "spec": {
            "replicas": 1,
            "selector": _SELECTOR,
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": _SPEC},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "10%"}},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _META,
        "spec": {"podCIDRs": ["10.0.0.0/24"], "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "1"}},
    },
    {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": _META,
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}],
    },
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _META,
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "e30="},
    },
    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": _META, "spec": {"leaseDurationSeconds": 1}},
    {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": _META,
        "involvedObject": {"namespace": "n"},
        "eventTime": "2024-01-01T00:00:00.000000Z",
        "reportingComponent": "c",
    },
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found += [(*path, key), *places(value[key], (*path, key))]
    return found


def damaged(obj: Object, data: st.DataObject) -> Object:
    """A copy in which some places are empty or gone."""
    copied = clone(obj)
    for _ in range(data.draw(st.integers(1, 4))):
        if not (found := places(copied)):
            break
        *parents, last = data.draw(st.sampled_from(found))
        holder = copied
        for key in parents:
            holder = holder[key]
        if isinstance(holder, list):
            holder[last] = {} if isinstance(holder[last], dict) else ""
        elif data.draw(st.booleans()):
            holder.pop(last)
        else:
            holder[last] = type(holder[last])()
    return copied


@given(st.data())
def test_damaged_objects_are_judged(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(OBJECTS))
    obj = damaged({key: value for key, value in good.items() if key not in ("apiVersion", "kind")}, data)
    group, _, version = good["apiVersion"].rpartition("/")
    kind = by_gvk(group, version, good["kind"])
    assert kind is not None
    whole = {"apiVersion": good["apiVersion"], "kind": good["kind"], **obj}
    checked = check(kind, whole)
    if checked.type_errors:
        return
    old = check(kind, clone(good)).obj
    default(kind, checked.obj)
    default(kind, old)
    for before in (None, old):
        for error in validate(kind, clone(checked.obj), before):
            assert str(error) and orjson.dumps(error.cause().wire())
