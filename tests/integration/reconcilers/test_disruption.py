"""Evictions and their budgets on a real store: no two spend the same disruption, and a drain gets through in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api import kinds
from api.errors import ApiError, TooManyRequests, Unexplained
from api.objects import Object, condition_of
from controller.store import Store
from tests.integration.reconcilers.played import (
    DEPLOYMENTS,
    PODS,
    TEST,
    Cluster,
    Kubelet,
    deployment,
    eventually,
)

BUDGETS = kinds.by_resource("policy", "poddisruptionbudgets")


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running() as running:
        await running.namespace("w")
        yield running


async def budget(cluster: Cluster, name: str = "x", **spec: object) -> None:
    body = {"selector": {"matchLabels": {"app": "x"}}, **spec}
    head = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}}
    await cluster.registry.create(TEST, BUDGETS, "w", head | {"spec": body})


def allowed(cluster: Cluster) -> int:
    status: Object = (cluster.get(BUDGETS, "w", "x") or {}).get("status") or {}
    return int(status.get("disruptionsAllowed") or 0)


def running(cluster: Cluster) -> list[Object]:
    return [pod for pod in cluster.list(PODS, "w") if pod["status"]["phase"] == "Running"]


async def evict(cluster: Cluster, name: str) -> ApiError | None:
    try:
        await cluster.registry.evict_as(TEST, "w", name, {"metadata": {"name": name}})
    except ApiError as error:
        return error
    return None


@pytest.mark.proves("PodDisruptionBudget.spec.selector")
async def test_at_once_only_as_many_go_as_the_budget_allows_and_in_the_end_all_do(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one", "two").playing() as kubelet:
        await budget(cluster, minAvailable=4)
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(5))
        await eventually(lambda: allowed(cluster) == 1)
        kubelet.least_ready = 5
        first = [pod["metadata"]["name"] for pod in cluster.list(PODS, "w")]
        refused = [error for error in await asyncio.gather(*(evict(cluster, name) for name in first)) if error]
        assert len(refused) == 4
        assert all(isinstance(error, TooManyRequests) for error in refused)
        left = set(first)
        while left:
            left = {name for name in left if await evict(cluster, name) and cluster.get(PODS, "w", name)}
            await asyncio.sleep(0.02)
        await eventually(lambda: cluster.complete(5) and allowed(cluster) == 1)
        assert kubelet.least_ready >= 4


async def test_an_evicted_pod_is_told_why(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one").playing():
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(1))
        (pod,) = await eventually(lambda: cluster.complete(1) and cluster.list(PODS, "w"))
        states: list[Object] = []
        cluster.store.subscribe(PODS.resource, lambda event: states.append(event.record.parse()))
        assert await evict(cluster, pod["metadata"]["name"]) is None
        told = [condition_of(one["status"], "DisruptionTarget") or {} for one in states]
        assert any(one.get("reason") == "EvictionByEvictionAPI" for one in told)


async def test_unready_pods_go_as_the_policy_says(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one", ready=lambda pod: False).playing():
        await budget(cluster, minAvailable=1)
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(1))
        (pod,) = await eventually(
            lambda: [one for one in cluster.list(PODS, "w") if one["status"]["phase"] != "Pending"]
        )
        name = pod["metadata"]["name"]
        assert isinstance(await evict(cluster, name), TooManyRequests)
        await cluster.change(BUDGETS, "x", lambda obj: obj["spec"].update(unhealthyPodEvictionPolicy="AlwaysAllow"))
        assert await evict(cluster, name) is None


async def test_two_budgets_over_one_pod_are_refused(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one").playing():
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(1))
        (pod,) = await eventually(lambda: cluster.complete(1) and cluster.list(PODS, "w"))
        await budget(cluster, maxUnavailable=1)
        await budget(cluster, "y", maxUnavailable=1)
        assert isinstance(await evict(cluster, pod["metadata"]["name"]), Unexplained)
