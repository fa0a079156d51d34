"""Clients that write against each other while controller and etcd are killed: linearizable, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.etcd_process import EtcdProcess
from tests.integration.chaos.clients import MAPS, Client, Work, config_map, contending, counting
from tests.integration.chaos.history import Outcome
from tests.integration.chaos.linearizability import linearize
from tests.integration.chaos.plane import FULL, Plane, running

COUNTERS, WRITERS = 16, 64
ROUNDS = 25 if FULL else 3
CALM_SECONDS = 3.0 if FULL else 1.2


async def counters(plane: Plane, disturb: Callable[[], Awaitable[None]]) -> Work:
    """16 clients add to four counters meanwhile; then every acknowledged addition must be in."""
    work, keys = Work(), [f"count{number}" for number in range(4)]
    setup = Client("setup", Work(), plane.connection())
    for key in keys:
        answer = await setup.connection.request("POST", MAPS, config_map(key, "start", count="0"))
        assert answer.status == 201
    clients = [Client(f"c{number}", work, plane.connection(15)) for number in range(COUNTERS)]
    tasks = [asyncio.create_task(counting(one, keys[place % 4])) for place, one in enumerate(clients)]
    await disturb()
    work.stop.set()
    acknowledged = await asyncio.gather(*tasks)
    for place, key in enumerate(keys):
        _, last = await clients[place].read(key)
        operations = work.history.operations[key]
        unknown = sum(one.outcome is Outcome.UNKNOWN for one in operations)
        certain = sum(acknowledged[place::4])
        assert certain <= int(last["data"]["count"]) <= certain + unknown
    return work


async def contention(plane: Plane, disturb: Callable[[], Awaitable[None]]) -> Work:
    """64 writers on one key."""
    work = Work()
    clients = [Client(f"w{number}", work, plane.connection(15)) for number in range(WRITERS)]
    tasks = [asyncio.create_task(contending(one, "one", random.Random(place))) for place, one in enumerate(clients)]
    await disturb()
    work.stop.set()
    await asyncio.gather(*tasks)
    await clients[0].read("one")
    return work


def judge(work: Work, started: dict[str, str | None]) -> None:
    """The verdict on every key; `started`: what it held at first."""
    for key, operations in work.history.operations.items():
        linearize(operations, started.get(key))
    done, unknown = work.history.count(Outcome.DONE), work.history.count(Outcome.UNKNOWN)
    print(f"{done} done, {unknown} unknown, {work.history.count(Outcome.CONFLICT)} conflicts, {dict(work.statuses)}")
    assert done > 100, f"too little happened to prove anything: {work.statuses}"


def disturbance(kinds: list[Callable[[], Awaitable[None]]], chance: random.Random) -> Callable[[], Awaitable[None]]:
    async def disturb() -> None:
        for round in range(ROUNDS):
            await asyncio.sleep(CALM_SECONDS * chance.uniform(0.3, 1.5))
            await kinds[round % len(kinds)]()
        await asyncio.sleep(CALM_SECONDS)

    return disturb


@pytest.mark.parametrize("story", [counters, contention])
async def test_controller_and_given_etcd_are_killed_each_on_its_own(
    tmp_path: Path, story: Callable[[Plane, Callable[[], Awaitable[None]]], Awaitable[Work]]
) -> None:
    etcd = EtcdProcess(tmp_path / "given")
    etcd.start()
    chance = random.Random(time.time())
    plane = Plane(tmp_path / "plane", ("--etcd-endpoints", etcd.endpoint, "--controllers", "none"))

    async def controller() -> None:
        plane.kill()
        plane.start()
        await plane.ready()

    async def store() -> None:
        etcd.kill()
        await asyncio.sleep(chance.uniform(0, 1.0))
        etcd.start()

    async def both() -> None:
        etcd.kill()
        plane.kill()
        plane.start()
        await asyncio.sleep(chance.uniform(0, 1.5))
        etcd.start()
        await plane.ready()

    try:
        async with running(plane):
            work = await story(plane, disturbance([store, controller, both], chance))
    finally:
        etcd.kill()
    judge(work, {f"count{number}": "start" for number in range(4)})


async def test_a_controller_with_its_private_etcd_is_killed(tmp_path: Path) -> None:
    chance = random.Random(time.time())
    plane = Plane(tmp_path / "plane", ("--controllers", "none"))

    async def controller() -> None:
        plane.kill()
        plane.start()
        await plane.ready()

    async with running(plane):
        work = await counters(plane, disturbance([controller], chance))
    judge(work, {f"count{number}": "start" for number in range(4)})
