"""Raw tunnels: exec, attach and port-forward connections are joined, byte for byte, with containerd's streaming server.

Called by the agent's server. SPDY and WebSocket pass through unread. Invariant: the client's bytes go to the runtime
only after it answered 101; any other answer is relayed and ends the exchange.
"""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import urlsplit

from aiohttp import web

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
HEAD_LIMIT = 64 * 1024
BUFFER_BYTES = 256 * 1024
_END_TO_END = ("upgrade", "connection", "x-stream-protocol-version")


class Unanswered(Exception):
    """The runtime's streaming server cannot be reached or does not answer."""


class _Side(asyncio.Protocol):
    """One end; collects what comes in until it is joined with the other one."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.collected = bytearray()
        self.arrived = asyncio.Event()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
            return
        self.collected += data
        self.arrived.set()
        if len(self.collected) > HEAD_LIMIT and self.transport is not None:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed.set()
        self.arrived.set()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def tunnel(request: web.BaseRequest, url: str) -> web.StreamResponse:
    """Joins the client of an upgrade request with the streaming URL; returns when either has ended.

    Raises Unanswered before anything was sent to the client.
    """
    far = await _connect(url)
    assert far.transport is not None
    try:
        far.transport.write(_head(request, url))
        head = await _answer(far)
        if int(head.split(b" ", 2)[1]) != 101:
            return await _relayed(far, head)
        await _join(request, head, far)
        return web.Response()
    finally:
        far.transport.close()


async def _connect(url: str) -> _Side:
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            loop = asyncio.get_running_loop()
            _, side = await loop.create_connection(_Side, parts.hostname or "127.0.0.1", parts.port or 80)
    except (OSError, TimeoutError) as error:
        raise Unanswered(f"the container runtime's streaming server does not answer: {error}") from error
    return side


def _head(request: web.BaseRequest, url: str) -> bytes:
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Length: 0"]
    for name, value in request.headers.items():
        if name.lower() in _END_TO_END or name.lower().startswith("sec-websocket-"):
            lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def _answer(far: _Side) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while b"\r\n\r\n" not in far.collected:
                if far.closed.is_set():
                    raise Unanswered("the container runtime's streaming server hung up")
                far.arrived.clear()
                await far.arrived.wait()
    except TimeoutError as error:
        raise Unanswered("the container runtime's streaming server does not answer") from error
    head, _, rest = bytes(far.collected).partition(b"\r\n\r\n")
    far.collected[:] = rest
    return head + b"\r\n\r\n"


async def _relayed(far: _Side, head: bytes) -> web.Response:
    """A refusal: its status and text."""
    try:
        async with asyncio.timeout(1.0):
            await far.closed.wait()
    except TimeoutError:
        pass  # it keeps the connection open; what has come is what there is
    return web.Response(status=int(head.split(b" ", 2)[1]), body=bytes(far.collected), content_type="text/plain")


async def _join(request: web.BaseRequest, head: bytes, far: _Side) -> None:
    transport = request.transport
    if transport is None:
        return
    near = _Side()
    near.connection_made(transport)
    transport.write(head + bytes(far.collected))
    transport.set_protocol(near)
    near.other, far.other = far, near
    assert far.transport is not None
    far.transport.resume_reading()
    try:
        await near.closed.wait()
    finally:
        # aiohttp keeps books of its connections: let it see the end of this one.
        if near.closed.is_set():
            request.protocol.connection_lost(None)
        else:
            transport.set_protocol(request.protocol)
            transport.close()
