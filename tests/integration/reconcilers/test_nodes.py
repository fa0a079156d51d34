"""Nodes that die, return, never heartbeat: on a real store with a played kubelet. The TTL is 1 s here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.objects import Object, format_time
from controller.admission.types import utc_now
from controller.reconcilers.build import Settings
from controller.reconcilers.hearing import Hearing
from controller.reconcilers.node_lifecycle import heartbeats
from controller.store import Store, StoreConfig
from tests.etcd_process import opened
from tests.integration.reconcilers.played import (
    DEPLOYMENTS,
    NODES,
    PODS,
    TEST,
    Cluster,
    Kubelet,
    deployment,
    eventually,
)

UNREACHABLE = "node.kubernetes.io/unreachable"


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running(Settings(ca_pem="CA", node_grace_seconds=2.0)) as running:
        await running.namespace("w")
        yield running


@pytest.fixture
async def kubelet(cluster: Cluster) -> AsyncIterator[Kubelet]:
    async with Kubelet(cluster, "one", "two", "three").playing() as playing:
        yield playing


def ready_of(cluster: Cluster, node: str) -> str:
    found = cluster.get(NODES, "", node)
    assert found is not None
    (status,) = [one["status"] for one in found["status"]["conditions"] if one["type"] == "Ready"]
    return str(status)


def taints_of(cluster: Cluster, node: str) -> set[tuple[str, str]]:
    found = cluster.get(NODES, "", node)
    assert found is not None
    return {(one["key"], one["effect"]) for one in found["spec"].get("taints") or ()}


def pods_on(cluster: Cluster, node: str) -> list[Object]:
    return [pod for pod in cluster.list(PODS, "w") if pod["spec"].get("nodeName") == node]


async def test_pods_of_a_node_that_falls_silent_run_elsewhere_right_after_the_ttl(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(9))
    await eventually(lambda: cluster.complete(9))
    assert len(pods_on(cluster, "one")) == 3
    loop = asyncio.get_running_loop()
    kubelet.dead.add("one")
    start = loop.time()
    await eventually(lambda: not pods_on(cluster, "one") and cluster.complete(9))
    assert 0.8 <= loop.time() - start <= 2.5
    assert ready_of(cluster, "one") == "Unknown"
    assert taints_of(cluster, "one") == {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
    kubelet.dead.clear()
    await kubelet.report_ready("one")
    await eventually(lambda: taints_of(cluster, "one") == set())
    assert len(cluster.list(PODS, "w")) == 9


async def test_a_users_own_toleration_of_300_seconds_is_honoured(cluster: Cluster, kubelet: Kubelet) -> None:
    asked = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for name, spec in (("patient", {"tolerations": [asked]}), ("plain", {})):
        container = {"name": "c", "image": "localhost/busybox:1"}
        body = {"metadata": {"name": name}, "spec": {"nodeName": "one", "containers": [container], **spec}}
        await cluster.registry.create(TEST, PODS, "w", body)
    kubelet.dead.add("one")
    await eventually(lambda: [pod["metadata"]["name"] for pod in pods_on(cluster, "one")] == ["patient"])
    await asyncio.sleep(0.3)
    assert pods_on(cluster, "one")


async def test_nothing_is_evicted_when_most_nodes_vanish_together(cluster: Cluster, kubelet: Kubelet) -> None:
    await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(6))
    await eventually(lambda: cluster.complete(6))
    before = {pod["metadata"]["uid"] for pod in cluster.list(PODS, "w")}
    kubelet.dead |= {"one", "two"}
    await eventually(lambda: ready_of(cluster, "one") == ready_of(cluster, "two") == "Unknown")
    await asyncio.sleep(1.5)
    assert {pod["metadata"]["uid"] for pod in cluster.list(PODS, "w")} == before
    assert taints_of(cluster, "one") == {(UNREACHABLE, "NoSchedule")}
    kubelet.dead.discard("two")  # one of three is a loss like any other
    await kubelet.report_ready("two")
    await eventually(lambda: not pods_on(cluster, "one") and cluster.complete(6))


async def test_a_node_that_never_heartbeats_has_the_grace_of_kubernetes(cluster: Cluster) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake"}}
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "lastHeartbeatTime": format_time(utc_now()),
    }
    await cluster.registry.create(TEST, NODES, "", body)

    def ready(obj: Object) -> Object:
        obj["status"] = {"conditions": [condition]}
        return obj

    await cluster.registry.modify(TEST, NODES, "", "fake", ready, subresource="status")
    await eventually(lambda: taints_of(cluster, "fake") == set())
    await asyncio.sleep(1.5)
    assert ready_of(cluster, "fake") == "True"
    await eventually(lambda: ready_of(cluster, "fake") == "Unknown", 3)


async def test_every_node_gets_a_network_of_its_own(cluster: Cluster, kubelet: Kubelet) -> None:
    await eventually(lambda: all(node["spec"].get("podCIDR") for node in cluster.list(NODES)))
    assert {node["spec"]["podCIDR"] for node in cluster.list(NODES)} == {f"10.244.{n}.0/24" for n in range(3)}


async def test_cordoning_shows_as_a_taint(cluster: Cluster, kubelet: Kubelet) -> None:
    def cordon(obj: Object) -> None:
        obj["spec"]["unschedulable"] = True

    await cluster.change(NODES, "one", cordon, namespace="")
    await eventually(lambda: taints_of(cluster, "one") == {("node.kubernetes.io/unschedulable", "NoSchedule")})


async def test_a_no_execute_taint_of_a_user_drives_pods_out_gracefully(cluster: Cluster, kubelet: Kubelet) -> None:
    await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(6))
    await eventually(lambda: cluster.complete(6))

    def taint(obj: Object) -> None:
        obj["spec"]["taints"] = [{"key": "away", "effect": "NoExecute"}]

    old = {pod["metadata"]["uid"] for pod in pods_on(cluster, "one")}
    assert old
    await cluster.change(NODES, "one", taint, namespace="")
    await eventually(lambda: not old & {pod["metadata"]["uid"] for pod in cluster.list(PODS, "w")})


async def test_beats_at_a_controller_that_does_not_lead_count_for_the_one_that_does(
    cluster: Cluster, store_config: StoreConfig
) -> None:
    """Two controllers on one etcd: nodes that beat at the second only are judged by the first, with few writes."""
    async with opened(store_config) as second_store:
        second = Cluster(second_store)
        hearings = [Hearing(one.liveness, one.store.hearing, name) for one, name in ((cluster, "1"), (second, "2"))]
        running = [asyncio.create_task(each.run()) for each in hearings]
        said: list[str | None] = []
        cluster.store.hearing.follow(lambda identity, says: said.append(says) if identity == "2" else None)
        try:
            async with Kubelet(cluster, "one", "two", "three", beats_at=second.liveness).playing() as kubelet:
                await eventually(lambda: all(heartbeats(node) for node in cluster.list(NODES)))
                await asyncio.sleep(3)  # three TTLs
                assert [ready_of(cluster, node) for node in ("one", "two", "three")] == ["True"] * 3
                assert len(said) <= 5, "written when something changes, not for a beat"
                kubelet.dead.add("two")
                await eventually(lambda: ready_of(cluster, "two") == "Unknown")
                assert (UNREACHABLE, "NoExecute") in taints_of(cluster, "two")
                assert ready_of(cluster, "one") == "True"
                kubelet.dead.discard("two")
                await kubelet.report_ready("two")
                await eventually(lambda: ready_of(cluster, "two") == "True")
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
