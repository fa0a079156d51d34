"""Joining, heartbeats and the Node, against a real API server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.hostinfo import DiskUse, MemoryUse, machine
from agent.identity import Applicant, JoinRefused, obtain_identity
from agent.node import NODES, NodeKeeper, Profile, Readings
from agent.session import LEASE_NAMESPACE, Heartbeat, keep_lease
from api import errors
from api.client import Client, Selection
from api.kinds import by_resource
from controller.pki.join import new_bootstrap_token, render_join_token, render_secret
from tests.integration.agent.conftest import Site, cluster, eventually, site
from tests.integration.server.conftest import Cluster

__all__ = ["cluster", "site"]
MOMENT = "2026-01-02T03:04:05Z"
READINGS = Readings(MOMENT, DiskUse(1 << 30, 1 << 29, 1 << 29, 9, 9), MemoryUse(8 << 30, 4 << 30, 0, 0, 0), (1, 32768))


async def join_token(cluster: Cluster) -> str:
    der = x509.load_pem_x509_certificate(cluster.pki.authority.pem).public_bytes(serialization.Encoding.DER)
    token = new_bootstrap_token()
    secret = render_secret(token, datetime.now(UTC) + timedelta(hours=1))
    answer = await cluster.admin.post("/api/v1/namespaces/kube-system/secrets", secret)
    assert answer.status == 201
    return render_join_token(sha256(der).hexdigest(), token)


async def test_a_node_joins_with_a_token_and_keeps_its_certificate(cluster: Cluster, tmp_path: Path) -> None:
    applicant = Applicant(cluster.url, "fresh", ("127.0.0.7", "::1"))
    identity = await obtain_identity(tmp_path, applicant, await join_token(cluster))
    now = datetime.now(UTC)
    assert identity.is_for("fresh", now) and identity.names(("127.0.0.7", "::1"))
    assert not identity.is_for("another", now) and not identity.is_for("fresh", identity.not_after)
    assert now < identity.renew_at() < identity.not_after
    assert not replace(identity, ca=identity.cert).is_for("fresh", now), "its CA does not stand for it"
    assert (tmp_path / "agent.pem").stat().st_mode & 0o777 == 0o600
    assert await obtain_identity(tmp_path, applicant, "") == identity
    moved = await obtain_identity(tmp_path, Applicant(cluster.url, "fresh", ("127.0.0.8",)), "")
    assert moved.names(("127.0.0.8",))


async def test_deleting_a_node_revokes_its_certificate_until_it_joins_anew(cluster: Cluster, tmp_path: Path) -> None:
    applicant = Applicant(cluster.url, "fresh", ("127.0.0.7",))
    identity = await obtain_identity(tmp_path, applicant, await join_token(cluster))
    keeper_of = {"metadata": {"name": "fresh"}}
    async with Client(cluster.url, identity.credentials) as client:
        await client.create(NODES, keeper_of)
        services = client.watch(by_resource("", "services"))
        await anext(services)
        own = client.watch(by_resource("", "pods"), Selection(fields="spec.nodeName=fresh"))
        assert (await anext(own)).type == "SYNCED"
        assert (await cluster.admin.ask("DELETE", "/api/v1/nodes/fresh")).status == 200
        for refused in (client.create(NODES, keeper_of), client.list(by_resource("", "services"))):
            with pytest.raises(errors.Unauthorized, match="was revoked when its Node was deleted"):
                await refused
        with pytest.raises(errors.Unauthorized):  # what was open ends, too
            async with asyncio.timeout(10):
                async for _ in services:
                    pass
        assert not (await client.list(by_resource("", "pods"), Selection(fields="spec.nodeName=fresh")))["items"]
        with pytest.raises(errors.Unauthorized):
            await client.list(by_resource("", "pods"), Selection(fields="spec.nodeName=other"))
    again = await obtain_identity(tmp_path, applicant, await join_token(cluster))
    assert again.cert != identity.cert
    async with Client(cluster.url, again.credentials) as client:
        await client.create(NODES, keeper_of)
    async with Client(cluster.url, identity.credentials) as client:
        with pytest.raises(errors.Unauthorized):
            await client.get(NODES, "", "fresh")


async def test_a_server_with_another_ca_is_not_believed(cluster: Cluster, tmp_path: Path) -> None:
    token = await join_token(cluster)
    forged = "wherry1." + "0" * 64 + token[len("wherry1.") + 64 :]
    applicant = Applicant(cluster.url, "fresh", ("127.0.0.7",))
    with pytest.raises(JoinRefused, match="its CA is not the one that the token names"):
        await obtain_identity(tmp_path, applicant, forged)
    with pytest.raises(JoinRefused, match="join token"):
        await obtain_identity(tmp_path, applicant, "rubbish")
    wrong = token[:-16] + "x" * 16
    with pytest.raises(JoinRefused, match="refused to let this node join"):
        await obtain_identity(tmp_path, applicant, wrong)


async def test_the_node_is_registered_reported_and_renewed(site: Site) -> None:
    keeper = NodeKeeper(site.client, Profile("n1", machine(), ("192.0.2.1",), labels={"disk": "ssd"}))
    await keeper.register()
    await keeper.report(READINGS, 0.0)
    node = await site.client.get(NODES, "", "n1")
    assert node["metadata"]["labels"]["disk"] == "ssd"
    assert [entry["status"] for entry in node["status"]["conditions"] if entry["type"] == "Ready"] == ["True"]
    assert {"type": "InternalIP", "address": "192.0.2.1"} in node["status"]["addresses"]
    again = NodeKeeper(site.client, Profile("n1", machine(), ("192.0.2.9",), labels={"disk": "hdd"}))
    await again.register()
    await again.report(READINGS, 0.0)
    node = await site.client.get(NODES, "", "n1")
    assert node["metadata"]["labels"]["disk"] == "hdd"
    assert [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"] == ["192.0.2.9"]


async def test_heartbeats_are_answered_and_the_lease_is_kept(site: Site) -> None:
    beat = Heartbeat(site.client, "n1")
    tasks = [asyncio.create_task(beat.run()), asyncio.create_task(keep_lease(site.client, "n1", "uid"))]

    async def granted() -> bool | None:
        return True if beat.granted and "n1" in site.cluster.beats.seen else None

    async def leased() -> str | None:
        listed = await site.cluster.admin.get(f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases")
        return next((item["spec"]["holderIdentity"] for item in listed.json["items"]), None)

    await eventually(granted)
    assert 0 <= beat.age_seconds() < 5
    assert await eventually(leased) == "n1"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_node_may_not_read_what_its_pods_do_not_use(site: Site) -> None:
    secrets = by_resource("", "secrets")
    async with Client(site.cluster.url, site.client.credentials) as stolen:
        with pytest.raises(errors.Forbidden):
            await stolen.get(secrets, "kube-system", "anything")
