"""Many watchers of one kind over TLS that resume where they were cut off, and never list.

Used by test_watchers.py. Each keeps what it saw as (type, name, resourceVersion); a line is not parsed further, for a
thousand of them share one process with the test.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
from dataclasses import dataclass, field

from tests.integration.chaos.wire import read_chunk, read_head

Seen = tuple[bytes, bytes, int]
_LINE = re.compile(rb'^\{"type":"(\w+)".*?"resourceVersion":"(\d+)"')
_NAME = re.compile(rb'"name":"([^"]*)"')
_BROKEN = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@dataclass
class Target:
    """What they watch. `path` has the query's fixed part."""

    port: int
    context: ssl.SSLContext
    token: str
    path: str


@dataclass(eq=False)
class Watcher:
    """One client. `resumed` counts the streams it opened after the first; `refused` what it was told instead."""

    target: Target
    version: int
    seen: list[Seen] = field(default_factory=list)
    resumed: int = -1
    connected_at: float = 0.0
    refused: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Watches until cancelled."""
        while not self.refused:
            writer: asyncio.StreamWriter | None = None
            try:
                target = self.target
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", target.port, ssl=target.context, ssl_handshake_timeout=60
                )
                await self._stream(reader, writer)
            except _BROKEN:
                await asyncio.sleep(random.uniform(0.05, 0.25))
            finally:
                if writer is not None:
                    writer.transport.abort()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self.target
        path = f"{target.path}&resourceVersion={self.version}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.token}\r\n\r\n".encode())
        status, headers = await read_head(reader)
        if status != 200:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if status not in (429, 503, 504):
                self.refused.append(f"{status}: {body[:300]!r}")
            return
        self.resumed += 1
        self.connected_at = time.monotonic()
        pending = b""
        while piece := await read_chunk(reader):
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        found = _LINE.match(line)
        if found is None or found[1] == b"ERROR":
            self.refused.append(line[:300].decode())
            return
        self.version = int(found[2])
        if found[1] != b"BOOKMARK":
            name = _NAME.search(line)
            assert name is not None
            self.seen.append((found[1], name[1], self.version))
