"""Isolation as users meet it, on three nodes: a pod's first packet under a policy, networks of `wherry run`."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster import Cluster, eventually, pod
from tests.e2e.test_cli import names, refusal, said
from tests.images import BUSYBOX

STARTS = 20
LISTEN = "while true; do echo hello | nc -l -p 8080; done"


def address(cluster: Cluster, name: str) -> str:
    eventually(lambda: cluster.get("pod", name)["status"].get("podIPs"), 30, f"{name} has an address")
    return str(cluster.get("pod", name)["status"]["podIP"])


def ended(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name)["status"].get("phase"))


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def apply(cluster: Cluster, *objects: Any) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listed))


def test_a_pod_that_dials_at_once_gets_nothing_through(cluster: Cluster) -> None:
    target = pod("target", LISTEN)
    apply(cluster, target)
    ip = address(cluster, "target")
    dial = f"for i in 1 2 3 4 5 6; do nc -w 1 {ip} 8080 </dev/null && exit 7; done; exit 0"
    apply(
        cluster, pod("free", f"until nc -w 1 {ip} 8080 </dev/null; do sleep 0.1; done; sleep 5", restartPolicy="Never")
    )
    eventually(lambda: ended(cluster, "free") == "Running", 60, "a pod without a policy gets through")
    apply(cluster, policy("nothing-out", podSelector={"matchLabels": {"isolated": "yes"}}, policyTypes=["Egress"]))
    callers = [pod(f"caller-{number}", dial, restartPolicy="Never") for number in range(STARTS)]
    for caller in callers:
        caller["metadata"]["labels"] = {"isolated": "yes"}
    apply(cluster, *callers)
    done = ("Succeeded", "Failed")
    for caller in callers:
        name = caller["metadata"]["name"]
        eventually(lambda name=name: ended(cluster, name) in done, 90, f"{name} has ended")  # type: ignore[misc]
        assert ended(cluster, name) == "Succeeded", f"{name} got a packet through"


def test_members_of_a_network_reach_each_other_by_name_and_nobody_else_reaches_them(cluster: Cluster) -> None:
    assert said(cluster, "network", "create", "back") == "back\n"
    assert said(cluster, "network", "create", "other") == "other\n"
    assert "there is a network back already" in refusal(cluster, "network", "create", "back")
    assert "Docker's built-in" in refusal(cluster, "network", "create", "host")
    assert "there is no network nowhere" in refusal(cluster, "run", "--network", "nowhere", BUSYBOX, "true")
    for name, network in (("web", ["--network", "back"]), ("open", [])):
        said(cluster, "run", "-d", "--name", name, *network, BUSYBOX, "sh", "-c", LISTEN)
    ip = address(cluster, "web")
    dial = "for i in $(seq 30); do nc -w 1 TARGET 8080 </dev/null && exit 0; sleep 0.2; done; exit 7"
    once = "for i in 1 2 3; do nc -w 1 TARGET 8080 </dev/null && exit 7; done; exit 0"

    def run(network: list[str], script: str, target: str) -> str:
        return said(cluster, "run", "--rm", *network, BUSYBOX, "sh", "-c", script.replace("TARGET", target))

    assert "hello" in run(["--network", "back"], dial, "web")
    for network, target in (([], ip), (["--network", "other"], ip), (["--network", "back"], address(cluster, "open"))):
        assert "hello" not in run(network, once, target)
    assert "hello" in run([], dial, address(cluster, "open"))
    assert "back" in names(said(cluster, "network", "ls")) and "web" in refusal(cluster, "network", "rm", "back")
    said(cluster, "rm", "-f", "web")
    eventually(lambda: "web" not in str(cluster.get("services")), 20, "the name has gone with its container")
    assert said(cluster, "network", "rm", "back", "other") == "back\nother\n"
    assert "there is no network back" in refusal(cluster, "network", "rm", "back")
