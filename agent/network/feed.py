"""Follows the kinds that a node's network is made of, as the small records of `model`.

One `Feeds` per agent; every part of the network subscribes to what it needs. A kind nobody asked for is not watched
(a cluster without policies sends no node the addresses of all pods). Invariant: once `synced` is set, `records` is the
whole kind as of some recent version; before, it must not be acted on: what the kernel holds from an earlier agent is
nearer to the truth than a half-read list. Losing the controller changes nothing: the records stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import structlog

from agent.network.model import (
    Key,
    Namespace,
    NodeAddress,
    PodAddress,
    Service,
    Slice,
    key_of,
    parse_namespace,
    parse_node,
    parse_pod_address,
    parse_service,
    parse_slice,
)
from agent.network.policy.records import Policy, parse_policy
from api import errors
from api.client import Client, Selection
from api.kinds import Kind, by_resource
from api.objects import Object

REFUSED_PAUSE_SECONDS = 5.0
HEARD_SECONDS = 2.0
POD_ADDRESS_ACCEPT = "application/json;as=PodAddress;v=v1;g=wherry"
"""The shape of a pod that leaves out all that other nodes need not know."""
_log = structlog.get_logger()

Record = TypeVar("Record")
Changed = Callable[[frozenset[Key]], None]
"""Called with the keys whose records came, changed or went. Runs inside the feed's task: it must not block."""


class Feed(Generic[Record]):
    """One kind. `records` is for reading only."""

    def __init__(self, client: Client, kind: Kind, parse: Callable[[Object], Record], accept: str = "") -> None:
        self.records: dict[Key, Record] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._kind = kind
        self._parse = parse
        self._accept = accept
        self._wanted = asyncio.Event()
        self._subscribers: list[Changed] = []

    def subscribe(self, changed: Changed) -> None:
        """Ask for this kind. A late subscriber is first told of everything that is known already."""
        self._subscribers.append(changed)
        self._wanted.set()
        if self.synced.is_set():
            changed(frozenset(self.records))

    async def run(self) -> None:
        await self._wanted.wait()
        while True:
            try:
                await self._follow()
            except errors.ApiError as error:
                _log.warning("cannot follow a kind", kind=self._kind.plural, error=error.message)
            await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    async def _follow(self) -> None:
        """List and watch. Before SYNCED, changes are gathered, so that subscribers hear of a list once.

        A follow that starts anew knows nothing of what an earlier one handed out: what its list lacks has gone.
        """
        listed: set[Key] | None = set()
        pending: set[Key] = set()
        async for event in self._client.watch(self._kind, Selection(accept=self._accept), remember_objects=False):
            if event.type == "SYNCED":
                if listed is not None:
                    for key in self.records.keys() - listed:
                        del self.records[key]
                        pending.add(key)
                listed = None
                self.synced.set()
            else:
                key = key_of(event.object)
                if event.type == "DELETED":
                    self.records.pop(key, None)
                else:
                    self.records[key] = self._parse(event.object)
                pending.add(key)
                if listed is not None:
                    listed.add(key)
                    continue
            if pending:
                self._tell(frozenset(pending))
                pending.clear()

    def _tell(self, keys: frozenset[Key]) -> None:
        for changed in self._subscribers:
            changed(keys)


class HeardServices:
    """What pod workers are told of services (`agent.pods.service_env.KnownServices`)."""

    def __init__(self, feed: Feed[Service]) -> None:
        self._feed = feed
        feed.subscribe(lambda _changed: None)

    async def services(self) -> Mapping[Key, Service] | None:
        """All services; None while they were not heard, after a moment's wait."""
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                await self._feed.synced.wait()
        except TimeoutError:
            return None
        return self._feed.records


class Feeds:
    """All kinds of the node's network."""

    def __init__(self, client: Client) -> None:
        self.services: Feed[Service] = Feed(client, by_resource("", "services"), parse_service)
        self.slices: Feed[Slice] = Feed(client, by_resource("discovery.k8s.io", "endpointslices"), parse_slice)
        self.nodes: Feed[NodeAddress] = Feed(client, by_resource("", "nodes"), parse_node)
        self.namespaces: Feed[Namespace] = Feed(client, by_resource("", "namespaces"), parse_namespace)
        self.policies: Feed[Policy] = Feed(client, by_resource("networking.k8s.io", "networkpolicies"), parse_policy)
        self.pods: Feed[PodAddress] = Feed(client, by_resource("", "pods"), parse_pod_address, POD_ADDRESS_ACCEPT)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for feed in (self.services, self.slices, self.nodes, self.namespaces, self.policies, self.pods):
                group.create_task(feed.run())
