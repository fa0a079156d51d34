"""WebSocket answers of the API server itself: watches and logs as messages, which browsers and others ask for.

Called by watch.py, connect.py and channels.py. Kubernetes serves both to whoever asks for an upgrade: a watch has a
text message an event, a log binary messages (or base64 text), after an empty one that says it began. Invariant: the
work behind an answer ends when its client leaves. Rules: k8s.io/apimachinery/pkg/util/httpstream/wsstream.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import WSCloseCode, WSMsgType, web

from api.errors import BadRequest

BASE64 = "base64.binary.k8s.io"
LOG_PROTOCOLS = ("binary.k8s.io", BASE64)
MESSAGE_LIMIT_BYTES = 32 << 20
"""Of one message of a client: what it feeds to a process at once."""


def is_websocket(request: web.BaseRequest) -> bool:
    upgrades = "upgrade" in request.headers.get("Connection", "").lower()
    return upgrades and request.headers.get("Upgrade", "").lower() == "websocket"


def offered(request: web.BaseRequest) -> list[str]:
    """The sub-protocols a client speaks, its favourite first."""
    values = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def agreed(request: web.BaseRequest, known: Iterable[str]) -> str:
    """The first offer that is known; "" when nothing is offered. Raises BadRequest."""
    names = offered(request)
    chosen = next((name for name in names if name in known), "")
    if names and not chosen:
        raise BadRequest(f"none of the sub-protocols offered is supported: {', '.join(names)}")
    return chosen


async def accept(request: web.BaseRequest, protocol: str = "") -> web.WebSocketResponse:
    """Switches protocols. Raises BadRequest for a handshake that is none."""
    socket = web.WebSocketResponse(
        protocols=(protocol,) if protocol else (), compress=False, max_msg_size=MESSAGE_LIMIT_BYTES
    )
    try:
        await socket.prepare(request)
    except web.HTTPBadRequest as error:
        raise BadRequest(str(error.text)) from error
    return socket


@asynccontextmanager
async def attended(socket: web.WebSocketResponse) -> AsyncIterator[None]:
    """The block is left when the client leaves; what it sends is not read."""
    left = False

    async def ignore(scope: asyncio.Timeout) -> None:
        nonlocal left
        while (await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            pass
        left = True
        scope.reschedule(asyncio.get_running_loop().time())

    try:
        async with asyncio.timeout(None) as scope:
            reader = asyncio.create_task(ignore(scope))
            try:
                yield
            finally:
                reader.cancel()
    except (TimeoutError, ConnectionError):
        if not left:
            raise
    await socket.close()


async def send_log(request: web.BaseRequest, pieces: AsyncIterator[bytes]) -> web.WebSocketResponse:
    """Bytes as they come, each piece a message."""
    protocol = agreed(request, LOG_PROTOCOLS)
    socket = await accept(request, protocol)
    async with attended(socket):
        await _send(socket, protocol, b"")
        async for piece in pieces:
            await _send(socket, protocol, piece)
    return socket


async def _send(socket: web.WebSocketResponse, protocol: str, piece: bytes) -> None:
    if protocol == BASE64:
        await socket.send_str(base64.b64encode(piece).decode())
    else:
        await socket.send_bytes(piece)


class Lines:
    """A watch's response as messages, with as much of a StreamResponse as a watch uses: each line written is one."""

    def __init__(self, request: web.BaseRequest) -> None:
        agreed(request, ())
        self._request = request

    async def prepare(self, request: web.BaseRequest) -> None:
        self.socket = await accept(request)

    async def write(self, lines: bytes) -> None:
        for line in lines.splitlines(keepends=True):
            await self.socket.send_str(line.decode())

    async def write_eof(self) -> None:
        await self.socket.close(code=WSCloseCode.OK)
