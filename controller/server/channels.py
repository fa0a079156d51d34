"""Remote commands and port-forwards of clients whose WebSockets containerd does not speak: joined with SPDY here.

Called by connect.py. Two forms: v5.channel.k8s.io (exec and attach: a channel a stream, and one that ends stdin), whose
messages become SPDY frames and back; and SPDY/3.1+portforward.k8s.io, whose messages carry SPDY as it is. Invariant:
the client is answered 101 only after the agent was. Rules: k8s.io/apiserver/pkg/util/proxy, KEP-4006.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping

from aiohttp import WSMsgType, web

from api.spdy import ERROR, PROTOCOL, RESIZE, STDERR, STDIN, STDOUT, UPGRADE, Spdy
from api.streams import CHUNK, Tunnel, open_tunnel
from controller.server.agents import Backend
from controller.server.reply import Answer, Reply
from controller.server.websocket import accept

CHANNELS = "v5.channel.k8s.io"
PORT_FORWARD = "SPDY/3.1+portforward.k8s.io"
DIAL_SECONDS = 30.0
_NAMES = (STDIN, STDOUT, STDERR, ERROR, RESIZE)
_CLOSE = 255
_ANNOUNCED = {"input": STDIN, "output": STDOUT, "error": STDERR, "tty": RESIZE}


def streams_of(parameters: Iterable[tuple[str, str]]) -> list[str]:
    """The streams that the kubelet's parameters announce; the runtime begins when all are there."""
    names = [_ANNOUNCED[name] for name, _ in parameters if name in _ANNOUNCED]
    return [ERROR, *(name for name in names if name != STDERR or RESIZE not in names)]


async def run_channels(request: web.BaseRequest, backend: Backend, path: str, streams: list[str]) -> Answer:
    """A process' streams as channels, until it has ended or the client has left. Raises ServiceUnavailable."""
    async with _dialed(backend, path, PROTOCOL) as far:
        if far.status != 101:
            return await _refusal(far)
        spdy = Spdy(far.reader, far.writer)
        for name in streams:
            spdy.open(name)
        socket = await accept(request, CHANNELS)
        first = next((name for name in (STDOUT, STDERR) if name in streams), ERROR)
        await socket.send_bytes(bytes([_NAMES.index(first)]))  # tells the client that the process is connected
        await _either(_receive(socket, spdy, streams), _send(socket, spdy))
        return socket


async def _receive(socket: web.WebSocketResponse, spdy: Spdy, streams: list[str]) -> None:
    async for content in _contents(socket):
        channel, data = content[0], content[1:]
        if channel == _CLOSE:
            if data[:1] == bytes([_NAMES.index(STDIN)]) and STDIN in streams:
                spdy.finish(STDIN)
        elif channel < len(_NAMES) and _NAMES[channel] in (STDIN, RESIZE) and _NAMES[channel] in streams:
            await spdy.send(_NAMES[channel], data)


async def _send(socket: web.WebSocketResponse, spdy: Spdy) -> None:
    """Output as it comes; the result is the last."""
    async for name, data in spdy.received():
        await socket.send_bytes(bytes([_NAMES.index(name)]) + data)
        if name == ERROR:
            return


async def run_port_forward(request: web.BaseRequest, backend: Backend, path: str) -> Answer:
    """SPDY inside messages, until either side has ended. Raises ServiceUnavailable."""
    async with _dialed(backend, path, {"X-Stream-Protocol-Version": "portforward.k8s.io"}) as far:
        if far.status != 101:
            return await _refusal(far)
        socket = await accept(request, PORT_FORWARD)

        async def inward() -> None:
            async for content in _contents(socket):
                far.writer.write(content)
                await far.writer.drain()

        async def outward() -> None:
            while data := await far.reader.read(CHUNK):
                await socket.send_bytes(data)

        await _either(inward(), outward())
        return socket


async def _contents(socket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    """What messages hold; the official Python client sends text in messages of text."""
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and message.data:
            yield message.data.encode() if message.type is WSMsgType.TEXT else message.data


async def _either(*ways: Coroutine[None, None, None]) -> None:
    """Runs both ways until one has ended; a connection that broke is an end, too."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(ConnectionError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _dialed(backend: Backend, path: str, protocol: Mapping[str, str]) -> AsyncIterator[Tunnel]:
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            headers = {**UPGRADE, **protocol}
            far = await open_tunnel(
                "POST", backend.url + path, headers, {}, backend.tls, server_name=backend.server_name
            )
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        raise backend.undialed(error or "no answer in time") from error
    try:
        yield far
    finally:
        far.writer.transport.abort()


async def _refusal(far: Tunnel) -> Reply:
    async with asyncio.timeout(DIAL_SECONDS):
        reply = Reply(far.status, await far.read_body(), far.headers.get("content-type", "text/plain"))
    reply.keep_alive = False
    return reply
