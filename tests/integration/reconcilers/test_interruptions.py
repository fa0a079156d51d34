"""Controllers that die at any moment, or do not know yet that another one leads."""

from __future__ import annotations

import asyncio
import random

import pytest

from controller.reconcilers.build import Settings, run_reconcilers
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

KILLS = 25


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_rollout_whose_controller_dies_again_and_again_keeps_its_limits_and_converges(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    cluster = Cluster(store)
    async with Kubelet(cluster, "one", "two").playing() as kubelet:
        async with cluster.running():
            await cluster.namespace("w")
            limits = {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}
            await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(12, strategy=limits))
            await eventually(lambda: cluster.complete(12))
        kubelet.least_ready, kubelet.most_pods = 12, 0
        await cluster.change(DEPLOYMENTS, "x", set_command("two"))
        for _ in range(KILLS):
            async with cluster.running():
                await asyncio.sleep(chance.uniform(0.0, 0.02))
        async with cluster.running():
            await eventually(lambda: cluster.complete(12) and len(cluster.list(PODS, "w")) == 12)
        assert kubelet.least_ready >= 11
        assert kubelet.most_pods <= 14
        assert len(cluster.list(REPLICA_SETS, "w")) == 2


async def test_a_former_leader_changes_nothing(store: Store) -> None:
    cluster = Cluster(store)
    async with cluster.running():
        await cluster.namespace("w")
    async with store.lead("controller", "former") as leadership:
        guard = leadership.guard
    async with store.lead("controller", "present"):
        ghost = asyncio.create_task(run_reconcilers(cluster.registry, cluster.liveness, Settings(), (guard,)))
        await cluster.registry.create(TEST, DEPLOYMENTS, "w", deployment(2))
        await asyncio.sleep(0.5)
        assert cluster.list(REPLICA_SETS, "w") == []
        ghost.cancel()
        await asyncio.gather(ghost, return_exceptions=True)
