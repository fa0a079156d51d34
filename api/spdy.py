"""As much of SPDY/3.1 as remote commands need: opening streams, sending and ending their data, receiving.

Called by the CLI's terminal.py, and by the API server for WebSocket clients, on a connection that was upgraded.
Kubernetes' exec and attach speak it (one stream each for error, stdin, stdout, stderr, resize, named in the header
`streamtype`), and so does containerd. What peers here never use is left out: flow control, push, settings. Headers are
sent compressed without SPDY's dictionary, which zlib's format allows; replies' headers are not read.
Rules: the SPDY protocol, draft 3.1; k8s.io/apimachinery/pkg/util/remotecommand.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator

UPGRADE = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "Content-Length": "0"}
PROTOCOL = {"X-Stream-Protocol-Version": "v4.channel.k8s.io"}
STDIN, STDOUT, STDERR, ERROR, RESIZE = "stdin", "stdout", "stderr", "error", "resize"
"""Kubernetes' types of streams; the result of a process comes on ERROR."""
DATA = "data"
"""What a port-forward carries, beside its ERROR."""
_SYN_STREAM, _PING, _GOAWAY = 1, 6, 7
_CONTROL = 0x8003
_LAST = 0x01
_FRAME = struct.Struct("!IBBH")
_MOST_BYTES = 0xFFFF


class Spdy:
    """The client's side of one connection. Streams are known by their types."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._compressor = zlib.compressobj()
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def open(self, name: str, **headers: str) -> None:
        """Opens the stream of this type; port-forwards say more in its headers."""
        number = 2 * len(self._ids) + 1
        self._ids[name], self._names[number] = number, name
        pairs = {"streamtype": name, **headers}
        block = struct.pack("!I", len(pairs))
        for text in (part for pair in pairs.items() for part in pair):
            block += struct.pack("!I", len(text)) + text.encode()
        packed = self._compressor.compress(block) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        self._control(_SYN_STREAM, struct.pack("!IIH", number, 0, 0) + packed)

    async def send(self, name: str, data: bytes) -> None:
        """Sends data on a stream, as fast as the connection takes it. Raises OSError when it is gone."""
        for start in range(0, len(data), _MOST_BYTES):
            if self._writer.is_closing():
                raise ConnectionResetError("the server closed the connection")
            self._data(self._ids[name], data[start : start + _MOST_BYTES], 0)
            await self._writer.drain()

    def finish(self, name: str) -> None:
        """Ends our side of a stream; the other side may go on."""
        self._data(self._ids[name], b"", _LAST)

    async def received(self, *, ends: bool = False) -> AsyncIterator[tuple[str, bytes]]:
        """(stream, data) as it comes, until the peer has nothing more to say. With `ends`, b"" is a stream's end."""
        while True:
            try:
                first, flags, high, low = _FRAME.unpack(await self._reader.readexactly(_FRAME.size))
                content = await self._reader.readexactly(high << 16 | low)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if not first >> 31:
                if content and first in self._names:
                    yield self._names[first], content
                if ends and flags & _LAST and first in self._names:
                    yield self._names[first], b""
                continue
            kind = first & 0xFFFF
            if kind == _PING:
                self._control(_PING, content)
            elif kind == _GOAWAY:
                return

    def _control(self, kind: int, content: bytes) -> None:
        head = _CONTROL << 16 | kind
        self._writer.write(_FRAME.pack(head, 0, len(content) >> 16, len(content) & 0xFFFF) + content)

    def _data(self, number: int, data: bytes, flags: int) -> None:
        self._writer.write(_FRAME.pack(number, flags, 0, len(data)) + data)
