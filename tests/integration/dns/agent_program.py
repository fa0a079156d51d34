"""The DNS part of an agent by itself, fed from standard input: one JSON object a line.

{"set": {"services": [OBJECT, ...]}}, {"unset": {"services": [[NAMESPACE, NAME], ...]}} change the feeds, {"sync": 1}
calls them whole, {"ask": 1} is answered with a line that holds `problem` and the figures.

usage: python -m tests.integration.dns.agent_program NODE_ID DATA_DIR RESOLV_CONF SERVICE_CIDR
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import structlog

from agent.network.dns.addresses import default_addresses
from agent.network.dns.figures import FIGURES
from agent.network.dns.part import DnsPart
from agent.network.feed import Feed, Feeds
from agent.network.model import key_of, parse_namespace, parse_service, parse_slice
from agent.network.network import Ground
from api.client import Client

_PARSERS = {"services": parse_service, "slices": parse_slice, "namespaces": parse_namespace}


def obey(line: dict[str, Any], feeds: Feeds, part: DnsPart) -> None:
    for kind, parse in _PARSERS.items():
        feed: Feed[Any] = getattr(feeds, kind)
        fresh = {key_of(obj): cast(Any, parse)(obj) for obj in line.get("set", {}).get(kind, ())}
        gone = [(namespace, name) for namespace, name in line.get("unset", {}).get(kind, ())]
        feed.records.update(fresh)
        for key in gone:
            feed.records.pop(key, None)
        if "sync" in line:
            feed.synced.set()
        if feed.synced.is_set() and (fresh or gone or "sync" in line):
            feed._tell(frozenset((*fresh, *gone)))
    if "ask" in line:
        print(json.dumps({"problem": part.problem, "figures": FIGURES.latest}), flush=True)


def _broken(task: asyncio.Task[None]) -> None:
    """An agent ends when a part of it does."""
    task.print_stack()
    print(repr(task.exception()), file=sys.stderr, flush=True)
    os._exit(1)


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    node_id, data_dir, resolv_conf, service_cidr = sys.argv[1:5]
    client = cast(Client, None)  # nothing is asked of it: the feeds are filled by hand
    feeds = Feeds(client)
    ground = Ground(
        client=client,
        node=dict,
        node_name="n",
        node_id=node_id,
        addresses=("192.0.2.1",),
        data_dir=Path(data_dir),
        cluster_cidr="10.244.0.0/16",
        service_cidr=service_cidr,
        cluster_domain="cluster.local",
        cluster_dns=default_addresses(service_cidr),
        resolv_conf=Path(resolv_conf),
    )
    part = DnsPart(ground, feeds)
    reader = asyncio.StreamReader(limit=64 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(0, "rb"))
    running = asyncio.create_task(part.run())
    running.add_done_callback(_broken)
    while line := await reader.readline():
        obey(json.loads(line), feeds, part)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
