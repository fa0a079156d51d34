"""Delete against a real etcd: grace, finalizers, propagation, preconditions, collections."""

from __future__ import annotations

import orjson
import pytest

from api.errors import Conflict, Forbidden, NotFound
from api.selectors import parse_label_selector
from controller.registry import DeleteOptions, Patch, PatchType, Registry
from controller.store import Query
from controller.store.types import EventType, Key
from tests.integration.registry.conftest import (
    ACCOUNTS,
    DEPLOYMENTS,
    MAPS,
    NAMESPACES,
    PODS,
    a_deployment,
    a_map,
    a_pod,
    admin,
)

MAP_KEY = Key("", "configmaps", "shop", "x")
POD_KEY = Key("", "pods", "shop", "x")


async def test_most_kinds_answer_a_status_and_some_the_object(registry: Registry) -> None:
    await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    deployment = await registry.delete(admin(), DEPLOYMENTS, "shop", "x")
    assert deployment.status is not None
    assert (deployment.gone, deployment.status["status"]) == (True, "Success")
    details = deployment.status["details"]
    assert (details["name"], details["group"], details["kind"]) == ("x", "apps", "deployments")
    account = await registry.delete(admin(), ACCOUNTS, "shop", "default")
    assert (account.gone, account.status) == (True, None)


async def test_what_is_not_there_cannot_be_deleted(registry: Registry) -> None:
    with pytest.raises(NotFound) as refused:
        await registry.delete(admin(), MAPS, "shop", "nope")
    assert refused.value.message == 'configmaps "nope" not found'


async def test_a_finalizer_keeps_an_object_until_its_owner_takes_it_away(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map(finalizers=["ex.io/f"]))
    marked = await registry.delete(admin(), MAPS, "shop", "x")
    assert (marked.gone, marked.status) == (False, None)
    assert marked.record.parse()["metadata"]["deletionGracePeriodSeconds"] == 0
    again = await registry.delete(admin(), MAPS, "shop", "x")
    assert again.record.version == marked.record.version
    watcher = registry.store.watch(("", "configmaps"), marked.record.version)
    released = Patch(PatchType.MERGE, b'{"metadata":{"finalizers":null}}')
    last, _ = await registry.patch(admin(), MAPS, "shop", "x", released)
    assert "finalizers" not in last.parse()["metadata"]
    assert registry.store.get(MAP_KEY) is None
    events = await anext(aiter(watcher))
    watcher.close()
    assert [event.type for event in events] == [EventType.DELETED]


async def test_foreground_deletion_leaves_the_object_to_the_garbage_collector(registry: Registry) -> None:
    await registry.create(admin(), DEPLOYMENTS, "shop", a_deployment())
    marked = await registry.delete(admin(), DEPLOYMENTS, "shop", "x", DeleteOptions(propagation="Foreground"))
    assert not marked.gone
    assert marked.record.parse()["metadata"]["finalizers"] == ["foregroundDeletion"]
    patch = Patch(PatchType.MERGE, b'{"metadata":{"finalizers":[]}}')
    await registry.patch(admin(), DEPLOYMENTS, "shop", "x", patch)
    assert registry.store.get(Key("apps", "deployments", "shop", "x")) is None


async def test_preconditions_protect_an_object_that_was_made_anew(registry: Registry) -> None:
    first = await registry.create(admin(), MAPS, "shop", a_map())
    uid = first.parse()["metadata"]["uid"]
    await registry.delete(admin(), MAPS, "shop", "x", DeleteOptions(uid=uid))
    second = await registry.create(admin(), MAPS, "shop", a_map())
    for options in (DeleteOptions(uid=uid), DeleteOptions(resource_version=str(first.version))):
        with pytest.raises(Conflict):
            await registry.delete(admin(), MAPS, "shop", "x", options)
    assert registry.store.get(MAP_KEY) == second
    await registry.delete(admin(), MAPS, "shop", "x", DeleteOptions(resource_version=str(second.version)))


async def test_an_unscheduled_pod_is_deleted_at_once(registry: Registry) -> None:
    await registry.create(admin(), PODS, "shop", a_pod())
    deleted = await registry.delete(admin(), PODS, "shop", "x")
    assert (deleted.gone, deleted.status) == (True, None)
    assert deleted.record.parse()["metadata"]["deletionGracePeriodSeconds"] == 0
    assert registry.store.get(POD_KEY) is None


async def test_a_pod_on_a_node_is_gone_only_when_its_agent_says_so(registry: Registry) -> None:
    await registry.create(admin(), PODS, "shop", a_pod())
    await registry.bind(admin(), "shop", "x", "n1")
    marked = await registry.delete(admin(), PODS, "shop", "x")
    metadata = marked.record.parse()["metadata"]
    assert (marked.gone, metadata["deletionGracePeriodSeconds"], metadata["generation"]) == (False, 30, 2)
    status = Patch(PatchType.MERGE, orjson.dumps({"status": {"phase": "Running"}}))
    await registry.patch(admin(), PODS, "shop", "x", status, subresource="status")
    assert registry.store.get(POD_KEY) is not None
    confirmed = await registry.delete(admin(), PODS, "shop", "x", DeleteOptions(grace_seconds=0))
    assert confirmed.gone
    assert registry.store.get(POD_KEY) is None


async def test_an_eviction_deletes_gracefully_and_respects_its_preconditions(registry: Registry) -> None:
    await registry.create(admin(), PODS, "shop", a_pod())
    await registry.bind(admin(), "shop", "x", "n1")
    with pytest.raises(Conflict):
        other = {"metadata": {"name": "x"}, "deleteOptions": {"preconditions": {"uid": "other"}}}
        await registry.evict_as(admin(), "shop", "x", other)
    evicted = await registry.evict_as(admin(), "shop", "x", {"metadata": {"name": "x"}})
    assert not evicted.gone
    with pytest.raises(NotFound):
        await registry.evict_as(admin(), "shop", "nope", {"metadata": {"name": "nope"}})


async def test_a_collection_is_deleted_as_selected_and_answered_as_it_was(registry: Registry) -> None:
    for number in range(6):
        labels = {"odd": "y" if number % 2 else "n"}
        await registry.create(admin(), MAPS, "shop", a_map(f"c{number}", labels=labels))
    query = Query(namespace="shop", labels=parse_label_selector("odd=y"))
    deleted = await registry.delete_collection(admin(), MAPS, query)
    assert [record.key.name for record in deleted] == ["c1", "c3", "c5"]
    left = registry.store.list(("", "configmaps"), Query(namespace="shop")).records
    assert [record.key.name for record in left] == ["c0", "c2", "c4"]


async def test_a_namespace_terminates_is_finalized_and_goes(registry: Registry) -> None:
    deleted = await registry.delete(admin(), NAMESPACES, "", "shop")
    namespace = deleted.record.parse()
    assert (deleted.gone, namespace["status"]["phase"]) == (False, "Terminating")
    with pytest.raises(Forbidden):
        await registry.create(admin(), MAPS, "shop", a_map())
    namespace["spec"]["finalizers"] = []
    await registry.update(admin(), NAMESPACES, "", "shop", namespace, subresource="finalize")
    assert registry.store.get(Key("", "namespaces", "", "shop")) is None
    with pytest.raises(NotFound):
        await registry.create(admin(), MAPS, "shop", a_map())


async def test_the_system_namespaces_stay(registry: Registry) -> None:
    await registry.create(admin(), NAMESPACES, "", {"metadata": {"name": "kube-system"}})
    with pytest.raises(Forbidden):
        await registry.delete(admin(), NAMESPACES, "", "kube-system")
