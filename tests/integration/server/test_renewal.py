"""`wherry certs` beside a server that goes on: what is new is in use, and what was replaced is worth nothing."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from click.testing import CliRunner

from api.trust import node_host
from cli.certs import certs_command
from controller.pki.authority import Subject, load_certificate
from controller.pki.files import ENCRYPTION_OLD, Serving
from controller.renewal import Renewal
from tests.integration.server.conftest import Caller, Cluster

SERVING = Serving(("127.0.0.1", "localhost"), 0)
SECRETS = "/api/v1/namespaces/default/secrets"


def certs(directory: Path, *words: str) -> str:
    result = CliRunner().invoke(certs_command, [*words, "--data-dir", str(directory)])
    assert result.exit_code == 0, result.output
    return result.output


@asynccontextmanager
async def renewing(cluster: Cluster, directory: Path) -> AsyncIterator[None]:
    renewal = Renewal(directory, SERVING, cluster.listener, cluster.services, former_seconds=0.2)
    task = asyncio.create_task(renewal.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it does not come"
        await asyncio.sleep(0.05)


async def test_the_former_encryption_key_goes_when_every_secret_is_sealed_anew(
    cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.admin.post(SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "kept"}})
    former = tmp_path / "pki" / ENCRYPTION_OLD
    async with renewing(cluster, tmp_path):
        assert "sealed anew" in await asyncio.to_thread(certs, tmp_path, "rotate", "encryption-key")
        assert former.read_bytes() == cluster.pki.encryption_key
        assert "encryption-key, former" in certs(tmp_path, "ls")
        await until(lambda: not former.exists())
        assert (await cluster.admin.get(f"{SECRETS}/s")).json["data"] == {"k": "a2VwdA=="}
    assert "encryption-key, former" not in certs(tmp_path, "ls")
    cluster.services.store.use_encryption_key((tmp_path / "pki" / "encryption.key").read_bytes())
    assert (await cluster.admin.get(f"{SECRETS}/s")).status == 200


async def test_a_rotated_administrators_token_is_the_only_one(cluster: Cluster, tmp_path: Path) -> None:
    async with renewing(cluster, tmp_path):
        await asyncio.to_thread(certs, tmp_path, "rotate", "admin-token")
        fresh = (tmp_path / "admin.token").read_text()
        assert fresh != cluster.pki.admin_token
        newer = Caller(cluster.url, cluster.admin.session, fresh)
        await until(lambda: cluster.services.pki.admin_token == fresh)
        assert (await newer.get("/api/v1/nodes")).status == 200
        assert (await cluster.admin.get("/api/v1/nodes")).status == 401


async def test_agents_are_shown_the_rotated_certificate(cluster: Cluster, tmp_path: Path) -> None:
    shown: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(int(writer.get_extra_info("peercert")["serialNumber"], 16))
        writer.close()

    context = cluster.context(Subject("system:node:n1", ("system:nodes",), (node_host("n1"),)), tmp_path)
    played = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    played.load_cert_chain(tmp_path / "system_node_n1.crt", tmp_path / "system_node_n1.key")
    played.load_verify_locations(cluster.pki.ca_path)
    played.verify_mode = ssl.CERT_REQUIRED
    assert context.verify_mode is ssl.CERT_REQUIRED
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=played)
    port = server.sockets[0].getsockname()[1]
    await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    headers = {"Content-Type": "application/merge-patch+json"}
    await cluster.admin.ask("PATCH", "/api/v1/nodes/n1/status", {"status": status}, headers=headers)
    path = tmp_path / "pki" / "agent-client.crt"

    async def serial_shown() -> int:
        await cluster.admin.get("/api/v1/nodes/n1/proxy/healthz")
        return shown[-1]

    async with server, renewing(cluster, tmp_path):
        assert await serial_shown() == load_certificate(path.read_bytes()).serial_number
        before, pki = path.read_bytes(), cluster.services.pki
        await asyncio.to_thread(certs, tmp_path, "rotate", "agent-client")
        assert path.read_bytes() != before
        await until(lambda: cluster.services.pki is not pki)
        assert await serial_shown() == load_certificate(path.read_bytes()).serial_number


async def test_the_list_says_what_there_is_and_when_it_expires(cluster: Cluster, tmp_path: Path) -> None:
    head, *rows = certs(tmp_path, "ls").splitlines()
    assert head.split() == ["NAME", "WHAT", "MADE", "EXPIRES"]
    by_name = {row.split("  ")[0].strip(): row for row in rows}
    assert {"ca", "apiserver", "admin", "agent-client", "sa-key", "encryption-key", "admin-token"} == set(by_name)
    assert "in 364 days" in by_name["admin"] or "in 365 days" in by_name["admin"]
    assert by_name["sa-key"].rstrip().endswith("never") and "in a day" in by_name["admin-token"]
    refused = CliRunner().invoke(certs_command, ["rotate", "admin", "ca", "--data-dir", str(tmp_path)])
    assert "the CA is rotated alone" in str(refused.exception)
    nothing = CliRunner().invoke(certs_command, ["ls", "--data-dir", str(tmp_path / "none")])
    assert "holds no keys" in str(nothing.exception)
