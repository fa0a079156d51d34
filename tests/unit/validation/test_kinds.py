"""Metadata and every kind but Pod: what is refused, at which path and in which words."""

from typing import Any

import pytest

# ruff: noqa: E501 -- the table holds Kubernetes' sentences whole
from api.objects import Object, clone
from tests.unit.validation.objects import changed, config_map, deployment, judged, secret, stored

RBAC = "rbac.authorization.k8s.io"
FIXED = "Forbidden: field is immutable when `immutable` is set"


def namespace(name: str, **fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, **fields}


def node(**spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec}


def role(*rules: Object, kind: str = "Role") -> Object:
    metadata = {"name": "r"} | ({"namespace": "n"} if kind == "Role" else {})
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(rules)}


def binding(kind: str = "RoleBinding", role_kind: str = "Role", **subject: Any) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": {"name": "b"} | ({"namespace": "n"} if kind == "RoleBinding" else {}),
        "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": "r"},
        "subjects": [subject or {"kind": "User", "name": "u", "apiGroup": RBAC}],
    }


def meta(**fields: Any) -> Object:
    obj = config_map()
    obj["metadata"] |= fields
    return obj


@pytest.mark.parametrize(
    ("bad", "errors"),
    [
        (meta(name=""), ["metadata.name: Required value: name or generateName is required"]),
        (meta(name="a" * 254), [f'metadata.name: Invalid value: "{"a" * 254}": must be no more than 253 characters']),
        (meta(namespace="a.b"), ['metadata.namespace: Invalid value: "a.b": must not contain dots']),
        (
            meta(finalizers=["bad"]),
            [
                'metadata.finalizers[0]: Invalid value: "bad": name is neither a standard finalizer name nor is it fully qualified'
            ],
        ),
        (
            meta(ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "p"}]),
            ['metadata.ownerReferences.uid: Invalid value: "": must not be empty'],
        ),
        (meta(annotations={"a": "x" * 300_000}), ["metadata.annotations: Too long: may not be more than 262144 bytes"]),
        (meta(generation=-1), ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]),
        (namespace("a.b"), ['metadata.name: Invalid value: "a.b": must not contain dots']),
        (config_map(data={"..": "x"}), ["data[..]: Invalid value: \"..\": must not be '..'"]),
        (
            config_map(data={"a": "b"}, binaryData={"a": "eA=="}),
            ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
        ),
        (config_map(data={"a": "x" * (1024 * 1024 + 1)}), [": Too long: may not be more than 1048576 bytes"]),
        (secret(type="kubernetes.io/tls"), ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        (
            secret(type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "W10="}),
            [
                'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": json: cannot unmarshal array into Go value of type map[string]interface {}'
            ],
        ),
        (
            node(podCIDRs=["x"]),
            ['spec.podCIDRs[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'],
        ),
        (
            node(taints=[{"key": "k", "effect": "Foo"}]),
            [
                'metadata.taints[0].effect: Unsupported value: "Foo": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"'
            ],
        ),
        (deployment(replicas=-1), ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (deployment(selector={}), ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]),
        (
            deployment(selector={"matchLabels": {"z": "y"}}),
            ['spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`'],
        ),
        (
            deployment(progressDeadlineSeconds=0),
            ["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"],
        ),
        (
            deployment(strategy={"type": "Foo"}),
            [
                'spec.strategy: Unsupported value: {"Type":"Foo","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate"'
            ],
        ),
        (
            deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
            ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'],
        ),
        (
            deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "200%"}}),
            ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "200%": must not be greater than 100%'],
        ),
        (
            role({"apiGroups": [""], "resources": ["pods"]}),
            ["rules[0].verbs: Required value: verbs must contain at least one value"],
        ),
        (
            role({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
            ['rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'],
        ),
        (role({"verbs": ["get"], "nonResourceURLs": ["/x"]}, kind="ClusterRole"), []),
        (
            binding(kind="RoleBinding", role_kind="Foo"),
            ['roleRef.kind: Unsupported value: "Foo": supported values: "Role", "ClusterRole"'],
        ),
        (binding(), []),
    ],
)
def test_creates(bad: Object, errors: list[str]) -> None:
    assert judged(bad) == errors


def test_subjects_must_be_possible() -> None:
    bad = binding()
    bad["subjects"] = [{"kind": "Foo", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}, {"kind": "Group"}]
    assert judged(bad) == [
        'subjects[0].kind: Unsupported value: "Foo": supported values: "ServiceAccount", "User", "Group"',
        "subjects[2].name: Required value",
        'subjects[2].name: Invalid value: "": group name cannot be empty',
    ]
    cluster = binding(kind="ClusterRoleBinding", role_kind="ClusterRole")
    cluster["subjects"] = [{"kind": "ServiceAccount", "name": "s"}]
    assert judged(cluster) == ["subjects[0].namespace: Required value"]


def test_a_deployment_without_selector_selects_nothing() -> None:
    bad = deployment()
    del bad["spec"]["selector"]
    assert [error.partition(":")[0] for error in judged(bad)] == ["spec.selector", "spec.template.metadata.labels"]


def test_metadata_faults_of_an_update_have_a_cause_for_each_look() -> None:
    old = stored(config_map())
    new = clone(old)
    new["metadata"]["labels"] = {"-bad": "x"}
    errors = judged(new, old)
    assert len(errors) == 3 and len(set(errors)) == 1


def test_a_deleted_object_takes_no_new_finalizers() -> None:
    old = stored(config_map())
    old["metadata"] |= {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["ex.io/f"]}
    new = clone(old)
    new["metadata"]["finalizers"] = ["ex.io/f", "ex.io/g"]
    assert (
        judged(new, old)
        == [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
            'found new finalizers []string{"ex.io/g"}'
        ]
        * 2
    )


def test_identity_is_immutable() -> None:
    old = stored(config_map())
    new = clone(old)
    new["metadata"]["uid"] = "other"
    assert set(judged(new, old)) == {'metadata.uid: Invalid value: "other": field is immutable'}


def test_immutable_config_maps_and_secrets_stay() -> None:
    old = stored(config_map(data={"a": "b"}, immutable=True))
    assert judged(changed(old, data={"a": "c"}), old) == [f"data: {FIXED}"]
    assert judged(changed(old, immutable=False), old) == [f"immutable: {FIXED}"]
    sealed = stored(secret(data={"a": "eA=="}, immutable=True, type="Opaque"))
    assert judged(changed(sealed, type="x"), sealed) == ['type: Invalid value: "x": field is immutable']


def test_selectors_and_role_references_are_immutable() -> None:
    old = stored(deployment())
    new = clone(old)
    new["spec"]["selector"] = {"matchLabels": {"a": "c"}}
    assert judged(new, old)[-1] == 'spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable'
    bound = stored(binding())
    rebound = changed(bound, roleRef=bound["roleRef"] | {"name": "other"})
    assert judged(rebound, bound) == [
        f'roleRef: Invalid value: {{"APIGroup":"{RBAC}","Kind":"Role","Name":"other"}}: cannot change roleRef'
    ]


def test_a_nodes_pod_network_is_given_once() -> None:
    old = stored(node(podCIDR="10.0.0.0/24", podCIDRs=["10.0.0.0/24"]))
    new = changed(old, spec={"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24"]})
    assert judged(new, old) == ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid']


def test_a_namespaces_phase_follows_its_deletion() -> None:
    old = stored(namespace("n", status={"phase": "Active"}))
    assert judged(changed(old, status={"phase": "Terminating"}), old, subresource="status") == [
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    ]


def test_deployment_status_counts_are_plausible() -> None:
    old = stored(deployment())
    status = {"replicas": 1, "updatedReplicas": 2, "availableReplicas": 1}
    assert judged(changed(old, status=status), old, subresource="status") == [
        "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas",
    ]
    below = judged(changed(old, status={"replicas": -1}), old, subresource="status")
    assert "status.updatedReplicas: Invalid value: 0: cannot be greater than status.replicas" in below
