"""The ranges that Services get addresses and node ports from, and the order in which free ones are tried.

Given by the controller's flags, read by `allocation`, the built-in services and the repair of claims. Pure but for the
random start of a search. Explicit requests are expected in the lower part of a range, so what nobody asked for by
number comes from the upper part first (KEP-3070 for addresses, KEP-3668 for ports).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
MOST_PORT = 65535
_LARGEST_BITS, _SMALLEST_BITS = 20, 4
"""Kubernetes takes no IPv4 range larger than a /12; .10 is the DNS service's, so a /28 is the smallest."""


@dataclass(frozen=True)
class Addresses:
    """One family's range; its first and (IPv4) last address are not given out."""

    network: Network

    @property
    def family(self) -> str:
        return f"IPv{self.network.version}"

    @property
    def size(self) -> int:
        """How many addresses there are to give."""
        return self.network.num_addresses - (2 if self.network.version == 4 else 1)

    def at(self, place: int) -> str:
        """The address at this distance from the network's own: 1 is the API server's service, 10 that of DNS."""
        return str(self.network[place])

    def holds(self, text: str) -> bool:
        address = ip_address(text)
        if address.version != self.network.version or address not in self.network:
            return False
        return 1 <= int(address) - int(self.network.network_address) <= self.size

    def tries(self) -> Iterator[str]:
        whole = self.network.num_addresses
        static = 0 if whole <= 16 else min(max(16, whole // 16), 256)
        return (self.at(place) for place in _tries(max(1, static), 1, self.size + 1))


@dataclass(frozen=True)
class Ports:
    first: int = 30000
    last: int = 32767

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def tries(self) -> Iterator[int]:
        size = self.last - self.first + 1
        static = 0 if size <= 16 else min(max(16, size // 32), 128)
        return iter(_tries(self.first + static, self.first, self.last + 1))


def _tries(dynamic: int, first: int, end: int) -> Iterator[int]:
    """The upper part from a random place on and around, then the lower part likewise."""
    for low, high in ((dynamic, end), (first, dynamic)):
        if low < high:
            start = random.randrange(low, high)
            yield from range(start, high)
            yield from range(low, start)


@dataclass(frozen=True)
class Pool:
    """Addresses of load balancers: spans of first and last address."""

    spans: tuple[tuple[Address, Address], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __contains__(self, text: str) -> bool:
        address = ip_address(text)
        return any(
            first.version == address.version and int(first) <= int(address) <= int(last) for first, last in self.spans
        )

    def addresses(self, family: str) -> Iterator[str]:
        """Lowest first, span by span."""
        for first, last in self.spans:
            if family == f"IPv{first.version}":
                yield from (str(type(first)(number)) for number in range(int(first), int(last) + 1))


@dataclass(frozen=True)
class ServiceRanges:
    """`addresses`: one range a family; the first is the family of Services that do not say."""

    addresses: tuple[Addresses, ...] = (Addresses(IPv4Network("10.96.0.0/12")),)
    ports: Ports = Ports()
    pods: tuple[Network, ...] = ()
    """Where pods get addresses: no Service may take one of them from outside, nor one of `balancers`."""
    balancers: Pool = Pool()

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(one.family for one in self.addresses)

    def of(self, family: str) -> Addresses | None:
        return next((one for one in self.addresses if one.family == family), None)


def parse_pool(text: str) -> Pool:
    """`CIDR` or `FIRST-LAST`, comma-separated. Of an IPv4 network, the first and last address are no hosts'. Raises
    ValueError."""
    return Pool(tuple(_span(part.strip()) for part in text.split(",") if part.strip()))


def _span(text: str) -> tuple[Address, Address]:
    if "-" in text:
        first, last = (ip_address(part.strip()) for part in text.split("-", 1))
        if first.version != last.version or int(first) > int(last):
            raise ValueError(f"{text} is no span of addresses: it must go from a lower to a higher one of one family")
        return first, last
    network = ip_network(text)
    if network.version == 4 and network.prefixlen < 31:
        return network[1], network[-2]
    return network[0], network[-1]


NO_POOL = Pool()
DEFAULT_RANGES = ServiceRanges()


def parse_service_range(text: str) -> tuple[Addresses, ...]:
    """`CIDR` or `CIDR,CIDR` of two families. Raises ValueError that says what is wrong."""
    found = []
    for part in text.split(","):
        network = ip_network(part.strip())
        bits = network.max_prefixlen - network.prefixlen
        if bits < _SMALLEST_BITS:
            raise ValueError(f"{network} is too small for services: at least a /{network.max_prefixlen - 4} is needed")
        if network.version == 4 and bits > _LARGEST_BITS:
            raise ValueError(f"{network} is too large for services: at most a /12 can be used")
        found.append(Addresses(network))
    if len(found) > 2 or len({one.family for one in found}) < len(found):
        raise ValueError(f"{text}: at most one range of each IP family")
    return tuple(found)


def parse_port_range(text: str) -> Ports:
    """`FIRST-LAST` or `FIRST+COUNT`, as kube-apiserver reads it. Raises ValueError."""
    first, dash, last = text.partition("-")
    if not dash:
        first, plus, count = text.partition("+")
        last = first
        if plus:
            last = str(int(first) + int(count) - 1) if first.isdigit() and count.isdigit() else ""
    if not (first.strip().isdigit() and last.strip().isdigit()):
        raise ValueError(f"{text} is no port range such as 30000-32767")
    ports = Ports(int(first), int(last))
    if not 0 < ports.first <= ports.last <= MOST_PORT:
        raise ValueError(f"{text} is no port range: ports go from 1 to {MOST_PORT}")
    return ports
