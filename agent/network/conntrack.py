"""Conntrack's entries: what the kernel remembers of connections, and how it forgets some of them.

Called by the parts whose rules have to hold for connections that are open already: services (UDP clients of an endpoint
that has gone) and policy (an address that changes hands). Blocks: call it in a thread. Netlink by hand, two messages of
ctnetlink (linux/netfilter/nfnetlink_conntrack.h), without the program conntrack.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Target = tuple[str, int]
"""(address, port); port 0 for what has none."""

UDP = 17
_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DONE, _ERROR = 3, 2
_NESTED = 0x8000
_ORIGINAL, _REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_ONLY_PROTOCOL = struct.pack("=I", 1 << 3)
_REPLY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Flow:
    """An entry: who began it, where his packets go, where answers come from. `raw`: attributes that name it."""

    destination: Target
    source_of_answers: Target
    source: Target = ("", 0)
    raw: bytes = b""


def forget_flows(is_stale: Callable[[Flow], bool], protocol: int = 0) -> int:
    """Delete the entries (of one protocol, or of all) that are stale; how many. OSError when the kernel refuses."""
    count = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        with _connected() as kernel:
            for flow in [flow for flow in _flows(kernel, family, protocol) if is_stale(flow)]:
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


def _flows(kernel: socket.socket, family: int, wanted: int) -> Iterator[Flow]:
    """Entries of a protocol; the kernel sorts out the others (since 5.8; an older one sends all, which costs time)."""
    original = _attribute(_ORIGINAL | _NESTED, _attribute(2 | _NESTED, _attribute(1, bytes((wanted,)))))
    chosen = original + _attribute(_FILTER | _NESTED, _attribute(1, _ONLY_PROTOCOL))
    _send(kernel, _GET, _REQUEST | _DUMP, family, chosen if wanted else b"")
    for kind, body in _messages(kernel):
        if kind == _DONE:
            return
        if kind == _ERROR:
            number = -struct.unpack_from("=i", body)[0]
            raise OSError(number, f"conntrack: {os.strerror(number)}")
        found = _attributes(body[4:])
        protocol, source, destination = _ends(found[_ORIGINAL])
        if wanted in (0, protocol):
            raw = [_attribute(kind | (_NESTED * (kind == _ORIGINAL)), found[kind]) for kind in (_ORIGINAL, _ZONE)
                   if kind in found]  # fmt: skip
            yield Flow(destination, _ends(found[_REPLY])[1], source, b"".join(raw))


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
