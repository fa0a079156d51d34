"""The node's network, put together: one part a concern, fed by one set of feeds.

Called by the agent's main. A part owns its share of the kernel's state (its own nftables table, routes, processes),
keeps it equal to what the feeds say, and leaves it in place when the agent stops: traffic outlives the agent.
Invariant: a part survives whatever it can (a missing program, a refused transaction, the controller away): it says so
in its log and `problem`, and tries again; only a programming error ends it, and with it the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.network.check.check import Checker
from agent.network.cni import PodNetwork, interface_of, pod_mtu
from agent.network.dns.part import DnsPart
from agent.network.feed import Feeds
from agent.network.ingress.part import IngressPart
from agent.network.policy.part import PolicyPart
from agent.network.routes.part import Routes
from agent.network.services.part import ServicesPart
from api.client import Client
from api.objects import Object


@dataclass(frozen=True)
class Ground:
    """What every part stands on. `node()` is this node's Node object as last seen."""

    client: Client
    node: Callable[[], Object]
    node_name: str
    node_id: str
    """Keeps names of several nodes on one machine apart; see `cni`."""
    addresses: tuple[str, ...]
    """This node's own addresses, the first one towards its peers."""
    data_dir: Path
    cluster_cidr: str
    service_cidr: str
    cluster_domain: str
    ingress_ports: tuple[int, int] = (80, 443)
    """HTTP and HTTPS; 0: not at all."""
    ingress_external_names: bool = False
    """Whether Ingresses may lead to ExternalName services."""
    cluster_dns: tuple[str, ...] = ()
    """What pods ask, if it is not the services' range's tenth address."""
    resolv_conf: Path = Path("/etc/resolv.conf")
    """Which servers this node asks itself."""
    cni_conf_dir: Path | None = None
    """None: pods are attached by somebody else, who also routes."""
    vxlan_id: int = 4244
    vxlan_port: int = 4789

    @property
    def ranges(self) -> tuple[tuple[str, str], ...]:
        """("pods" or "services", CIDR) of the whole cluster."""
        given = {"pods": self.cluster_cidr, "services": self.service_cidr}
        return tuple((kind, each) for kind, cidrs in given.items() for each in cidrs.split(",") if each)

    def pod_network(self, pod_cidrs: tuple[str, ...]) -> PodNetwork:
        """What this node attaches its pods with, once its podCIDRs are known."""
        return PodNetwork(
            self.node_id,
            pod_cidrs,
            tuple(self.cluster_cidr.split(",")),
            self.data_dir / "network",
            pod_mtu(self.addresses[0]),
            tuple(self.service_cidr.split(",")),
            interface_of(self.addresses[0]),
        )


class Part(Protocol):
    """One concern of the node's network. `name` is for logs and metrics; `problem` is "" or why it does not work."""

    name: str
    problem: str

    async def run(self) -> None:
        """Keep the kernel's state equal to the feeds' until cancelled; leaves it in place."""


class Network:
    """All parts of one node, running side by side."""

    def __init__(self, ground: Ground) -> None:
        self.feeds = Feeds(ground.client)
        self.policy = PolicyPart(ground, self.feeds)
        self.routes = Routes(ground, self.feeds)
        self.dns = DnsPart(ground, self.feeds)
        services, ingress = ServicesPart(ground, self.feeds), IngressPart(ground, self.feeds)
        self.parts: Sequence[Part] = (self.dns, self.routes, self.policy, services, ingress)
        self.checker = Checker(ground, self)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feeds.run())
            group.create_task(self.checker.run())
            for part in self.parts:
                group.create_task(part.run())
