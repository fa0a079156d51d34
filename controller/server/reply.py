"""Whole answers in one write.

Every short answer of the API server is a `Reply`; streams (watches, logs, long lists) are aiohttp's StreamResponse.
aiohttp needs of a response only `prepare`, `write_eof`, `keep_alive` and `status`: a Reply provides these and skips the
header machinery, which is half of the CPU time of a GET (measured: 43 us against 21 us). Imports aiohttp's types only.
Invariant: bytes of a stored object are sent as they lie in the cache, never parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

import orjson
import yaml
from aiohttp import web

from api.errors import ApiError, status_of
from api.objects import Object
from api.turns import Turn
from controller.server.negotiation import PLAIN, Form

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
_MOST_WARNED, _LONGEST_WARNING = 4096, 256
"""Characters: clients refuse heads that are too long."""
DRAIN_ABOVE_BYTES = 1 << 18
PIECE_BYTES = 1 << 18
"""Longer bodies are written in pieces."""
GZIP_ABOVE_BYTES = 128 * 1024
"""Smaller answers are not worth compressing (Kubernetes' limit)."""


def _step_back() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


_COMPRESSING = ThreadPoolExecutor(1, "gzip", _step_back)
"""One thread behind all others: compressing takes what is left, and nothing from those who ask for little."""

Headers = Iterable[tuple[str, str]]

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_date = (0, "")


def http_date() -> str:
    """The Date header, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def accepts_gzip(request: web.BaseRequest) -> bool:
    """Whether a GET may be answered compressed: as in Kubernetes, plain `gzip` asks for it, `gzip;q=0.5` does not."""
    encodings = request.headers.get("Accept-Encoding", "")
    return "gzip" in encodings and request.method == "GET" and "gzip" in map(str.strip, encodings.split(","))


class Gzip:
    """Compresses a body piece by piece, away from the event loop: level 1, as Kubernetes does."""

    headers = (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))

    def __init__(self) -> None:
        self._stream = zlib.compressobj(1, wbits=31)

    async def add(self, piece: bytes) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(_COMPRESSING, self._stream.compress, piece)

    def end(self) -> bytes:
        return self._stream.flush()


class Reply:
    """Status, headers and a body that is there already."""

    __slots__ = ("body", "cache_control", "content_type", "headers", "keep_alive", "packed", "status")

    def __init__(self, status: int, body: bytes, content_type: str = JSON, headers: Headers = ()) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.cache_control = "no-cache, private"
        self.keep_alive = True
        self.packed = b""

    async def pack(self, request: web.BaseRequest) -> None:
        """Compresses a long body for who asks for it."""
        if len(self.body) > GZIP_ABOVE_BYTES and accepts_gzip(request):
            gzip = Gzip()
            self.packed = await gzip.add(self.body) + gzip.end()
            self.headers = (*self.headers, *gzip.headers)

    async def prepare(self, request: web.BaseRequest) -> None:
        """Writes everything at once; waits only when the client reads too slowly."""
        if self.status == 101:
            return  # the connection was taken over: everything is written already
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        body = self.packed or self.body
        head = (
            f"{_STATUS_LINES[self.status]}Content-Type: {self.content_type}\r\nContent-Length: {len(body)}\r\n"
            f"Cache-Control: {self.cache_control}\r\nDate: {http_date()}\r\n"
        )
        for name, value in self.headers:
            head += f"{name}: {value}\r\n"
        if not (request.keep_alive and self.keep_alive):
            self.keep_alive = False
            head += "Connection: close\r\n"
        encoded = head.encode("utf-8", "surrogateescape") + b"\r\n"
        if len(body) > PIECE_BYTES and request.method != "HEAD":
            await self._write_long(request, transport, (encoded, body))
            return
        transport.write(encoded if request.method == "HEAD" else encoded + body)
        if transport.get_write_buffer_size() > DRAIN_ABOVE_BYTES:
            await request.writer.drain()

    @staticmethod
    async def _write_long(request: web.BaseRequest, transport: asyncio.WriteTransport, parts: Iterable[bytes]) -> None:
        """In pieces: encrypting 20 MB at once takes as long as a heartbeat may."""
        for part in parts:
            for start in range(0, len(part), PIECE_BYTES):
                transport.write(memoryview(part)[start : start + PIECE_BYTES])
                await request.writer.drain()
                await asyncio.sleep(0)

    async def write_eof(self) -> None:
        """Nothing is left to write."""

    def as_response(self) -> web.StreamResponse:
        """aiohttp's types want its own class; it uses no more of it than is here."""
        return cast(web.StreamResponse, self)


def switched() -> Reply:
    """The answer of a connection that was taken over (an upgrade)."""
    reply = Reply(101, b"")
    reply.keep_alive = False
    return reply


Answer = Reply | web.StreamResponse


def encode(obj: Mapping[str, Any] | list[Object], form: Form = PLAIN, *, pretty: bool = False) -> bytes:
    """An object in the form the client wants, shape aside."""
    if form.yaml:
        text: str = yaml.dump(obj, Dumper=_Dumper, default_flow_style=False, allow_unicode=True)
        return text.encode()
    return orjson.dumps(obj, option=orjson.OPT_INDENT_2 if pretty else None)


async def encode_list(
    head: Mapping[str, Any], key: str, items: Iterable[Object], form: Form = PLAIN, *, pretty: bool = False
) -> bytes:
    """What `encode` makes of `head` with the list `items` at its end as `key`, made item by item so that nobody has to
    wait for 10,000 of them: a pod's YAML alone takes a millisecond."""
    turn, pieces = Turn(), [b""]
    start, between, end = (b',\n  "%b": [\n    ', b",\n    ", b"\n  ]\n}") if pretty else (b',"%b":[', b",", b"]}")
    for item in items:
        if form.yaml:
            pieces.append(encode([item], form))
        elif pretty:
            pieces += (between, orjson.dumps(item, option=orjson.OPT_INDENT_2).replace(b"\n", b"\n    "))
        else:
            pieces += (between, orjson.dumps(item))
        await turn.breathe()
    if len(pieces) == 1:
        return encode({**head, key: []}, form, pretty=pretty)
    if form.yaml:  # which has its keys in order
        before, after = ({name: head[name] for name in head if (name < key) is first} for first in (True, False))
        pieces[0] = (encode(before, form) if before else b"") + key.encode() + b":\n"
        pieces.append(encode(after, form) if after else b"")
    else:
        pieces[0] = encode(head, pretty=pretty).removesuffix(b"\n}" if pretty else b"}")
        pieces[1] = start % key.encode()
        pieces.append(end)
    return b"".join(pieces)


def reply_object(obj: Mapping[str, Any], *, status: int = 200, form: Form = PLAIN, headers: Headers = ()) -> Reply:
    return Reply(status, encode(obj, form), form.content_type, headers)


def reply_error(error: ApiError, headers: Headers = ()) -> Reply:
    """The Status reply of an error; retryable ones say when."""
    if error.retryable and error.code in (429, 503, 504):
        headers = (*headers, ("Retry-After", str(error.details.get("retryAfterSeconds", 1))))
    return Reply(error.code, orjson.dumps(status_of(error), option=orjson.OPT_APPEND_NEWLINE), JSON, headers)


def reply_text(text: str, status: int = 200, content_type: str = TEXT) -> Reply:
    return Reply(status, text.encode(), content_type, (("X-Content-Type-Options", "nosniff"),))


def warning_headers(warnings: Iterable[str]) -> Headers:
    """`Warning: 299 - "text"`, one a text (RFC 7234, as kubectl prints them), cut as Kubernetes cuts them."""
    texts = [*dict.fromkeys(warnings)]
    if sum(map(len, texts)) > _MOST_WARNED:
        texts = [text[:_LONGEST_WARNING] for text in texts][: _MOST_WARNED // _LONGEST_WARNING]
    return [("Warning", f'299 - "{_quoted(text)}"') for text in texts]


def _quoted(text: str) -> str:
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean.replace("\\", "\\\\").replace('"', '\\"')


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
