"""Runs the services part alone, as an agent would: `python -m tests.integration.network.services_process NODE_JSON`.

Started in a node's network namespace. Reads watch events, one JSON object a line ({"type", "object"}; type SYNCED ends
the lists), and on a line FLUSH answers `settled` once the kernel is as the events say.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from agent.network.feed import Feeds
from agent.network.network import Ground
from agent.network.services.part import ServicesPart
from api.client import Client, WatchEvent
from api.kinds import Kind
from api.logs import configure_logs


class PipedClient:
    """A client whose watches are fed by hand."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[WatchEvent]] = {}

    def queue(self, kind: str) -> asyncio.Queue[WatchEvent]:
        return self.queues.setdefault(kind, asyncio.Queue())

    async def watch(self, kind: Kind, *_: Any, **__: Any) -> AsyncIterator[WatchEvent]:
        while True:
            event = await self.queue(kind.kind).get()
            yield event
            self.queue(kind.kind).task_done()

    def take(self, event: dict[str, Any]) -> None:
        if event["type"] == "SYNCED":
            for kind in ("Service", "EndpointSlice", "Node"):
                self.queue(kind).put_nowait(WatchEvent("SYNCED", {}))
        else:
            self.queue(event["object"]["kind"]).put_nowait(WatchEvent(event["type"], event["object"]))


async def serve(node: dict[str, Any]) -> None:
    client = PipedClient()
    name = node["metadata"]["name"]
    ground = Ground(
        client=cast(Client, client),
        node=lambda: node,
        node_name=name,
        node_id=node["id"],
        addresses=tuple(node["addresses"]),
        data_dir=Path("/nonexistent"),
        cluster_cidr="10.244.0.0/16",
        service_cidr="10.96.0.0/12",
        cluster_domain="cluster.local",
    )
    feeds = Feeds(ground.client)
    part = ServicesPart(ground, feeds)
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(feeds.run()), group.create_task(part.run())]
        while line := await reader.readline():
            if line.strip() == b"FLUSH":
                for queue in client.queues.values():
                    await queue.join()
                await part.settled.wait()
                print("settled", flush=True)
            else:
                client.take(json.loads(line))
        for task in running:
            task.cancel()


if __name__ == "__main__":
    configure_logs()
    asyncio.run(serve(json.loads(sys.argv[1])))
