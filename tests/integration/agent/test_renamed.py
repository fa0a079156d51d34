"""A machine whose node got another name: what it ran as the old node ends, is told, and runs elsewhere only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from agent.farewell import REASON, Farewell
from agent.hostinfo import machine
from agent.identity import Applicant, formers, obtain_identity, save_identity
from agent.node import NodeKeeper, Profile
from agent.pods.configs import POD_NAME
from agent.pods.roster import Roster
from agent.runtime.errors import Timeout
from api.client import Client
from api.objects import condition_of
from tests.integration.agent.conftest import Site, cluster, eventually, identity_of, is_running, site
from tests.integration.agent.test_identity import READINGS, join_token
from tests.integration.server.conftest import Cluster

__all__ = ["cluster", "site"]
FENCED = {"wherry/fenced": "true"}


async def registered(client: Client, name: str) -> None:
    keeper = NodeKeeper(client, Profile(name, machine(), ("192.0.2.1",)))
    await keeper.register()
    await keeper.report(READINGS, 0.0)


async def ready(site: Site, name: str) -> Mapping[str, Any]:
    node = (await site.cluster.admin.get(f"/api/v1/nodes/{name}")).json
    return condition_of(node["status"], "Ready") or {}


@asynccontextmanager
async def renamed(site: Site, name: str) -> AsyncIterator[Roster]:
    """The agent of the same machine and data directory under another name, as main puts it together."""
    pki = site.directory / "pki"
    identity = identity_of(site.cluster, name)
    save_identity(pki / "former" / site.node, identity_of(site.cluster, site.node))
    async with Client(site.cluster.url, identity.credentials) as client:
        site.node, site.client = name, client
        async with site.agent() as roster:
            leaving = asyncio.create_task(Farewell(pki, site.cluster.url, identity, roster.has_left).run())
            try:
                yield roster
            finally:
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)


async def test_pods_of_the_former_name_end_here_before_they_are_given_up(site: Site) -> None:
    await registered(site.client, "n1")
    async with site.agent():
        await site.run("a")
        await site.run("fenced", labels=FENCED)
        for name in ("a", "fenced"):
            await site.until(name, is_running)
    site.runtime.refuse("stop_container", Timeout("stop_container did not answer"))
    async with renamed(site, "n2"):

        async def not_ready() -> Mapping[str, Any] | None:
            found = await ready(site, "n1")
            return found if found["status"] == "False" else None

        found = await eventually(not_ready)
        assert (found["reason"], found["message"]) == (REASON, "this machine is node n2 now")
        await asyncio.sleep(1.5)
        admin = site.cluster.admin
        for name in ("a", "fenced"):
            pod = (await admin.get(f"/api/v1/namespaces/ns/pods/{name}")).json
            assert "deletionTimestamp" not in pod["metadata"], "nobody runs it elsewhere while it runs here"
        assert formers(site.directory / "pki").keys() == {"n1"}
        site.runtime.refuse("stop_container", None)

        async def given_up() -> bool | None:
            left = (await admin.get("/api/v1/namespaces/ns/pods")).json["items"]
            return True if not left else None

        await eventually(given_up)
        assert not await site.runtime.list_sandboxes() and not list((site.directory / "pods").iterdir())

        async def forgotten() -> bool | None:
            return True if not formers(site.directory / "pki") else None

        await eventually(forgotten)


async def test_what_lost_its_checkpoint_ends_too_and_the_new_node_takes_pods(site: Site) -> None:
    await registered(site.client, "n1")
    async with site.agent():
        pod = await site.run("a")
        await site.until("a", is_running)
    (site.directory / "pods" / pod["metadata"]["uid"] / "pod.json").unlink()
    async with renamed(site, "n2"):
        await site.run("b")

        async def replaced() -> bool | None:
            running = [one.labels[POD_NAME] for one in await site.runtime.list_containers() if one.state == "running"]
            return True if running == ["b"] else None

        await eventually(replaced)


async def test_the_certificate_of_a_former_name_is_kept_until_the_name_is_back(cluster: Cluster, site: Site) -> None:
    pki, address = site.directory / "pki", ("127.0.0.7",)
    first = await obtain_identity(pki, Applicant(cluster.url, "old", address), await join_token(cluster))
    await obtain_identity(pki, Applicant(cluster.url, "new", address), await join_token(cluster))
    assert formers(pki) == {"old": first}
    assert first.is_for("old", datetime.now(UTC))
    await obtain_identity(pki, Applicant(cluster.url, "old", address), await join_token(cluster))
    assert formers(pki).keys() == {"new"}
