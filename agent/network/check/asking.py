"""Asks over one socket and says what came of it: an echo, a connection, a ping, a DNS query. Nothing is raised.

Called by `check` and `watch` with sockets of this node's or of a probe's network namespace. Invariant: each question
ends after PATIENCE together, and closes its socket.

An echo's request is MAGIC, the wished size of the reply's datagram (two bytes), and filling; the reply is MAGIC, the
length of the asker's address as seen (one byte), that address, and filling. Packets are never fragmented.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable

from agent.network.check.hops import Answer, Echoes
from agent.network.model import family_of

MAGIC = b"wherry!?"
PATIENCE = (0.2, 0.3, 0.5)
"""Seconds that each attempt waits."""
CONNECT_SECONDS = 1.0
MOST_BYTES = 9000
HEADERS_BYTES = {4: 28, 6: 48}
"""IP and UDP."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DONT_FRAGMENT = {4: (socket.IPPROTO_IP, 10, 3), 6: (socket.IPPROTO_IPV6, 23, 3)}
_TELL_ERRORS = {4: (socket.IPPROTO_IP, 11, 1), 6: (socket.IPPROTO_IPV6, 25, 1)}
_PATH_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}
"""MTU_DISCOVER, RECVERR and MTU (linux/in.h, in6.h)."""
_PINGS = {4: (socket.IPPROTO_ICMP, 8, 0), 6: (socket.IPPROTO_ICMPV6, 128, 129)}
"""Protocol, and the types of an echo's request and reply."""
NewSocket = Callable[[int, int, int], socket.socket]
"""(family, type, protocol), in the namespace that asks."""


def open_socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    """In this node's namespace."""
    return socket.socket(_FAMILIES[family], kind | socket.SOCK_NONBLOCK, protocol)


def never_fragment(source: socket.socket, family: int) -> None:
    source.setsockopt(*_DONT_FRAGMENT[family])


async def ask(source: socket.socket, target: tuple[str, int], message: bytes, take: Callable[[bytes], bool]) -> Answer:
    """Send `message` until something comes that `take` accepts."""
    began = time.monotonic()
    family = family_of(target[0])
    with source:
        at_once = True
        try:
            source.setsockopt(*_TELL_ERRORS[family])
            source.connect(target)
            for patience in PATIENCE:
                source.send(message)
                at_once = False
                try:
                    async with asyncio.timeout(patience):
                        while not take(data := await asyncio.get_running_loop().sock_recv(source, 1 << 16)):
                            continue
                except TimeoutError:
                    continue
                return Answer(seconds=time.monotonic() - began, data=data)
        except OSError as error:
            mtu = source.getsockopt(*_PATH_MTU[family]) if error.errno == errno.EMSGSIZE else 0
            return Answer(error.errno or errno.EIO, time.monotonic() - began, at_once, mtu=mtu)
    return Answer(errno.ETIMEDOUT, time.monotonic() - began)


async def connect(source: socket.socket, target: tuple[str, int]) -> Answer:
    """A TCP connection, closed as soon as it is there."""
    began = time.monotonic()
    with source:
        if (refused := source.connect_ex(target)) not in (0, errno.EINPROGRESS):
            return Answer(refused, time.monotonic() - began, at_once=True)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await _writable(source)
        except TimeoutError:
            return Answer(errno.ETIMEDOUT, time.monotonic() - began)
        return Answer(source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), time.monotonic() - began)


async def _writable(source: socket.socket) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(source, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_writer(source)


async def echoes(new: NewSocket, target: tuple[str, int], mtu: int) -> Echoes:
    """A small packet, then a full one on each way. `data` of `small` is the asker's address as the other end saw it."""
    family = family_of(target[0])
    small = await _echo(new, target, (0, 0))
    if small.error:
        return Echoes(small)
    full = mtu - HEADERS_BYTES[family]
    out, back = await asyncio.gather(_echo(new, target, (full, 0)), _echo(new, target, (0, full)))
    if out.error == errno.EMSGSIZE and HEADERS_BYTES[family] < out.mtu < mtu:  # the path says what it takes: true?
        fitting = await _echo(new, target, (out.mtu - HEADERS_BYTES[family], 0))
        out = Answer(fitting.error, fitting.seconds, mtu=out.mtu)
    return Echoes(small, out, back, mtu)


async def _echo(new: NewSocket, target: tuple[str, int], sizes: tuple[int, int]) -> Answer:
    """`sizes`: of the datagrams there and back."""
    family = family_of(target[0])
    source = new(family, socket.SOCK_DGRAM, 0)
    never_fragment(source, family)
    message = (MAGIC + struct.pack("!H", sizes[1])).ljust(sizes[0], b"\0")
    answer = await ask(source, target, message, lambda data: data.startswith(MAGIC))
    if answer.error:
        return answer
    length = answer.data[len(MAGIC)]
    return Answer(seconds=answer.seconds, data=answer.data[len(MAGIC) + 1 :][:length])


def reply_to(request: bytes, asker: str) -> bytes:
    """What an echo answers; b"" for what is no request."""
    head = len(MAGIC) + 2
    if len(request) < head or not request.startswith(MAGIC):
        return b""
    (size,) = struct.unpack_from("!H", request, len(MAGIC))
    seen = asker.encode()
    return (MAGIC + bytes((len(seen),)) + seen).ljust(min(size, MOST_BYTES), b"\0")


async def ping(new: NewSocket, address: str) -> Answer:
    """An ICMP echo, as `ping` sends it."""
    family = family_of(address)
    protocol, asked, answered = _PINGS[family]
    try:
        source = new(family, socket.SOCK_RAW, protocol)
    except OSError as error:
        return Answer(error.errno or errno.EIO, at_once=True)
    mark = os.urandom(4)  # identifier and sequence number

    def is_ours(data: bytes) -> bool:
        data = data[(data[0] & 0xF) * 4 :] if family == 4 else data
        return data[0] == answered and data[4:8] == mark

    message = struct.pack("!BBH", asked, 0, 0) + mark + MAGIC
    message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]  # the kernel's business with IPv6
    return await ask(source, (address, 0), message, is_ours)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    folded: int = ~(total + (total >> 16)) & 0xFFFF
    return folded


async def query(new: NewSocket, server: str, name: str, kind: int) -> Answer:
    """A DNS query over UDP; `name` "" is the root. `data` is the whole reply."""
    number = os.urandom(2)
    labels = [label.encode() for label in name.split(".") if label]
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    message = number + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + wire + struct.pack("!HH", kind, 1)
    source = new(family_of(server), socket.SOCK_DGRAM, 0)
    return await ask(source, (server, 53), message, lambda data: data[:2] == number and len(data) >= 12)


def rcode(reply: bytes) -> int:
    """A reply's code."""
    return int(reply[3]) & 0xF
