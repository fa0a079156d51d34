"""WebSockets that the server speaks itself: watches and logs as messages, and whom it answers 101."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from controller.server import watch
from tests.integration.server.conftest import Answer, Cluster
from tests.integration.server.test_custom_resources import eventually
from tests.integration.server.test_streams import MAPS, POD, Agent, agent, register, upgrading

__all__ = ["agent", "upgrading"]

V5, TUNNELLED = "v5.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"


@pytest.fixture
async def session(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(cluster.pki.ca_path))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{cluster.listener.port}",
        headers={"Authorization": f"Bearer {cluster.pki.admin_token}"},
        connector=aiohttp.TCPConnector(ssl=context),
    ) as opened:
        yield opened


async def event(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    received: dict[str, Any] = json.loads(await socket.receive_str(timeout=5))
    return received


async def test_a_watch_is_a_text_message_an_event(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    await cluster.namespace("default")
    await cluster.admin.post(MAPS, {"metadata": {"name": "a"}})
    async with session.ws_connect(f"{MAPS}?watch=1") as socket:
        assert (await event(socket))["object"]["metadata"]["name"] == "a"
        await cluster.admin.ask("DELETE", f"{MAPS}/a")
        assert (await event(socket))["type"] == "DELETED"


async def test_a_watch_that_ends_says_goodbye(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{MAPS}?watch=1&timeoutSeconds=1") as socket:
        closed = await socket.receive(timeout=5)
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1000)
    async with session.ws_connect(f"{MAPS}?watch=1&resourceVersion=1") as socket:
        gone = await event(socket)
        assert (gone["type"], gone["object"]["code"]) == ("ERROR", 410)
        assert (await socket.receive(timeout=5)).type is WSMsgType.CLOSE


async def test_the_work_ends_when_the_client_leaves(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    def watches(answer: Answer) -> bool:
        lines = answer.body.decode().splitlines()
        return any(line.startswith("apiserver_longrunning_requests{") and line.endswith(" 1.0") for line in lines)

    async with session.ws_connect(f"{MAPS}?watch=1") as socket:
        assert watches(await cluster.admin.get("/metrics"))
        await socket.close()
        await eventually(cluster, "/metrics", lambda answer: not watches(answer))


async def test_a_watch_that_outlasts_its_clock_in_the_middle_of_a_batch_loses_nothing(
    cluster: Cluster, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader so slow that the minute passes while a batch is written, message by message."""
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.2)
    await cluster.namespace("default")
    version = (await cluster.admin.get(MAPS)).json["metadata"]["resourceVersion"]
    names = [f"m{number}" for number in range(40)]
    async with session.ws_connect(f"{MAPS}?watch=1&resourceVersion={version}") as socket:
        transport = socket._response.connection.transport  # type: ignore[union-attr]  # to stop reading for a while
        transport.pause_reading()  # type: ignore[union-attr]
        for name in names:
            await cluster.admin.post(MAPS, {"metadata": {"name": name}, "data": {"a": "x" * 400_000}})
        await asyncio.sleep(0.5)
        transport.resume_reading()  # type: ignore[union-attr]
        assert [(await event(socket))["object"]["metadata"]["name"] for _ in names] == names


@pytest.mark.parametrize(
    ("protocols", "form"),
    [
        ((), WSMsgType.BINARY),
        (("nonsense", "binary.k8s.io"), WSMsgType.BINARY),
        (("base64.binary.k8s.io", "binary.k8s.io"), WSMsgType.TEXT),
    ],
)
async def test_a_log_comes_in_the_protocol_asked_for_and_ends(
    cluster: Cluster,
    agent: Agent,
    session: aiohttp.ClientSession,
    protocols: tuple[str, ...],
    form: WSMsgType,
) -> None:
    async with session.ws_connect(f"{POD}/log?follow=1", protocols=protocols) as socket:
        assert socket.protocol == next((name for name in protocols if name != "nonsense"), None)
        received = [message async for message in socket]
    assert {message.type for message in received} == {form} and not received[0].data
    decode = base64.b64decode if form is WSMsgType.TEXT else bytes
    assert b"".join(decode(message.data) for message in received) == b"one\ntwo\n"
    assert socket.close_code == 1000
    assert agent.asked == ["GET /containerLogs/default/p/c?follow=1"]


@pytest.mark.parametrize(
    ("path", "protocols"),
    [(f"{POD}/log", ("nonsense",)), (f"{MAPS}?watch=1", ("nonsense",)), (f"{POD}/log?container=x", ())],
)
async def test_what_cannot_be_served_is_refused_before_the_upgrade(
    cluster: Cluster, agent: Agent, session: aiohttp.ClientSession, path: str, protocols: tuple[str, ...]
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(path, protocols=protocols)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("path", "protocol", "asked"),
    [
        ("exec?command=refused&stdout=1", V5, b"POST /exec/default/p/c?command=refused&output=1 HTTP/1.1\r\n"),
        ("portforward?ports=80&command=refused", TUNNELLED, b"POST /portForward/default/p?port=80 HTTP/1.1\r\n"),
    ],
)
async def test_the_agent_is_asked_for_spdy_and_its_refusal_is_the_answer(
    cluster: Cluster, upgrading: Agent, session: aiohttp.ClientSession, path: str, protocol: str, asked: bytes
) -> None:
    upgrading.refuses = True
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(f"{POD}/{path}", protocols=(protocol,))
    assert refused.value.status == 403
    sent = upgrading.heads[0]
    assert sent.startswith(asked) and b"\r\nUpgrade: SPDY/3.1\r\n" in sent and b"Sec-WebSocket" not in sent


async def test_an_agent_that_is_away_is_service_unavailable(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    await register(cluster, 1)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(f"{POD}/exec?command=x&stdout=1", protocols=(V5,))
    assert refused.value.status == 503


async def test_messages_of_a_port_forward_carry_bytes_both_ways(
    cluster: Cluster, upgrading: Agent, session: aiohttp.ClientSession
) -> None:
    async with session.ws_connect(f"{POD}/portforward?ports=80", protocols=(TUNNELLED,)) as socket:
        assert socket.protocol == TUNNELLED
        assert await socket.receive_bytes(timeout=5) == b"hi "
        await socket.send_bytes(b"x" * 300_000)
        received = b""
        while len(received) < 300_000:
            received += await socket.receive_bytes(timeout=5)
        assert received == b"X" * 300_000
