"""Which way leads to each peer's pods: over the link both are on, or through a VXLAN tunnel. Pure.

Called by the part of routes with what it observed. A peer is reached directly at an address to which somebody's route
(the interface's own, as a rule) leads without a gateway; routers know nothing of pods, so behind one there is a tunnel.

Nothing about the tunnel has to be published: a node's link-layer address in it derives from its name, its gateway
address for others is the first one of its podCIDR (IPv6: the link-local one of its link-layer address). Entries are
permanent; the device learns nothing and floods nothing. Each pod of this node has its own route; for the rest of its
podCIDR there is one that says "unreachable", or packets to a pod that has gone would follow the default route.

Pods speak to peers' own addresses unmasqueraded. Where routers are between, such packets are marked (see `masquerade`)
and take the tunnel as well: a router would not know whom to answer, or refuse a source that it does not know.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agent.network.cni import TUNNEL_BYTES
from agent.network.model import family_of
from agent.network.routes.model import Decision, Device, Forward, Item, Neighbour, Observed, Path, Peer, Route, Rule
from agent.network.routes.overlap import find_overlaps

_ORDER = (Device, Neighbour, Forward, Rule, Route)
"""What a later one needs is there before it."""
_DEFAULT_MTU = 1500
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Prefix = tuple[int, int, int]
"""(version, length, leading bits): a network as a key that costs little."""


def decide_routes(observed: Observed) -> Decision:
    """What to add and to remove, so that exactly the peers' pods, by exactly one way each, are reached."""
    plan = _Plan(observed, _Ways(observed.kernel.paths))
    for peer in sorted(observed.peers, key=lambda peer: (peer.created, peer.name)):  # the older keeps its podCIDR
        plan.place(peer)
    wanted = plan.items()
    present = observed.kernel.items
    if any(isinstance(item, Device) and item not in wanted for item in present) and plan.tunnelled:
        present = frozenset(item for item in present if not rides(item, observed.settings.device))
    keys = {_key(item) for item in wanted}
    return Decision(
        add=tuple(sorted(wanted - present, key=_place)),
        remove=tuple(sorted((item for item in present if _key(item) not in keys), key=_place, reverse=True)),
        nodes=frozenset(plan.nodes),
        tunnelled=frozenset(plan.tunnelled),
        direct_peers=len(plan.direct),
        tunnel_peers=len(plan.behind),
        complaints=(*plan.complaints, *find_overlaps(observed)),
    )


def tunnel_mac(node_name: str) -> str:
    """A node's link-layer address in the tunnel: locally administered, unicast, the same for everybody who asks."""
    digest = hashlib.sha256(node_name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def tunnel_gateway(pod_cidr: str, mac: str) -> str:
    """The address in the tunnel of the node with this podCIDR."""
    if family_of(pod_cidr) == 4:
        return pod_cidr.partition("/")[0]
    octets = bytes.fromhex(mac.replace(":", ""))
    half = bytes((octets[0] ^ 0x02, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + half))


def _within(network: IPNetwork, whole: IPNetwork) -> bool:
    return network.version == whole.version and network.prefixlen >= whole.prefixlen and network.overlaps(whole)


def _prefix(network: IPNetwork) -> Prefix:
    bits = int(network.network_address) >> network.max_prefixlen - network.prefixlen
    return network.version, network.prefixlen, bits


def _wider(network: IPNetwork) -> Iterator[Prefix]:
    version, length, bits = _prefix(network)
    return ((version, length - by, bits >> by) for by in range(1, length))


class _Ways:
    """Longest-prefix match over routes of others."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, Path]] = {}
        for path in sorted(paths, key=lambda path: -path.metric):  # the lowest metric comes last and stays
            network = ipaddress.ip_network(path.destination)
            level = self._by_prefix.setdefault((network.version, network.prefixlen), {})
            level[int(network.network_address)] = path
        self._levels = sorted(self._by_prefix, reverse=True)

    def find(self, address: str) -> Path | None:
        wanted = ipaddress.ip_address(address)
        for version, length in self._levels:
            if version == wanted.version:
                base = int(wanted) >> (wanted.max_prefixlen - length) << (wanted.max_prefixlen - length)
                if (path := self._by_prefix[version, length].get(base)) is not None:
                    return path
        return None


@dataclass
class _Plan:
    """The wanted items, as they are gathered peer by peer."""

    observed: Observed
    ways: _Ways
    routes: dict[str, Route] = field(default_factory=dict)
    """By destination."""
    over_tunnel: set[Item] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    tunnelled: set[str] = field(default_factory=set)
    direct: set[str] = field(default_factory=set)
    behind: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    owners: dict[Prefix, str] = field(default_factory=dict)
    around: dict[Prefix, str] = field(default_factory=dict)
    """Every network that has one with an owner inside."""

    def __post_init__(self) -> None:
        self.own_ips = [ipaddress.ip_address(ip) for ip in self.observed.me.ips]
        self.own_pods = [ipaddress.ip_network(cidr) for cidr in self.observed.me.pod_cidrs]
        pods = (text for kind, text in self.observed.ranges if kind == "pods")
        self.ranges = [ipaddress.ip_network(text) for text in pods]
        self.here = self.observed.kernel.addresses.keys() | {self.observed.address}

    def place(self, peer: Peer) -> None:
        if peer.name == self.observed.me.name or self.here.intersection(peer.ips):
            return  # another agent's pods in this very network are reached by their own links
        if not peer.ips or not peer.pod_cidrs:
            return
        self.nodes.update(peer.ips)
        for cidr in peer.pod_cidrs:
            if self._is_free(cidr, peer):
                self._lead(cidr, peer)

    def _is_free(self, cidr: str, peer: Peer) -> bool:
        """Whether these pods are the peer's alone: a route must not take away somebody's pods, nor a node itself."""
        network = ipaddress.ip_network(cidr)
        if any(ipaddress.ip_address(ip) in network for ip in peer.ips) or any(ip in network for ip in self.own_ips):
            self.complaints.append(f"podCIDR {cidr} of node {peer.name} contains addresses of nodes; choose another")
        elif any(own.version == network.version and own.overlaps(network) for own in self.own_pods):
            self.complaints.append(f"podCIDR {cidr} of node {peer.name} overlaps this node's own; one must be changed")
        elif self.ranges and not any(_within(network, whole) for whole in self.ranges):
            ranges = ", ".join(map(str, self.ranges))
            self.complaints.append(
                f"podCIDR {cidr} of node {peer.name} lies outside the range of pods, {ranges}: no route leads there "
                "(all agents need the cluster's --cluster-cidr, and the controller gives the podCIDR)"
            )
        elif (other := self._holder(network)) is not None:
            same = self.owners.get(_prefix(network)) == other
            shared = f"the same podCIDR {cidr}" if same else f"podCIDRs that overlap, {cidr}"
            self.complaints.append(f"nodes {other} and {peer.name} have {shared}; one must be changed")
        elif network.prefixlen:
            self.owners[_prefix(network)] = peer.name
            for wider in _wider(network):
                self.around.setdefault(wider, peer.name)
            return True
        return False

    def _holder(self, network: IPNetwork) -> str | None:
        """The node that has these addresses, some of them, or more than them."""
        own = _prefix(network)
        found = next((self.owners[each] for each in (own, *_wider(network)) if each in self.owners), None)
        return found or self.around.get(own)

    def _lead(self, cidr: str, peer: Peer) -> None:
        source = self.observed.address if family_of(self.observed.address) == family_of(cidr) else ""
        for ip in (ip for ip in peer.ips if family_of(ip) == family_of(cidr)):
            if (path := self.ways.find(ip)) is not None and path.direct:
                self.routes[cidr] = Route(cidr, path.link, ip, source)
                self.direct.add(peer.name)
                return
        remote = next((ip for ip in peer.ips if family_of(ip) == family_of(self.observed.address)), None)
        if remote is None:
            self.complaints.append(f"node {peer.name} has no address of the family of {self.observed.address}")
            return
        self._tunnel(cidr, peer, remote, source)

    def _tunnel(self, cidr: str, peer: Peer, remote: str, source: str) -> None:
        settings, mac = self.observed.settings, tunnel_mac(peer.name)
        gateway = tunnel_gateway(cidr, mac)
        self.behind.add(peer.name)
        self.over_tunnel |= {Forward(mac, remote), Neighbour(gateway, mac)}
        self.routes[cidr] = Route(cidr, settings.device, gateway, source)
        for ip in (ip for ip in peer.ips if family_of(ip) == family_of(cidr)):
            alone = f"{ip}/{128 if family_of(ip) == 6 else 32}"
            self.tunnelled.add(ip)
            self.over_tunnel.add(Route(alone, settings.device, gateway, table=settings.table))
            own = (own for own in self.observed.me.pod_cidrs if family_of(own) == family_of(ip))
            self.over_tunnel.update(Rule(own, settings.table) for own in own)

    def items(self) -> frozenset[Item]:
        device = frozenset({self._device()} if self.behind else ())
        no_such_pod = frozenset(Route(cidr) for cidr in self.observed.me.pod_cidrs)
        return device | no_such_pod | frozenset(self.over_tunnel) | frozenset(self.routes.values())

    def _device(self) -> Device:
        observed, settings = self.observed, self.observed.settings
        own = observed.kernel.addresses
        return Device(
            name=settings.device,
            vni=settings.vni,
            port=settings.port,
            local=observed.address if observed.address in own else "",
            mac=tunnel_mac(observed.me.name),
            mtu=own.get(observed.address, _DEFAULT_MTU) - TUNNEL_BYTES[family_of(observed.address)],
            addresses=frozenset(cidr.partition("/")[0] for cidr in observed.me.pod_cidrs if family_of(cidr) == 4),
        )


def _key(item: Item) -> object:
    """What can be there once: adding another item with the same key replaces it."""
    if isinstance(item, Route):
        return Route, item.destination, item.table
    if isinstance(item, Neighbour):
        return Neighbour, item.address
    if isinstance(item, Forward):
        return Forward, item.mac
    return Device if isinstance(item, Device) else item


def _place(item: Item) -> tuple[int, str]:
    return _ORDER.index(type(item)), repr(item)


def rides(item: Item, device: str) -> bool:
    """Whether an item goes when the tunnel's device is made anew."""
    return isinstance(item, Device | Neighbour | Forward) or (isinstance(item, Route) and item.link == device)
