"""Raw two-way byte streams under HTTP: opening one by an Upgrade request, and copying between two of them.

Called by api.client (sessions, exec) and by the tunnels of agent and CLI. Imports the standard library only. A tunnel
has exactly one reader; `splice` copies both directions with back-pressure until each side has ended.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

HEAD_LIMIT = 64 * 1024
CHUNK = 64 * 1024
KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MILLISECONDS = 20_000
NOT_TAKEN_MILLISECONDS = 180_000


def keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices a peer that vanished without a word within about 25 s."""
    family, kind, protocol = address[0], address[1], address[2]
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    set_keepalive(opened)
    return opened


def patient_socket(address: tuple[Any, ...]) -> socket.socket:
    """The same for bodies of gigabytes: a peer whose disk is slow takes nothing for a while, and has not vanished."""
    opened = keepalive_socket(address)
    if opened.family in (socket.AF_INET, socket.AF_INET6):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, NOT_TAKEN_MILLISECONDS)
    return opened


def set_keepalive(opened: socket.socket) -> None:
    if opened.family not in (socket.AF_INET, socket.AF_INET6):
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)


@dataclass(frozen=True)
class Tunnel:
    """A connection after its HTTP head was read: `status`, lower-case `headers`, then raw bytes both ways."""

    status: int
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = b""

    async def read_body(self) -> bytes:
        """The body of a refusal: by Content-Length, else until the end (chunked framing is taken off)."""
        if "content-length" in self.headers:
            return await self.reader.readexactly(int(self.headers["content-length"]))
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return await self.reader.read(HEAD_LIMIT)
        body = b""
        while size := int((await self.reader.readline()).split(b";")[0], 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        return body

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            return  # already broken: closed is what was wanted


async def open_tunnel(
    method: str, url: str, headers: Mapping[str, str], params: Mapping[str, str], tls: ssl.SSLContext | None,
    *, server_name: str = "",
) -> Tunnel:  # fmt: skip
    """Connects, sends the request head, reads the reply's head. Raises OSError, IncompleteReadError, ValueError.

    `server_name`: what the server's certificate has to name, if not the URL's host.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        port,
        ssl=tls,
        server_hostname=(server_name or parts.hostname) if tls else None,
        limit=HEAD_LIMIT,
    )
    set_keepalive(writer.get_extra_info("socket"))
    query = "&".join(text for text in (parts.query, urlencode(params)) if text)
    target = (parts.path or "/") + (f"?{query}" if query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        status, fields, head = await read_head(reader)
    except BaseException:
        writer.close()
        raise
    return Tunnel(status, fields, reader, writer, head)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, lower-case header fields and the raw head of an HTTP/1.1 reply. Raises ValueError for anything else."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *rest = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1."):
        raise ValueError(f"not an HTTP reply: {first[:80]!r}")
    fields = {}
    for line in rest:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return int(words[1]), fields, head


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until the reader ends, then half-closes the writer where the transport can (TLS cannot)."""
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
