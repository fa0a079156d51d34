"""HAProxy's life: changes without a lost request, an agent that dies, a port that is taken, a label that goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import aiohttp
import pytest

from agent.network.ingress.metrics import read_statistics
from agent.network.ingress.proxy import find_proxies
from tests.integration.ingress.scene import Scene, eventually, path, rule


@asynccontextmanager
async def hammered(scene: Scene) -> AsyncIterator[dict[str, int]]:
    """Two clients in tight loops, one on new connections and one that keeps its own; any failure fails the test."""
    counts = {"new": 0, "kept": 0}
    ended = asyncio.Event()

    async def hammer(name: str, *, close: bool) -> None:
        timeout = aiohttp.ClientTimeout(total=10)
        connector = aiohttp.TCPConnector(force_close=close, limit=1)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while not ended.is_set():
                url = f"http://127.0.0.1:{scene.http}/"
                async with session.get(url, headers={"Host": "a.test"}) as answer:
                    assert answer.status == 200
                    await answer.read()
                counts[name] += 1

    tasks = [asyncio.create_task(hammer("new", close=True)), asyncio.create_task(hammer("kept", close=False))]
    try:
        yield counts
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def test_servers_come_and_go_and_configurations_change_without_a_lost_request(scene: Scene) -> None:
    first = await scene.backend("b0")
    await scene.service("web", first)
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    async with scene.agent() as part:
        await scene.until("b0")
        async with hammered(scene) as counts:
            for number in range(1, 7):
                backend = await scene.backend(f"b{number}")
                await scene.slice("web", backend)
                await scene.until(backend.name)
                gone = scene.backends[number - 1]
                await scene.conditions("web", gone, ready=False, terminating=True)
                await asyncio.sleep(0.15)  # as a preStop hook gives
                await gone.stop()
                await scene.ingress(f"more{number}", {"rules": [rule(f"h{number}.test", path("/"))]})
            await scene.until("b6", host="h6.test")
        assert counts["new"] > 50
        assert counts["kept"] > 50
        assert 1 <= part.proxy.reloads <= 6


async def test_a_request_under_way_ends_when_its_server_leaves_and_its_slot_is_taken(scene: Scene) -> None:
    old, new = await scene.backend("old"), await scene.backend("new")
    await scene.service("web", old)
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    async with scene.agent():
        await scene.until("old")
        slow = asyncio.create_task(scene.ask("/slow"))
        await asyncio.sleep(0.1)
        await scene.conditions("web", old, ready=False, terminating=True)
        await scene.slice("web", new)
        await scene.until("new")
        status, answer = await slow
        assert (status, answer["who"]) == (200, "old")


async def test_a_server_that_refuses_is_passed_over(scene: Scene) -> None:
    alive, dead = await scene.backend("alive"), await scene.backend("dead")
    await scene.service("web", alive, dead)
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    async with scene.agent():
        await scene.until("dead")
        await dead.stop()
        assert {await scene.who() for _ in range(6)} == {"alive"}


async def test_haproxy_outlives_the_agent_and_the_next_one_adopts_it_as_it_is(scene: Scene) -> None:
    first, second = await scene.backend("first"), await scene.backend("second")
    await scene.service("web", first)
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    async with scene.agent():
        await scene.until("first")
    master = find_proxies(scene.node_id)[0]
    assert await scene.who() == "first"
    await scene.slice("web", second)
    await scene.conditions("web", first, ready=False)
    async with scene.agent() as part:
        await scene.until("second")
        assert find_proxies(scene.node_id)[0] == master == part.proxy.pid
        assert part.proxy.reloads == 0
        assert {row["svname"] for row in read_statistics(part.proxy)} == {"FRONTEND", "BACKEND"}
        os.kill(master, signal.SIGKILL)

        async def again() -> bool | None:
            return True if part.proxy.running and part.proxy.pid != master and await scene.who() == "second" else None

        await eventually(again)


async def test_a_taken_port_is_named_with_its_holder_and_the_other_port_works(scene: Scene) -> None:
    await scene.service("web", await scene.backend("web"))
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    with closing(socket.socket()) as taker:
        taker.bind(("127.0.0.1", scene.http))
        taker.listen()
        async with scene.agent() as part:

            async def known() -> str | None:
                return part.problem or None

            assert f"port {scene.http} is taken by " in (problem := await eventually(known))
            assert f"(process {os.getpid()})" in problem

            async def secure() -> bool | None:
                try:
                    return "no certificate" in await scene.certificate("a.test") or None
                except OSError:
                    return None

            await eventually(secure)

            async def told() -> bool | None:
                return any(reason == "IngressNotReady" for reason, _ in await scene.events("n1")) or None

            await eventually(told)
            taker.close()
            await scene.until("web")

            async def well() -> bool | None:
                return True if not part.problem else None

            await eventually(well)


async def test_a_node_without_the_label_serves_nothing(scene: Scene) -> None:
    await scene.service("web", await scene.backend("web"))
    await scene.ingress("i", {"rules": [rule("a.test", path("/"))]})
    async with scene.agent():
        await scene.until("web")
        await scene.label(None)

        async def ended() -> bool | None:
            return None if find_proxies(scene.node_id) else True

        await eventually(ended)
        await scene.label("true")
        await scene.until("web")


@pytest.mark.proves("Ingress.spec.ingressClassName", "IngressClass.spec.controller")
async def test_ingresses_of_other_classes_and_younger_claims_are_not_served(scene: Scene) -> None:
    for name in ("mine", "theirs"):
        await scene.service(name, await scene.backend(name))
    group = "/apis/networking.k8s.io/v1"
    other = {"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}}
    await scene.post(f"{group}/ingressclasses", other)
    await scene.ingress("foreign", {"ingressClassName": "other", "rules": [rule("a.test", path("/", "theirs"))]})
    await scene.ingress("mine", {"ingressClassName": "wherry", "rules": [rule("a.test", path("/", "mine"))]})
    await asyncio.sleep(1.0)  # creation times have whole seconds
    await scene.ingress("younger", {"rules": [rule("a.test", path("/", "theirs"))]})
    async with scene.agent():
        await scene.until("mine")

        async def told() -> list[tuple[str, str]] | None:
            return await scene.events("younger") or None

        assert "the older Ingress ns/mine" in (await eventually(told))[0][1]
        await scene.patch(f"{group}/namespaces/ns/ingresses/mine", {"spec": {"ingressClassName": "other"}})
        await scene.until("theirs")
