"""DaemonSets on a real store with a played kubelet: a pod a node, also on later nodes, updated one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import kinds
from api.objects import Object, is_deleting
from controller.reconcilers.daemonset_pods import target_node
from controller.store import Store
from tests.integration.reconcilers.played import (
    PODS,
    TEST,
    Cluster,
    Kubelet,
    deployment,
    eventually,
    set_command,
)

DAEMON_SETS = kinds.by_resource("apps", "daemonsets")
REVISIONS = kinds.by_resource("apps", "controllerrevisions")


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running() as running:
        await running.namespace("w")
        yield running


def daemon_set(**spec: Any) -> Object:
    whole = deployment(0, **spec)
    del whole["spec"]["replicas"]
    return {**whole, "kind": "DaemonSet"}


def uids(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in cluster.list(PODS, "w")}


async def complete(cluster: Cluster, nodes: int) -> None:
    """One updated, available pod a node, each meant for another."""

    def is_complete() -> bool:
        found = cluster.get(DAEMON_SETS, "w", "x")
        assert found is not None
        status = found["status"]
        counts = {status.get(one, 0) for one in ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")}
        return status.get("observedGeneration") == found["metadata"]["generation"] and counts == {nodes}

    await eventually(is_complete)
    await eventually(lambda: sorted(Counter(map(target_node, cluster.list(PODS, "w"))).values()) == [1] * nodes)


async def test_each_node_has_a_pod_later_ones_too_and_an_update_goes_node_by_node(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one", "two").playing():
        await cluster.registry.create(TEST, DAEMON_SETS, "w", daemon_set())
        await complete(cluster, 2)
        least = 2

        def watch(_: object) -> None:
            nonlocal least
            least = min(least, sum(not is_deleting(pod) for pod in cluster.list(PODS, "w")))

        stop = cluster.store.subscribe(PODS.resource, watch)
        await cluster.change(DAEMON_SETS, "x", set_command("two"))
        await complete(cluster, 2)
        stop()
        assert least == 1
        await cluster.change(DAEMON_SETS, "x", set_command("one"))
        await complete(cluster, 2)
        assert sorted(int(one["revision"]) for one in cluster.list(REVISIONS, "w")) == [2, 3]
        async with Kubelet(cluster, "three").playing():
            await complete(cluster, 3)
        await eventually(lambda: cluster.reasons("DaemonSet") == {"SuccessfulCreate", "SuccessfulDelete"})


async def test_a_pod_that_is_deleted_or_fails_is_made_anew(cluster: Cluster) -> None:
    async with Kubelet(cluster, "one").playing():
        await cluster.registry.create(TEST, DAEMON_SETS, "w", daemon_set())
        await complete(cluster, 1)
        (first,) = cluster.list(PODS, "w")
        await cluster.delete(PODS, first["metadata"]["name"])
        await eventually(lambda: uids(cluster) - {first["metadata"]["uid"]})
        await complete(cluster, 1)
        (second,) = cluster.list(PODS, "w")

        def fail(obj: Object) -> Object:
            obj["status"]["phase"] = "Failed"
            return obj

        await cluster.registry.modify(TEST, PODS, "w", second["metadata"]["name"], fail, subresource="status")
        await eventually(lambda: "FailedDaemonPod" in cluster.reasons("DaemonSet"))
        await complete(cluster, 1)
