"""Two connections joined byte for byte after an HTTP upgrade: how exec, attach and port-forward pass through.

Called by the API server (client to agent) and by the agent (API server to the container runtime). Nothing is framed
here: SPDY and WebSocket pass through. Invariant: bytes of the near side reach the far one only after it answered 101,
so nobody can smuggle a second request past authorization (CVE-2018-1002105).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from aiohttp import web

HEAD_LIMIT_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024
CONNECT_SECONDS = 5.0
HEAD_SECONDS = 30.0
"""How long the far side may take to answer the upgrade."""
BODY_LIMIT_BYTES = 1 << 20
BODY_SECONDS = 5.0


class Unanswered(Exception):
    """The far side cannot be reached, or does not answer; nothing was sent to the near one."""


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


async def connect(host: str, port: int, tls: ssl.SSLContext | None = None, server_name: str = "") -> Side:
    """A connection to the far side; its certificate has to name `server_name`, or the host. Raises Unanswered."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, side = await asyncio.get_running_loop().create_connection(
                Side, host, port, ssl=tls, server_hostname=(server_name or host) if tls else None
            )
    except (OSError, TimeoutError) as error:
        raise Unanswered(f"{host}:{port}: {error or 'no connection in time'}") from error
    return side


async def read_head(far: Side) -> bytes:
    """The response head; what follows it stays collected. Raises Unanswered."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            while (end := far.collected.find(b"\r\n\r\n")) < 0:
                if far.closed.is_set() or len(far.collected) > HEAD_LIMIT_BYTES:
                    raise Unanswered("the connection was closed before it was answered")
                far.arrived.clear()
                await far.arrived.wait()
    except TimeoutError as error:
        raise Unanswered("no answer in time") from error
    head = bytes(far.collected[: end + 4])
    del far.collected[: end + 4]
    return head


def status_of(head: bytes) -> int:
    parts = head.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 502


def headers_of(head: bytes) -> dict[str, str]:
    headers = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


async def read_refusal(far: Side, head: bytes) -> tuple[int, bytes, str]:
    """(status, body, content type) of an answer that is no 101; what comes too late or too large is left out."""
    headers = headers_of(head)
    length = headers.get("content-length", "")
    wanted = min(int(length), BODY_LIMIT_BYTES) if length.isdigit() else BODY_LIMIT_BYTES
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while len(far.collected) < wanted and not far.closed.is_set():
                far.arrived.clear()
                await far.arrived.wait()
    except TimeoutError:
        pass  # what has come is what there is
    status = status_of(head)
    return (status if status >= 200 else 502), bytes(far.collected[:wanted]), headers.get("content-type", "text/plain")


async def takeover(request: web.BaseRequest, head: bytes, far: Side) -> None:
    """Sends the 101 `head` to the near side and joins it with `far`; returns when either has ended."""
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
        # aiohttp keeps books of its connections: let it see the end of this one.
        if near.closed.is_set():
            request.protocol.connection_lost(None)
        else:
            transport.set_protocol(request.protocol)
            transport.close()
