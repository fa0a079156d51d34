"""Deployments on a real store with a played kubelet: what kubectl users rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.objects import Object
from controller.store import Store
from tests.integration.reconcilers.played import (
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    TEST,
    Cluster,
    Kubelet,
    deployment,
    eventually,
    set_command,
)


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running() as running:
        await running.namespace("w")
        yield running


@pytest.fixture
async def kubelet(cluster: Cluster) -> AsyncIterator[Kubelet]:
    async with Kubelet(cluster, "one", "two").playing() as playing:
        yield playing


async def apply(cluster: Cluster, obj: Object) -> None:
    await cluster.registry.create(TEST, DEPLOYMENTS, "w", obj)


async def test_a_deployment_becomes_a_replica_set_and_its_pods(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, deployment(2))
    await eventually(lambda: cluster.complete(2))
    (replica_set,) = cluster.list(REPLICA_SETS, "w")
    assert replica_set["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
        "deployment.kubernetes.io/revision": "1",
    }
    status = await eventually(
        lambda: (
            [c["reason"] for c in cluster.deployment()["status"]["conditions"]]
            == ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]
        )
    )
    assert status
    assert cluster.deployment()["metadata"]["generation"] == 1
    assert cluster.deployment()["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}
    await eventually(lambda: cluster.reasons("Deployment") == {"ScalingReplicaSet"})
    await eventually(lambda: cluster.reasons("ReplicaSet") == {"SuccessfulCreate"})
    pods = cluster.list(PODS, "w")
    assert {pod["metadata"]["generateName"] for pod in pods} == {replica_set["metadata"]["name"] + "-"}


async def test_an_update_rolls_within_its_limits_and_undo_brings_the_old_revision_back(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    await apply(cluster, deployment(8, strategy={"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}))
    await eventually(lambda: cluster.complete(8))
    kubelet.least_ready, kubelet.most_pods = 8, 0
    await cluster.change(DEPLOYMENTS, "x", set_command("two"))
    await eventually(lambda: cluster.complete(8) and len(cluster.list(PODS, "w")) == 8)
    assert kubelet.least_ready >= 7
    assert kubelet.most_pods <= 10
    await cluster.change(DEPLOYMENTS, "x", set_command("one"))
    await eventually(lambda: cluster.complete(8) and len(cluster.list(PODS, "w")) == 8)
    by_size = {one["spec"]["replicas"]: one["metadata"]["annotations"] for one in cluster.list(REPLICA_SETS, "w")}
    assert by_size[8]["deployment.kubernetes.io/revision"] == "3"
    assert by_size[8]["deployment.kubernetes.io/revision-history"] == "1"
    assert by_size[0]["deployment.kubernetes.io/revision"] == "2"
    assert cluster.deployment()["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


async def test_scaling_down_to_nothing_leaves_an_empty_replica_set(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, deployment(3))
    await eventually(lambda: cluster.complete(3))

    def to_zero(obj: Object) -> None:
        obj["spec"]["replicas"] = 0

    await cluster.change(DEPLOYMENTS, "x", to_zero)
    await eventually(lambda: not cluster.list(PODS, "w"))
    (replica_set,) = cluster.list(REPLICA_SETS, "w")
    assert replica_set["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"] == "0"
    await eventually(lambda: cluster.complete(0))
    assert set(cluster.deployment()["status"]) == {"conditions", "terminatingReplicas", "observedGeneration"}


async def test_recreate_never_runs_two_versions_at_once(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, deployment(4, strategy={"type": "Recreate"}))
    await eventually(lambda: cluster.complete(4))
    seen: set[int] = set()

    def watch(_: object) -> None:
        pods = cluster.list(PODS, "w")
        seen.add(len({pod["spec"]["containers"][0]["command"][1] for pod in pods}))

    stop = cluster.store.subscribe(PODS.resource, watch)
    await cluster.change(DEPLOYMENTS, "x", set_command("two"))
    await eventually(lambda: cluster.complete(4) and _commands(cluster) == {"two"})
    stop()
    assert max(seen) == 1


async def test_old_replica_sets_go_beyond_the_history_limit(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, deployment(1, revisionHistoryLimit=1))
    for command in ("two", "three", "four"):
        await eventually(lambda: cluster.complete(1))
        await cluster.change(DEPLOYMENTS, "x", set_command(command))
    await eventually(lambda: cluster.complete(1) and len(cluster.list(REPLICA_SETS, "w")) == 2)
    revisions = {
        one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for one in cluster.list(REPLICA_SETS, "w")
    }
    assert revisions == {"3", "4"}


async def test_a_deleted_pod_is_replaced_under_another_name(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, deployment(2))
    await eventually(lambda: cluster.complete(2))
    before = {pod["metadata"]["name"] for pod in cluster.list(PODS, "w")}
    for name in before:
        await cluster.delete(PODS, name, grace_seconds=0)
    await eventually(lambda: cluster.complete(2) and len(cluster.list(PODS, "w")) == 2)
    assert not before & {pod["metadata"]["name"] for pod in cluster.list(PODS, "w")}


def _commands(cluster: Cluster) -> set[str]:
    return {pod["spec"]["containers"][0]["command"][1] for pod in cluster.list(PODS, "w")}
