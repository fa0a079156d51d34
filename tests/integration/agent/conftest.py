"""An agent's pod workers on the fake runtime, against a real API server over a real etcd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent.events import EventRecorder
from agent.identity import Identity, formers
from agent.paths import Paths
from agent.pods.admission import NodeFacts
from agent.pods.configs import Node
from agent.pods.dns import Resolver
from agent.pods.images import Images
from agent.pods.roster import PODS, Roster
from agent.pods.service_env import KnownServices, NoServices
from agent.pods.status import Host
from agent.pods.workshop import Workshop
from agent.probing import Prober
from agent.runtime.fake import FakeRuntime
from agent.sources import SourceReader
from agent.volumes.volumes import Volumes, remove_pod_directory
from api import errors
from api.client import Client
from api.objects import Object
from api.tls import Credentials
from controller.admission.types import NODE_PREFIX, NODES_GROUP
from controller.pki.authority import Subject
from tests.integration.server.conftest import Cluster, cluster

__all__ = ["cluster"]
NODE = "n1"
NOBODY = "http://127.0.0.1:9"
DEADLINE_SECONDS = 10.0


@dataclass
class Site:
    """One node: its runtime outlives its agent; `agent()` is one life of the agent."""

    cluster: Cluster
    client: Client
    directory: Path
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    read_labels: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    services: KnownServices = field(default_factory=NoServices)
    node: str = NODE
    shop: Workshop = field(init=False)
    """What the present agent's parts share."""

    @asynccontextmanager
    async def agent(self, *, cut_off: bool = False) -> AsyncIterator[Roster]:
        """`cut_off`: the agent does not reach the control plane."""
        shop = self.shop = self._shop(Client(NOBODY, Credentials()) if cut_off else self.client)
        allocatable = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi"}
        facts = NodeFacts(self.node, allocatable=allocatable, read_labels=self.read_labels)
        roster = Roster(shop, facts, formers(self.directory / "pki"))
        tasks = [asyncio.create_task(roster.run()), asyncio.create_task(shop.events.run())]
        try:
            yield roster
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await shop.prober.close()
            if cut_off:
                await shop.client.close()

    def _shop(self, client: Client) -> Workshop:
        sources, paths = SourceReader(client), Paths(self.directory)
        return Workshop(
            client=client,
            runtime=self.runtime,
            volumes=Volumes(paths, sources),
            sources=sources,
            images=Images(self.runtime),
            prober=Prober(self.runtime),
            events=EventRecorder(client, self.node),
            paths=paths,
            node=Node(self.node, self.node, paths, Resolver(), 8 << 30),
            host=Host(("192.0.2.1",)),
            services=self.services,
        )

    async def run(
        self, name: str, command: str = "sleep 1000", labels: Mapping[str, str] | None = None, **spec: Any
    ) -> Object:
        container = {"name": "c", "image": "localhost/busybox:1", "command": ["sh", "-c", command]}
        container |= spec.pop("container", {})
        given = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1, "containers": [container]}
        return await self.cluster.pod("ns", name, self.node, labels, **{**given, **spec})

    async def pod(self, name: str) -> Object | None:
        try:
            return await self.client.get(PODS, "ns", name)
        except (errors.NotFound, errors.Forbidden):
            return None

    async def until(self, name: str, holds: Callable[[Object], bool]) -> Object:
        """The pod once `holds` is true of it."""

        async def look() -> Object | None:
            pod = await self.pod(name)
            return pod if pod is not None and holds(pod) else None

        return await eventually(look)

    async def gone(self, name: str) -> None:
        async def look() -> bool | None:
            return True if await self.pod(name) is None else None

        await eventually(look)

    async def events(self, name: str, *reasons: str) -> dict[str, str]:
        """reason -> message of the events about a pod, once there are some for these reasons."""

        async def look() -> dict[str, str] | None:
            path = f"/api/v1/namespaces/ns/events?fieldSelector=involvedObject.name={name}"
            items = (await self.cluster.admin.get(path)).json["items"]
            found = {event["reason"]: event["message"] for event in items}
            return found if set(reasons) <= found.keys() else None

        return await eventually(look)

    async def delete(self, name: str, grace_seconds: int | None = None) -> None:
        body = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        await self.cluster.admin.ask("DELETE", f"/api/v1/namespaces/ns/pods/{name}", body)

    def verbs(self, verb: str) -> int:
        return sum(1 for called, _ in self.runtime.calls if called == verb)


T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """What `look` finds, looking again and again until the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if (found := await look()) is not None:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


def identity_of(cluster: Cluster, node: str) -> Identity:
    """A certificate as a node gets it when it joins."""
    pair = cluster.pki.authority.issue(Subject(NODE_PREFIX + node, (NODES_GROUP,), ("127.0.0.1",)))
    return Identity(cluster.pki.authority.pem.decode(), pair.certificate.decode(), pair.key.decode())


@pytest.fixture
async def site(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Site]:
    await cluster.namespace("ns")
    async with Client(cluster.url, identity_of(cluster, NODE).credentials) as client:
        yield Site(cluster, client, tmp_path / "agent")
    for directory in (tmp_path / "agent" / "pods").glob("*"):
        remove_pod_directory(directory)


def state_of(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    found: Object = statuses[0].get("state") or {}
    return found


def is_running(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and "running" in state_of(pod)


def is_ready(pod: Object) -> bool:
    return is_running(pod) and bool(pod["status"]["containerStatuses"][0]["ready"])


def restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount") or 0)


def waits_for(reason: str) -> Callable[[Object], bool]:
    return lambda pod: (state_of(pod).get("waiting") or {}).get("reason") == reason
