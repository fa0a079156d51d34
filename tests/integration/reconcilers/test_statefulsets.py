"""StatefulSets on a real store with a played kubelet: order, identity, updates, undo, scaling, adoption, claims."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import kinds
from api.objects import Object, controller_of, is_deleting, name_of
from controller.store import Store
from controller.store.types import Event, EventType
from tests.integration.reconcilers.played import (
    EVENTS,
    PODS,
    TEST,
    Cluster,
    Kubelet,
    deployment,
    eventually,
    set_command,
)

STATEFUL_SETS = kinds.by_resource("apps", "statefulsets")
REVISIONS = kinds.by_resource("apps", "controllerrevisions")
CLAIMS = kinds.by_resource("", "persistentvolumeclaims")


@pytest.fixture
async def cluster(store: Store) -> AsyncIterator[Cluster]:
    async with Cluster(store).running() as running:
        await running.namespace("w")
        yield running


@pytest.fixture
async def kubelet(cluster: Cluster) -> AsyncIterator[Kubelet]:
    async with Kubelet(cluster, "one", "two").playing() as playing:
        yield playing


def stateful_set(replicas: int, command: str = "one", **spec: Any) -> Object:
    whole = deployment(replicas, command, serviceName="x", **spec)
    return {**whole, "kind": "StatefulSet"}


async def apply(cluster: Cluster, obj: Object) -> None:
    await cluster.registry.create(TEST, STATEFUL_SETS, "w", obj)


def status(cluster: Cluster) -> Object:
    found = cluster.get(STATEFUL_SETS, "w", "x")
    assert found is not None
    told: Object = found["status"]
    return told if told.get("observedGeneration") == found["metadata"]["generation"] else {}


async def complete(cluster: Cluster, replicas: int) -> None:
    """All pods are there, ready and of the newest revision, and nothing else is."""

    def is_complete() -> bool:
        told = status(cluster)
        counts = {told.get(one, 0) for one in ("replicas", "readyReplicas", "updatedReplicas", "currentReplicas")}
        return bool(told) and counts == {replicas} and told["currentRevision"] == told["updateRevision"]

    await eventually(is_complete)
    await eventually(lambda: names(cluster) == [f"x-{one}" for one in range(replicas)])


def names(cluster: Cluster) -> list[str]:
    return [name_of(pod) for pod in cluster.list(PODS, "w")]


class Order:
    """What happened to pods, in order: "+x-0" made, "-x-0" gone."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: list[str] = []
        cluster.store.subscribe(PODS.resource, self._on_pod)

    def _on_pod(self, event: Event) -> None:
        if event.type is EventType.ADDED:
            self.seen.append("+" + event.record.key.name)
        elif event.type is EventType.DELETED:
            self.seen.append("-" + event.record.key.name)


async def test_pods_come_up_in_order_are_updated_in_reverse_and_undo_brings_the_old_revision_back(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    order = Order(cluster)
    await apply(cluster, stateful_set(3))
    await complete(cluster, 3)
    assert order.seen == ["+x-0", "+x-1", "+x-2"]
    await cluster.change(STATEFUL_SETS, "x", set_command("two"))
    await complete(cluster, 3)
    assert order.seen[3:] == ["-x-2", "+x-2", "-x-1", "+x-1", "-x-0", "+x-0"]
    (first, second) = sorted(cluster.list(REVISIONS, "w"), key=lambda one: int(one["revision"]))
    await cluster.change(STATEFUL_SETS, "x", set_command("one"))
    await complete(cluster, 3)
    revisions = {name_of(one): one["revision"] for one in cluster.list(REVISIONS, "w")}
    assert revisions == {name_of(first): 3, name_of(second): 2}
    await eventually(lambda: cluster.reasons("StatefulSet") == {"SuccessfulCreate", "SuccessfulDelete"})


async def test_scaling_down_takes_the_highest_first(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, stateful_set(3))
    await complete(cluster, 3)
    order = Order(cluster)

    def to_one(obj: Object) -> None:
        obj["spec"]["replicas"] = 1

    await cluster.change(STATEFUL_SETS, "x", to_one)
    await complete(cluster, 1)
    assert order.seen == ["-x-2", "-x-1"]


async def test_a_broken_pod_stops_an_ordered_update_until_a_person_deletes_it(cluster: Cluster) -> None:
    def runs(pod: Object) -> bool:
        return bool(pod["spec"]["containers"][0]["command"][1] != "broken")

    async with Kubelet(cluster, "one", ready=runs).playing():
        await apply(cluster, stateful_set(2))
        await complete(cluster, 2)
        await cluster.change(STATEFUL_SETS, "x", set_command("broken"))
        await eventually(lambda: status(cluster).get("updatedReplicas") == 1)
        await cluster.change(STATEFUL_SETS, "x", set_command("two"))
        await eventually(lambda: status(cluster).get("updatedReplicas", 0) == 0)
        assert names(cluster) == ["x-0", "x-1"] and not any(map(is_deleting, cluster.list(PODS, "w")))
        await cluster.delete(PODS, "x-1")
        await complete(cluster, 2)


async def test_orphaned_pods_and_revisions_are_adopted_by_the_next_set_of_the_name(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    await apply(cluster, stateful_set(2))
    await complete(cluster, 2)
    before = {pod["metadata"]["uid"] for pod in cluster.list(PODS, "w")}
    await cluster.delete(STATEFUL_SETS, "x", propagation="Orphan")
    await eventually(lambda: cluster.get(STATEFUL_SETS, "w", "x") is None)
    assert [controller_of(one) for kind in (PODS, REVISIONS) for one in cluster.list(kind, "w")] == [None] * 3
    await apply(cluster, stateful_set(2))
    await complete(cluster, 2)
    assert {pod["metadata"]["uid"] for pod in cluster.list(PODS, "w")} == before
    assert len(cluster.list(REVISIONS, "w")) == 1


async def test_a_failed_pod_is_made_anew(cluster: Cluster, kubelet: Kubelet) -> None:
    await apply(cluster, stateful_set(1))
    await complete(cluster, 1)
    (before,) = cluster.list(PODS, "w")

    def fail(obj: Object) -> Object:
        obj["status"]["phase"] = "Failed"
        return obj

    await cluster.registry.modify(TEST, PODS, "w", "x-0", fail, subresource="status")
    await eventually(lambda: {one["metadata"]["uid"] for one in cluster.list(PODS, "w")} - {before["metadata"]["uid"]})
    await complete(cluster, 1)


async def test_claims_are_made_and_the_event_says_why_their_pod_is_not(cluster: Cluster, kubelet: Kubelet) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    templates = [{"metadata": {"name": "data"}, "spec": spec}]
    await apply(cluster, stateful_set(1, volumeClaimTemplates=templates, persistentVolumeClaimRetentionPolicy=policy))
    await eventually(lambda: cluster.get(CLAIMS, "w", "data-x-0"))

    def refusals() -> list[str]:
        told = [one for one in cluster.list(EVENTS, "w") if one["involvedObject"]["kind"] == "StatefulSet"]
        return [one["message"] for one in told if one["reason"] == "FailedCreate"]

    (why, *_) = await eventually(refusals)
    assert "create Pod x-0 in StatefulSet x failed error: " in why and "spec.volumes[0].persistentVolumeClaim" in why
    await cluster.delete(STATEFUL_SETS, "x", propagation="Background")
    await eventually(lambda: not cluster.list(CLAIMS, "w"))
