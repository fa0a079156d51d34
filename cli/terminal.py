"""A remote process on this terminal: WebSocket `v4.channel.k8s.io` on one side, stdin and stdout on the other.

Called by `exec`, `run` and `attach`-like commands. Channels: 0 stdin, 1 stdout, 2 stderr, 3 result (a Status), 4 size.
https://kubernetes.io/docs/reference/kubernetes-api (pods/exec, pods/attach). The protocol cannot close stdin alone;
with a terminal Ctrl-D does, without one the process sees no end of input.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from api.client import Client
from api.errors import error_from_status
from cli.problems import Problem

PROTOCOL = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, RESULT, RESIZE = range(5)
_CHUNK = 32 * 1024
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Streams:
    """What to connect: `command` for exec, none for attach."""

    path: str
    container: str = ""
    command: tuple[str, ...] = ()
    stdin: bool = False
    tty: bool = False
    output: bool = True

    def query(self) -> list[tuple[str, str]]:
        stderr = self.output and not self.tty
        wanted = {"stdin": self.stdin, "stdout": self.output, "stderr": stderr, "tty": self.tty}
        query = [(name, "true") for name, on in wanted.items() if on]
        query += [("command", word) for word in self.command]
        return [*query, ("container", self.container)] if self.container else query


async def run_streams(client: Client, streams: Streams) -> int:
    """Connects and copies until the process ends. Returns its exit code; raises ApiError or Problem."""
    async with _connected(client, streams) as socket:
        with _raw_terminal(streams.tty and streams.stdin):
            return await _copy(socket, streams)


async def feed_stdin(client: Client, path: str, container: str) -> None:
    """Attaches to a container's input alone, passes ours on, and leaves when ours ends."""
    async with _connected(client, Streams(path, container, stdin=True, output=False)) as socket:
        await _send_stdin(socket)


@contextlib.asynccontextmanager
async def _connected(client: Client, streams: Streams) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    tls = client.credentials.client_context()
    token = client.credentials.token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        try:
            socket = await session.ws_connect(
                client.server + streams.path, params=streams.query(), protocols=(PROTOCOL,), ssl=tls, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            await _raise_refusal(client, streams)
            raise Problem(f"the server did not open the stream ({error.status})") from error
        async with socket:
            yield socket


async def _raise_refusal(client: Client, streams: Streams) -> None:
    """The handshake hides the server's words; the same request read as plain HTTP brings them. Raises ApiError."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": PROTOCOL,
    }
    path = f"{streams.path}?{urlencode(streams.query())}"
    await client.request("GET", path, headers=headers)


async def _copy(socket: aiohttp.ClientWebSocketResponse, streams: Streams) -> int:
    senders: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as tasks:
        if streams.stdin:
            senders.append(tasks.create_task(_send_stdin(socket)))
        if streams.tty:
            senders.append(tasks.create_task(_send_sizes(socket)))
        try:
            return await _receive(socket)
        finally:
            for sender in senders:
                sender.cancel()


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> int:
    result: Any = None
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDOUT:
            _write(sys.stdout.fileno(), data)
        elif channel == STDERR:
            _write(sys.stderr.fileno(), data)
        elif channel == RESULT and data:
            result = orjson.loads(data)
    return _exit_code(result)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _exit_code(result: Any) -> int:
    """The exit code that a Status tells; no Status means the stream just ended."""
    if not isinstance(result, dict) or result.get("status") == "Success":
        return 0
    for cause in (result.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause.get("message") or 1)
    raise error_from_status(result)


async def _send_stdin(socket: aiohttp.ClientWebSocketResponse) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while data := await reader.read(_CHUNK):
        await socket.send_bytes(bytes([STDIN]) + data)


async def _send_sizes(socket: aiohttp.ClientWebSocketResponse) -> None:
    changed = asyncio.Event()
    changed.set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            size = shutil.get_terminal_size()
            message = orjson.dumps({"Width": size.columns, "Height": size.lines})
            await socket.send_bytes(bytes([RESIZE]) + message)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the remote process unread, and the terminal is as before afterwards."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
