"""ResourceQuotas against a real etcd: whatever races, a namespace never holds more than its quota pays for."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest

from api import kinds
from api.errors import AlreadyExists, ApiError, Conflict, Forbidden
from api.objects import Object
from controller.admission.attributes import Attributes, Operation
from controller.reconcilers.actions import Executor
from controller.reconcilers.loop import Decision
from controller.reconcilers.quota import ResourceQuotaReconciler
from controller.reconcilers.views import Views
from controller.registry import DeleteOptions, Registry
from controller.registry.ledger import Ledger
from controller.registry.recorder import Recorder
from controller.store import Query, Store, StoreConfig
from controller.store.types import Guard, GuardFailed, Key
from tests.etcd_process import opened
from tests.integration.registry.conftest import MAPS, PODS, a_map, a_pod, admin

QUOTAS = kinds.by_resource("", "resourcequotas")
SERVICES = kinds.by_resource("", "services")
POD_KEY = Key("", "pods", "shop", "x")
AT_ONCE = DeleteOptions(grace_seconds=0)


def a_quota(**hard: str) -> Object:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard}}


def used(store: Store) -> Object | None:
    record = store.get(Key("", "resourcequotas", "shop", "q"))
    assert record is not None
    found: Object | None = record.parse()["status"].get("used")
    return found


def pods_in(store: Store) -> int:
    return len(store.list(PODS.resource, Query(namespace="shop")).records)


class Counting:
    """The quota reconciler, a step at a time and without its rest."""

    def __init__(self, registry: Registry) -> None:
        self._ticks = 0.0
        self._reconciler = ResourceQuotaReconciler(Views(registry.store), self._clock)
        self._executor = Executor(registry, admin(), Recorder(registry, admin(), "test"), "test")

    def _clock(self) -> datetime:
        self._ticks += 10.0
        return datetime.fromtimestamp(self._ticks, UTC)

    def decide(self) -> Decision:
        observed = self._reconciler.observe(("shop", "q"), None)
        assert observed is not None
        return self._reconciler.decide(observed)

    async def step(self) -> None:
        await self.perform(self.decide())

    async def perform(self, decision: Decision) -> None:
        for action in (*decision.actions, decision.status):
            if action is not None:
                await self._executor.perform(action)

    async def settle(self) -> None:
        """Counts to the end; a charge that another server made meanwhile is seen at the next look."""
        counted = 0
        while counted < 2:
            with contextlib.suppress(Conflict):
                await self.step()
                counted += 1


async def try_pod(registry: Registry, name: str) -> bool:
    try:
        await registry.create(admin(), PODS, "shop", a_pod(name))
    except Forbidden as refused:
        assert "exceeded quota: q, requested: pods=1, used: pods=7, limited: pods=7" in refused.message
        return False
    return True


@pytest.mark.proves("ResourceQuota.spec.hard")
async def test_a_pod_beyond_the_quota_is_refused_and_what_is_there_is_charged(registry: Registry) -> None:
    await registry.create(admin(), QUOTAS, "shop", a_quota(pods="1"))
    await registry.create(admin(), PODS, "shop", a_pod("x"))
    assert used(registry.store) == {"pods": "1"}
    with pytest.raises(Forbidden) as refused:
        await registry.create(admin(), PODS, "shop", a_pod("y"))
    assert refused.value.message == (
        'pods "y" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    )
    with pytest.raises(Forbidden):
        await registry.create(admin(dry_run=True), PODS, "shop", a_pod("y"))
    await registry.create(admin(), MAPS, "shop", a_map())


async def test_a_name_that_is_taken_costs_nothing(registry: Registry) -> None:
    await registry.create(admin(), QUOTAS, "shop", a_quota(pods="5"))
    await registry.create(admin(), PODS, "shop", a_pod("x"))
    with pytest.raises(AlreadyExists):
        await registry.create(admin(), PODS, "shop", a_pod("x"))
    assert used(registry.store) == {"pods": "1"}


async def test_objects_from_before_the_quota_count(registry: Registry) -> None:
    await registry.create(admin(), MAPS, "shop", a_map("before"))
    await registry.create(admin(), QUOTAS, "shop", a_quota(configmaps="2"))
    await registry.create(admin(), MAPS, "shop", a_map("x"))
    with pytest.raises(Forbidden):
        await registry.create(admin(), MAPS, "shop", a_map("y"))


async def test_what_goes_makes_room_once_it_is_counted(registry: Registry) -> None:
    counting = Counting(registry)
    await registry.create(admin(), QUOTAS, "shop", a_quota(pods="1"))
    await registry.create(admin(), PODS, "shop", a_pod("x"))
    await registry.delete(admin(), PODS, "shop", "x", AT_ONCE)
    await counting.settle()
    assert used(registry.store) == {"pods": "0"}
    await registry.create(admin(), PODS, "shop", a_pod("y"))


def a_charge(registry: Registry) -> AbstractAsyncContextManager[tuple[Guard, ...]]:
    """The charge for a pod that somebody is about to write."""
    pod = a_pod("x", namespace="shop")
    return Ledger(registry.store).charged(Attributes(admin(), Operation.CREATE, PODS, "shop", "x", pod))


async def test_a_create_does_not_commit_on_a_charge_that_was_counted_away(registry: Registry) -> None:
    await registry.create(admin(), QUOTAS, "shop", a_quota(pods="1"))
    async with a_charge(registry) as guards:
        await Counting(registry).settle()  # the leader sees no pod yet
        assert used(registry.store) == {"pods": "0"}
        with pytest.raises(GuardFailed):
            await registry.store.create(POD_KEY, a_pod("x", namespace="shop", uid="u"), guards)


async def test_a_create_that_commits_between_count_and_correction_stays_charged(registry: Registry) -> None:
    counting = Counting(registry)
    await registry.create(admin(), QUOTAS, "shop", a_quota(pods="1"))
    async with a_charge(registry) as guards:
        decision = counting.decide()  # counted without the pod
        await registry.store.create(POD_KEY, a_pod("x", namespace="shop", uid="u"), guards)
    await counting.perform(decision)
    assert used(registry.store) in (None, {"pods": "1"})
    with pytest.raises(Forbidden):
        await registry.create(admin(), PODS, "shop", a_pod("y"))
    await counting.settle()
    assert used(registry.store) == {"pods": "1"}


async def test_creates_of_two_servers_and_a_counting_leader_never_exceed_the_quota(
    registry: Registry, store_config: StoreConfig
) -> None:
    await registry.create(admin(), QUOTAS, "shop", a_quota(pods="7"))
    async with opened(store_config) as other_store:
        registries = (registry, Registry(other_store))
        made = await _race(registries)
        assert sum(made) >= 7
        await Counting(registry).settle()
        assert pods_in(registry.store) == 7
        assert used(registry.store) == {"pods": "7"}


async def _race(registries: tuple[Registry, ...]) -> list[bool]:
    """Creates and deletes pods by both servers while a leader counts all the time; who was created."""
    made: list[bool] = []
    rng = random.Random(5)

    async def count_all_the_time() -> None:
        counting = Counting(registries[0])
        while True:
            with contextlib.suppress(Conflict):  # a charge came in between: it counts again
                await counting.step()
            assert pods_in(registries[0].store) <= 7
            await asyncio.sleep(0.005)

    async def churn(worker: int) -> None:
        for turn in range(12):
            mine = rng.choice(registries)
            made.append(await try_pod_again(mine, f"p{worker}-{turn}"))
            if made[-1] and rng.random() < 0.5:
                await mine.delete(admin(), PODS, "shop", f"p{worker}-{turn}", AT_ONCE)

    async with asyncio.TaskGroup() as tasks:
        counter = tasks.create_task(count_all_the_time())
        async with asyncio.TaskGroup() as workers:
            for worker in range(6):
                workers.create_task(churn(worker))
        counter.cancel()
    for index in range(7):  # what a void charge still holds is given back by the next count
        await Counting(registries[0]).settle()
        await try_pod_again(registries[index % 2], f"last{index}")
    return made


async def try_pod_again(registry: Registry, name: str) -> bool:
    """A server that lost every race says 503; the client asks again."""
    for _ in range(20):
        try:
            return await try_pod(registry, name)
        except ApiError as error:
            if not error.retryable:
                raise
    return False


async def test_a_service_that_comes_to_cost_more_pays_the_difference_or_is_refused(registry: Registry) -> None:
    await registry.create(
        admin(), QUOTAS, "shop", a_quota(**{"services.nodeports": "3", "services.loadbalancers": "0"})
    )
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    for name in ("x", "y"):
        spec = {"ports": [dict(port) for port in ports], "type": "NodePort" if name == "x" else "ClusterIP"}
        await registry.create(admin(), SERVICES, "shop", {"metadata": {"name": name}, "spec": spec})
    assert used(registry.store) == {"services.nodeports": "2", "services.loadbalancers": "0"}
    for kind, why in (("NodePort", "services.nodeports=2"), ("LoadBalancer", "services.loadbalancers=1")):
        for dry_run in (False, True):
            with pytest.raises(Forbidden, match=f"exceeded quota: q, requested: {why}"):
                await typed(registry, "y", kind, ports, dry_run=dry_run)
    await typed(registry, "x", "NodePort", [*ports, {"name": "c", "port": 3}])
    assert used(registry.store) == {"services.nodeports": "3", "services.loadbalancers": "0"}
    await typed(registry, "x", "ClusterIP", ports)
    await Counting(registry).settle()
    await typed(registry, "y", "NodePort", ports)
    assert used(registry.store) == {"services.nodeports": "2", "services.loadbalancers": "0"}


async def typed(registry: Registry, name: str, kind: str, ports: list[Object], *, dry_run: bool = False) -> None:
    body = {"metadata": {"name": name}, "spec": {"ports": [dict(port) for port in ports], "type": kind}}
    await registry.update(admin(dry_run=dry_run), SERVICES, "shop", name, body)


async def test_changes_that_race_never_cost_more_than_the_quota(registry: Registry) -> None:
    await registry.create(admin(), QUOTAS, "shop", a_quota(**{"services.nodeports": "3"}))
    ports = [{"port": 1}]
    for number in range(8):
        body = {"metadata": {"name": f"s{number}"}, "spec": {"ports": [dict(port) for port in ports]}}
        await registry.create(admin(), SERVICES, "shop", body)
    results = await asyncio.gather(
        *(typed(registry, f"s{number}", "NodePort", ports) for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(one, Forbidden) for one in results) == 5 and results.count(None) == 3
