"""Keeps the ways to other nodes' pods: a part of the node's network.

Looks at everything whenever something may have changed (a peer, a link, an address, a route, an entry of the tunnel's),
decides, and makes the difference; looks anyway each half minute. Invariants: nothing is touched before the peers are
known, nor while they do not include this node itself; every pass takes what the kernel holds for the truth, so that an
agent that was killed, or a route that somebody deleted, are the same case. Passes take at most a tenth of the time.

Where another CNI configuration is in force, routes and masquerading are that one's business: ours are taken away.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from agent.network.bridge import retire_bridge
from agent.network.cni import NFT_FAMILIES, apply_nft, foreign_config, render_masquerade, table_name
from agent.network.commands import run_program
from agent.network.feed import Feeds
from agent.network.model import Key, NodeAddress, family_of
from agent.network.netlink import Netlink, listen
from agent.network.routes.decide import decide_routes, rides
from agent.network.routes.kernel import (
    LINK_EVENTS,
    NEIGHBOUR_EVENTS,
    ROUTE_EVENTS,
    Writer,
    is_neighbour_event,
    is_our_link,
    observe_kernel,
    remove_all,
)
from agent.network.routes.model import Decision, Device, Item, Observed, Peer, Settings, settings_of
from agent.runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from agent.network.network import Ground

SLOW_CHECK_SECONDS = 30.0
RETRY_SECONDS = 2.0
_GATHER_SECONDS = 0.02
_REST_SHARE = 9
_log = structlog.get_logger()


@dataclass(frozen=True)
class Figures:
    """What can be told about the routes now. `changed_at` is wall-clock time, 0 before the first change."""

    peers: int = 0
    direct: int = 0
    tunnelled: int = 0
    changes: int = 0
    changed_at: float = 0.0
    complaints: tuple[str, ...] = ()
    """What is wrong with addresses of nodes, pods and services, in sentences."""


class Routes:
    """The part. `active` is whether these routes are ours to keep; `settled` is set after the first pass."""

    name = "routes"

    def __init__(self, ground: Ground, feeds: Feeds) -> None:
        self.problem = ""
        self.problem_told: Callable[[], None] = lambda: None
        """Called when `problem` has changed."""
        self.figures = Figures()
        self.active = False
        self.settled = asyncio.Event()
        self._ground = ground
        self._nodes = feeds.nodes
        self._settings = settings_of(ground.node_id, ground.vxlan_id, ground.vxlan_port)
        self._peers: dict[str, Peer] = {}
        self._dirty = asyncio.Event()
        self._written = ""
        self._cleared = False

    async def run(self) -> None:
        if self._ground.cni_conf_dir is None:
            self.settled.set()
            return
        self._nodes.subscribe(self._peers_changed)
        await self._nodes.synced.wait()
        with listen(LINK_EVENTS | NEIGHBOUR_EVENTS | ROUTE_EVENTS, self._heard):
            looked = time.monotonic()
            while True:
                self._dirty.clear()
                started = time.monotonic()
                await self._keep()
                await asyncio.sleep(min((time.monotonic() - started) * _REST_SHARE, 1.0))
                rest = looked + SLOW_CHECK_SECONDS - time.monotonic()
                try:
                    async with asyncio.timeout(max(0.0, min(rest, RETRY_SECONDS) if self.problem else rest)):
                        await self._dirty.wait()
                        await asyncio.sleep(_GATHER_SECONDS)
                except TimeoutError:
                    pass  # events come and go, the slow look comes by the clock
                if time.monotonic() - looked >= SLOW_CHECK_SECONDS:
                    looked = time.monotonic()
                    self._written = ""  # somebody may have flushed the tables
                    await retire_bridge(self._ground.node_id)

    def _peers_changed(self, keys: frozenset[Key]) -> None:
        """A node's status is written often, and seldom says something new about its address."""
        for key in keys:
            record = self._nodes.records.get(key)
            peer = None if record is None else peer_of(record)
            if self._peers.get(key[1]) == peer:
                continue
            if peer is None:
                del self._peers[key[1]]
            else:
                self._peers[key[1]] = peer
            self._dirty.set()

    def _heard(self, kind: int, body: bytes) -> None:
        if not is_neighbour_event(kind) or is_our_link(body, self._settings.device):
            self._dirty.set()

    async def _keep(self) -> None:
        """One pass."""
        try:
            if self._foreign():
                await self._clear()
            elif self._ground.node_name in self._peers:
                self.active, self._cleared = True, False
                await self._pass()
        except (RuntimeFault, OSError) as error:
            self._tell(f"routes to other nodes: {error}")
        self.settled.set()

    def _foreign(self) -> bool:
        return self._ground.cni_conf_dir is not None and foreign_config(self._ground.cni_conf_dir) is not None

    async def _clear(self) -> None:
        self.active = False
        if not self._cleared:
            await asyncio.to_thread(remove_all, self._settings)
            for family in NFT_FAMILIES.values():
                await run_program("nft", ["delete", "table", family, table_name(self._ground.node_id)])
            self._cleared, self._written, self.figures = True, "", Figures()
        self._tell("")

    async def _pass(self) -> None:
        me = self._peers[self._ground.node_name]
        peers = tuple(self._peers.values())
        decision, problems = await asyncio.to_thread(self._change, me, peers)
        await self._masquerade(me, decision)
        self._tell("; ".join(problems))
        self._note(decision)

    def _change(self, me: Peer, peers: tuple[Peer, ...]) -> tuple[Decision, list[str]]:
        kernel = observe_kernel(self._settings)
        observed = Observed(self._settings, me, self._ground.addresses[0], peers, kernel, self._ground.ranges)
        decision = decide_routes(observed)
        return decision, write(decision, self._settings)

    async def _masquerade(self, me: Peer, decision: Decision) -> None:
        """The table as `cni` made it, with the nodes' addresses; written when it has changed, or may have."""
        text = render_masquerade(self._ground.pod_network(me.pod_cidrs))
        for family, nft in ((family, NFT_FAMILIES[family]) for family in {family_of(cidr) for cidr in me.pod_cidrs}):
            for name, addresses in (("nodes", decision.nodes), ("tunnelled", decision.tunnelled)):
                text += render_set(f"{nft} {table_name(self._ground.node_id)} {name}", family, addresses)
        if text and text != self._written:
            await apply_nft(text)
            self._written = text

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self.problem_told()
            if problem:
                _log.warning("routes incomplete", problem=problem)
            else:
                _log.info("routes complete again")

    def _note(self, decision: Decision) -> None:
        before = self.figures
        now = replace(
            before,
            peers=len(self._peers) - 1,
            direct=decision.direct_peers,
            tunnelled=decision.tunnel_peers,
            complaints=decision.complaints,
        )
        if changes := len(decision.add) + len(decision.remove):
            now = replace(now, changes=before.changes + changes, changed_at=time.time())
            _log.info(
                "routes changed",
                added=len(decision.add),
                removed=len(decision.remove),
                direct=now.direct,
                tunnelled=now.tunnelled,
            )
        for complaint in set(decision.complaints) - set(before.complaints):
            _log.warning("addresses collide", reason=complaint)
        self.figures = now


def write(decision: Decision, settings: Settings) -> list[str]:
    """Make the changes; what one peer's fails at does not hold the others up. Returns what failed, in words."""
    problems: list[str] = []
    no_tunnel = False
    with Netlink() as netlink:
        writer = Writer(netlink, settings)
        for change, items in ((writer.add, decision.add), (writer.remove, decision.remove)):
            for item in items:
                if no_tunnel and rides(item, settings.device):
                    continue
                try:
                    change(item)
                except OSError as error:
                    no_tunnel = no_tunnel or isinstance(item, Device)
                    problems.append(explain(item, error, decision.tunnel_peers))
    return problems


def explain(item: Item, error: OSError, tunnelled: int) -> str:
    """What failed, and what a person can do about it."""
    if error.errno == errno.EPERM:
        return "the agent may not change routes: it needs root, or CAP_NET_ADMIN"
    if not isinstance(item, Device):
        return f"{item}: {error.strerror or error}"
    reason = {
        errno.EOPNOTSUPP: "the kernel has no VXLAN: load its module (modprobe vxlan)",
        errno.EEXIST: f"another VXLAN device has id {item.vni}: remove it, or give all agents another --vxlan-id",
        errno.EADDRINUSE: f"UDP port {item.port} is taken: free it, or give all agents another --vxlan-port",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"no tunnel to {tunnelled} nodes that are not on a link of this one: {reason}"


def render_set(name: str, family: int, addresses: Iterable[str]) -> str:
    """The nft commands that give a set these addresses, of which those of the other family are left out."""
    fitting = sorted(address for address in addresses if family_of(address) == family)
    text = f"flush set {name}\n"
    return text + (f"add element {name} {{ {', '.join(fitting)} }}\n" if fitting else "")


def peer_of(record: NodeAddress) -> Peer:
    """Addresses and CIDRs in the form in which the kernel tells them; what is none is left out."""
    ips = (_canonical(ip, ipaddress.ip_address) for ip in record.ips)
    cidrs = (_canonical(cidr, lambda text: ipaddress.ip_network(text, strict=False)) for cidr in record.pod_cidrs)
    by_family: dict[int, str] = {}
    for ip in filter(None, ips):
        by_family.setdefault(family_of(ip), ip)  # a further one would draw its owner's traffic to the first
    return Peer(record.name, tuple(by_family.values()), tuple(filter(None, cidrs)), record.created)


def _canonical(text: str, parse: Callable[[str], object]) -> str:
    try:
        return str(parse(text))
    except ValueError:
        return ""
