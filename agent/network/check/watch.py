"""Looks at the ways to peers now and then, and shows the parts' states: the network's metrics.

Run by `check`. Each round asks a peer's address, and a pod's address of it, for a TCP connection to the agent's port;
whatever answers, be it a refusal, has shown that the way is there and back. A node watches the WATCHED nodes whose
names follow its own, so that in large clusters, too, each is watched by many and nobody has much to do.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import counters
from agent.network.check.asking import connect, open_socket
from agent.network.check.hops import Answer
from agent.network.model import NodeAddress, family_of

if TYPE_CHECKING:
    from agent.network.network import Ground, Network

WATCHED = 32
PAUSE_SECONDS = 15.0


class Watch(Collector):
    """Collects for the agent's /metrics from its making on. `seen`: by (hop, peer)."""

    def __init__(self, ground: Ground, network: Network) -> None:
        self.seen: dict[tuple[str, str], Answer] = {}
        self._ground = ground
        self._network = network

    async def run(self) -> None:
        await self._network.feeds.nodes.synced.wait()
        counters.REGISTRY.register(self)
        try:
            while True:
                await self._look()
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.9, 1.1))
        finally:
            counters.REGISTRY.unregister(self)

    async def _look(self) -> None:
        """One peer after the other: nothing is in a hurry."""
        records = self._network.feeds.nodes.records
        names = [name for _, name in records if name != self._ground.node_name]
        fresh: dict[tuple[str, str], Answer] = {}
        for name in followers(self._ground.node_name, names):
            if (peer := records.get(("", name))) is None:
                continue
            for hop, address in (("node", peer_address(peer, self._ground.addresses)), ("pods", pod_address(peer))):
                if address:
                    fresh[hop, name] = await _knock(address, peer.agent_port)
        self.seen = fresh

    def collect(self) -> Iterator[Metric]:
        labels = ["hop", "peer"]
        up = GaugeMetricFamily("wherry_network_hop_up", "Whether a peer's node or pods answered lately", labels=labels)
        text = "How long the answer of a peer's node or pods took lately"
        seconds = GaugeMetricFamily("wherry_network_hop_seconds", text, labels=labels)
        for key, answer in self.seen.items():
            up.add_metric(key, float(is_up(self.seen, key)))
            seconds.add_metric(key, answer.seconds)
        text = "Whether a part of the node's network says that it does not work"
        problems = GaugeMetricFamily("wherry_network_part_problem", text, labels=["part"])
        for part in self._network.parts:
            problems.add_metric([part.name], float(bool(part.problem)))
        figures = self._network.routes.figures
        ways = GaugeMetricFamily("wherry_network_route_peers", "Nodes whose pods are reached this way", labels=["way"])
        ways.add_metric(["direct"], figures.direct)
        ways.add_metric(["vxlan"], figures.tunnelled)
        changes = CounterMetricFamily("wherry_network_route_changes", "Changes of routes", value=figures.changes)
        text = "Addresses of nodes, pods and services that collide or lie where they must not: no route leads there"
        refused = GaugeMetricFamily("wherry_network_address_complaints", text, value=len(figures.complaints))
        yield from (up, seconds, problems, ways, changes, refused)


async def _knock(address: str, port: int) -> Answer:
    """Twice, if nothing comes: one lost packet is no news."""
    for _ in range(2):
        answer = await connect(open_socket(family_of(address), socket.SOCK_STREAM), (address, port))
        if not answer.silent:
            break
    return answer


def is_up(seen: dict[tuple[str, str], Answer], key: tuple[str, str]) -> bool:
    """A node without pods says that the address is not in use: an answer from there, if the node itself answers."""
    answer = seen[key]
    unused = key[0] == "pods" and answer.error == errno.EHOSTUNREACH
    return answer.heard or (unused and is_up(seen, ("node", key[1])))


def followers(name: str, names: Sequence[str]) -> list[str]:
    """The first WATCHED names behind `name` in the circle of all."""
    return sorted(names, key=lambda each: (each <= name, each))[:WATCHED]


def peer_address(peer: NodeAddress, own: Sequence[str]) -> str:
    """Of a family that this node has; "" without any."""
    families = {family_of(address) for address in own}
    return next((ip for ip in peer.ips if family_of(ip) in families), "")


def pod_address(peer: NodeAddress) -> str:
    """The gateway of the peer's pods, an address of its own while it has any."""
    return next((str(ipaddress.ip_network(cidr, strict=False)[1]) for cidr in peer.pod_cidrs[:1]), "")
