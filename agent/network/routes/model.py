"""The kernel objects that lead to other nodes' pods, as plain records: what is there, and what is to be there.

Read and written by `kernel`, decided by `decide`. Pure. A record says all that is ours about an object, so "is it
right?" is equality. Links go by name, since an index is known only once the link is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAIN_TABLE = 254
METRICS = range(0x8000, 0x1_0000)
"""Of the routes that agents make, each its own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What marks kernel objects as this data directory's: names, numbers, and the tunnel's parameters."""

    device: str
    metric: int
    """Every route of ours has it. So another node's, or a person's own route to the same pods is never replaced."""
    table: int
    """Where pods' packets to addresses of nodes behind the tunnel are looked up first."""
    vni: int
    port: int


def settings_of(node_id: str, vni: int = 0, port: int = 0) -> Settings:
    """From the data directory's id, which is twelve hexadecimal digits."""
    number = int(node_id[:8], 16)
    return Settings(f"whvx-{node_id[:10]}", METRICS[number % len(METRICS)], 0x5748_0000 + number % 0x1_0000, vni, port)


@dataclass(frozen=True, slots=True)
class Peer:
    """A node with pods. `ips` are its InternalIP addresses."""

    name: str
    ips: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    created: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A route of somebody else's: `direct` when what it leads to is on the link itself."""

    destination: str
    link: str
    direct: bool
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """Without a link: there is no way, and the sender is told so at once."""

    destination: str
    link: str = ""
    gateway: str = ""
    source: str = ""
    """The address that this node itself speaks from on this route; "" leaves it to the kernel."""
    table: int = MAIN_TABLE


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A gateway behind the tunnel and its link-layer address."""

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Which node a link-layer address of the tunnel belongs to."""

    mac: str
    remote: str


@dataclass(frozen=True, slots=True)
class Device:
    """The VXLAN device. `local` "" leaves the outer source address to the kernel."""

    name: str
    vni: int
    port: int
    local: str
    mac: str
    mtu: int
    addresses: frozenset[str]
    """One a family of the pods, beside which loose reverse-path filtering works at all."""
    ready: bool = True
    """Up, and with loose reverse-path filtering."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Marked packets of this node's pods are looked up in the table of ours. (The packet around one has its mark, too,
    but the node's address.)"""

    pod_cidr: str
    table: int


Item = Device | Neighbour | Forward | Rule | Route


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is there. `items` are ours only; `paths` everybody else's routes of the main table."""

    items: frozenset[Item] = frozenset()
    paths: tuple[Path, ...] = ()
    addresses: Mapping[str, int] = field(default_factory=dict)
    """This node's own addresses, and the MTU of their links."""


@dataclass(frozen=True, slots=True)
class Observed:
    """`me` is this node as its peers see it, `address` the one it speaks to them from."""

    settings: Settings
    me: Peer
    address: str
    peers: tuple[Peer, ...]
    kernel: Kernel
    ranges: tuple[tuple[str, str], ...] = ()
    """("pods" or "services", CIDR) of the whole cluster."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`add` in this order, then `remove`: a packet finds its old way until the new one works."""

    add: tuple[Item, ...] = ()
    remove: tuple[Item, ...] = ()
    nodes: frozenset[str] = frozenset()
    """Addresses of peers, which see pods' own addresses."""
    tunnelled: frozenset[str] = frozenset()
    """Those of them that pods' packets reach through the tunnel."""
    direct_peers: int = 0
    tunnel_peers: int = 0
    complaints: tuple[str, ...] = ()
    """What is wrong with the addresses of nodes, pods and services; nothing here can mend it."""
