"""Claims that went wrong by hand are put right, against a real etcd; what is right is left alone."""

from __future__ import annotations

import asyncio

from controller.reconcilers.actions import Executor, Note
from controller.reconcilers.loop import Decision
from controller.reconcilers.service_claims import ServiceClaims
from controller.reconcilers.views import Views
from controller.registry import Registry
from controller.registry.recorder import Recorder
from controller.store import Store
from controller.store.types import Claims, Key
from tests.integration.registry.conftest import admin
from tests.integration.registry.test_services import SMALL, a_service, check_claims, create, merge, with_ranges


class Repair:
    """The reconciler, a step at a time."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._reconciler = ServiceClaims(Views(registry.store), SMALL)
        self._executor = Executor(registry, admin(), Recorder(registry, admin(), "test"), "test")

    async def step(self) -> Decision:
        await self._registry.store.current()
        observed = self._reconciler.observe("claims", None)
        assert observed is not None
        decision = self._reconciler.decide(observed)
        for action in decision.actions:
            await self._executor.perform(action)
        return decision

    async def settle(self) -> list[Note]:
        """Until there is nothing left to do; what it had to say."""
        notes: list[Note] = []
        for _ in range(5):
            decision = await self.step()
            notes += [action for action in decision.actions if isinstance(action, Note)]
            if not decision.actions:
                return notes
        raise AssertionError("it never has done")


async def test_what_is_right_is_left_alone(store: Store) -> None:
    registry = await with_ranges(store, SMALL)
    await asyncio.gather(*(create(registry, a_service(f"s{number}", type="NodePort")) for number in range(5)))
    before = sorted(store.claims)
    assert (await Repair(registry).step()).actions == ()
    assert sorted(store.claims) == before


async def test_leaked_claims_are_freed_and_missing_ones_made(store: Store) -> None:
    registry = await with_ranges(store, SMALL)
    await create(registry, a_service(type="NodePort"))
    for claim in store.claims:
        await store.claims.drop(claim)
    nowhere = {"metadata": {"name": "n", "namespace": "shop"}, "kind": "ConfigMap", "apiVersion": "v1"}
    leak = Claims("shop/gone", ("ip/10.96.0.3", "port/30001"))
    await store.create(Key("", "configmaps", "shop", "n"), nowhere, claims=leak)
    await store.current()
    assert store.claims.holder("port/30001") == "shop/gone"
    await Repair(registry).settle()
    await check_claims(store)


async def test_services_of_a_time_without_addresses_get_them(store: Store) -> None:
    registry = await with_ranges(store, SMALL)
    old = a_service()
    old["metadata"] |= {"namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    old["spec"] |= {"type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster"}
    old["spec"]["ports"] = [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    await store.create(Key("", "services", "shop", "x"), {"kind": "Service", "apiVersion": "v1", **old})
    await Repair(registry).settle()
    found = (await store.read(Key("", "services", "shop", "x"))).parse()  # type: ignore[union-attr]
    assert SMALL.addresses[0].holds(found["spec"]["clusterIP"]) and found["spec"]["ports"][0]["nodePort"] in SMALL.ports
    await check_claims(store)


async def test_an_address_with_two_holders_is_told_once(store: Store) -> None:
    registry = await with_ranges(store, SMALL)
    first = await create(registry, a_service("a"))
    twin = {**first, "metadata": {**first["metadata"], "name": "b", "uid": "u2"}}
    twin["metadata"].pop("resourceVersion")
    await store.create(Key("", "services", "shop", "b"), twin)
    repair = Repair(registry)
    [note] = await repair.settle()
    assert (note.reason, note.regarding["metadata"]["name"]) == ("ClusterIPAlreadyAllocated", "b")
    assert note.message == (
        f"Cluster IP [IPv4]: {first['spec']['clusterIP']} was assigned to multiple services; please recreate service"
    )
    assert await repair.settle() == []


async def test_ports_outside_the_range_are_told(store: Store) -> None:
    registry = await with_ranges(store, SMALL)
    await create(registry, a_service())
    record = store.get(Key("", "services", "shop", "x"))
    assert record is not None
    strange = record.parse()
    strange["spec"] |= {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31000, "protocol": "TCP"}]}
    await store.update(record.key, strange, record.version)
    [note] = await Repair(registry).settle()
    assert note.reason == "PortOutOfRange"
    await merge(registry, "x", b'{"spec":{"type":"ClusterIP"}}')
    await check_claims(store)
