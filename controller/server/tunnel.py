"""Raw tunnels: an upgraded connection of a client becomes an upgraded connection to an agent, byte for byte.

Called by connect.py for exec, attach, port-forward and upgrading proxies. Nothing is framed here: SPDY and WebSocket
pass through. Invariant: bytes of the client reach the backend only after the backend answered 101; any other answer is
relayed and ends the exchange, so nobody can smuggle a second request past authorization (CVE-2018-1002105).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from api.errors import ServiceUnavailable
from controller.server.agents import CONNECT_SECONDS, Backend
from controller.server.reply import Answer, Reply, switched

HEAD_LIMIT_BYTES = 64 * 1024
HEAD_SECONDS = 30.0
"""How long a backend may take to answer the upgrade."""
BODY_LIMIT_BYTES = 1 << 20
BODY_SECONDS = 5.0
BUFFER_BYTES = 1 << 18


@dataclass(frozen=True)
class Upgrade:
    """What to ask the backend for."""

    method: str
    path: str
    headers: Iterable[tuple[str, str]]

    def head(self, backend: Backend) -> bytes:
        host = f"[{backend.host}]" if ":" in backend.host else backend.host
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}:{backend.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


class Side(asyncio.Protocol):
    """One end of a tunnel. Until it has a peer it collects what comes in."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None
        self.collected = bytearray()
        self.arrived = asyncio.Event()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)
            return
        self.collected += data
        self.arrived.set()
        if len(self.collected) > HEAD_LIMIT_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed.set()
        self.arrived.set()
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def join(self, other: Side) -> None:
        """From now on both pass on what they get, first of all what was collected."""
        self.peer, other.peer = other, self
        for here, there in ((self, other), (other, self)):
            assert here.transport is not None and there.transport is not None
            if here.collected:
                there.transport.write(bytes(here.collected))
                here.collected.clear()
            here.transport.resume_reading()


async def tunnel(request: web.BaseRequest, backend: Backend, upgrade: Upgrade) -> Answer:
    """Upgrades at the backend and joins both connections until one ends. Raises ServiceUnavailable."""
    far = await _connect(backend)
    try:
        assert far.transport is not None
        far.transport.write(upgrade.head(backend))
        head = await _read_head(far)
        if _status_of(head) != 101:
            return await _relayed(far, head)
        await takeover(request, head, far)
        return switched()
    finally:
        if far.transport is not None:
            far.transport.close()


async def takeover(request: web.BaseRequest, head: bytes, far: Side) -> None:
    """Sends the 101 `head` to the client and joins its connection with `far`; returns when either has ended."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    near = Side()
    near.connection_made(transport)
    transport.write(head)
    transport.set_protocol(near)
    near.join(far)
    try:
        await near.closed.wait()
    finally:
        give_back(request, near, transport)


def give_back(request: web.BaseRequest, near: Side, transport: asyncio.BaseTransport) -> None:
    """aiohttp keeps books of its connections: let it see the end of this one."""
    if near.closed.is_set():
        request.protocol.connection_lost(None)
    else:
        transport.set_protocol(request.protocol)
        transport.close()


async def _connect(backend: Backend) -> Side:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, side = await loop.create_connection(Side, backend.host, backend.port, ssl=backend.tls)
    except (OSError, TimeoutError) as error:
        raise ServiceUnavailable(f"error dialing backend: {backend.host}:{backend.port}: {error}", {}) from error
    return side


async def _read_head(far: Side) -> bytes:
    """The response head; what follows it stays collected. Raises ServiceUnavailable."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            while (end := far.collected.find(b"\r\n\r\n")) < 0:
                if far.closed.is_set() or len(far.collected) > HEAD_LIMIT_BYTES:
                    raise ServiceUnavailable("the backend closed the connection before it answered", {})
                far.arrived.clear()
                await far.arrived.wait()
    except TimeoutError as error:
        raise ServiceUnavailable("the backend did not answer in time", {}) from error
    head = bytes(far.collected[: end + 4])
    del far.collected[: end + 4]
    return head


def _status_of(head: bytes) -> int:
    parts = head.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 502


async def _relayed(far: Side, head: bytes) -> Reply:
    """The backend's refusal, as it is."""
    headers = _headers_of(head)
    length = headers.get("content-length", "")
    wanted = min(int(length), BODY_LIMIT_BYTES) if length.isdigit() else BODY_LIMIT_BYTES
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while len(far.collected) < wanted and not far.closed.is_set():
                far.arrived.clear()
                await far.arrived.wait()
    except TimeoutError:
        pass  # what has come is what there is
    status = _status_of(head)
    reply = Reply(
        status if status >= 200 else 502, bytes(far.collected[:wanted]), headers.get("content-type", "text/plain")
    )
    reply.keep_alive = False
    return reply


def _headers_of(head: bytes) -> dict[str, str]:
    headers = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers
