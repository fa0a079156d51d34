"""A pod gets more or less cpu and memory while it runs: `kubectl patch --subresource=resize` down to the kernel."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.cluster import Cluster, eventually, pod

SIZE = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
MEMORY = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
CPU = "cut -d' ' -f1 /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
MI = 1024 * 1024


def sized(name: str, **fields: Any) -> dict[str, Any]:
    made = pod(name)
    made["spec"]["containers"][0] |= {"resources": SIZE, **fields}
    return made


def resize(cluster: Cluster, name: str, **sides: dict[str, str]) -> None:
    change = {"spec": {"containers": [{"name": "c", "resources": sides}]}}
    cluster.kubectl("patch", "pod", name, "--subresource=resize", "-p", json.dumps(change))


def status(cluster: Cluster, name: str) -> Any:
    return cluster.get("pod", name)["status"]


def waits(cluster: Cluster, name: str) -> tuple[str, str, str]:
    """(type, reason, message) of the condition that tells how a resize stands; empty words when it is done."""
    for entry in status(cluster, name)["conditions"]:
        if entry["type"].startswith("PodResize"):
            return entry["type"], entry.get("reason", ""), entry.get("message", "")
    return "", "", ""


def seen_inside(cluster: Cluster, name: str) -> tuple[int, int]:
    """(memory limit in bytes, cpu quota in microseconds) as the container's own cgroup has them."""
    return tuple(int(word) for word in cluster.kubectl("exec", name, "--", "sh", "-c", f"{MEMORY}; {CPU}").split())  # type: ignore[return-value]


def has(cluster: Cluster, name: str, side: str, resource: str, amount: str) -> bool:
    return bool(status(cluster, name)["containerStatuses"][0]["resources"][side].get(resource) == amount)


def test_a_running_container_gets_more_and_less_and_is_not_restarted(cluster: Cluster) -> None:
    cluster.ready(sized("web"))
    assert seen_inside(cluster, "web") == (64 * MI, 50_000)
    resize(cluster, "web", requests={"cpu": "20m"}, limits={"cpu": "1", "memory": "128Mi"})
    eventually(partial(has, cluster, "web", "limits", "memory", "128Mi"), 20, "the node tells the new size")
    assert seen_inside(cluster, "web") == (128 * MI, 100_000)
    resize(cluster, "web", limits={"cpu": "250m", "memory": "48Mi"})
    eventually(partial(has, cluster, "web", "limits", "memory", "48Mi"), 20, "and the smaller one")
    assert seen_inside(cluster, "web") == (48 * MI, 25_000)
    told = status(cluster, "web")["containerStatuses"][0]
    assert (told["restartCount"], told["allocatedResources"]) == (0, {"cpu": "20m", "memory": "32Mi"})
    eventually(lambda: waits(cluster, "web") == ("", "", ""), 10, "nothing is left to do")
    seen = {event["reason"] for event in cluster.get("events", "--field-selector=involvedObject.name=web")["items"]}
    assert {"ResizeStarted", "ResizeCompleted"} <= seen


def test_a_container_whose_policy_says_so_is_restarted_with_the_new_size(cluster: Cluster) -> None:
    cluster.ready(sized("heap", resizePolicy=[{"resourceName": "memory", "restartPolicy": "RestartContainer"}]))
    resize(cluster, "heap", limits={"cpu": "1"})
    eventually(partial(has, cluster, "heap", "limits", "cpu", "1"), 20, "cpu changes in place")
    assert status(cluster, "heap")["containerStatuses"][0]["restartCount"] == 0
    resize(cluster, "heap", limits={"memory": "96Mi"})
    eventually(partial(has, cluster, "heap", "limits", "memory", "96Mi"), 30, "it runs again")
    assert status(cluster, "heap")["containerStatuses"][0]["restartCount"] == 1
    assert seen_inside(cluster, "heap") == (96 * MI, 100_000)


def test_what_the_node_cannot_give_waits_and_is_told(cluster: Cluster) -> None:
    cluster.ready(sized("big"))
    resize(cluster, "big", requests={"cpu": "900"}, limits={"cpu": "900"})
    eventually(lambda: waits(cluster, "big")[1] == "Infeasible", 20, "that much no node has")
    assert "Node didn't have enough capacity: cpu, requested: 900000, capacity: " in waits(cluster, "big")[2]
    assert seen_inside(cluster, "big") == (64 * MI, 50_000)
    resize(cluster, "big", requests={"cpu": "10m"}, limits={"cpu": "500m"})
    eventually(lambda: waits(cluster, "big") == ("", "", ""), 20, "it has what it asks for")
    resize(cluster, "big", limits={"memory": "32Mi"}, requests={"memory": "100Ki"})
    eventually(partial(has, cluster, "big", "limits", "memory", "32Mi"), 20, "less is fine")
    resize(cluster, "big", limits={"memory": "100Ki"})
    eventually(lambda: waits(cluster, "big")[:2] == ("PodResizeInProgress", "Error"), 20, "too little is refused")
    assert "below current usage" in waits(cluster, "big")[2]
    assert status(cluster, "big")["phase"] == "Running"


def test_a_resize_that_does_not_fit_now_happens_when_its_neighbour_goes(cluster: Cluster) -> None:
    node = cluster.lab.state.nodes[2]
    cores = float(cluster.get("node", node)["status"]["allocatable"]["cpu"])
    first, second = sized("first"), sized("second")
    for each, share in ((first, 0.5), (second, 0.2)):
        size = {"cpu": f"{int(cores * share * 1000)}m", "memory": "32Mi"}
        each["spec"]["nodeName"] = node
        each["spec"]["containers"][0]["resources"] = {"requests": size}
    cluster.ready(first, second)
    more = f"{int(cores * 700)}m"
    resize(cluster, "second", requests={"cpu": more})
    eventually(lambda: waits(cluster, "second")[:2] == ("PodResizePending", "Deferred"), 20, "it has to wait")
    assert "Node didn't have enough resource: cpu" in waits(cluster, "second")[2]
    cluster.kubectl("delete", "pod", "first", "--wait=false", "--grace-period=1")
    eventually(partial(has, cluster, "second", "requests", "cpu", more), 30, "there is room now")
    assert waits(cluster, "second") == ("", "", "")


def test_a_resize_asked_for_while_the_agent_is_away_happens_when_it_is_back(cluster: Cluster) -> None:
    lab, node = cluster.lab, cluster.lab.state.nodes[1]
    away = sized("away")
    away["spec"] |= {"nodeName": node, "tolerations": [{"operator": "Exists"}]}  # it stays while the node is lost
    cluster.ready(away)
    resize(cluster, "away", limits={"memory": "80Mi"})
    eventually(partial(has, cluster, "away", "limits", "memory", "80Mi"), 20, "the agent is there")
    lab.kill_agent(node)
    resize(cluster, "away", limits={"memory": "96Mi"})
    lab.revive(node)
    eventually(partial(has, cluster, "away", "limits", "memory", "96Mi"), 30, "the agent is back")
    assert seen_inside(cluster, "away")[0] == 96 * MI
    assert status(cluster, "away")["containerStatuses"][0]["restartCount"] == 0
    lab.wait_ready([node])
