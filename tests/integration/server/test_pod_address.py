"""The shape in which agents follow all pods: what is in it, what is not, and what a watch of it leaves out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from controller.pki.authority import Subject
from tests.integration.server.conftest import Caller, Cluster, next_event

ACCEPT = "application/json;as=PodAddress;v=v1;g=wherry"
PODS = "/api/v1/namespaces/shop/pods"
SECRETIVE: dict[str, Any] = {
    "containers": [
        {
            "name": "c",
            "image": "busybox:1",
            "command": ["hidden-command"],
            "env": [{"name": "HIDDEN", "value": "hidden-value"}],
            "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}],
        },
        {"name": "d", "image": "busybox:1"},
    ],
    "initContainers": [{"name": "i", "image": "busybox:1", "ports": [{"name": "dns", "containerPort": 53}]}],
}


async def set_status(cluster: Cluster, **status: Any) -> None:
    patch = {"Content-Type": "application/merge-patch+json"}
    answer = await cluster.admin.ask("PATCH", f"{PODS}/web/status", {"status": status}, headers=patch)
    assert answer.status == 200, answer.body


async def test_the_shape_has_addresses_labels_and_named_ports_and_nothing_else(cluster: Cluster) -> None:
    await cluster.namespace("shop")
    await cluster.pod("shop", "web", "n1", **SECRETIVE)
    await set_status(cluster, phase="Running", podIP="10.1.1.1", podIPs=[{"ip": "10.1.1.1"}])
    one = (await cluster.admin.get(f"{PODS}/web", Accept=ACCEPT)).json
    listed = (await cluster.admin.get("/api/v1/pods?limit=1", Accept=ACCEPT)).json
    whole = (await cluster.admin.get(f"{PODS}/web")).json
    assert one["kind"] == "PodAddress" and listed["kind"] == "PodAddressList" and listed["metadata"]["resourceVersion"]
    assert listed["items"] == [{part: one[part] for part in ("metadata", "spec", "status")}]
    kept = ("name", "namespace", "uid", "resourceVersion")
    assert one["metadata"] == {name: whole["metadata"][name] for name in kept}
    assert one["spec"] == {
        "nodeName": "n1",
        "containers": [{"ports": [{"name": "http", "protocol": "TCP", "containerPort": 80}]}],
        "initContainers": [{"ports": [{"name": "dns", "protocol": "TCP", "containerPort": 53}]}],
    }
    assert one["status"] == {"phase": "Running", "podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}]}


async def test_a_watch_of_the_shape_tells_only_changes_of_the_shape(cluster: Cluster) -> None:
    await cluster.namespace("shop")
    pod = await cluster.pod("shop", "web", "n1", **SECRETIVE)
    version = pod["metadata"]["resourceVersion"]
    url = f"{cluster.url}/api/v1/pods?watch=1&resourceVersion={version}"
    headers = {"Accept": ACCEPT, "Authorization": f"Bearer {cluster.pki.admin_token}"}
    async with cluster.admin.session.get(url, headers=headers) as answer:
        await set_status(cluster, message="nobody need know this")
        await set_status(cluster, phase="Running", podIP="10.1.1.1", podIPs=[{"ip": "10.1.1.1"}])
        first = await asyncio.wait_for(next_event(answer.content), 5)
        assert first["type"] == "MODIFIED" and first["object"]["status"]["podIP"] == "10.1.1.1"
        await cluster.admin.ask("DELETE", f"{PODS}/web?gracePeriodSeconds=0")
        last = await asyncio.wait_for(next_event(answer.content), 5)
    assert last["type"] == "DELETED" and last["object"]["kind"] == "PodAddress" and "hidden" not in str(last)


async def test_an_agent_follows_all_pods_in_this_shape_only(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("shop")
    await cluster.pod("shop", "web", "n2", **SECRETIVE)
    async with cluster.certified(Subject("system:node:n1", ("system:nodes",)), tmp_path) as agent:
        answer = await agent.get("/api/v1/pods", Accept=ACCEPT)
        assert answer.status == 200 and len(answer.json["items"]) == 1 and b"hidden" not in answer.body
        assert await watch_status(agent, ACCEPT) == 200
        assert (await agent.get("/api/v1/pods?labelSelector=a%3Db", Accept=ACCEPT)).status == 200
        for accept in ("application/json", f"application/json,{ACCEPT}", f"{ACCEPT};q=0.5,application/yaml", "*/*"):
            assert (await agent.get("/api/v1/pods", Accept=accept)).status == 403, accept
            assert await watch_status(agent, accept) == 403
        assert (await agent.get("/api/v1/pods?fieldSelector=spec.serviceAccountName%3Dx", Accept=ACCEPT)).status == 403
        assert (await agent.get(f"{PODS}/web", Accept=ACCEPT)).status == 403
        assert (await agent.get("/api/v1/secrets", Accept=ACCEPT)).status == 403


async def watch_status(caller: Caller, accept: str) -> int:
    url = f"{caller.url}/api/v1/pods?watch=1&timeoutSeconds=1"
    async with caller.session.get(url, headers={"Accept": accept}, timeout=aiohttp.ClientTimeout(5)) as answer:
        return answer.status
