"""Conntrack entries of UDP services whose endpoint has gone: they would send a client's packets there for ever.

A UDP client that keeps its port keeps its entry, however long its endpoint is gone. Whenever the endpoints of a UDP
service changed, entries for its addresses that lead to none of its endpoints are deleted (also those made before it had
any), after the rules were changed. `part` calls `routes_of` and `forget`. Netlink by hand, two messages: ctnetlink
(linux/netfilter/nfnetlink_conntrack.h), without the program conntrack.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.network.model import Service, Slice, family_of
from agent.network.services.choice import Site, Target, choose, families_of

Routes = Mapping[Target, frozenset[Target]]
"""From (address, port) to the endpoints it may lead to; address "" for a node port."""

_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DONE, _ERROR = 3, 2
_NESTED = 0x8000
_ORIGINAL, _REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_ONLY_PROTOCOL = struct.pack("=I", 1 << 3)
_UDP = 17
_REPLY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Flow:
    """A conntrack entry: where the client's packets go, where answers come from. `raw`: attributes that name it."""

    destination: Target
    source_of_answers: Target
    raw: bytes = b""


def routes_of(service: Service, slices: Iterable[Slice], site: Site) -> dict[Target, frozenset[Target]]:
    """What a service's UDP addresses may lead to; {} when it has no UDP port or another proxy serves it."""
    routes: dict[Target, frozenset[Target]] = {}
    ports = [port for port in service.ports if port.protocol == "UDP" and not service.served_elsewhere]
    slices = tuple(slices) if ports else ()
    for port in ports:
        for family in families_of(service):
            choice = choose(port, slices, family, site)
            targets = frozenset((*choice.cluster, *choice.local))
            addresses = (*service.cluster_ips, *service.external_ips, *service.balancer_ips)
            routes.update({(each, port.port): targets for each in addresses if family_of(each) == family})
            if port.node_port:
                routes[("", port.node_port)] = targets | routes.get(("", port.node_port), frozenset())
    return routes


def is_stale(flow: Flow, routes: Routes, own: Collection[str]) -> bool:
    """Whether a flow to one of these routes leads elsewhere. A node port counts on our own addresses only."""
    address, port = flow.destination
    translated = flow.source_of_answers != flow.destination
    targets = routes.get(flow.destination)
    if targets is None and (translated or address in own):
        targets = routes.get(("", port))
    return targets is not None and flow.source_of_answers not in targets


def forget(routes: Routes, own: Collection[str]) -> int:
    """Delete the stale flows of these routes in the kernel; how many. OSError when it refuses. Blocks: use a thread."""
    count = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        with _connected() as kernel:
            stale = [flow for flow in _flows(kernel, family) if is_stale(flow, routes, own)]
            for flow in stale:
                _send(kernel, _DELETE, _REQUEST | _ACK, family, flow.raw)
                count += _acknowledged(kernel)
    return count


def _connected() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    kernel.settimeout(_REPLY_SECONDS)
    kernel.bind((0, 0))
    return kernel


def _send(kernel: socket.socket, kind: int, flags: int, family: int, attributes: bytes) -> None:
    body = struct.pack("=BBH", family, 0, 0) + attributes
    kernel.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)


def _messages(kernel: socket.socket) -> Iterator[tuple[int, memoryview]]:
    while True:
        data = memoryview(kernel.recv(1 << 18))
        while data:
            length, kind = struct.unpack_from("=IH", data)
            yield kind, data[16:length]
            data = data[(length + 3) & ~3 :]


def _acknowledged(kernel: socket.socket) -> bool:
    """Whether the deletion took place; an entry that has gone by itself meanwhile is as well."""
    _, body = next(_messages(kernel))
    return bool(struct.unpack_from("=i", body)[0] == 0)


def _flows(kernel: socket.socket, family: int) -> Iterator[Flow]:
    """The UDP entries; the kernel sorts out the others (since 5.8; an older one sends all, which costs time only)."""
    udp = _attribute(_ORIGINAL | _NESTED, _attribute(2 | _NESTED, _attribute(1, bytes((_UDP,)))))
    _send(kernel, _GET, _REQUEST | _DUMP, family, udp + _attribute(_FILTER | _NESTED, _attribute(1, _ONLY_PROTOCOL)))
    for kind, body in _messages(kernel):
        if kind == _DONE:
            return
        if kind == _ERROR:
            number = -struct.unpack_from("=i", body)[0]
            raise OSError(number, f"conntrack: {os.strerror(number)}")
        found = _attributes(body[4:])
        protocol, _, destination = _ends(found[_ORIGINAL])
        if protocol == _UDP:
            raw = [_attribute(kind | (_NESTED * (kind == _ORIGINAL)), found[kind]) for kind in (_ORIGINAL, _ZONE)
                   if kind in found]  # fmt: skip
            yield Flow(destination, _ends(found[_REPLY])[1], b"".join(raw))


def _ends(tuple_: memoryview) -> tuple[int, Target, Target]:
    """Protocol, source and destination of a conntrack tuple."""
    parts = _attributes(tuple_)
    addresses, protocol = list(_attributes(parts[1]).values()), _attributes(parts[2])
    family = socket.AF_INET if len(addresses[0]) == 4 else socket.AF_INET6
    ports = [int.from_bytes(protocol.get(kind, b"")) for kind in (2, 3)]
    source, destination = [(socket.inet_ntop(family, each), port) for each, port in zip(addresses, ports, strict=True)]
    return protocol[1][0], source, destination


def _attributes(data: memoryview) -> dict[int, memoryview]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _attribute(kind: int, value: bytes | memoryview) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + bytes(value) + bytes(-len(value) % 4)
