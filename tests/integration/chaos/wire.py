"""A plain HTTP/1.1 client over TLS for tests that must know what really went out: no retries, no pool, no rescue.

Used by the chaos tests. One `Connection` carries one request at a time and is opened anew after it broke. Trouble has
two members: `Unsent` (the server surely never saw the request) and `Broken` (nobody knows what became of it).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any

import orjson

REQUEST_SECONDS = 30.0


class Unsent(Exception):
    """Nothing of the request left this process."""


class Broken(Exception):
    """The connection ended, or fell silent, before the answer was whole."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def message(self) -> str:
        """What the Status says."""
        return str(self.json().get("message", ""))


@dataclass
class Connection:
    """To one server. `context` None: plain HTTP."""

    port: int
    context: ssl.SSLContext | None
    token: str = ""
    seconds: float = REQUEST_SECONDS
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Raises Unsent, Broken. `body`: bytes as they are, else JSON."""
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        lines = {"Host": "127.0.0.1", "Accept": "application/json", "Content-Length": str(len(content))}
        if body is not None:
            lines["Content-Type"] = "application/json"
        if self.token:
            lines["Authorization"] = f"Bearer {self.token}"
        head = "".join(f"{name}: {value}\r\n" for name, value in (lines | (headers or {})).items())
        return await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + content)

    async def raw(self, message: bytes) -> Answer:
        """Sends bytes and reads one answer."""
        reader, writer = await self._open()
        try:
            async with asyncio.timeout(self.seconds):
                writer.write(message)
                await writer.drain()
                answer = await read_answer(reader)
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Broken(f"{type(error).__name__}: {error}") from error
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            try:
                async with asyncio.timeout(self.seconds):
                    self._streams = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
            except (OSError, EOFError, TimeoutError) as error:
                raise Unsent(str(error)) from error
        return self._streams


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split()[1])
    pairs = (line.split(":", 1) for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    if head[0].startswith("HTTP/1.0"):
        headers.setdefault("connection", "close")
    return status, headers


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    status, headers = await read_head(reader)
    if headers.get("transfer-encoding") == "chunked":
        pieces = []
        while piece := await read_chunk(reader):
            pieces.append(piece)
        return Answer(status, headers, b"".join(pieces))
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Answer(status, headers, await reader.read())


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of a chunked body; empty at its end."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]
