"""Endpoints and slices on a real store: pods become ready, go, and are lost with their node."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import kinds
from api.objects import Object
from controller.store import Store
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

SERVICES = kinds.by_resource("", "services")
ENDPOINTS = kinds.by_resource("", "endpoints")
SLICES = kinds.by_resource("discovery.k8s.io", "endpointslices")
OURS = {
    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    "kubernetes.io/service-name": "x",
}


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running() as running:
        await running.namespace("w")
        yield running


async def service(cluster: Cluster, **spec: Any) -> Object:
    address = {"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}
    wanted = {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": 8080}], **address, **spec}
    return await created(cluster, SERVICES, {"metadata": {"name": "x", "labels": {"team": "a"}}, "spec": wanted})


async def created(cluster: Cluster, kind: kinds.Kind, body: Object) -> Object:
    head = {"apiVersion": kind.api_version, "kind": kind.kind}
    return (await cluster.registry.create(TEST, kind, "w", head | body)).parse()


def slices(cluster: Cluster) -> list[Object]:
    return cluster.list(SLICES, "w")


def ready(cluster: Cluster) -> int:
    """How many endpoints are ready in slices and Endpoints; -1 while the two disagree."""
    in_slices = [one for part in slices(cluster) for one in part.get("endpoints") or () if one["conditions"]["ready"]]
    found = cluster.get(ENDPOINTS, "w", "x") or {}
    in_endpoints = [one for subset in found.get("subsets") or () for one in subset.get("addresses") or ()]
    return len(in_slices) if len(in_slices) == len(in_endpoints) else -1


@pytest.mark.proves("Service.spec.selector")
async def test_a_service_has_slices_and_endpoints_that_follow_its_pods_and_go_with_it(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one").playing():
        owner = await service(cluster)
        (empty,) = await eventually(lambda: slices(cluster))
        assert (empty["endpoints"], empty["ports"]) == (None, None)
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(3))
        await eventually(lambda: ready(cluster) == 3)
        (full,) = slices(cluster)
        assert full["metadata"]["uid"] == empty["metadata"]["uid"]
        assert full["metadata"]["labels"] == OURS | {"team": "a"}
        assert full["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
        assert full["metadata"]["generateName"] == "x-"
        assert full["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
        await cluster.change(DEPLOYMENTS, "x", lambda obj: obj["spec"].update(replicas=1))
        await eventually(lambda: ready(cluster) == 1 and len(slices(cluster)[0]["endpoints"]) == 1)
        await cluster.delete(SERVICES, "x")
        await eventually(lambda: not slices(cluster) and cluster.get(ENDPOINTS, "w", "x") is None)


async def test_a_controller_that_dies_again_and_again_makes_no_slice_twice(store: Store) -> None:
    """130 pods need two slices, and more than one change each."""
    cluster, chance = Cluster(store), random.Random(1)
    async with cluster.running():
        await cluster.namespace("w")
    await cluster.registry.create(TEST, NODES, "", {"metadata": {"name": "one"}})
    for number in range(130):
        await running_pod(cluster, f"p{number}", f"10.244.0.{number + 2}", ready=True)
    await service(cluster)
    for number in range(15):
        async with cluster.running():
            await asyncio.sleep(chance.uniform(0.0, 0.02))
        await set_status(cluster, f"p{number}", f"10.244.0.{number + 2}", ready=False)
    async with cluster.running():
        await eventually(lambda: ready(cluster) == 115)
    assert sorted(len(one["endpoints"]) for one in slices(cluster)) == [30, 100]


async def test_pods_of_a_lost_node_are_withdrawn_and_replaced(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one", "two", "three").playing() as kubelet:
        await service(cluster)
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(6))
        await eventually(lambda: ready(cluster) == 6)
        kubelet.dead.add("one")

        def on_dead() -> list[Object]:
            found = [one for part in slices(cluster) for one in part.get("endpoints") or ()]
            return [one for one in found if one["nodeName"] == "one" and one["conditions"]["ready"]]

        await eventually(lambda: not on_dead())
        await eventually(lambda: ready(cluster) == 6)  # replaced on the others


async def test_a_ready_pod_is_in_its_slice_at_once(cluster: Cluster) -> None:
    """Budget 100 ms; 1 s here, because machines that test are busy."""
    await cluster.registry.create(TEST, NODES, "", {"metadata": {"name": "one", "labels": {}}})
    await service(cluster)
    await eventually(lambda: slices(cluster))
    await running_pod(cluster, "p", "10.244.0.9", ready=False)
    await eventually(lambda: slices(cluster)[0]["endpoints"])
    arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_slice(event: Any) -> None:
        if b'"ready":true' in event.record.raw and not arrived.done():
            arrived.set_result(time.perf_counter())

    stop = cluster.store.subscribe(SLICES.resource, on_slice)
    await set_status(cluster, "p", "10.244.0.9", ready=True)
    started = time.perf_counter()
    assert await asyncio.wait_for(arrived, 5) - started < 1.0
    stop()


async def test_slices_that_users_make_are_left_alone_and_spoiled_ones_are_repaired(cluster: Cluster) -> None:
    await service(cluster)
    own = {"metadata": {"name": "own", "labels": {"kubernetes.io/service-name": "x"}}, "addressType": "IPv4"}
    made = await created(cluster, SLICES, own | {"endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"port": 1}]})
    await eventually(lambda: len(slices(cluster)) == 2)
    (ours,) = [one for one in slices(cluster) if one["metadata"]["labels"] != {"kubernetes.io/service-name": "x"}]
    foreign = [{"addresses": ["10.9.9.9"], "conditions": {"ready": True}}]
    await cluster.change(SLICES, ours["metadata"]["name"], lambda obj: obj.update(endpoints=foreign))
    await eventually(lambda: not (cluster.get(SLICES, "w", ours["metadata"]["name"]) or {})["endpoints"])
    await cluster.delete(SLICES, ours["metadata"]["name"])
    await eventually(lambda: len(slices(cluster)) == 2)
    assert cluster.get(SLICES, "w", "own") == made


async def test_endpoints_that_users_keep_are_mirrored(cluster: Cluster) -> None:
    await service(cluster, selector=None)
    subset = {"addresses": [{"ip": "10.1.1.1"}], "notReadyAddresses": [{"ip": "10.1.1.2"}], "ports": [{"port": 5}]}
    await created(cluster, ENDPOINTS, {"metadata": {"name": "x", "labels": {"a": "b"}}, "subsets": [subset]})
    (mirror,) = await eventually(lambda: slices(cluster))
    assert [one["conditions"] for one in mirror["endpoints"]] == [{"ready": True}, {"ready": False}]
    assert mirror["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].startswith("endpointslicemirroring")
    await cluster.change(ENDPOINTS, "x", lambda obj: obj["metadata"]["labels"].update(SKIP))
    await eventually(lambda: not slices(cluster))
    await cluster.change(ENDPOINTS, "x", lambda obj: obj["metadata"].pop("labels"))
    await eventually(lambda: slices(cluster))
    await cluster.delete(SERVICES, "x")
    await eventually(lambda: not slices(cluster) and cluster.get(ENDPOINTS, "w", "x") is None)


SKIP = {"endpointslice.kubernetes.io/skip-mirror": "true"}


async def running_pod(cluster: Cluster, name: str, address: str, *, ready: bool) -> None:
    spec = {"nodeName": "one", "containers": [{"name": "c", "image": "i"}]}
    await created(cluster, PODS, {"metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec})
    await set_status(cluster, name, address, ready=ready)


async def set_status(cluster: Cluster, name: str, address: str, *, ready: bool) -> None:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}]

    def running(obj: Object) -> Object:
        obj["status"] |= {"phase": "Running", "podIPs": [{"ip": address}], "conditions": conditions}
        return obj

    await cluster.registry.modify(TEST, PODS, "w", name, running, subresource="status")
