"""Speaks netlink with the kernel: requests, dumps and notifications, as typed messages of raw attributes.

Called by the parts of the node's network that keep kernel objects (routes). The kernel answers within the system call,
so requests are plain blocking calls; callers with many of them use a thread. A socket belongs to the network namespace
it was opened in. pyroute2 can all this too, for ten megabytes of an agent's eighty. Format: netlink(7), rtnetlink(7).

    OSError
      NetlinkError   the kernel refused; `errno` says why, `strerror` may be its own explanation
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

ROUTE = socket.NETLINK_ROUTE
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
NESTED = 0x8000
_REQUEST, _ACK, _DUMP, _INTERRUPTED, _CAPPED, _HAS_TEXT = 0x1, 0x4, 0x300, 0x10, 0x100, 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _EXT_ACK, _STRICT = 270, 11, 12
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16
_ANSWER_SECONDS = 5.0
_DUMP_ATTEMPTS = 5

Attributes = Iterable[tuple[int, bytes]]


class NetlinkError(OSError):
    """The kernel refused a request."""


@dataclass(frozen=True, slots=True)
class Message:
    """`body` is all behind netlink's header: the type's own header, then attributes."""

    type: int
    body: bytes


def pack_attributes(attributes: Attributes) -> bytes:
    parts = []
    for kind, value in attributes:
        parts.append(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4))
    return b"".join(parts)


def parse_attributes(data: bytes) -> Mapping[int, bytes]:
    """By type, without the flag bits; the last one of a type that comes twice."""
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


class Netlink:
    """One socket for requests, used by one thread at a time."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_ANSWER_SECONDS)
        for option in (_EXT_ACK, _STRICT):
            with contextlib.suppress(OSError):  # older kernels filter less and explain less
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._numbers = itertools.count(1)
        self._interrupted = False

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, header: bytes, attributes: Attributes = ()) -> None:
        """Ask for a change and wait until it is made. Raises NetlinkError."""
        number = self._send(kind, flags | _ACK, header, attributes)
        for message in self._answers(number):
            if message.type == _ERROR:
                return

    def dump(self, kind: int, header: bytes, attributes: Attributes = ()) -> list[Message]:
        """All objects of a kind; asked again when they changed meanwhile. Raises NetlinkError."""
        attributes = tuple(attributes)
        for _ in range(_DUMP_ATTEMPTS):
            self._interrupted = False
            found = list(self._answers(self._send(kind, _DUMP, header, attributes)))
            if not self._interrupted:
                break
        return found

    def _send(self, kind: int, flags: int, header: bytes, attributes: Attributes) -> int:
        number = next(self._numbers)
        body = header + pack_attributes(attributes)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, number, 0) + body)
        return number

    def _answers(self, number: int) -> Iterator[Message]:
        """Up to and without the end of a dump, or with the acknowledgement that ends a request."""
        while True:
            for kind, flags, about, body in split_messages(self._socket.recv(_RECEIVE_BYTES)):
                if about != number:  # the answer to a request that was given up
                    continue
                self._interrupted |= bool(flags & _INTERRUPTED)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    _raise_refusal(flags, body)
                yield Message(kind, body)
                if kind == _ERROR:
                    return


def split_messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, number, body) of each message in what one read gave."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, number, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, number, data[at + _HEADER.size : at + length]
        at += max((length + 3) & ~3, _HEADER.size)


def _raise_refusal(flags: int, body: bytes) -> None:
    """`body`: the error number, the request (its header only when capped), then the kernel's explanation, if any."""
    (code,) = struct.unpack_from("=i", body)
    if not code:
        return
    text = os.strerror(-code)
    if flags & _HAS_TEXT:
        asked = _HEADER.size if flags & _CAPPED else struct.unpack_from("=I", body, 4)[0]
        words = parse_attributes(body[4 + ((asked + 3) & ~3) :]).get(1, b"").rstrip(b"\0").decode(errors="replace")
        text = f"{text}: {words}" if words else text
    raise NetlinkError(-code, text)


@contextlib.contextmanager
def listen(groups: int, heard: Callable[[int, bytes], None]) -> Iterator[None]:
    """Call `heard(type, body)` in the event loop for each notification of these rtnetlink groups (RTMGRP bits).

    When some were lost because they came too fast, it is called with (0, b""): anything may have changed.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ROUTE) as source:
        source.bind((0, groups))
        source.setblocking(False)

        def read() -> None:
            try:
                data = source.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS
                heard(0, b"")
                return
            for kind, _, _, body in split_messages(data):
                heard(kind, body)

        loop.add_reader(source, read)
        try:
            yield
        finally:
            loop.remove_reader(source)
