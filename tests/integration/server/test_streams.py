"""What goes through the server to agents, and what stays open: logs, tunnels, proxies, heartbeats, the end."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from controller.pki.authority import Subject
from tests.integration.server.conftest import Cluster, next_event

MAPS = "/api/v1/namespaces/default/configmaps"
POD = "/api/v1/namespaces/default/pods/p"
SPDY = (
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    "X-Stream-Protocol-Version: v3.channel.k8s.io\r\n"
)


class Agent:
    """An agent's HTTPS server that answers as told and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.refusal = ""
        self.refuses = False

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.raw_path}")
        if self.refusal:
            return web.Response(status=400, text=self.refusal)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        for line in (b"one\n", b"two\n"):
            await response.write(line)
        await response.write_eof()
        return response

    async def upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers 101 and then says everything back in capitals; refuses what asks for /refused."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.refuses:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nnever")
        else:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nhi ")
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()


def agent_context(cluster: Cluster, directory: Path) -> ssl.SSLContext:
    pair = cluster.pki.authority.issue(Subject("system:node:n1", ("system:nodes",), ("127.0.0.1", "n1.node.wherry")))
    (directory / "agent.crt").write_bytes(pair.certificate)
    (directory / "agent.key").write_bytes(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cluster.pki.ca_path))
    context.load_cert_chain(directory / "agent.crt", directory / "agent.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def register(cluster: Cluster, port: int) -> None:
    """Node n1 with the agent's port, and pod p on it."""
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    made = await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status})
    assert made.status == 201, made.body
    await cluster.namespace("default")
    await cluster.pod("default", "p", "n1")


@pytest.fixture
async def agent(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent that speaks HTTP."""
    fake = Agent()
    loop = asyncio.get_running_loop()
    http = web.Server(fake.serve, access_log=None)
    server = await loop.create_server(http, "127.0.0.1", 0, ssl=agent_context(cluster, tmp_path))
    await register(cluster, server.sockets[0].getsockname()[1])
    yield fake
    server.close()
    await http.shutdown(1.0)


@pytest.fixture
async def upgrading(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent that upgrades."""
    fake = Agent()
    server = await asyncio.start_server(fake.upgrade, "127.0.0.1", 0, ssl=agent_context(cluster, tmp_path))
    await register(cluster, server.sockets[0].getsockname()[1])
    yield fake
    server.close()


async def raw(cluster: Cluster, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which `head` was sent as the administrator."""
    context = ssl.create_default_context(cafile=str(cluster.pki.ca_path))
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.listener.port, ssl=context)
    line, _, headers = head.partition("\r\n")
    writer.write(f"{line}\r\nHost: x\r\nAuthorization: Bearer {cluster.pki.admin_token}\r\n{headers}\r\n".encode())
    return reader, writer


async def test_logs_are_the_agents_with_its_parameters(cluster: Cluster, agent: Agent) -> None:
    answer = await cluster.admin.get(f"{POD}/log?tailLines=5&timestamps=true&follow=true&nonsense=1")
    assert (answer.status, answer.body) == (200, b"one\ntwo\n")
    assert agent.asked == ["GET /containerLogs/default/p/c?follow=true&tailLines=5&timestamps=true"]


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("container=x", 400, "container x is not valid for pod p"),
        ("tailLines=-1", 400, "tailLines"),
        ("sinceSeconds=0", 400, "sinceSeconds"),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 400, "at most one of"),
    ],
)
async def test_bad_log_options_do_not_reach_the_agent(
    cluster: Cluster, agent: Agent, query: str, status: int, says: str
) -> None:
    answer = await cluster.admin.get(f"{POD}/log?{query}")
    assert answer.status == status and says in answer.message
    assert agent.asked == []


async def test_what_the_agent_refuses_is_a_status(cluster: Cluster, agent: Agent) -> None:
    agent.refusal = 'container "c" in pod "p" is waiting to start'
    refused = await cluster.admin.get(f"{POD}/log")
    assert (refused.status, refused.json["reason"], refused.message) == (400, "BadRequest", agent.refusal)


async def test_a_node_proxy_reaches_the_agent(cluster: Cluster, agent: Agent) -> None:
    answer = await cluster.admin.get("/api/v1/nodes/n1/proxy/metrics/cadvisor?a=b")
    assert answer.body == b"one\ntwo\n" and agent.asked == ["GET /metrics/cadvisor?a=b"]


async def test_who_may_only_read_through_a_nodes_proxy_enters_nothing(
    cluster: Cluster, agent: Agent, tmp_path: Path
) -> None:
    """Exec by WebSocket is a GET, too."""
    rules = [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}]
    bound = {
        "metadata": {"name": "look"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "look"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await cluster.admin.post(f"{rbac}/clusterroles", {"metadata": {"name": "look"}, "rules": rules})
    assert (await cluster.admin.post(f"{rbac}/clusterrolebindings", bound)).status == 201
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Protocol": "v4.channel.k8s.io"}
    path = "/api/v1/nodes/n1/proxy/exec/default/p/c?command=id&output=1"
    async with cluster.certified(Subject("eve"), tmp_path) as eve:
        assert (await eve.get("/api/v1/nodes/n1/proxy/pods")).status == 200
        refused = await eve.ask("GET", path, headers=upgrade)
        assert refused.status == 403 and 'cannot create resource "nodes/proxy"' in refused.message
    assert agent.asked == ["GET /pods"]


async def test_a_dead_agent_is_service_unavailable(cluster: Cluster) -> None:
    await register(cluster, 1)
    assert (await cluster.admin.get(f"{POD}/log")).status == 503
    assert (await cluster.admin.get("/api/v1/nodes/nope/proxy/")).status == 404


async def test_exec_is_a_tunnel_both_ways(cluster: Cluster, upgrading: Agent) -> None:
    path = f"{POD}/exec?command=sh&command=-c&stdin=true&stdout=true&tty=false&container=c"
    reader, writer = await raw(cluster, f"POST {path} HTTP/1.1\r\nContent-Length: 0\r\n{SPDY}")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert await reader.readexactly(3) == b"hi "
    payload = b"x" * 300_000
    writer.write(payload)
    assert await reader.readexactly(len(payload)) == payload.upper()
    sent = upgrading.heads[0]
    assert sent.startswith(b"POST /exec/default/p/c?command=sh&command=-c&input=1&output=1 HTTP/1.1\r\n")
    assert sent.count(b"X-Stream-Protocol-Version") == 2 and b"Authorization" not in sent
    writer.close()


async def test_a_refused_upgrade_is_relayed_and_ends_the_exchange(cluster: Cluster, upgrading: Agent) -> None:
    upgrading.refuses = True
    smuggled = "GET /pods HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"POST {POD}/exec?command=refused HTTP/1.1\r\nContent-Length: 0\r\n{SPDY}"
    reader, writer = await raw(cluster, head)
    writer.write(smuggled.encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 403") and answer.endswith(b"never")
    assert len(upgrading.heads) == 1 and b"GET /pods" not in b"".join(upgrading.heads)
    writer.close()


def frame(**fields: int) -> bytes:
    body = json.dumps(fields).encode()
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> dict[str, object]:
    length = int.from_bytes(await reader.readexactly(4), "big")
    answer: dict[str, object] = json.loads(await reader.readexactly(length))
    return answer


HEARTBEAT = "Connection: Upgrade\r\nUpgrade: wherry-heartbeat\r\n"


async def test_heartbeats_are_counted_and_granted(cluster: Cluster) -> None:
    reader, writer = await raw(cluster, f"GET /wherry/v1/nodes/n1/session HTTP/1.1\r\n{HEARTBEAT}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    writer.write(frame(nonce=7))
    assert await read_frame(reader) == {"nonce": 7, "granted": True, "cas": cluster.pki.digest}
    cluster.beats.granted = False
    both = frame(nonce=8) + frame(nonce=9)
    writer.write(both[:5])
    await writer.drain()
    writer.write(both[5:])
    assert [await read_frame(reader), await read_frame(reader)] == [
        {"nonce": 8, "granted": False, "cas": cluster.pki.digest},
        {"nonce": 9, "granted": False, "cas": cluster.pki.digest},
    ]
    assert cluster.beats.seen == ["n1"] * 3
    writer.write(b"\xff\xff\xff\xff")
    assert await reader.read() == b""


async def test_only_the_node_itself_heartbeats(cluster: Cluster, tmp_path: Path) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "wherry-heartbeat"}
    async with cluster.certified(Subject("system:node:n1", ("system:nodes",)), tmp_path) as n1:
        assert (await n1.ask("GET", "/wherry/v1/nodes/n2/session", headers=headers)).status == 403
        assert (await n1.get("/wherry/v1/nodes/n1/session")).status == 400
        assert (await n1.get("/wherry/v1/nodes/n1/other")).status == 400
    assert (await cluster.anonymous.ask("GET", "/wherry/v1/nodes/n1/session", headers=headers)).status == 403


async def test_shutdown_ends_watches_cleanly_and_refuses_nothing_halfway(cluster: Cluster) -> None:
    async with cluster.admin.stream(f"{MAPS}?watch=1") as lines:
        await cluster.admin.post(MAPS, {"metadata": {"name": "a"}})
        assert (await next_event(lines))["type"] == "ADDED"
        async with asyncio.timeout(5):
            await cluster.listener.stop()
            assert await lines.read() == b""


async def test_metrics_have_kubernetes_names(cluster: Cluster) -> None:
    await register(cluster, 1)
    text = (await cluster.admin.get("/metrics")).body.decode()
    for line in (
        'apiserver_request_total{code="201",dry_run="",group="",resource="pods",scope="resource",subresource="",'
        'verb="POST",version="v1"} 1.0',
        'kube_pod_status_phase{namespace="default",pod="p",phase="Pending"} 1',
        'kube_node_spec_unschedulable{node="n1"} 0',
        'apiserver_current_inflight_requests{request_kind="readOnly"} 1.0',
    ):
        assert line in text
    assert "apiserver_request_duration_seconds_bucket" in text and "etcd_request_duration_seconds_count" in text


async def test_openapi_is_indexed_by_hash_and_knows_field_validation(cluster: Cluster) -> None:
    paths = (await cluster.admin.get("/openapi/v3")).json["paths"]
    url = paths["apis/apps/v1"]["serverRelativeURL"]
    document = await cluster.admin.get(url)
    tag = document.headers["ETag"]
    assert (await cluster.admin.ask("GET", url, headers={"If-None-Match": tag})).status == 304
    patch = document.json["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert any(parameter.get("name") == "fieldValidation" for parameter in patch["parameters"])
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert (await cluster.admin.get("/openapi/v3/apis/nope/v1")).status == 404
