"""What the control plane does for Services on real nodes, from a machine that is none of them: it reaches pods and
services through agents, and gives a load balancer's address to another node when the one that answers for it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from api.client import Client, Selection
from api.errors import BadRequest, ServiceUnavailable
from api.kinds import by_resource
from api.objects import Object, annotations_of
from api.tls import load_kubeconfig
from deploy.lab import Lab
from tests.e2e.lab_scene import DEPLOYMENTS, PODS, START_SECONDS, deployment, eventually, lab_up

SERVICES = by_resource("", "services")
POOL = "198.51.100.7-198.51.100.8"
ANNOUNCER = "wherry/announcer"
PAGE = "mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www"
MOVED_SECONDS = 6.5
"""TTL of 4 s from the last heartbeat, which may be a second old the moment the node dies, and some room."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = lab_up(tmp_path_factory.mktemp("services"), 2, "v", controller_flags=["--load-balancer-pool", POOL])
    yield made
    made.down()


@pytest.fixture
async def client(lab: Lab) -> AsyncIterator[Client]:
    target = load_kubeconfig(lab.kubeconfig)
    async with Client(target.server, target.credentials, timeout=10) as made:
        yield made


def web() -> tuple[Object, Object]:
    pods = deployment("web", 2)
    container = pods["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["sh", "-c", PAGE]
    container["ports"] = [{"containerPort": 8080}]
    container["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return pods, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


async def page(client: Client, path: str) -> str:
    reply = await client.request("GET", f"/api/v1/namespaces/default/{path}/proxy/", headers={"Accept": "*/*"})
    return reply.body.decode().strip()


async def test_pods_and_services_are_reached_from_outside_and_announcements_outlive_nodes(
    lab: Lab, client: Client
) -> None:
    pods, service = web()
    await client.create(DEPLOYMENTS, pods)
    await client.create(SERVICES, service)
    names = await reached_pods(client)

    async def both() -> bool:
        return {await page(client, "services/web") for _ in range(20)} == names

    await eventually(both, START_SECONDS, "the service leads to both pods")
    found = await client.get(SERVICES, "default", "web")
    assert found["status"]["loadBalancer"]["ingress"] == [{"ip": "198.51.100.7", "ipMode": "VIP"}]
    announcer = annotations_of(found)[ANNOUNCER]
    lab.kill(announcer)
    began = time.monotonic()

    async def moved() -> bool:
        one = await client.get(SERVICES, "default", "web")
        return annotations_of(one).get(ANNOUNCER) not in (None, announcer)

    await eventually(moved, MOVED_SECONDS, "another node answers for the address")
    assert time.monotonic() - began < MOVED_SECONDS
    kubernetes = await client.get(by_resource("", "endpoints"), "default", "kubernetes")
    assert kubernetes["subsets"][0]["addresses"] == [{"ip": lab.server.split("/")[2].split(":")[0]}]


async def reached_pods(client: Client) -> set[str]:
    """Every pod answers with its own name."""

    async def all_answer() -> bool:
        found = (await client.list(PODS, Selection("default")))["items"]
        names = {pod["metadata"]["name"] for pod in found}
        try:
            answers = await asyncio.gather(*(page(client, f"pods/{name}:8080") for name in names))
            await page(client, "services/web")
        except (BadRequest, ServiceUnavailable):  # no address yet, nobody listens yet
            return False
        return len(names) == 2 and set(answers) == names

    await eventually(all_answer, START_SECONDS, "both pods answer")
    return {pod["metadata"]["name"] for pod in (await client.list(PODS, Selection("default")))["items"]}
