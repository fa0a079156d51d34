"""Unmodified kubectl 1.35 about the cluster: nodes, what the API offers, who may do what, as on Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster, deployment, eventually, pod


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """A node that is put back into use afterwards, whatever a test did to it."""
    name = cluster.lab.state.nodes[0]
    yield name
    cluster.kubectl("uncordon", name)
    cluster.run(*cluster.kubectl_command("taint", "node", name, "story-"), check=False)


def nodes_of(cluster: Cluster, selector: str) -> set[str]:
    return {each["spec"]["nodeName"] for each in cluster.running(selector)}


def test_a_cordoned_node_gets_no_pod_and_a_drained_one_loses_its_own(cluster: Cluster, node: str) -> None:
    cluster.apply(deployment("web", 6))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert nodes_of(cluster, "app=web") == set(cluster.lab.state.nodes)
    assert cluster.kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert "Ready,SchedulingDisabled" in cluster.kubectl("get", "node", node)
    cluster.kubectl("scale", "deployment/web", "--replicas=9")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    here = [each for each in cluster.running("app=web") if each["spec"]["nodeName"] == node]
    assert len(here) == 2
    cluster.apply(pod("alone", nodeName=node))
    assert "declare no controller" in cluster.refused("drain", node, "--ignore-daemonsets", "--timeout=60s")
    drained = cluster.kubectl("drain", node, "--ignore-daemonsets", "--force", "--timeout=60s")
    assert f"node/{node} drained" in drained
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert node not in nodes_of(cluster, "app=web")
    assert "NotFound" in cluster.refused("get", "pod", "alone")
    assert cluster.kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    assert "SchedulingDisabled" not in cluster.kubectl("get", "node", node)


def test_a_taint_keeps_pods_away_or_drives_them_out(cluster: Cluster, node: str) -> None:
    selector = {"kubernetes.io/hostname": node}
    tolerations = [{"key": "story", "operator": "Exists"}]
    cluster.ready(pod("evicted", nodeSelector=selector), pod("stays", nodeSelector=selector, tolerations=tolerations))
    assert cluster.kubectl("taint", "node", node, "story=now:NoExecute") == f"node/{node} tainted\n"
    cluster.kubectl("wait", "pod/evicted", "--for=delete", "--timeout=30s")
    assert cluster.get("pod", "stays")["status"]["phase"] == "Running"
    cluster.apply(pod("waits", nodeSelector=selector))
    sentence = "1 node(s) had untolerated taint {story: now}"
    eventually(lambda: sentence in cluster.kubectl("describe", "pod", "waits"), 20, sentence)
    assert cluster.kubectl("taint", "node", node, "story-") == f"node/{node} untainted\n"
    cluster.kubectl("wait", "pod/waits", "--for=condition=Ready", "--timeout=30s")


def test_nodes_say_what_they_are(cluster: Cluster, node: str) -> None:
    wide = cluster.kubectl("get", "node", node, "-o", "wide").splitlines()
    assert wide[0].split()[:5] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert "containerd://" in wide[1]
    described = cluster.kubectl("describe", "node", node)
    for part in (
        "Roles:",
        "Conditions:",
        "KubeletReady",
        "Capacity:",
        "Allocatable:",
        "Allocated resources:",
        "Lease:",
    ):
        assert part in described
    assert "InternalIP" in described


def test_the_api_says_what_it_offers(cluster: Cluster) -> None:
    resources = cluster.kubectl("api-resources", "--no-headers")
    assert any(
        line.split() == ["deployments", "deploy", "apps/v1", "true", "Deployment"] for line in resources.splitlines()
    )
    assert "pods" in cluster.kubectl("api-resources", "--namespaced=true", "--verbs=list,watch", "-o", "name").split()
    assert {"v1", "apps/v1", "rbac.authorization.k8s.io/v1"} <= set(cluster.kubectl("api-versions").split())
    assert "is running at" in cluster.kubectl("cluster-info")
    assert "Server Version: v1." in cluster.kubectl("version")
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_explain_knows_every_field(cluster: Cluster) -> None:
    spec = cluster.kubectl("explain", "deployment.spec")
    assert "FIELD: spec <DeploymentSpec>" in spec
    assert "replicas\t<integer>" in spec
    assert "-required-" in spec
    assert "FIELD: replicas <integer>" in cluster.kubectl("explain", "deployment.spec.replicas")
    assert "nodeSelectorTerms" in cluster.kubectl("explain", "pod.spec.affinity", "--recursive")
    assert "does not exist" in cluster.refused("explain", "deployment.spec.nope")


def test_rights_are_told_and_enforced(cluster: Cluster) -> None:
    robot = f"--as=system:serviceaccount:{cluster.namespace}:robot"
    cluster.kubectl("create", "serviceaccount", "robot")
    assert cluster.kubectl("auth", "can-i", "create", "deployments") == "yes\n"
    assert cluster.run(*cluster.kubectl_command("auth", "can-i", "list", "pods", robot), check=False).stdout == "no\n"
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    account = f"--serviceaccount={cluster.namespace}:robot"
    cluster.kubectl("create", "rolebinding", "robot-reads", "--role=reader", account)
    assert cluster.kubectl("auth", "can-i", "list", "pods", robot) == "yes\n"
    assert "No resources found" in cluster.run(*cluster.kubectl_command("get", "pods", robot)).stderr
    listed = cluster.kubectl("auth", "can-i", "--list", robot)
    assert any(line.split()[0] == "pods" and "[get list]" in line for line in listed.splitlines())
    refused = cluster.refused("get", "secrets", robot)
    assert f'User "system:serviceaccount:{cluster.namespace}:robot" cannot list resource "secrets"' in refused
    assert "kubernetes-admin" in cluster.kubectl("auth", "whoami") or "system:masters" in cluster.kubectl(
        "auth", "whoami"
    )
    token = cluster.kubectl("create", "token", "robot", "--duration=10m").strip()
    assert token.count(".") == 2
