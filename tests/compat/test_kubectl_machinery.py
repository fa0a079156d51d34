"""Unmodified kubectl 1.35 on what extends the API: usage, custom resources, certificates, admission."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.cluster import Cluster, deployment, eventually, pod
from tests.integration.server.test_certificates import request_for


def widgets() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 0},
                    "mode": {"type": "string", "default": "auto", "enum": ["auto", "manual"]},
                },
                "x-kubernetes-validations": [{"rule": "self.size <= 10", "message": "too big"}],
            },
            "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
        },
    }
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": scale},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    names = {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {"group": "shop.example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def text(obj: dict[str, Any]) -> str:
    return json.dumps(obj)


def test_top_shows_what_nodes_and_pods_use(cluster: Cluster) -> None:
    cluster.ready(pod("busy"))
    nodes = eventually(lambda: cluster.kubectl("top", "nodes", "--no-headers"), 20, "figures of nodes")
    assert len(nodes.splitlines()) == len(cluster.lab.state.nodes)
    line = eventually(lambda: cluster.kubectl("top", "pod", "busy", "--no-headers"), 20, "figures of the pod").split()
    assert line[0] == "busy"
    assert line[1].endswith("m") and line[2].endswith("Mi")


def test_a_definition_makes_a_kind_like_any_other(cluster: Cluster) -> None:
    cluster.apply(widgets())
    cluster.kubectl("wait", "crd/widgets.shop.example.com", "--for=condition=Established", "--timeout=10s")
    cluster.apply(widget("a", size=3))
    assert cluster.kubectl("get", "wd", "--no-headers").split()[:2] == ["a", "3"]
    assert cluster.get("widget", "a")["spec"]["mode"] == "auto"
    assert "too big" in cluster.refused("patch", "widget", "a", "--type=merge", "-p", '{"spec":{"size":11}}')
    assert "unknown field" in cluster.refused(
        "create", "--validate=strict", "-f", "-", stdin=text(widget("b", size=1, junk=2))
    )
    assert "FIELD: size <integer>" in cluster.kubectl("explain", "widget.spec.size")
    cluster.kubectl("scale", "widget/a", "--replicas=5")
    assert cluster.get("widget", "a")["spec"]["size"] == 5
    cluster.kubectl("label", "widget", "a", "x=y")
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text(widget("c", size=1)))
    assert "widgets" in cluster.kubectl("api-resources", "--api-group=shop.example.com")
    cluster.kubectl("delete", "crd", "widgets.shop.example.com", "--timeout=20s")
    assert "could not find the requested resource" in cluster.refused("get", "--raw", "/apis/shop.example.com/v1")


def test_a_charts_rules_become_part_of_the_default_roles(cluster: Cluster) -> None:
    labels = "rbac.authorization.k8s.io/aggregate-to-view=true"
    cluster.kubectl("create", "clusterrole", "gadgets", "--verb=get,list", "--resource=configmaps,nodes")
    cluster.kubectl("create", "rolebinding", "vera", "--clusterrole=edit", "--user=vera")
    may = ("auth", "can-i", "list", "roles", "--as=vera")
    assert cluster.kubectl("auth", "can-i", "create", "deployments", "--as=vera").strip() == "yes"
    cluster.refused(*may)
    rules = [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["list"]}]
    cluster.kubectl("patch", "clusterrole", "gadgets", "--type=merge", "-p", text({"rules": rules}))
    cluster.kubectl("label", "clusterrole", "gadgets", labels)
    eventually(lambda: cluster.kubectl(*may).strip() == "yes", 10, "the rule in edit, by way of view")
    kinds = {"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1"}
    role = {**kinds, "metadata": {"name": "gadgets"}, "rules": rules}
    cluster.kubectl("auth", "reconcile", "-f", "-", stdin=text(role))
    cluster.kubectl("delete", "clusterrole", "gadgets")
    eventually(lambda: "gadgets" not in cluster.kubectl("get", "clusterrole", "admin", "-o", "yaml"), 10, "its end")


def test_a_certificate_is_asked_for_approved_and_issued(cluster: Cluster) -> None:
    _, csr = request_for("eve", "devs")
    spec = {
        "request": base64.b64encode(csr).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
        "expirationSeconds": 3600,
    }
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    cluster.kubectl("create", "-f", "-", stdin=text({**kind, "metadata": {"name": "eve"}, "spec": spec}))
    assert "Pending" in cluster.kubectl("get", "csr", "eve")
    cluster.kubectl("certificate", "approve", "eve")
    eventually(lambda: "Approved,Issued" in cluster.kubectl("get", "csr", "eve"), 10, "a certificate")
    cluster.kubectl("delete", "csr", "eve")


def test_limits_of_a_namespace_and_its_security_level_are_enforced(cluster: Cluster) -> None:
    limits = {"type": "Container", "default": {"memory": "64Mi"}, "max": {"memory": "128Mi"}}
    cluster.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [limits]}})
    cluster.ready(pod("modest"))
    assert cluster.get("pod", "modest")["spec"]["containers"][0]["resources"]["limits"] == {"memory": "64Mi"}
    cluster.kubectl("delete", "limitrange", "l")
    cluster.kubectl("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce=baseline")
    assert 'violates PodSecurity "baseline:latest": host namespaces (hostPID=true)' in cluster.refused(
        "create", "-f", "-", stdin=text(pod("nosy", hostPID=True))
    )
    cluster.apply(deployment("web", 1))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
