"""The API client against a scripted HTTP server: errors, paging, watches that break and resume, upgrades."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from api import errors
from api.client import Client, Selection, Unreachable, path_of
from api.kinds import by_path
from api.tls import Credentials

PODS = by_path("", "v1", "pods")
DEPLOYMENTS = by_path("apps", "v1", "deployments")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Client]:
    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    async with Client(f"http://127.0.0.1:{port}", Credentials(token="t"), timeout=5) as client:
        yield client
    await runner.cleanup()


def pod(name: str, version: int) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "a", "uid": f"u-{name}", "resourceVersion": str(version)}}


def event(change: str, name: str, version: int) -> bytes:
    return json.dumps({"type": change, "object": pod(name, version)}).encode() + b"\n"


def test_paths_follow_group_namespace_and_subresource() -> None:
    assert PODS and DEPLOYMENTS
    assert path_of(PODS, "a", "b", "log") == "/api/v1/namespaces/a/pods/b/log"
    assert path_of(DEPLOYMENTS) == "/apis/apps/v1/deployments"


async def test_a_status_reply_becomes_the_error_it_stands_for() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer t"
        return web.json_response(errors.status_of(errors.not_found("", "pods", "x")), status=404)

    assert PODS
    async with serving(refuse) as client:
        with pytest.raises(errors.NotFound, match='pods "x" not found'):
            await client.get(PODS, "a", "x")


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    assert PODS
    async with Client("http://127.0.0.1:9", Credentials()) as client:
        with pytest.raises(Unreachable):
            await client.get(PODS, "a", "x")


async def test_pages_are_joined() -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        last = "continue" in request.query
        meta = {"resourceVersion": "7"} if last else {"resourceVersion": "7", "continue": "more"}
        return web.json_response({"metadata": meta, "items": [pod("b" if last else "a", 1)]})

    assert PODS
    async with serving(page) as client:
        listed = await client.list(PODS, Selection("a", labels="x=y"))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]


async def test_a_watch_resumes_where_it_broke_and_relists_after_410() -> None:
    asked: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            first = not asked
            items = [pod("one", 1), pod("two", 2)] if first else [pod("one", 9), pod("three", 8)]
            return web.json_response({"metadata": {"resourceVersion": "2" if first else "10"}, "items": items})
        version = request.query["resourceVersion"]
        asked.append(version)
        response = web.StreamResponse()
        await response.prepare(request)
        if version == "2":
            whole = event("MODIFIED", "two", 4) + event("BOOKMARK", "", 5)
            await response.write(whole[:30])
            await response.write(whole[30:])
        elif version == "5":
            gone = {"type": "ERROR", "object": errors.status_of(errors.Gone("too old resource version"))}
            await response.write(json.dumps(gone).encode() + b"\n")
        else:
            await asyncio.sleep(5)
        return response

    seen: list[tuple[str, str]] = []
    assert PODS
    async with serving(serve) as client, asyncio.timeout(5):
        async for change in client.watch(PODS):
            seen.append((change.type, (change.object.get("metadata") or {}).get("name", "")))
            if seen.count(("SYNCED", "")) == 2:
                break
    assert asked[:2] == ["2", "5"]
    assert seen == [
        ("ADDED", "one"),
        ("ADDED", "two"),
        ("SYNCED", ""),
        ("MODIFIED", "two"),
        ("DELETED", "two"),
        ("MODIFIED", "one"),
        ("ADDED", "three"),
        ("SYNCED", ""),
    ]


async def test_an_upgrade_gives_raw_bytes_and_a_refusal_gives_its_error() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"GET /no" in head:
            body = json.dumps(errors.status_of(errors.Forbidden("no"))).encode()
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        else:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
            writer.write((await reader.readexactly(2)).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(url, Credentials(token="t")) as client:
        tunnel = await client.upgrade("GET", "/session", {"Connection": "Upgrade", "Upgrade": "x"})
        tunnel.writer.write(b"ab")
        assert await tunnel.reader.read() == b"AB"
        await tunnel.close()
        with pytest.raises(errors.Forbidden, match="no"):
            await client.upgrade("GET", "/no", {"Connection": "Upgrade", "Upgrade": "x"})
    server.close()
