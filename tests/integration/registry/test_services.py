"""Services against a real etcd: an address or port has one holder, whoever races, and what nobody holds is free."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from api import kinds
from api.errors import ApiError, InternalError, Invalid, NotFound
from api.objects import Object
from controller.admission.switched import EventRateLimit, deny_external_ips, parse_limits
from controller.registry import DeleteOptions, Registry
from controller.registry.ranges import Addresses, Ports, ServiceRanges
from controller.registry.registry import RegistrySettings
from controller.registry.service_fields import claims_of
from controller.registry.types import Patch, PatchType
from controller.store import Query, Store, StoreConfig
from controller.store.types import Event
from tests.etcd_process import opened
from tests.integration.registry.conftest import NAMESPACES, admin

SERVICES = kinds.by_resource("", "services")
V4, V6 = Addresses(ip_network("10.96.0.0/27")), Addresses(ip_network("fd00::/123"))
SMALL = ServiceRanges((V4,), Ports(30000, 30019))
DUAL = ServiceRanges((V4, V6), Ports(30000, 30019))
FINALIZER = "test.wherry.dev/hold"


def a_service(name: str = "x", **spec: object) -> Object:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def with_ranges(store: Store, ranges: ServiceRanges) -> Registry:
    registry = Registry(store, RegistrySettings(ranges=ranges))
    await registry.create(admin(), NAMESPACES, "", {"metadata": {"name": "shop"}})
    return registry


@pytest.fixture
async def small(store: Store) -> Registry:
    return await with_ranges(store, SMALL)


@pytest.fixture
async def dual(store: Store) -> Registry:
    return await with_ranges(store, DUAL)


async def create(registry: Registry, service: Object, *, dry_run: bool = False) -> Object:
    return (await registry.create(admin(dry_run=dry_run), SERVICES, "shop", service)).parse()


async def put(registry: Registry, name: str, **spec: object) -> Object:
    return (await registry.update(admin(), SERVICES, "shop", name, a_service(name, **spec)))[0].parse()


async def merge(registry: Registry, name: str, body: bytes, *, dry_run: bool = False) -> Object:
    patch = Patch(PatchType.MERGE, body)
    return (await registry.patch(admin(dry_run=dry_run), SERVICES, "shop", name, patch))[0].parse()


async def delete(registry: Registry, name: str) -> None:
    await registry.delete(admin(), SERVICES, "shop", name, DeleteOptions())


def services_in(store: Store) -> list[Object]:
    return [record.parse() for record in store.list(SERVICES.resource, Query()).records]


async def check_claims(store: Store) -> None:
    """The claims are those of the services that exist, each under its holder's name, and none twice."""
    await store.current()
    wanted = [(claim, f"shop/{one['metadata']['name']}") for one in services_in(store) for claim in claims_of(one)]
    twice = [claim for claim, count in Counter(claim for claim, _ in wanted).items() if count > 1]
    assert not twice
    assert sorted(wanted) == sorted((claim.name, claim.holder) for claim in store.claims)


async def refused(work: object) -> str:
    with pytest.raises(ApiError) as caught:
        await work  # type: ignore[misc]
    return caught.value.message


async def test_a_service_gets_an_address_and_gives_it_back(small: Registry) -> None:
    made = await create(small, a_service())
    address = made["spec"]["clusterIP"]
    assert V4.holds(address) and made["spec"]["clusterIPs"] == [address]
    assert (made["spec"]["ipFamilies"], made["spec"]["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert small.store.claims.holder(f"ip/{address}") == "shop/x"
    await delete(small, "x")
    assert list(small.store.claims) == []


@pytest.mark.proves("Service.spec.clusterIP")
async def test_explicit_addresses_are_honoured_or_refused(small: Registry) -> None:
    assert (await create(small, a_service(clusterIP="10.96.0.5")))["spec"]["clusterIPs"] == ["10.96.0.5"]
    taken = await refused(create(small, a_service("y", clusterIP="10.96.0.5")))
    assert taken == (
        'Service "y" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.5"]: failed to allocate IP 10.96.0.5: '
        "provided IP is already allocated"
    )
    outside = await refused(create(small, a_service("y", clusterIP="10.96.0.31")))
    assert outside.endswith(
        "failed to allocate IP 10.96.0.31: the provided IP (10.96.0.31) is not in the valid range. "
        "The range of valid IPs is 10.96.0.0/27"
    )
    await check_claims(small.store)


@pytest.mark.proves("Service.spec.ports.nodePort")
async def test_node_ports_are_honoured_or_refused(small: Registry) -> None:
    ports = [{"name": "a", "port": 80, "nodePort": 30003}, {"name": "b", "port": 81}]
    made = await create(small, a_service(type="NodePort", ports=ports))
    first, second = (port["nodePort"] for port in made["spec"]["ports"])
    assert first == 30003 and second in SMALL.ports and second != first
    asked = [{"port": 80, "nodePort": 30003}]
    assert await refused(create(small, a_service("y", type="NodePort", ports=asked))) == (
        'Service "y" is invalid: spec.ports[0].nodePort: Invalid value: 30003: provided port is already allocated'
    )
    asked[0]["nodePort"] = 80
    assert (await refused(create(small, a_service("y", type="NodePort", ports=asked)))).endswith(
        "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30019"
    )
    await check_claims(small.store)


async def test_one_node_port_serves_a_port_of_both_protocols(small: Registry) -> None:
    ports = [{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]
    made = await create(small, a_service(type="NodePort", ports=ports))
    assert len({port["nodePort"] for port in made["spec"]["ports"]}) == 1


async def test_a_put_need_not_repeat_what_was_allocated(small: Registry) -> None:
    made = await create(small, a_service(type="LoadBalancer", externalTrafficPolicy="Local"))
    kept = await put(small, "x", type="LoadBalancer", externalTrafficPolicy="Local", selector={"a": "b"})
    for field in ("clusterIP", "clusterIPs", "healthCheckNodePort", "ports", "ipFamilies", "ipFamilyPolicy"):
        assert kept["spec"][field] == made["spec"][field]


@pytest.mark.proves("Service.spec.type")
async def test_types_change_and_claims_follow(small: Registry) -> None:
    address = (await create(small, a_service()))["spec"]["clusterIP"]
    node = await merge(small, "x", b'{"spec":{"type":"NodePort"}}')
    assert node["spec"]["clusterIP"] == address and node["spec"]["ports"][0]["nodePort"] in SMALL.ports
    await check_claims(small.store)
    plain = await merge(small, "x", b'{"spec":{"type":"ClusterIP"}}')
    assert "nodePort" not in plain["spec"]["ports"][0] and "externalTrafficPolicy" not in plain["spec"]
    outside = await merge(small, "x", b'{"spec":{"type":"ExternalName","externalName":"a.example"}}')
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & outside["spec"].keys()
    assert list(small.store.claims) == []
    back = await merge(small, "x", b'{"spec":{"type":"LoadBalancer","externalName":null}}')
    assert V4.holds(back["spec"]["clusterIP"]) and back["spec"]["allocateLoadBalancerNodePorts"] is True
    await check_claims(small.store)


async def test_addresses_do_not_change_once_set(small: Registry) -> None:
    await create(small, a_service(clusterIP="10.96.0.5"))
    message = await refused(merge(small, "x", b'{"spec":{"clusterIP":"10.96.0.6"}}'))
    assert (
        message == 'Service "x" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.0.6"]: may not change once set'
    )
    cleared = await refused(merge(small, "x", b'{"spec":{"clusterIP":"None"}}'))
    assert cleared.endswith('Invalid value: ["None"]: may not change once set')
    kept = await merge(small, "x", b'{"spec":{"clusterIP":null,"clusterIPs":null}}')
    assert kept["spec"]["clusterIPs"] == ["10.96.0.5"]


async def test_headless_services_and_dry_runs_hold_nothing(small: Registry) -> None:
    assert (await create(small, a_service("h", clusterIP="None", selector={"a": "b"})))["spec"]["clusterIPs"] == [
        "None"
    ]
    lonely = (await create(small, a_service("l", clusterIP="None")))["spec"]
    assert (lonely["ipFamilyPolicy"], lonely["ipFamilies"]) == ("RequireDualStack", ["IPv4", "IPv6"])
    tried = await create(small, a_service("d", type="NodePort"), dry_run=True)
    assert V4.holds(tried["spec"]["clusterIP"])
    await create(small, a_service("x"))
    tried = await merge(small, "x", b'{"spec":{"type":"NodePort"}}', dry_run=True)
    assert tried["spec"]["ports"][0]["nodePort"] in SMALL.ports
    assert len(list(small.store.claims)) == 1
    await check_claims(small.store)


@pytest.mark.proves("Service.spec.allocateLoadBalancerNodePorts")
async def test_node_ports_of_load_balancers_can_be_declined(small: Registry) -> None:
    made = await create(small, a_service(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in made["spec"]["ports"][0]
    asked = [{"port": 80, "nodePort": 30001}]
    kept = await put(small, "x", type="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=asked)
    assert kept["spec"]["ports"][0]["nodePort"] == 30001
    await check_claims(small.store)


@pytest.mark.proves("Service.spec.ipFamilies", "Service.spec.ipFamilyPolicy", "Service.spec.clusterIPs")
async def test_both_families_are_given_taken_back_and_kept_apart(dual: Registry) -> None:
    made = (await create(dual, a_service(ipFamilyPolicy="PreferDualStack")))["spec"]
    assert made["ipFamilies"] == ["IPv4", "IPv6"] and V6.holds(made["clusterIPs"][1])
    single = (await merge(dual, "x", b'{"spec":{"ipFamilyPolicy":"SingleStack"}}'))["spec"]
    assert single["clusterIPs"] == made["clusterIPs"][:1] and single["ipFamilies"] == ["IPv4"]
    await check_claims(dual.store)
    both = (await merge(dual, "x", b'{"spec":{"ipFamilyPolicy":"RequireDualStack","clusterIPs":null}}'))["spec"]
    assert both["clusterIPs"][0] == made["clusterIP"] and V6.holds(both["clusterIPs"][1])
    await check_claims(dual.store)
    six = (await create(dual, a_service("y", ipFamilies=["IPv6"])))["spec"]
    assert V6.holds(six["clusterIP"])
    two = ["10.96.0.3", "10.96.0.4"]
    message = await refused(create(dual, a_service("z", clusterIP=two[0], clusterIPs=two)))
    assert "may specify no more than one IP for each IP family" in message


async def test_a_full_range_says_so_and_every_address_was_given(small: Registry) -> None:
    results = await asyncio.gather(
        *(create(small, a_service(f"s{number}")) for number in range(33)), return_exceptions=True
    )
    made = [one for one in results if not isinstance(one, BaseException)]
    failed = [one for one in results if isinstance(one, BaseException)]
    assert len({one["spec"]["clusterIP"] for one in made}) == 30 == len(made)
    assert all(isinstance(one, InternalError) for one in failed)
    assert "failed to allocate a serviceIP: range is full" in str(failed[0])
    await check_claims(small.store)


async def test_an_object_that_finalizers_keep_keeps_its_claims(small: Registry) -> None:
    service = a_service()
    service["metadata"]["finalizers"] = [FINALIZER]
    await create(small, service)
    await delete(small, "x")
    assert len(list(small.store.claims)) == 1
    await merge(small, "x", b'{"metadata":{"finalizers":null}}')
    assert list(small.store.claims) == []


async def test_versions_are_the_same_for_writers_and_watchers_beside_claims(small: Registry) -> None:
    """Claims are events of etcd, but none of ours: they do not move the places of a commit's objects."""
    seen: list[Event] = []
    small.store.subscribe(SERVICES.resource, seen.append)
    await asyncio.gather(*(create(small, a_service(f"s{number}", type="NodePort")) for number in range(6)))
    told: list[int] = []

    async def churn(number: int) -> None:
        if number % 2:
            told.append((await small.delete(admin(), SERVICES, "shop", f"s{number}")).record.version)
        else:
            told.append(int((await put(small, f"s{number}", type="ClusterIP"))["metadata"]["resourceVersion"]))

    await asyncio.gather(*map(churn, range(6)))
    versions = [event.record.version for event in seen]
    assert versions == sorted(set(versions))
    assert set(told) <= set(versions)


@contextlib.asynccontextmanager
async def rivals(config: StoreConfig, count: int) -> AsyncIterator[list[Registry]]:
    """Registries of several API processes."""
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(config)) for _ in range(count)]
        yield [Registry(store, RegistrySettings(ranges=SMALL)) for store in stores]


_SPECS: tuple[Object, ...] = (
    {"type": "ClusterIP"},
    {"type": "NodePort"},
    {"type": "LoadBalancer"},
    {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    {"type": "ExternalName", "externalName": "a.example"},
    {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30004}]},
    {"clusterIP": "10.96.0.7"},
    {"clusterIP": "None"},
)


async def act(registry: Registry, dice: random.Random) -> None:
    """One random write; refusals are part of life."""
    name = f"s{dice.randrange(12)}"
    spec = dice.choice(_SPECS)
    with contextlib.suppress(Invalid, InternalError, NotFound, ApiError):
        match dice.randrange(4):
            case 0:
                await delete(registry, name)
            case 1:
                await create(registry, a_service(name, **spec))
            case _:
                await put(registry, name, **spec)


@pytest.mark.parametrize("seed", range(3))
async def test_no_address_has_two_holders_whatever_races(store_config: StoreConfig, seed: int) -> None:
    async with rivals(store_config, 3) as registries:
        await registries[0].create(admin(), NAMESPACES, "", {"metadata": {"name": "shop"}})
        for registry in registries:
            await registry.store.current()

        async def work(number: int) -> None:
            dice = random.Random(f"{seed}/{number}")
            for _ in range(25):
                await act(registries[number % 3], dice)

        await asyncio.gather(*map(work, range(9)))
        for registry in registries:
            await check_claims(registry.store)


NODES = kinds.by_resource("", "nodes")


async def test_an_external_ip_stays_with_who_had_it_first_and_is_no_address_of_the_cluster(store: Store) -> None:
    registry = await with_ranges(store, replace(SMALL, pods=(ip_network("10.244.0.0/16"),)))
    told = {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}
    await registry.create(admin(), NODES, "", {"metadata": {"name": "n1"}, "status": told})
    for address, what in (("10.96.0.1", "Services"), ("10.244.1.1", "pods"), ("192.0.2.7", "a node")):
        why = await refused(create(registry, a_service("zz", externalIPs=["203.0.113.5", address])))
        assert why.startswith('Service "zz" is invalid: spec.externalIPs[1]: Invalid value: "')
        assert f"must not be an address of {what}" in why
    await create(registry, a_service("zz", externalIPs=["203.0.113.5"]))
    why = await refused(create(registry, a_service("aa", externalIPs=["203.0.113.5"])))
    assert why.endswith("port 80/TCP of this address is already held by Service shop/zz")
    await create(registry, {**a_service("aa"), "spec": {"ports": [{"port": 81}], "externalIPs": ["203.0.113.5"]}})
    assert "port 80/TCP of this address" in await refused(merge(registry, "aa", b'{"spec":{"ports":[{"port":80}]}}'))
    assert "must not be an address of a node" in await refused(
        merge(registry, "zz", b'{"spec":{"externalIPs":["192.0.2.7"]}}')
    )
    await delete(registry, "zz")
    await merge(registry, "aa", b'{"spec":{"ports":[{"port":80}]}}')
    await check_claims(store)


async def test_external_ips_can_be_denied_while_what_is_there_stays(store: Store) -> None:
    free = await with_ranges(store, SMALL)
    await create(free, a_service(externalIPs=["203.0.113.5"]))
    strict = Registry(store, RegistrySettings((deny_external_ips,), ranges=SMALL))
    denied = await refused(create(strict, a_service("y", externalIPs=["203.0.113.6"])))
    assert denied == 'services "y" is forbidden: Use of external IPs is denied by admission control.'
    await merge(strict, "x", b'{"metadata":{"labels":{"a":"b"}}}')
    assert "denied" in await refused(merge(strict, "x", b'{"spec":{"externalIPs":["203.0.113.5","203.0.113.6"]}}'))
    await merge(strict, "x", b'{"spec":{"externalIPs":null}}')


async def test_who_floods_the_store_with_events_is_held_back(store: Store) -> None:
    registry = Registry(store, RegistrySettings((EventRateLimit(parse_limits("User=1:2"), now=lambda: 7.0),)))
    events = kinds.by_resource("", "events")
    about = {"kind": "Pod", "namespace": "default", "name": "p"}

    def event(name: str) -> Object:
        return {"metadata": {"name": name}, "involvedObject": about, "reason": "X", "message": "x", "type": "Normal"}

    await registry.create(admin(), NAMESPACES, "", {"metadata": {"name": "default"}})
    for name in ("a", "b"):
        await registry.create(admin(), events, "default", event(name))
    why = await refused(registry.create(admin(), events, "default", event("c")))
    assert why.startswith("limit reached on type User for key ")


async def test_a_race_for_one_address_has_one_winner(store_config: StoreConfig) -> None:
    async with rivals(store_config, 3) as registries:
        await registries[0].create(admin(), NAMESPACES, "", {"metadata": {"name": "shop"}})
        for registry in registries:
            await registry.store.current()
        asked = (
            create(registry, a_service(f"s{number}", clusterIP="10.96.0.9"))
            for number, registry in enumerate(registries)
        )
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(isinstance(one, Invalid) for one in results) == [False, True, True]
        await check_claims(registries[0].store)


async def test_where_a_balancer_is_reached_is_defaulted_by_a_patch_of_the_status(small: Registry) -> None:
    await create(small, a_service("s", type="LoadBalancer"))
    body = b'{"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}'
    record, _ = await small.patch(admin(), SERVICES, "shop", "s", Patch(PatchType.MERGE, body), subresource="status")
    assert record.parse()["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]


async def test_the_time_of_an_affinity_goes_with_it(small: Registry) -> None:
    config = {"clientIP": {"timeoutSeconds": 5}}
    made = await create(small, a_service("s", sessionAffinity="ClientIP", sessionAffinityConfig=config))
    spec = {**made["spec"], "sessionAffinity": "None"}
    assert "sessionAffinityConfig" not in (await put(small, "s", **spec))["spec"]
    await put(small, "s", **made["spec"])
    switched = await merge(small, "s", b'{"spec": {"sessionAffinity": "None"}}')
    assert "sessionAffinityConfig" not in switched["spec"]
