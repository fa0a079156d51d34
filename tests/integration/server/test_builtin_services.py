"""The Services every cluster has, on a real etcd: made, put back, and led by who is alive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_network

from api import kinds
from api.objects import Object
from controller.registry import DeleteOptions, Registry
from controller.registry.ranges import Addresses, ServiceRanges
from controller.registry.registry import RegistrySettings
from controller.server.bootstrap import ensure_defaults, publish_network
from controller.server.builtin_services import Advertised, BuiltinServices, endpoints_of
from controller.store import Store, StoreConfig
from controller.store.types import Key
from tests.etcd_process import opened
from tests.integration.reconcilers.played import eventually
from tests.integration.registry.conftest import admin

SERVICES = kinds.by_resource("", "services")
ENDPOINTS = Key("", "endpoints", "default", "kubernetes")
SLICE = Key("discovery.k8s.io", "endpointslices", "default", "kubernetes")
API, DNS = Key("", "services", "default", "kubernetes"), Key("", "services", "kube-system", "kube-dns")


def found(store: Store, key: Key) -> Object:
    record = store.get(key)
    return record.parse() if record is not None else {}


def addresses(store: Store) -> list[str]:
    return [one["ip"] for subset in found(store, ENDPOINTS).get("subsets") or () for one in subset["addresses"]]


def is_another(store: Store, key: Key, uid: str) -> bool:
    return found(store, key).get("metadata", {}).get("uid") not in (uid, None)


def builtin(store: Store, host: int, cidr: str = "10.96.0.0/12") -> BuiltinServices:
    ranges = ServiceRanges((Addresses(ip_network(cidr)),))
    advertised = Advertised(f"c{host}", f"192.0.2.{host}", 6443)
    return BuiltinServices(Registry(store, RegistrySettings(ranges=ranges)), advertised)


@contextlib.asynccontextmanager
async def running(store: Store, host: int) -> AsyncIterator[BuiltinServices]:
    services = builtin(store, host)
    await services.ensure()
    task = asyncio.create_task(services.run())
    try:
        yield services
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_both_services_stand_at_their_places_and_come_back(store: Store) -> None:
    registry = Registry(store)
    await ensure_defaults(registry)
    async with running(store, 1):
        assert found(store, API)["spec"]["clusterIP"] == "10.96.0.1"
        dns = found(store, DNS)
        assert dns["spec"]["clusterIP"] == "10.96.0.10" and dns["metadata"]["labels"]["wherry/served-by"] == "node"
        assert addresses(store) == ["192.0.2.1"]
        assert found(store, SLICE)["endpoints"] == [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}]
        for key in (API, DNS, ENDPOINTS, SLICE):
            uid = found(store, key)["metadata"]["uid"]
            kind = kinds.by_resource(*key.resource)
            await registry.delete(admin(), kind, key.namespace, key.name, DeleteOptions())
            await eventually(partial(is_another, store, key, uid))
        assert store.claims.holder("ip/10.96.0.1") == "default/kubernetes"


async def test_a_namespace_of_kubernetes_comes_back(store: Store) -> None:
    registry, kind, key = (
        Registry(store),
        kinds.by_resource("", "namespaces"),
        Key("", "namespaces", "", "kube-node-lease"),
    )
    await ensure_defaults(registry)
    async with running(store, 1):
        going = (await registry.delete(admin(), kind, "", key.name, DeleteOptions())).record.parse()
        going["spec"]["finalizers"] = []
        await registry.update(admin(), kind, "", key.name, going, subresource="finalize")
        await eventually(partial(is_another, store, key, going["metadata"]["uid"]))


async def test_the_clusters_ranges_are_told_as_they_are_now(store: Store) -> None:
    registry, key = Registry(store), Key("", "configmaps", "kube-public", "cluster-network")
    await ensure_defaults(registry)
    for pods in ("10.244.0.0/16", "10.20.0.0/16", "10.20.0.0/16"):
        await publish_network(registry, {"podCIDR": pods, "serviceCIDR": "10.96.0.0/12"})
        assert found(store, key)["data"] == {"podCIDR": pods, "serviceCIDR": "10.96.0.0/12"}


async def test_endpoints_are_the_controllers_that_live(store: Store, store_config: StoreConfig) -> None:
    await ensure_defaults(Registry(store))
    async with running(store, 1):
        async with opened(store_config) as other, running(other, 2):
            await eventually(lambda: addresses(store) == ["192.0.2.1", "192.0.2.2"])
            version = found(store, ENDPOINTS)["metadata"]["resourceVersion"]
            await asyncio.sleep(2.5)
            assert found(store, ENDPOINTS)["metadata"]["resourceVersion"] == version, "they agree, and write no more"
        await eventually(lambda: addresses(store) == ["192.0.2.1"])


async def test_another_range_moves_them(store: Store) -> None:
    await ensure_defaults(Registry(store))
    await builtin(store, 1).ensure()
    await builtin(store, 1, "10.20.0.0/16").ensure()
    assert [found(store, key)["spec"]["clusterIP"] for key in (API, DNS)] == ["10.20.0.1", "10.20.0.10"]
    assert sorted(claim.name for claim in store.claims) == ["ip/10.20.0.1", "ip/10.20.0.10"]


def test_controllers_on_other_ports_have_slices_of_their_own() -> None:
    made = endpoints_of([("192.0.2.1", 6443), ("192.0.2.2", 7443), ("fd00::1", 6443)], "IPv4")
    names = [obj["metadata"]["name"] for _, obj in made]
    assert names == ["kubernetes", "kubernetes", "kubernetes-7443"]
    assert len(made[0][1]["subsets"]) == 2
