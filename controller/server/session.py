"""Heartbeats of agents: one upgraded connection a node, a frame each second, an answer to each.

Called by app.py for GET /wherry/v1/nodes/NAME/session (`Upgrade: wherry-heartbeat`). A frame is 4 bytes big-endian
length and JSON: {"nonce": n} comes in, {"nonce": n, "granted": bool, "cas": digest of the CAs that are believed} goes
out. Imports asyncio and the server's own modules. Invariant: only the node's own certificate (or an administrator) may
speak for it; a closed connection says nothing, only silence does, so nothing is told to Liveness but heartbeats that
arrived.
"""

from __future__ import annotations

import asyncio
from typing import cast

import orjson
from aiohttp import web

from api.errors import BadRequest, Forbidden
from controller.admission.types import MASTERS_GROUP, User
from controller.server.call import Services
from controller.server.reply import Answer, switched

NODES_PREFIX = "/wherry/v1/nodes/"
UPGRADE = "wherry-heartbeat"
FRAME_LIMIT_BYTES = 4096
UNREAD_LIMIT_BYTES = 1 << 18
_HEAD = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n\r\n".encode()


async def answer_session(services: Services, request: web.BaseRequest, user: User, path: str) -> Answer:
    """Serves one node's heartbeats until the connection ends. Raises Forbidden, BadRequest."""
    node, _, rest = path.removeprefix(NODES_PREFIX).partition("/")
    if rest != "session" or not node:
        raise BadRequest("the path of a session is /wherry/v1/nodes/NAME/session")
    if user.node != node and MASTERS_GROUP not in user.groups:
        raise Forbidden(f'forbidden: User "{user.name}" may not heartbeat for node "{node}"', {})
    if request.headers.get("Upgrade", "").lower() != UPGRADE:
        raise BadRequest(f"Upgrade: {UPGRADE} is required")
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the agent is gone")
    session = _Session(services, node)
    session.connection_made(transport)
    transport.write(_HEAD)
    transport.set_protocol(session)
    try:
        await session.closed.wait()
    finally:
        if session.closed.is_set():
            request.protocol.connection_lost(None)
        else:
            transport.set_protocol(request.protocol)
            transport.close()
    return switched()


class _Session(asyncio.Protocol):
    def __init__(self, services: Services, node: str) -> None:
        self._services = services
        self._node = node
        self._transport: asyncio.Transport | None = None
        self._pending = bytearray()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 4:
            length = int.from_bytes(self._pending[:4], "big")
            if length > FRAME_LIMIT_BYTES:
                self._end()
                return
            if len(self._pending) < 4 + length:
                return
            frame = bytes(self._pending[4 : 4 + length])
            del self._pending[: 4 + length]
            self._answer(frame)

    def _answer(self, frame: bytes) -> None:
        try:
            nonce = orjson.loads(frame)["nonce"]
        except (ValueError, KeyError, TypeError):
            self._end()
            return
        services = self._services
        granted = services.heartbeats.beat(self._node)
        body = orjson.dumps({"nonce": nonce, "granted": bool(granted), "cas": services.pki.digest})
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > UNREAD_LIMIT_BYTES:
            self._transport.abort()  # who does not read the answers has no use for them
            return
        self._transport.write(len(body).to_bytes(4, "big") + body)

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed.set()
