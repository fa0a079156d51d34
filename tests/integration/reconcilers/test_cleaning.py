"""Garbage collection, namespace deletion and defaults on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import kinds
from api.objects import Object
from controller.registry import DeleteOptions
from controller.store import Store
from tests.integration.reconcilers.played import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    TEST,
    Cluster,
    Kubelet,
    deployment,
    eventually,
)

QUOTAS = kinds.by_resource("", "resourcequotas")


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running() as running:
        await running.namespace("w")
        async with Kubelet(running, "one").playing():
            yield running


async def rolled_out(cluster: Cluster, replicas: int = 2) -> None:
    await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(replicas))
    await eventually(lambda: cluster.complete(replicas))


async def config_map(cluster: Cluster, name: str, **metadata: Any) -> Object:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    return (await cluster.registry.create(TEST, CONFIG_MAPS, "w", body)).parse()


def owned_by(owner: Object, **more: Any) -> list[Object]:
    meta = owner["metadata"]
    return [{"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"], **more}]


async def test_an_object_that_owns_itself_does_not_wait_for_itself(cluster: Cluster) -> None:
    made = await config_map(cluster, "narcissus")
    references = owned_by(made, blockOwnerDeletion=True)
    await cluster.registry.modify(
        TEST, CONFIG_MAPS, "w", "narcissus", lambda obj: obj["metadata"].update(ownerReferences=references) or obj
    )
    await cluster.delete(CONFIG_MAPS, "narcissus", propagation="Foreground")
    await eventually(lambda: "narcissus" not in [each["metadata"]["name"] for each in cluster.list(CONFIG_MAPS, "w")])


async def test_deleting_a_deployment_takes_its_replica_sets_and_pods_along(cluster: Cluster) -> None:
    await rolled_out(cluster)
    await cluster.delete(DEPLOYMENTS, "x", propagation="Background")
    await eventually(lambda: not cluster.list(REPLICA_SETS, "w") and not cluster.list(PODS, "w"))


async def test_deleting_in_the_foreground_keeps_the_owner_until_its_pods_are_gone(cluster: Cluster) -> None:
    await rolled_out(cluster)
    order: list[str] = []
    for kind in (DEPLOYMENTS, REPLICA_SETS, PODS):
        cluster.store.subscribe(kind.resource, lambda event: order.append(f"{event.type} {event.record.key.plural}"))
    await cluster.delete(DEPLOYMENTS, "x", propagation="Foreground")
    await eventually(lambda: "DELETED deployments" in order)
    gone = [entry.removeprefix("DELETED ") for entry in order if entry.startswith("DELETED")]
    assert gone == ["pods", "pods", "replicasets", "deployments"]


async def test_deleting_with_orphans_leaves_the_replica_set_and_its_pods_without_owner(cluster: Cluster) -> None:
    await rolled_out(cluster)
    await cluster.delete(DEPLOYMENTS, "x", propagation="Orphan")
    await eventually(lambda: not cluster.list(DEPLOYMENTS, "w"))
    (replica_set,) = cluster.list(REPLICA_SETS, "w")
    assert "ownerReferences" not in replica_set["metadata"]
    assert len(cluster.list(PODS, "w")) == 2


async def test_an_object_whose_owner_never_was_goes(cluster: Cluster) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    await config_map(cluster, "child", ownerReferences=owned_by(ghost))
    await eventually(lambda: cluster.get(CONFIG_MAPS, "w", "child") is None)


async def test_an_object_with_two_owners_stays_until_both_are_gone(cluster: Cluster) -> None:
    first, second = await config_map(cluster, "first"), await config_map(cluster, "second")
    await config_map(cluster, "child", ownerReferences=owned_by(first) + owned_by(second))
    await cluster.delete(CONFIG_MAPS, "first")

    def owners() -> list[str]:
        child = cluster.get(CONFIG_MAPS, "w", "child")
        assert child is not None
        return [one["name"] for one in child["metadata"]["ownerReferences"]]

    await eventually(lambda: owners() == ["second"])
    await cluster.delete(CONFIG_MAPS, "second")
    await eventually(lambda: cluster.get(CONFIG_MAPS, "w", "child") is None)


async def test_a_pod_released_from_its_owner_in_the_foreground_lets_the_owner_go(cluster: Cluster) -> None:
    owner = await config_map(cluster, "owner")
    child = owned_by(owner, blockOwnerDeletion=True, controller=True)
    await config_map(cluster, "child", ownerReferences=child, finalizers=["example.com/hold"])
    await cluster.delete(CONFIG_MAPS, "owner", propagation="Foreground")
    await eventually(lambda: "deletionTimestamp" in (cluster.get(CONFIG_MAPS, "w", "child") or {})["metadata"])
    assert cluster.get(CONFIG_MAPS, "w", "owner") is not None

    def release(obj: Object) -> None:
        obj["metadata"]["ownerReferences"] = []

    await cluster.change(CONFIG_MAPS, "child", release)
    await eventually(lambda: cluster.get(CONFIG_MAPS, "w", "owner") is None)


async def test_a_deleted_namespace_is_emptied_and_goes(cluster: Cluster) -> None:
    await rolled_out(cluster, 5)
    await config_map(cluster, "held", finalizers=["example.com/hold"])
    await cluster.delete(NAMESPACES, "w", namespace="")

    def conditions() -> dict[str, str]:
        found = cluster.get(NAMESPACES, "", "w")
        assert found is not None
        return {one["type"]: one["message"] for one in found["status"].get("conditions") or ()}

    told = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    await eventually(lambda: conditions().get("NamespaceFinalizersRemaining") == told and not cluster.list(PODS, "w"))

    def release(obj: Object) -> None:
        obj["metadata"]["finalizers"] = []

    await cluster.change(CONFIG_MAPS, "held", release)
    await eventually(lambda: cluster.get(NAMESPACES, "", "w") is None)
    assert not cluster.list(DEPLOYMENTS, "w")
    assert not cluster.list(CONFIG_MAPS, "w")


async def test_a_default_account_or_ca_that_is_deleted_comes_back(cluster: Cluster) -> None:
    published = await eventually(lambda: cluster.get(CONFIG_MAPS, "w", "kube-root-ca.crt"))
    assert published["data"] == {"ca.crt": "CA"}
    await cluster.delete(CONFIG_MAPS, "kube-root-ca.crt")
    again = await eventually(lambda: cluster.get(CONFIG_MAPS, "w", "kube-root-ca.crt"))
    assert again["metadata"]["uid"] != published["metadata"]["uid"]


async def test_a_quota_counts_what_was_there_before_it_and_other_quotas(cluster: Cluster) -> None:
    def made(name: str, **hard: str) -> Object:
        return {"metadata": {"name": name}, "spec": {"hard": hard}}

    for number in range(5):  # the CA's ConfigMap and the quota are made at the same time
        name = f"counted-{number}"
        await cluster.registry.create(TEST, NAMESPACES, "", {"metadata": {"name": name}})
        for quota in (made("a", configmaps="2", resourcequotas="5"), made("b", pods="1")):
            await cluster.registry.create(TEST, QUOTAS, name, quota)

    def used(name: str) -> Object:
        (quota,) = (each for each in cluster.list(QUOTAS, name) if each["metadata"]["name"] == "a")
        found: Object = quota["status"].get("used") or {}
        return found

    names = [f"counted-{number}" for number in range(5)]
    await eventually(lambda: all(used(name) == {"configmaps": "1", "resourcequotas": "2"} for name in names))
    await cluster.registry.delete(TEST, QUOTAS, names[0], "b", DeleteOptions())
    await eventually(lambda: used(names[0]) == {"configmaps": "1", "resourcequotas": "1"})
