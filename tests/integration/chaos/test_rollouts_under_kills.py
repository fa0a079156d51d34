"""A controller killed at random moments of rolling updates under load: every rollout converges, within its limits."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import suppress
from pathlib import Path

from api import errors
from api.client import MERGE_PATCH
from tests.integration.chaos.agents import (
    DEPLOYMENTS,
    REPLICA_SETS,
    Fleet,
    client_of,
    complete,
    deployment,
    versions,
)
from tests.integration.chaos.clients import MAPS, config_map
from tests.integration.chaos.plane import FULL, Plane, running
from tests.integration.chaos.wire import Broken, Unsent

KILLS = 50 if FULL else 5
REPLICAS, SURGE, UNAVAILABLE = 20, 5, 5
PATIENCE_SECONDS = 60.0


async def load(plane: Plane) -> None:
    """Somebody else's writes, all the time."""
    connection = plane.connection(5)
    for number in itertools.count():
        with suppress(Unsent, Broken):
            await connection.request("POST", MAPS, config_map(f"load{number}", "x"))
        await asyncio.sleep(0.02)


class Rollout:
    def __init__(self, plane: Plane, fleet: Fleet) -> None:
        self.plane = plane
        self.fleet = fleet

    async def update(self, version: str) -> None:
        patch = {"spec": deployment(REPLICAS, version)["spec"]}
        while True:
            try:
                await self.fleet.client.patch(DEPLOYMENTS, ("default", "rolled", ""), patch, MERGE_PATCH)
                return
            except errors.ApiError as error:
                assert error.retryable, error

    async def is_complete(self) -> bool:
        with suppress(errors.ApiError):
            return complete(await self.fleet.client.get(DEPLOYMENTS, "default", "rolled"), REPLICAS)
        return False

    async def until_complete(self, version: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (await self.is_complete() and len(self.fleet.pods) == REPLICAS):
            assert time.monotonic() < deadline, (
                f"no end of it: {versions(self.fleet.pods)}, {len(self.fleet.pods)} pods"
            )
            await asyncio.sleep(0.05)
        assert versions(self.fleet.pods) == {version}

    async def check_generations(self, versions_so_far: int) -> None:
        """One replica set holds all, the others nothing; no generation exists twice."""
        sets = (await self.fleet.client.list(REPLICA_SETS))["items"]
        sizes = sorted(one["spec"]["replicas"] for one in sets)
        assert sizes == [0] * (len(sets) - 1) + [REPLICAS]
        commands = [one["spec"]["template"]["spec"]["containers"][0]["command"][1] for one in sets]
        assert len(set(commands)) == len(commands) <= versions_so_far

    async def kill_at_random(self, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0.0, 0.8))
        self.plane.kill()
        self.plane.start()
        await self.plane.ready()


async def test_a_rolling_update_converges_whenever_the_controller_dies(tmp_path: Path) -> None:
    chance, plane = random.Random(), Plane(tmp_path / "plane")
    limits = {"strategy": {"rollingUpdate": {"maxSurge": SURGE, "maxUnavailable": UNAVAILABLE}}}
    async with running(plane), client_of(plane) as client, Fleet(client, ("one", "two", "three")).playing() as fleet:
        rollout, loading = Rollout(plane, fleet), asyncio.create_task(load(plane))
        await client.create(DEPLOYMENTS, deployment(REPLICAS, "v0", **limits))
        await rollout.until_complete("v0")
        fleet.forget_the_worst()
        kills = 0
        for number in itertools.count(1):
            await rollout.update(f"v{number}")
            for _ in range(min(chance.randint(2, 3), KILLS - kills)):
                await rollout.kill_at_random(chance)
                kills += 1
            await rollout.until_complete(f"v{number}")
            await rollout.check_generations(number + 1)
            if kills == KILLS:
                break
        loading.cancel()
        assert fleet.least_ready is not None and fleet.least_ready >= REPLICAS - UNAVAILABLE
        assert fleet.most_pods <= REPLICAS + SURGE
    print(f"{kills} kills in {number} rollouts, {fleet.changes} pod changes, never below {fleet.least_ready} ready")
