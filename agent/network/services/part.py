"""The services part of a node's network: from feeds to rules, conntrack, health checks and announced addresses.

One of `network.Network`'s parts. Changes that come while a transaction is under way are taken together in the next one;
an idle part acts at once. Nothing is written before both feeds are synced. A refused transaction is tried again, whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from agent.network.cni import table_name
from agent.network.feed import Feeds
from agent.network.model import Key, Service, Slice, family_of, plain_address
from agent.network.services.announce import Announcer
from agent.network.services.choice import Site, Target, count_local
from agent.network.services.flows import forget, routes_of
from agent.network.services.health import Check, HealthChecks
from agent.network.services.kernel import Kernel
from agent.network.services.render import EMPTY, Block, render
from agent.network.services.table import Table
from agent.runtime.errors import RuntimeFault
from api.objects import labels_of

if TYPE_CHECKING:
    from agent.network.network import Ground

VERIFY_SECONDS = 5.0
RETRY_SECONDS = 2.0
ZONE_LABEL = "topology.kubernetes.io/zone"
_NODES: Key = ("", "")
"""What no service is called: the block of the nodes' addresses."""
_AT_ONCE = 250
"""So many services are rendered before other tasks have their turn."""
_log = structlog.get_logger()


def services_table(node_id: str) -> str:
    """The name of the nftables table of a node's services, in the families ip and ip6."""
    return f"{table_name(node_id)}_services"


def site_of(ground: Ground) -> Site:
    """What the node is, as its Node object says now."""
    return Site(
        ground.node_name,
        labels_of(ground.node()).get(ZONE_LABEL) or "",
        ground.addresses,
        tuple(part for part in ground.cluster_cidr.split(",") if part),
        tuple(part for part in ground.service_cidr.split(",") if part),
    )


class ServicesPart:
    """Services of one node. `settled` is set while the rules are as the feeds say, as far as is known."""

    name = "services"

    def __init__(self, ground: Ground, feeds: Feeds) -> None:
        self.problem = ""
        self.settled = asyncio.Event()
        self._ground = ground
        self._feeds = feeds
        self._site = site_of(ground)
        table = services_table(ground.node_id)
        self._kernels = {family: Kernel(Table(family, table, self._site)) for family in (4, 6)}
        self._slices: dict[Key, set[Key]] = {}
        self._service_of: dict[Key, Key] = {}
        self._dirty: set[Key] = set()
        self._node_ips: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._routes: dict[Key, dict[Target, frozenset[Target]]] = {}
        self._checks: dict[Key, tuple[int, Check]] = {}
        self._health = HealthChecks()
        self._pool: dict[Key, frozenset[str]] = {}
        self._announcer = Announcer(ground.node_id, ground.addresses[0])

    async def run(self) -> None:
        """Keep the kernel equal to the feeds until cancelled; rules and held addresses stay then."""
        self._feeds.services.subscribe(self._services_changed)
        self._feeds.slices.subscribe(self._slices_changed)
        self._feeds.nodes.subscribe(self._nodes_changed)
        await self._feeds.services.synced.wait()
        await self._feeds.slices.synced.wait()
        await self._feeds.nodes.synced.wait()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep())
                group.create_task(self._announcer.run())
        finally:
            self._health.close()

    def _services_changed(self, keys: frozenset[Key]) -> None:
        self._dirty |= keys
        self._awake()

    def _slices_changed(self, keys: frozenset[Key]) -> None:
        for key in keys:
            slice = self._feeds.slices.records.get(key)
            before = self._service_of.pop(key, None)
            if before is not None:
                self._slices[before].discard(key)
                self._dirty.add(before)
            if slice is not None and slice.service:
                service = (key[0], slice.service)
                self._service_of[key] = service
                self._slices.setdefault(service, set()).add(key)
                self._dirty.add(service)
        self._awake()

    def _nodes_changed(self, keys: frozenset[Key]) -> None:
        """External IPs must not stand for an address of a node."""
        del keys
        nodes = self._feeds.nodes.records.values()
        told = (address for node in nodes for address in (*node.ips, *node.outside_ips))
        addresses = frozenset(filter(None, map(plain_address, told)))  # a node may tell anything
        if addresses != self._node_ips:
            self._node_ips = addresses
            self._dirty.add(_NODES)
            self._awake()

    def _awake(self) -> None:
        self.settled.clear()
        self._wake.set()

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RETRY_SECONDS if self.problem else VERIFY_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._step()

    async def _step(self) -> None:
        started = time.monotonic()
        site = site_of(self._ground)
        if site != self._site:
            self._site = site
            self._dirty |= self._feeds.services.records.keys()
        dirty, self._dirty = self._dirty, set()
        problems = [await self._write(family, dirty) for family in self._kernels]
        self._health.healthy = not any(problems)
        problems.append(await self._forget_flows(dirty))
        problems.append(await self._update_checks(dirty))
        problems.append(await self._update_pool(dirty))
        problem = "; ".join(filter(None, problems))
        if problem and problem != self.problem:
            _log.warning("services", problem=problem)
        self.problem = problem
        if dirty:
            _log.info("services written", changed=len(dirty), seconds=round(time.monotonic() - started, 3))
        if self._health.healthy and not self._wake.is_set():
            self.settled.set()

    async def _write(self, family: int, dirty: set[Key]) -> str:
        kernel = self._kernels[family]
        try:
            await kernel.apply(await self._render(family, dirty)) if dirty else await kernel.verify()
        except RuntimeFault as fault:
            return fault.message
        return ""

    async def _render(self, family: int, keys: Iterable[Key]) -> dict[Key, Block]:
        blocks: dict[Key, Block] = {}
        for key in keys:
            if key == _NODES:
                own = (address for address in self._node_ips if family_of(address) == family)
                blocks[key] = Block(elements={("node-ips", address): "" for address in own})
                continue
            service = self._feeds.services.records.get(key)
            blocks[key] = render(service, self._slices_of(key), family, self._site) if service else EMPTY
            if len(blocks) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return blocks

    def _slices_of(self, key: Key) -> list[Slice]:
        records = self._feeds.slices.records
        return [records[each] for each in sorted(self._slices.get(key, ())) if each in records]

    async def _forget_flows(self, dirty: set[Key]) -> str:
        """Flows of UDP services whose endpoints changed; of all of them after a start."""
        changed: dict[Target, frozenset[Target]] = {}
        for key in dirty:
            service = self._feeds.services.records.get(key)
            routes = routes_of(service, self._slices_of(key), self._site) if service else {}
            before = self._routes.pop(key, {})
            if routes:
                self._routes[key] = routes
            changed.update({address: frozenset() for address in before.keys() - routes.keys()})
            changed.update({address: to for address, to in routes.items() if before.get(address) != to})
        if not changed:
            return ""
        try:
            await asyncio.to_thread(forget, changed, self._site.addresses)
        except OSError as error:
            _log.warning("services: conntrack entries of gone endpoints stay", error=str(error))
        return ""

    async def _update_checks(self, dirty: set[Key]) -> str:
        for key in dirty:
            self._checks.pop(key, None)
            service = self._feeds.services.records.get(key)
            if service and service.health_check_node_port and service.external_local:
                local = count_local(self._slices_of(key), self._site.node)
                self._checks[key] = (service.health_check_node_port, Check(key, local))
        return await self._health.update(dict(self._checks.values()))

    async def _update_pool(self, dirty: set[Key]) -> str:
        for key in dirty:
            self._pool.pop(key, None)
            service = self._feeds.services.records.get(key)
            if service and (mine := _announced(service, self._site)):
                self._pool[key] = mine
        # who writes a Service names its announcer: nobody answers for what is a node's, be it shown as a balanced one
        return await self._announcer.hold(frozenset().union(*self._pool.values()) - self._node_ips)


def _announced(service: Service, site: Site) -> frozenset[str]:
    if service.announcer != site.node or service.type != "LoadBalancer":
        return frozenset()
    return frozenset(service.balancer_ips) - frozenset(site.addresses)
