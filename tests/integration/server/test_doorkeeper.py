"""Connections that never finish asking are ended; those that asked are left alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from controller.server.doorkeeper import Doorkeeper

SECONDS = 0.8
ASKED = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _answered(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/slow":
        await asyncio.sleep(2 * SECONDS)
    return web.Response(text="ok")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    keeper = Doorkeeper(_answered, asking_seconds=SECONDS)
    server = await asyncio.get_running_loop().create_server(keeper, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    keeper.pre_shutdown()
    await keeper.shutdown(0.1)


async def lifetime(port: int, head: bytes, drop: bytes) -> float:
    """How long a connection lived that sent `head` and goes on drop by drop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    if b"\r\n\r\n" in head:
        await reader.readuntil(b"ok")
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 5 * SECONDS:
            writer.write(drop)
            with contextlib.suppress(TimeoutError):
                assert await asyncio.wait_for(reader.read(1), 0.1) == b""
                break
    writer.transport.abort()
    return time.monotonic() - began


async def test_a_body_may_come_for_longer_than_a_head(port: int) -> None:
    """Also when its first bytes arrive before anybody looked at the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for number in range(20):
        writer.write(b"x" * 10)
        await asyncio.sleep(0 if number < 10 else SECONDS / 10)
    assert await asyncio.wait_for(reader.readuntil(b"ok"), 5 * SECONDS)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("head", "drop"),
    [(b"", b""), (b"GET /", b"a"), (ASKED + b"X: ", b"a"), (ASKED + b"\r\nGET /", b"a"), (b"", b"\r\n")],
    ids=["silence", "path", "header", "second request", "empty lines"],
)
async def test_who_takes_too_long_to_ask_is_shown_the_door(port: int, head: bytes, drop: bytes) -> None:
    lived = await lifetime(port, head, drop)
    assert SECONDS * 0.5 < lived < SECONDS * 2.5


async def test_who_asked_may_wait_and_be_idle(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for path in (b"/slow", b"/"):
        writer.write(ASKED.replace(b"/livez", path) + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(1.3 * SECONDS)
    writer.close()


async def test_a_body_may_take_longer_than_the_asking(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASKED.replace(b"GET", b"POST").replace(b"/livez", b"/slow") + b"Content-Length: 3\r\n\r\n")
    for _ in range(3):
        await asyncio.sleep(SECONDS / 2)
        writer.write(b"a")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.close()
