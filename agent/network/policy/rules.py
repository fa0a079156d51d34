"""Allowances as nftables rules: pure text, one address family at a time.

Called by `compiler` for policies that isolate pods of this node. A rule matches what is allowed and accepts it; what no
rule of any policy accepts is dropped by the chain that jumps here. Named sets carry everything that changes with pods
(groups of pods, named ports), so a policy's rules change with the policy only. No interval sets are made: nft reads
every one of them back at each transaction. Source of the semantics: the NetworkPolicy API's field descriptions.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.network.policy.records import Allowance, Allowances, Block, Peer, PodGroup, PolicyPort

Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port by its name, which each pod resolves to a number of its own."""

    protocol: str
    name: str

    def __str__(self) -> str:
        return f"{self.protocol}:{self.name}"


Source = PodGroup | NamedPort
"""What a named set holds: the addresses of a group, or the (address, port) pairs of a named port."""


def set_name(source: Source) -> str:
    """The same for equal sources, on every node and after every restart."""
    return f"{'pods' if isinstance(source, PodGroup) else 'port'}_{digest(str(source))}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sources_of(allowances: Allowances) -> Iterator[Source]:
    """Every named set that the rules of these allowances look into."""
    for allowance in allowances:
        yield from (peer for peer in allowance.peers if isinstance(peer, PodGroup))
        yield from (NamedPort(port.protocol, port.name) for port in allowance.ports if port.name)


def render_allowances(allowances: Allowances, *, ingress: bool, family: int) -> Rules:
    """Rules that accept what is allowed; the peer is the source of ingress and the destination of egress."""
    found = dict.fromkeys(rule for each in allowances for rule in _render(each, ingress=ingress, family=family))
    return tuple(found)


def _render(allowance: Allowance, *, ingress: bool, family: int) -> Iterator[str]:
    ip = "ip6" if family == 6 else "ip"
    side = f"{ip} {'saddr' if ingress else 'daddr'}"
    peers = [match for peer in allowance.peers if (match := _peer(peer, side, family)) is not None]
    for peer in peers if allowance.peers else [""]:
        for port in _ports(allowance.ports, f"{ip} daddr") if allowance.ports else [""]:
            yield " ".join(part for part in (peer, port, "accept") if part)


def _peer(peer: Peer, side: str, family: int) -> str | None:
    """None: nobody of this family."""
    if isinstance(peer, PodGroup):
        return f"{side} @{set_name(peer)}"
    block = ipaddress.ip_network(peer.cidr, strict=False)
    if block.version != family:
        return None
    outside = "".join(f" {side} != {cidr}" for cidr in _collapsed(peer))
    return (f"{side} {block}" if block.prefixlen else "") + outside


def _collapsed(block: Block) -> Iterator[str]:
    networks = [ipaddress.ip_network(text, strict=False) for text in block.excepts]
    fours = [net for net in networks if isinstance(net, ipaddress.IPv4Network)]
    sixes = [net for net in networks if isinstance(net, ipaddress.IPv6Network)]
    yield from map(str, ipaddress.collapse_addresses(fours))
    yield from map(str, ipaddress.collapse_addresses(sixes))


def _ports(ports: Iterable[PolicyPort], destination: str) -> Iterator[str]:
    """Matches of the destination port: one for all single numbers of a protocol, one a range, one a name."""
    singles: dict[str, set[int]] = {}
    for port in dict.fromkeys(ports):
        protocol = port.protocol.lower()
        if port.name:
            source = NamedPort(port.protocol, port.name)
            yield f"{destination} . {protocol} dport @{set_name(source)}"
        elif not port.first:
            yield f"meta l4proto {protocol}"
        elif port.last > port.first:
            yield f"{protocol} dport {port.first}-{port.last}"
        else:
            singles.setdefault(protocol, set()).add(port.first)
    for protocol, numbers in singles.items():
        listed = ", ".join(map(str, sorted(numbers)))
        yield f"{protocol} dport {{ {listed} }}" if len(numbers) > 1 else f"{protocol} dport {listed}"
