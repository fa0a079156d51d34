"""Attacks on the HTTP front, most of them by nobody in particular: memory stays, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import cache

import pytest

from tests.integration.chaos.malformed_wire import MAPS
from tests.integration.chaos.plane import Plane, prepared_plane, resident_bytes
from tests.integration.chaos.wire import read_answer

GROWTH_BYTES = 48 << 20
SERVED_SECONDS = 5.0
CONNECTION_BYTES = 160 << 10
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with prepared_plane(tmp_path_factory.mktemp("front") / "plane", "--controllers", "none") as found:
        yield found
    assert "Traceback" not in found.log, found.log[-5000:]


@contextlib.asynccontextmanager
async def attack(plane: Plane, connections: int = 1, growth_bytes: int = GROWTH_BYTES) -> AsyncIterator[list[Stream]]:
    """Connections to misuse; afterwards somebody else is served in time, and little more memory is taken."""
    await plane.get(MAPS)
    before = resident_bytes(plane.pid)
    streams = [await asyncio.open_connection("127.0.0.1", plane.port, ssl=plane.context()) for _ in range(connections)]
    try:
        yield streams
        began = time.monotonic()
        assert (await plane.get(MAPS)).status == 200
        assert time.monotonic() - began < SERVED_SECONDS
        assert resident_bytes(plane.pid) - before < growth_bytes
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def pour(stream: Stream, piece: bytes, seconds: float = 2.0) -> int:
    """Writes as much as is taken in that time; how many bytes that was."""
    _, writer = stream
    deadline, sent = time.monotonic() + seconds, 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        while time.monotonic() < deadline and not writer.transport.is_closing():
            writer.write(piece)
            sent += len(piece)
            await asyncio.wait_for(writer.drain(), 0.5)
    return sent


def post(token: str = "", *lines: str) -> bytes:
    authorized = [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([f"POST {MAPS} HTTP/1.1", "Host: x", *authorized, *lines, "", ""]).encode()


@cache
def bomb(encoding: str, megabytes: int = 256) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15}[encoding])
    return b"".join(packing.compress(b" " * (1 << 20)) for _ in range(megabytes)) + packing.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("known", [True, False])
async def test_what_unpacks_to_gigabytes_is_not_unpacked(plane: Plane, encoding: str, known: bool) -> None:
    packed = bomb(encoding)
    lines = ("Content-Type: application/json", f"Content-Encoding: {encoding}", f"Content-Length: {len(packed)}")
    async with attack(plane, 10) as streams:
        for _, writer in streams:
            writer.write(post(plane.token if known else "", *lines) + packed)
        began = time.monotonic()
        answers = [await asyncio.wait_for(read_answer(reader), 10) for reader, _ in streams]
        assert {answer.status for answer in answers} == {413 if known else 403}
        assert time.monotonic() - began < 2 * SERVED_SECONDS


@pytest.mark.parametrize("body", [b"{}", b"\x1f\x8b\x08\x00", zlib.compress(b"{}")[:-2], zlib.compress(b"{}") + b"x"])
async def test_what_is_not_what_its_encoding_says_is_refused(plane: Plane, body: bytes) -> None:
    connection = plane.connection(5)
    headers = {"Content-Encoding": "gzip" if body[:1] == b"\x1f" else "deflate", "Content-Type": "application/json"}
    answer = await connection.request("POST", MAPS, body, headers)
    assert (answer.status, "the request body cannot be read" in answer.message) == (400, True)
    assert (await connection.request("GET", MAPS)).status == 200, "the connection lives on"
    connection.close()


async def test_both_kinds_of_deflate_and_gzip_are_read(plane: Plane) -> None:
    text = b'{"metadata": {"name": "packed"}}'
    for encoding, window in (("gzip", 31), ("deflate", 15), ("deflate", -15)):
        packing = zlib.compressobj(wbits=window)
        packed = packing.compress(text) + packing.flush()
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        connection = plane.connection(5)
        assert (await connection.request("POST", f"{MAPS}?dryRun=All", packed, headers)).status == 201
        connection.close()


async def test_a_body_that_is_too_large_ends_the_connection_and_says_so(plane: Plane) -> None:
    connection = plane.connection(5)
    answer = await connection.request("POST", MAPS, b"[" * (4 << 20))
    assert (answer.status, answer.headers.get("connection")) == (413, "close")
    connection.close()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2000),
        (b"GET /livez HTTP/1.1\r\n", b"X-Header: " + b"a" * 1000 + b"\r\n"),
        (b"GET /", b"a" * 10_000),
        (post("", "Transfer-Encoding: chunked"), b"10000\r\n" + b"a" * 0x10000 + b"\r\n"),
        (post("", "Transfer-Encoding: chunked"), b"1\r\na\r\n" * 10_000),
        (post("", "Transfer-Encoding: chunked") + b"1;", b"x" * 100_000),
        (post("", "Content-Length: 99999999999"), b"x" * 100_000),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"\x00" * 100_000),
    ],
    ids=["pipelined", "headers", "path", "chunks", "tiny chunks", "chunk extension", "length", "upgrade"],
)
async def test_what_never_ends_fills_no_memory(plane: Plane, head: bytes, piece: bytes) -> None:
    async with attack(plane, 3) as streams:
        for _, writer in streams:
            writer.write(head)
        await asyncio.gather(*(pour(stream, piece) for stream in streams))


async def test_connections_that_only_stand_there_are_cheap(plane: Plane) -> None:
    async with attack(plane, 600, 600 * CONNECTION_BYTES):
        pass


async def test_half_a_handshake_holds_nobody_up(plane: Plane) -> None:
    async with attack(plane, 0):
        streams = [await asyncio.open_connection("127.0.0.1", plane.port) for _ in range(200)]
        for _, writer in streams:
            writer.write(b"\x16\x03\x01\x40\x00")
        assert (await plane.get(MAPS)).status == 200
        for _, writer in streams:
            writer.transport.abort()


async def test_who_watches_hundreds_of_times_leaves_room_for_others(plane: Plane) -> None:
    lines = f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {plane.token}\r\n\r\n".encode()
    async with attack(plane, 300, 300 * CONNECTION_BYTES) as streams:
        for _, writer in streams:
            writer.write(lines)
        for reader, _ in streams:
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)


async def test_paths_that_nobody_serves_make_no_series(plane: Plane) -> None:
    async def size() -> int:
        return len((await plane.get("/metrics")).body.splitlines())

    await size()
    connection = plane.connection()
    before = 0
    for number in range(400):
        await connection.request("GET", f"{MAPS}/x/sub{number}")
        await connection.request("GET", f"/apis/group{number}.test/v1/things{number}/x")
        if number == 5:
            before = await size()
    connection.close()
    assert await size() - before < 50
