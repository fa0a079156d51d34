"""A controller is killed under its watchers: all resume, nobody lists, everybody sees every event exactly once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.chaos.clients import MAPS, config_map
from tests.integration.chaos.plane import FULL, Plane, running
from tests.integration.chaos.watchers import Target, Watcher
from tests.integration.chaos.wire import Broken, Connection, Unsent

WATCHERS = 1000 if FULL else 250
EVENTS = 40
PATIENCE_SECONDS = 60.0


async def until(check: Callable[[], bool], what: str) -> float:
    """How long it took."""
    started = time.monotonic()
    while not check():
        assert time.monotonic() - started < PATIENCE_SECONDS, what
        await asyncio.sleep(0.02)
    return time.monotonic() - started


@asynccontextmanager
async def watching(target: Target, version: int, amount: int) -> AsyncIterator[list[Watcher]]:
    watchers = [Watcher(target, version) for _ in range(amount)]
    tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
    try:
        yield watchers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def write(connection: Connection, numbers: itertools.count[int], amount: int) -> None:
    """Creates, changes and deletes until so many requests were answered; cut off, it just goes on."""
    answered = 0
    while answered < amount:
        name = f"m{next(numbers)}"
        steps = (("POST", MAPS, "a"), ("PUT", f"{MAPS}/{name}", "b"), ("DELETE", f"{MAPS}/{name}", ""))
        for method, path, tag in steps:
            try:
                answer = await connection.request(method, path, config_map(name, tag) if tag else None)
            except (Unsent, Broken):
                await asyncio.sleep(0.05)
                continue
            assert answer.status in (200, 201, 404, 503, 504), answer.body
            answered += 1


async def test_watchers_of_a_killed_controller_resume_and_see_every_event_once(tmp_path: Path) -> None:
    plane, numbers = Plane(tmp_path / "plane", ("--controllers", "none")), itertools.count()
    async with running(plane):
        start = int((await plane.get(f"{MAPS}?limit=1")).json()["metadata"]["resourceVersion"])
        listed = await lists(plane)
        target = Target(plane.port, plane.context(), plane.token, f"{MAPS}?watch=1&allowWatchBookmarks=true")
        async with watching(target, start, WATCHERS) as watchers:
            opened = await until(lambda: all(one.resumed == 0 for one in watchers), "not all watch")
            await write(plane.connection(), numbers, EVENTS)
            assert await lists(plane) == listed
            writing = asyncio.create_task(write(plane.connection(), numbers, 3 * EVENTS))
            await asyncio.sleep(0.1)
            plane.kill()
            plane.start()
            await plane.ready()
            back = time.monotonic()
            await until(lambda: all(one.resumed == 1 or one.refused for one in watchers), "not all are back")
            resumed = max(one.connected_at for one in watchers) - back
            await writing
            truth = Watcher(target, start)
            following = asyncio.create_task(truth.run())
            last = await plane.connection().request("POST", MAPS, config_map("last", "z"))
            version = int(last.json()["metadata"]["resourceVersion"])
            everyone = [*watchers, truth]
            await until(lambda: all(one.version >= version or one.refused for one in everyone), "events are missing")
            following.cancel()
        assert [one.refused for one in watchers if one.refused] == []
        assert len(truth.seen) > 2 * EVENTS
        assert [version for _, _, version in truth.seen] == sorted({version for _, _, version in truth.seen})
        assert all(one.seen == truth.seen for one in watchers), "each event once, in order"
        assert {one.resumed for one in watchers} == {1}
        assert await lists(plane) == 0, "the restarted server was asked for no list"
    print(
        f"{WATCHERS} watchers: opened in {opened:.1f} s, resumed {resumed:.1f} s after ready, {len(truth.seen)} events"
    )


async def lists(plane: Plane) -> float:
    return await plane.metric("apiserver_request_total", verb="LIST", resource="configmaps")
