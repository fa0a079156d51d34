"""The client whose connections are closed under it, as after a silence of the link or with a new certificate."""

from __future__ import annotations

import asyncio

from agent.pods.roster import PODS
from api.client import Selection, Unreachable
from tests.integration.agent.conftest import NODE, Site, cluster, eventually, site

__all__ = ["cluster", "site"]


async def test_a_watch_resumes_when_the_clients_connections_are_closed(site: Site) -> None:
    names: list[str] = []

    async def follow() -> None:
        async for event in site.client.watch(PODS, Selection(fields=f"spec.nodeName={NODE}")):
            names.append(event.object["metadata"]["name"] if event.object else event.type)

    async def seen(name: str) -> bool | None:
        return name in names or None

    task = asyncio.create_task(follow())
    await eventually(lambda: seen("SYNCED"))
    for name in ("first", "second"):
        await site.run(name)
        await eventually(lambda name=name: seen(name))  # type: ignore[misc]
        await site.client.close()
    assert names == ["SYNCED", "first", "second"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_requests_under_way_and_waiting_fail_as_unreachable_and_never_as_cancelled(site: Site) -> None:
    asked = [asyncio.create_task(site.client.list(PODS, Selection(fields=f"spec.nodeName={NODE}"))) for _ in range(50)]
    await asyncio.sleep(0.005)
    await site.client.close()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in ended} <= {dict, Unreachable}
    assert Unreachable in {type(one) for one in ended}
    assert await site.client.list(PODS, Selection(fields=f"spec.nodeName={NODE}"))
