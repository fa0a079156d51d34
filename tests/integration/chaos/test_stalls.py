"""Etcd frozen, the controller frozen, the controller away: clients are told to wait, and no node or pod is given up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from api.client import MERGE_PATCH
from api.objects import Object
from tests.etcd_process import EtcdProcess
from tests.integration.chaos.agents import DEPLOYMENTS, NODES, Fleet, client_of, complete, deployment, names, versions
from tests.integration.chaos.clients import MAPS, config_map
from tests.integration.chaos.plane import FULL, Plane, running
from tests.integration.chaos.wire import Answer

REPLICAS = 6
NODE_NAMES = ("one", "two", "three")
FROZEN_SECONDS = 20.0 if FULL else 11.0
AWAY_SECONDS = 60.0 if FULL else 5.0
TTL_SECONDS = 4.0
CALM_SECONDS = 2 * TTL_SECONDS + 1
PATIENCE_SECONDS = 40.0


@asynccontextmanager
async def settled(plane: Plane, *nodes: str) -> AsyncIterator[Fleet]:
    """A fleet whose deployment runs, its nodes heartbeating."""
    async with running(plane), client_of(plane) as client, Fleet(client, nodes or NODE_NAMES).playing() as fleet:
        await client.create(DEPLOYMENTS, deployment(REPLICAS, "v0"))
        await until_complete(fleet, "v0")
        await granted_again(fleet)
        yield fleet


async def granted_again(fleet: Fleet) -> None:
    """Returns when every node's heartbeats are granted, by whoever leads now."""
    before, deadline = dict(fleet.granted), time.monotonic() + PATIENCE_SECONDS
    while any(fleet.granted.get(node, 0) <= before.get(node, 0) for node in fleet.nodes):
        assert time.monotonic() < deadline, "heartbeats are not granted"
        await asyncio.sleep(0.05)


async def check_unharmed(fleet: Fleet, before: set[str]) -> None:
    """No pod was replaced or told to go, and no node was ever told silent."""
    assert names(fleet.pods) == before
    assert all("deletionTimestamp" not in pod["metadata"] for pod in fleet.pods.values())
    assert fleet.ready == REPLICAS
    for node in (await fleet.client.list(NODES))["items"]:
        assert not signs_of_silence(node), f"{node['metadata']['name']}: {signs_of_silence(node)}"


def signs_of_silence(node: Object) -> list[str]:
    found = [taint["key"] for taint in node["spec"].get("taints") or ()]
    return found + [one["type"] for one in node["status"]["conditions"] if one["reason"] != "Played"]


async def until_complete(fleet: Fleet, version: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (
        complete(await fleet.client.get(DEPLOYMENTS, "default", "rolled"), REPLICAS)
        and len(fleet.pods) == REPLICAS
        and versions(fleet.pods) == {version}
    ):
        assert time.monotonic() < deadline, "the rollout does not end"
        await asyncio.sleep(0.1)


async def rolls_on(fleet: Fleet, version: str) -> None:
    """The reconcilers are at work again."""
    spec = deployment(REPLICAS, version)["spec"]
    await fleet.client.patch(DEPLOYMENTS, ("default", "rolled", ""), {"spec": spec}, MERGE_PATCH)
    await until_complete(fleet, version)


async def timed(plane: Plane, method: str, path: str, body: object = None) -> tuple[Answer, float]:
    connection, started = plane.connection(30), time.monotonic()
    try:
        return await connection.request(method, path, body), time.monotonic() - started
    finally:
        connection.close()


async def test_a_frozen_etcd_makes_clients_wait_and_nobody_dead(tmp_path: Path) -> None:
    etcd = EtcdProcess(tmp_path / "given")
    etcd.start()
    plane = Plane(tmp_path / "plane", ("--etcd-endpoints", etcd.endpoint))
    try:
        async with settled(plane) as fleet:
            before = names(fleet.pods)
            assert await plane.metric("leader_election_master_status") == 1
            frozen_at = time.monotonic()
            etcd.send(signal.SIGSTOP)
            await check_answers_while_frozen(plane)
            await asyncio.sleep(max(0.0, FROZEN_SECONDS - (time.monotonic() - frozen_at)))
            assert await plane.metric("leader_election_master_status") == 0
            etcd.send(signal.SIGCONT)
            thawed_at = time.monotonic()
            await plane.ready()
            created, seconds = await timed(plane, "POST", MAPS, config_map("thawed", "x"))
            assert created.status == 201 and seconds < 5
            await granted_again(fleet)
            await asyncio.sleep(max(0.0, CALM_SECONDS - (time.monotonic() - thawed_at)))
            await check_unharmed(fleet, before)
            await rolls_on(fleet, "v1")
    finally:
        etcd.kill()


async def check_answers_while_frozen(plane: Plane) -> None:
    answers = await asyncio.gather(
        timed(plane, "GET", f"{MAPS}/x"),
        timed(plane, "GET", "/api/v1/pods"),
        timed(plane, "POST", MAPS, config_map("frozen", "x")),
        timed(plane, "DELETE", f"{MAPS}/kube-root-ca.crt"),
    )
    for answer, seconds in answers:
        assert answer.status in (503, 504), answer.body
        assert answer.headers["retry-after"] == "1"
        assert answer.message and 5 < seconds < 13, (answer.message, seconds)
    assert (await plane.get("/livez")).status == 200, "a supervisor must not restart it"
    readiness = await plane.get("/readyz")
    assert readiness.status == 500 and b"etcd" in readiness.body
    assert (await plane.get("/api/v1/nodes?resourceVersion=0")).status == 200, "what is cached is served"


async def test_a_controller_that_was_frozen_or_away_gives_no_node_up(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane")
    async with settled(plane) as fleet:
        before = names(fleet.pods)
        plane.send(signal.SIGSTOP)
        await asyncio.sleep(TTL_SECONDS + 2)
        plane.send(signal.SIGCONT)
        await granted_again(fleet)
        plane.kill()
        await asyncio.sleep(AWAY_SECONDS)
        plane.start()
        await plane.ready()
        await granted_again(fleet)
        await asyncio.sleep(CALM_SECONDS)
        await check_unharmed(fleet, before)
        await rolls_on(fleet, "v1")


async def test_the_only_node_of_a_controller_that_was_away_is_not_given_up(tmp_path: Path) -> None:
    """One machine: also when its agent finds back late."""
    plane = Plane(tmp_path / "plane")
    async with settled(plane, "alone") as fleet:
        before = names(fleet.pods)
        plane.kill()
        fleet.silent.add("alone")
        await asyncio.sleep(1)
        plane.start()
        await plane.ready()
        await asyncio.sleep(TTL_SECONDS + 2)
        fleet.silent.clear()
        await granted_again(fleet)
        await asyncio.sleep(TTL_SECONDS)
        await check_unharmed(fleet, before)
