"""The CA is rotated while the cluster serves: who follows is not cut off, and in the end the old one is worth nothing.

On a real controller process, with an agent's real identity, heartbeat and server.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from agent.hostinfo import machine
from agent.identity import Applicant, Identity, JoinRefused, load_identity, obtain_identity
from agent.main import server_context
from agent.node import NODES, NodeKeeper, Profile
from agent.server import AgentServer, Office
from agent.session import Heartbeat
from agent.trusting import Trusting
from api.client import Client
from api.tls import load_kubeconfig
from api.trust import TRUSTS, certificates_in
from cli.cluster import Cluster
from cli.tokens import create_token
from controller.pki.authority import Authority, is_issued_by, load_certificate
from controller.pki.files import ADMIN, AGENT_CLIENT, write_secret
from tests.integration.agent.test_identity import READINGS
from tests.integration.chaos.agents import client_of, condition
from tests.integration.chaos.plane import Plane, running
from tests.integration.chaos.test_certificates import authority_of, seen
from tests.integration.chaos.wire import Broken, Connection, Unsent

ROOT_CA = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"


@dataclass
class Node:
    """An agent but for its pods: identity, heartbeat, trust and the server that the controller dials."""

    plane: Plane
    name: str
    token: str
    client: Client = field(init=False)
    beat: Heartbeat = field(init=False)
    trusting: Trusting = field(init=False)
    server: AgentServer = field(init=False)

    @property
    def directory(self) -> Path:
        return self.plane.directory / self.name

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Node]:
        applicant = Applicant(f"https://127.0.0.1:{self.plane.port}", self.name, ("127.0.0.1",))
        identity = await obtain_identity(self.directory, applicant, self.token)
        self.client = Client(applicant.server, identity.credentials)
        self.beat = Heartbeat(self.client, self.name)
        keeper = NodeKeeper(self.client, Profile(self.name, machine(), ("127.0.0.1",)))
        self.server = AgentServer(cast(Office, None), "127.0.0.1", 0, server_context(identity))
        self.trusting = Trusting(self.client, self.beat, keeper, self.directory, applicant, identity, self._use)
        await keeper.register()
        await keeper.report(READINGS, 0.0)
        work = (self.beat.run(), self.trusting.run(), keeper.follow(), self.server.run())
        tasks = [asyncio.create_task(each) for each in work]
        try:
            await self.server.ready.wait()
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.client.close()

    async def _use(self, identity: Identity) -> None:
        await self.client.renew(identity.credentials)
        await self.server.use(server_context(identity))


async def certs(plane: Plane, *words: str) -> tuple[int, str]:
    """(exit code, everything it says) of `wherry certs`."""
    line = [sys.executable, "-m", "cli.main", "certs", *words, "--data-dir", str(plane.directory)]
    child = await asyncio.create_subprocess_exec(*line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told, _ = await child.communicate()
    return child.returncode or 0, told.decode()


async def rotate(plane: Plane, *options: str) -> None:
    code, told = await certs(plane, "rotate", "ca", *options)
    assert code == 0, told


async def listed(plane: Plane) -> str:
    code, told = await certs(plane, "ls")
    assert code == 0, told
    return told


async def make_token(plane: Plane) -> str:
    target = load_kubeconfig(plane.directory / "admin.kubeconfig")
    async with Client(f"https://127.0.0.1:{plane.port}", target.credentials) as client:
        return await create_token(Cluster(client, "default"), timedelta(hours=1))


def believing(port: int, directory: Path, ca: bytes, authority: Authority | None = None) -> Connection:
    """A client that believes these CAs only, with an agent-client's or administrator's certificate of `authority`."""
    context = ssl.create_default_context(cadata=ca.decode())
    if authority is not None:
        pair = authority.issue(ADMIN if directory.name == "admin" else AGENT_CLIENT)
        write_secret(directory.with_suffix(".pem"), pair.certificate + pair.key)
        context.load_cert_chain(directory.with_suffix(".pem"))
    return Connection(port, context)


async def test_the_ca_is_rotated_while_everybody_goes_on(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane", ("--controllers", "*,-scheduler"))
    async with running(plane), client_of(plane) as deaf, Node(plane, "n1", await make_token(plane)).playing() as node:
        old = authority_of(plane)
        before = node.trusting.identity
        await _add_deaf_node(deaf)
        code, told = await certs(plane, "rotate", "ca", "--timeout", "1s")
        assert code and "not every node knows the CAs yet: deaf" in told
        bundle = (plane.directory / "pki" / "ca.crt").read_bytes()
        first, second = certificates_in(bundle.decode())
        assert first.encode() == old.pem and "ca, next" in await listed(plane)
        for trust in (old.pem, bundle):
            connection = believing(plane.port, tmp_path / "admin", trust, old)
            assert (await connection.request("GET", "/api/v1/nodes")).status == 200
        assert (await plane.get("/cacerts")).body == bundle
        await seen(lambda: _publishes(plane, bundle))
        assert load_identity(node.directory) == node.trusting.identity and node.trusting.identity.cert == before.cert
        stale = await make_token(plane)

        await deaf.delete(NODES, "", "deaf")
        await rotate(plane)
        new = authority_of(plane)
        assert new.pem == second.encode() and "ca, former" in await listed(plane)
        await seen(lambda: _heard(node, new))
        for name in ("apiserver", "admin", "agent-client"):
            assert is_issued_by(
                load_certificate((plane.directory / "pki" / f"{name}.crt").read_bytes()), new.certificate
            )
        held = believing(plane.port, tmp_path / "admin", bundle, old)
        assert (await held.request("GET", "/api/v1/nodes")).status == 200, "old certificates are believed"
        assert (await believing(plane.port, tmp_path / "admin", new.pem, new).request("GET", "/version")).status == 200
        await _check_joins(plane, tmp_path, stale)
        agents = believing(node.server.port, tmp_path / "agents", bundle, old)
        assert (await agents.request("GET", "/healthz")).status == 200

        await rotate(plane, "--finish")
        await seen(lambda: _publishes(plane, new.pem))
        with pytest.raises((Broken, Unsent)):
            await held.request("GET", "/api/v1/nodes")
        await _check_refused(plane.port, tmp_path / "admin", new.pem, old)
        await seen(lambda: _believes(node, new.pem))
        await seen(lambda: _heard(node, new))
        await _check_refused(node.server.port, tmp_path / "agents", new.pem, old)
        served = believing(node.server.port, tmp_path / "agents", new.pem, new)
        assert (await served.request("GET", "/healthz")).status == 200
        nonce = node.beat.last_answer
        await seen(lambda: _beats(node, nonce))
        assert "former" not in await listed(plane)


async def test_a_node_that_was_away_joins_anew_with_a_fresh_token(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane", ("--controllers", "none"))
    async with running(plane):
        applicant = Applicant(f"https://127.0.0.1:{plane.port}", "n1", ("127.0.0.1",))
        kept = await obtain_identity(tmp_path / "n1", applicant, await make_token(plane))
        for options in (("--now",), ("--finish", "--now")):
            await rotate(plane, *options)
        await seen(lambda: _is_one(plane))
        again = await obtain_identity(tmp_path / "n1", applicant, await make_token(plane))
        assert again.ca != kept.ca and again.is_of_signing_ca
        async with Client(applicant.server, again.credentials) as client:
            await client.create(NODES, {"metadata": {"name": "n1"}})
    code, told = await certs(plane, "rotate", "ca", "--finish")
    assert code and "there is no former CA to be dropped" in told


async def _add_deaf_node(client: Client) -> None:
    await client.create(NODES, {"metadata": {"name": "deaf"}})
    status = {"status": {"conditions": [condition("Ready", "True")]}}
    await client.patch(NODES, ("", "deaf", "status"), status, "application/merge-patch+json")


async def _publishes(plane: Plane, bundle: bytes) -> bool:
    answer = await plane.get(ROOT_CA)
    return answer.status == 200 and answer.json()["data"]["ca.crt"].encode() == bundle


async def _heard(node: Node, new: Authority) -> bool:
    """It has a certificate of the new CA, in use, and says so."""
    identity = node.trusting.identity
    if not is_issued_by(load_certificate(identity.cert.encode()), new.certificate):
        return False
    shown = await node.client.get(NODES, "", node.name)
    return bool(shown["metadata"]["annotations"].get(TRUSTS) == node.beat.trust)


async def _believes(node: Node, ca: bytes) -> bool:
    return node.trusting.identity.ca.encode() == ca


async def _beats(node: Node, since: float) -> bool:
    return node.beat.last_answer > since


async def _is_one(plane: Plane) -> bool:
    return len(certificates_in((await plane.get("/cacerts")).body.decode())) == 1


async def _check_joins(plane: Plane, tmp_path: Path, stale: str) -> None:
    applicant = Applicant(f"https://127.0.0.1:{plane.port}", "n2", ("127.0.0.1",))
    with pytest.raises(JoinRefused, match="a CA that signs no longer"):
        await obtain_identity(tmp_path / "n2", applicant, stale)
    joined = await obtain_identity(tmp_path / "n2", applicant, await make_token(plane))
    assert joined.is_of_signing_ca and len(certificates_in(joined.ca)) == 2


async def _check_refused(port: int, directory: Path, ca: bytes, authority: Authority) -> None:
    """The API server says why; asyncio's own TLS, by which an agent serves, closes the connection."""
    with pytest.raises((Broken, Unsent), match=r"unknown ca|decrypt error|0 bytes read"):
        await believing(port, directory, ca, authority).request("GET", "/healthz")
