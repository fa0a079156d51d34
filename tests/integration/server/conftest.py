"""A real API server over a real etcd, and clients that speak plain HTTP to it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.pki.authority import Subject
from controller.pki.files import Pki, Serving, ensure_pki
from controller.server.app import ApiServer
from controller.server.bootstrap import ensure_defaults
from controller.server.call import Services
from controller.server.compose import ServerSettings, compose
from controller.server.listener import Address, Listener, server_context
from controller.store import Store

ISSUER = "https://issuer.test"
POD_SPEC = {"containers": [{"name": "c", "image": "busybox:1"}]}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


@dataclass
class Beats:
    """Heartbeats as they arrive."""

    seen: list[str] = field(default_factory=list)
    granted: bool = True

    def beat(self, node: str) -> bool:
        self.seen.append(node)
        return self.granted


class Caller:
    """Asks as one user: by token, by client certificate, or as nobody."""

    def __init__(self, url: str, session: aiohttp.ClientSession, token: str = "") -> None:
        self.url = url
        self.session = session
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON."""
        sent = dict(self.headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        async with self.session.request(method, self.url + path, data=body, headers=sent) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.ask("POST", path, body, headers=headers)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of a GET as it comes."""
        async with self.session.get(self.url + path, headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            yield answer.content


async def next_event(lines: aiohttp.StreamReader) -> dict[str, Any]:
    line = await lines.readline()
    assert line, "the watch ended"
    event: dict[str, Any] = json.loads(line)
    return event


@dataclass
class Cluster:
    services: Services
    pki: Pki
    url: str
    beats: Beats
    admin: Caller
    anonymous: Caller
    listener: Listener
    server: ApiServer
    trust: ssl.SSLContext
    """TLS of a client that trusts the cluster's CA."""

    async def namespace(self, name: str) -> str:
        """A namespace with a default service account, so that pods can be made."""
        await self.admin.post("/api/v1/namespaces", {"metadata": {"name": name}})
        await self.admin.post(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return name

    async def pod(
        self, namespace: str, name: str, node: str = "", labels: Mapping[str, str] | None = None, **spec: Any
    ) -> dict[str, Any]:
        metadata = {"name": name, **({"labels": dict(labels)} if labels else {})}
        body = {"metadata": metadata, "spec": {**POD_SPEC, **spec, **({"nodeName": node} if node else {})}}
        created = await self.admin.post(f"/api/v1/namespaces/{namespace}/pods", body)
        assert created.status == 201, created.body
        pod: dict[str, Any] = created.json
        return pod

    def context(self, subject: Subject, directory: Path) -> ssl.SSLContext:
        """TLS of a client with a certificate for `subject`."""
        pair = self.pki.authority.issue(subject)
        name = subject.name.replace(":", "_")
        for suffix, content in ((".crt", pair.certificate), (".key", pair.key)):
            (directory / (name + suffix)).write_bytes(content)
        context = ssl.create_default_context(cafile=str(self.pki.ca_path))
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
        return context

    @asynccontextmanager
    async def certified(self, subject: Subject, directory: Path) -> AsyncIterator[Caller]:
        connector = aiohttp.TCPConnector(ssl=self.context(subject, directory))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Caller(self.url, session)


@pytest.fixture
async def cluster(store: Store, tmp_path: Path) -> AsyncIterator[Cluster]:
    """An API server with Kubernetes' defaults in it, on a port of its own."""
    pki = ensure_pki(tmp_path, Serving(("127.0.0.1", "localhost"), 0))
    beats = Beats()
    services = compose(store, pki, beats, ServerSettings(ISSUER, "127.0.0.1:6443"))
    await ensure_defaults(services.registry)
    context = ssl.create_default_context(cafile=str(pki.ca_path))
    address = Address("127.0.0.1", 0)
    server = ApiServer(services)
    async with Listener(server, server_context(pki), address, grace_seconds=1.0) as listener:
        url = f"https://127.0.0.1:{listener.port}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            admin, nobody = Caller(url, session, pki.admin_token), Caller(url, session)
            yield Cluster(services, pki, url, beats, admin, nobody, listener, server, context)
    await services.close()
