"""A node that serves Ingresses: the part, a real HAProxy on loopback ports, a real API server, backends in Python."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.network.feed import Feeds
from agent.network.ingress.part import IngressPart
from agent.network.ingress.proxy import stop_proxies
from agent.network.network import Ground
from api.client import Client
from api.kinds import by_resource
from api.tls import Credentials
from controller.admission.types import NODE_PREFIX, NODES_GROUP, Request, User
from controller.pki.authority import Subject
from tests.integration.server.conftest import Cluster

NODE = "n1"
DEADLINE_SECONDS = 15.0
_SLICES = by_resource("discovery.k8s.io", "endpointslices")
_ADMIN = User("admin", groups=("system:masters",))
T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if (found := await look()) is not None:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass
class Backend:
    """A pod's web server: says who it is, what it was asked and with which headers. /slow takes a second."""

    name: str
    port: int
    asked: int = 0
    runner: web.ServerRunner | None = None

    async def start(self) -> None:
        self.runner = web.ServerRunner(web.Server(self._serve, access_log=None))
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        if request.path == "/ws":
            return await _echo(request)
        if request.path == "/slow":
            await asyncio.sleep(1.0)
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        answer = {"who": self.name, "path": request.raw_path, "headers": dict(request.headers), "size": size}
        return web.json_response(answer)


async def _echo(request: web.BaseRequest) -> web.StreamResponse:
    socket_ = web.WebSocketResponse()
    await socket_.prepare(request)
    async for message in socket_:
        await socket_.send_str(f"echo {message.data}")
    return socket_


@dataclass
class Scene:
    cluster: Cluster
    client: Client
    directory: Path
    http: int
    https: int
    node_id: str
    backends: list[Backend] = field(default_factory=list)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[IngressPart]:
        """One life of the agent, as far as Ingress is concerned; HAProxy outlives it."""
        ground = Ground(
            client=self.client,
            node=dict,
            node_name=NODE,
            node_id=self.node_id,
            addresses=("192.0.2.1",),
            data_dir=self.directory,
            cluster_cidr="10.244.0.0/16",
            service_cidr="10.96.0.0/12",
            cluster_domain="cluster.local",
            ingress_ports=(self.http, self.https),
        )
        feeds = Feeds(self.client)
        part = IngressPart(ground, feeds)
        tasks = [asyncio.create_task(feeds.run()), asyncio.create_task(part.run())]
        try:
            yield part
        finally:
            broken = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in broken:
                task.result()

    async def label(self, value: str | None) -> None:
        body = {"metadata": {"labels": {"wherry/ingress": value}}}
        await self.patch(f"/api/v1/nodes/{NODE}", body)

    async def patch(self, path: str, body: Any) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await self.cluster.admin.ask("PATCH", path, body, headers=headers)
        assert answer.status == 200, answer.body

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.cluster.admin.post(path, body)
        assert answer.status == 201, answer.body
        made: dict[str, Any] = answer.json
        return made

    async def service(self, name: str, *backends: Backend, app_protocol: str = "", **spec: Any) -> None:
        """A Service of one port 80, named `web`, and a slice with these backends."""
        port: dict[str, Any] = {"name": "web", "port": 80, **({"appProtocol": app_protocol} if app_protocol else {})}
        body = {"metadata": {"name": name}, "spec": {"ports": [port], **spec}}
        await self.post("/api/v1/namespaces/ns/services", body)
        for backend in backends:
            await self.slice(name, backend)

    async def slice(self, service: str, backend: Backend) -> None:
        """A slice of one endpoint: loopback addresses, which the API refuses, and a port of its own each."""
        obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service}-{backend.name}",
                "namespace": "ns",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": backend.port, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }
        await self.cluster.services.registry.create(Request(_ADMIN, trusted=True), _SLICES, "ns", obj)

    async def conditions(self, service: str, backend: Backend, *, ready: bool, terminating: bool = False) -> None:
        given = {"ready": ready, "serving": True, "terminating": terminating}

        def change(obj: dict[str, Any]) -> dict[str, Any]:
            obj["endpoints"][0]["conditions"] = given
            return obj

        request = Request(_ADMIN, trusted=True)
        await self.cluster.services.registry.modify(request, _SLICES, "ns", f"{service}-{backend.name}", change)

    async def ingress(self, name: str, spec: dict[str, Any], **annotations: str) -> None:
        metadata = {"name": name, "annotations": {key.replace("__", "/"): text for key, text in annotations.items()}}
        body = {"metadata": metadata, "spec": spec}
        await self.post("/apis/networking.k8s.io/v1/namespaces/ns/ingresses", body)

    async def backend(self, name: str) -> Backend:
        made = Backend(name, free_ports(1)[0])
        await made.start()
        self.backends.append(made)
        return made

    async def ask(self, path: str, host: str = "a.test", **headers: str) -> tuple[int, Any]:
        """(status, answer) of one request on a connection of its own."""
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            url = f"http://127.0.0.1:{self.http}{path}"
            async with session.get(url, headers={"Host": host, **headers}, allow_redirects=False) as answer:
                is_json = answer.content_type == "application/json"
                return answer.status, (await answer.json() if is_json else dict(answer.headers))

    async def who(self, path: str = "/", host: str = "a.test") -> str | int:
        """The backend that answers, or the status of a refusal; 0 while nothing listens."""
        try:
            status, answer = await self.ask(path, host)
        except aiohttp.ClientError:
            return 0
        return str(answer["who"]) if status == 200 else status

    async def until(self, expected: str | int, path: str = "/", host: str = "a.test") -> None:
        async def look() -> bool | None:
            return True if await self.who(path, host) == expected else None

        await eventually(look)

    async def certificate(self, name: str) -> str:
        """The common name of the certificate shown for an SNI name."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", self.https, ssl=context, server_hostname=name)
        try:
            encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
        subject = x509.load_der_x509_certificate(encoded).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    async def events(self, name: str) -> list[tuple[str, str]]:
        path = f"/api/v1/events?fieldSelector=involvedObject.name={name}"
        items = (await self.cluster.admin.get(path)).json["items"]
        return [(event["reason"], event["message"]) for event in items]


def path(text: str, service: str = "web", kind: str = "Prefix", port: int | str = 80) -> dict[str, Any]:
    chosen = {"number": port} if isinstance(port, int) else {"name": port}
    return {"path": text, "pathType": kind, "backend": {"service": {"name": service, "port": chosen}}}


def rule(host: str, *paths: dict[str, Any]) -> dict[str, Any]:
    return {**({"host": host} if host else {}), "http": {"paths": list(paths)}}


def tls_secret(name: str, common_name: str, *names: str, **replace: Any) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    data = {"tls.crt": base64.b64encode(pem).decode(), "tls.key": base64.b64encode(private).decode()}
    return {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data, **replace}


@asynccontextmanager
async def staged(cluster: Cluster, directory: Path) -> AsyncIterator[Scene]:
    """A labelled node without an agent yet; everything it started is ended."""
    await cluster.namespace("ns")
    await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": NODE, "labels": {"wherry/ingress": "true"}}})
    pair = cluster.pki.authority.issue(Subject(NODE_PREFIX + NODE, (NODES_GROUP,)))
    ca = cluster.pki.authority.pem.decode()
    credentials = Credentials(ca=ca, cert=pair.certificate.decode(), key=pair.key.decode())
    http, https = free_ports(2)
    node_id = f"t{os.getpid():x}{http:x}"
    async with Client(cluster.url, credentials) as client:
        scene = Scene(cluster, client, directory, http, https, node_id)
        try:
            yield scene
        finally:
            await stop_proxies(node_id)
            for backend in scene.backends:
                await backend.stop()
            run = Path("/run/wherry") / node_id
            (run / "haproxy.sock").unlink(missing_ok=True)
            if run.exists():
                run.rmdir()
