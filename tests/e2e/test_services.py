"""Three nodes, one behind a router: every pod reaches every pod, service and name; the table of service cases holds.

Then agents die amid changes, and at last a node, while clients ask without a pause.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.network.services.choice import Site
from api.client import Client, Selection
from api.errors import NotFound
from api.tls import load_kubeconfig
from deploy.lab import Lab
from tests.cluster import eventually
from tests.e2e.lab_scene import lab_up
from tests.e2e.looping import Rules, Seen, desired_rules, kernel_rules, looping
from tests.e2e.service_lab import (
    HOSTS,
    NAMESPACE,
    POD_NODES,
    POOL,
    ROWS,
    SERVICES,
    SLICES,
    Row,
    ServiceLab,
    python_pod,
)
from tests.e2e.test_ingress import fetch
from tests.integration.ingress.scene import path, rule
from tests.lab_guard import guarded

pytestmark = pytest.mark.root
SETTLE_SECONDS = 15.0
SPECIFICATION = "github.com/kubernetes/dns/blob/master/docs/specification.md"
PODS_DNS = "kubernetes.io/docs/concepts/services-networking/dns-pod-service"
FIRST = "case-0.cases.svc.cluster.local"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="wherry-services-"))
    with guarded(directory):
        yield lab_up(directory / "lab", 3, "s", routed=1, controller_flags=["--load-balancer-pool", POOL])


@pytest.fixture(scope="module")
def scene(lab: Lab) -> ServiceLab:
    made = ServiceLab(lab)
    made.open()
    pods = {"selector": {"pet": "yes"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    made.cluster.apply(
        service("all", **pods), service("pets", clusterIP="None", **pods),
        service("alias", type="ExternalName", externalName=FIRST),
    )  # fmt: skip
    return made


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def faults(scene: ServiceLab) -> dict[int, str]:
    """What is wrong with each row. The nodes have some seconds to hear of all services; then no more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    found: dict[int, str] = {}
    left = list(ROWS)
    while left and (not found or time.monotonic() < deadline):
        found |= _ask_all(scene, left)
        left = [row for row in left if found[row.number]]
    return found


def _ask_all(scene: ServiceLab, rows: list[Row]) -> dict[int, str]:
    own = scene.own_addresses()
    by_client: dict[str, list[Row]] = {}
    for row in rows:
        by_client.setdefault(row.client, []).append(row)
    answers = scene.ask({client: [row.question(scene.node) for row in each] for client, each in by_client.items()})
    return {
        row.number: scene.fault(row, answer, own)
        for client, each in by_client.items()
        for row, answer in zip(each, answers[client], strict=True)
    }


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.flavour}: {row.case.what}" for row in ROWS])
def test_case(faults: dict[int, str], row: Row) -> None:
    assert faults[row.number] == "", row.case.source


NAMES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("a service of the own namespace", PODS_DNS, "case-0", (FIRST, "10.96.1.1")),
    ("with its namespace", PODS_DNS, "case-0.cases", (FIRST, "10.96.1.1")),
    ("with its namespace and svc", PODS_DNS, "case-0.cases.svc", (FIRST, "10.96.1.1")),
    ("in full", SPECIFICATION, FIRST, (FIRST, "10.96.1.1")),
    ("absolute", SPECIFICATION, f"{FIRST}.", (FIRST, "10.96.1.1")),
    ("another namespace's", PODS_DNS, "kubernetes.default", ("kubernetes.default.svc.cluster.local", "10.96.0.1")),
    ("headless: all its endpoints", SPECIFICATION, "pets", ("pets.cases.svc.cluster.local", "*")),
    ("a pod by hostname and subdomain", PODS_DNS, "b1.pets", ("b1.pets.cases.svc.cluster.local", "b1")),
    ("one behind the router", PODS_DNS, "c2.pets.cases.svc.cluster.local", ("c2.pets.cases.svc.cluster.local", "c2")),
    ("an alias", SPECIFICATION, "alias", (FIRST, "10.96.1.1")),
    ("no such name", SPECIFICATION, "nobody", ()),
    ("a service's address", SPECIFICATION, "10.96.1.1", (FIRST,)),
)
"""What, its source, what is asked, what comes: the canonical name, then addresses (or pods; *: all)."""


@pytest.fixture(scope="module")
def looked_up(scene: ServiceLab, faults: dict[int, str]) -> dict[str, list[Any]]:
    """What every pod finds for each of NAMES."""
    del faults  # by then all nodes have heard of all services
    questions = [{"lookup": asked} for _, _, asked, _ in NAMES]
    return scene.ask(dict.fromkeys(POD_NODES, questions))


@pytest.mark.parametrize("number", range(len(NAMES)), ids=[what for what, *_ in NAMES])
def test_name(scene: ServiceLab, looked_up: dict[str, list[Any]], number: int) -> None:
    _, source, _, expected = NAMES[number]
    pods = POD_NODES if expected[1:] == ("*",) else expected[1:]
    addresses = sorted(scene.addresses.get(each, each) for each in pods)
    wanted = [[expected[0], *addresses]] if expected else []
    found = {client: each[number] for client, each in looked_up.items()}
    assert {client: each for client, each in found.items() if each != wanted} == {}, source


def test_everybody_reaches_everybody_by_a_services_name(scene: ServiceLab) -> None:
    wanted = [f"{name}:8080" for name in POD_NODES]
    question = {"host": "all", "port": 80, "protocol": "tcp", "wanted": wanted, "silent": False}
    answers = scene.ask({name: [question] for name in POD_NODES})
    assert {client: sorted(name for name, _ in found[0]) for client, found in answers.items()} == {
        name: sorted(wanted) for name in POD_NODES
    }


def test_everybody_reaches_every_pod(scene: ServiceLab) -> None:
    """TCP and UDP, from every pod and every node to every pod and every node; a pod is seen by its own address."""
    targets = [(name, protocol) for name in POD_NODES for protocol in ("tcp", "udp")]
    questions = [
        {"host": scene.addresses[name], "port": 9090, "protocol": protocol, "wanted": [f"{name}:9090"], "silent": False}
        for name, protocol in targets
    ]
    answers = scene.ask(dict.fromkeys(POD_NODES, questions))
    bad = {}
    for client, each in answers.items():
        for (name, protocol), answer in zip(targets, each, strict=True):
            own = [[f"{name}:9090", scene.addresses[client]]]
            by_gateway = client in HOSTS and POD_NODES[client] == POD_NODES[name]  # a node to its own pods
            if answer != own and not (by_gateway and answer[0][0] == own[0][0]):
                bad[client, name, protocol] = answer
    assert bad == {}


WEB_PODS = 6
INGRESS_HOST = "web.test"
FULL_RUN = os.environ.get("WHERRY_FULL") == "1"
AGENT_DEATHS = 5 if FULL_RUN else 2
RESTART_SECONDS, LOST_SECONDS = 2.0, 5.0
LAGGARD_SECONDS, FOLLOW_SECONDS = 30.0, 3.0


@pytest.fixture(scope="module")
def web(scene: ServiceLab) -> str:
    """A service of pods on all nodes whose pages are their nodes' names, and few others; its name."""
    scene.clear()
    pod = python_pod("web", "web", "$(NODE)/$(POD_IP)")
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    pod["spec"]["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": {"app": "web"}}}]
    pod["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    spec = {"replicas": WEB_PODS, "selector": {"matchLabels": {"app": "web"}}}
    spec["template"] = {"metadata": pod["metadata"], "spec": pod["spec"]}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    scene.cluster.apply(deployment, service("web", selector={"app": "web"}, ports=[{"port": 80, "targetPort": 8080}]))
    scene.cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    return "web"


def loop(scene: ServiceLab, client: str, host: str, **spec: Any) -> Any:
    """Clients in a place that ask a host without a pause, with 2 connections that are kept and 2 that are not."""
    given = {"url": [host, 80, host], "fresh": 2, "kept": 2, "seconds": 5.0, "pause": 0.01, **spec}
    return looping(scene.inside(client, "loop", json.dumps(given)))


class Churn(threading.Thread):
    """Makes, changes and deletes services and their endpoints until told to end."""

    def __init__(self, scene: ServiceLab) -> None:
        super().__init__()
        self._scene = scene
        self._random = Random(7)
        self.ended = threading.Event()
        self.count = 0

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        target = load_kubeconfig(self._scene.lab.kubeconfig)
        async with Client(target.server, target.credentials) as client:
            while not self.ended.is_set():
                await self._change(client, f"churn-{self._random.randrange(10)}")
                self.count += 1

    async def _change(self, client: Client, name: str) -> None:
        for kind in (SERVICES, SLICES):
            with suppress(NotFound):
                await client.delete(kind, NAMESPACE, name)
        if self._random.random() < 0.2:
            return
        type = self._random.choice(["ClusterIP", "NodePort"])
        ports = [{"name": "http", "port": 80 + self._random.randrange(3)}]
        made = service(name, type=type, ports=ports)
        made["metadata"]["namespace"] = NAMESPACE
        await client.create(SERVICES, made)
        await client.create(SLICES, self._slice(name))

    def _slice(self, name: str) -> dict[str, Any]:
        chosen = self._random.sample(sorted(set(POD_NODES) - set(HOSTS)), self._random.randrange(5))
        labels = {"kubernetes.io/service-name": name}
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": NAMESPACE, "name": name, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [{"addresses": [self._scene.addresses[each]]} for each in chosen],
        }


def wanted_rules(scene: ServiceLab) -> Rules:
    """Of the first node, as the API has it."""

    async def listed() -> tuple[Any, Any]:
        target = load_kubeconfig(scene.lab.kubeconfig)
        async with Client(target.server, target.credentials) as client:
            return tuple([(await client.list(kind, Selection()))["items"] for kind in (SERVICES, SLICES)])

    site = Site(scene.lab.state.nodes[0], "z1", (scene.node,), ("10.244.0.0/16",), ("10.96.0.0/12",))
    return desired_rules(*asyncio.run(listed()), site)


def is_right(scene: ServiceLab) -> bool:
    return kernel_rules(scene.lab, scene.lab.state.nodes[0]) == wanted_rules(scene)


def test_agents_that_are_killed_amid_changes_are_right_again_soon_and_no_connection_suffers(
    scene: ServiceLab, web: str
) -> None:
    """Two seconds are for a machine that does nothing else: importing the agent alone takes one of a core's."""
    lab, node, random, times = scene.lab, scene.lab.state.nodes[0], Random(11), []
    with loop(scene, "a2", web) as seen:
        for _ in range(AGENT_DEATHS):
            churn = Churn(scene)
            churn.start()
            time.sleep(random.uniform(0.2, 1.0))
            lab.kill_agent(node)
            time.sleep(random.uniform(0.0, 0.5))
            lab.revive(node)
            began = time.monotonic()
            churn.ended.set()
            churn.join()
            if FULL_RUN:
                time.sleep(max(0.0, began + RESTART_SECONDS - time.monotonic()))
                assert is_right(scene)
            eventually(lambda: is_right(scene), LAGGARD_SECONDS, "the kernel is as desired")
            times.append(round(time.monotonic() - began, 1))
    print(f"right {times} s after a restart; {seen.count} answers, the slowest in {seen.slowest:.2f} s")
    assert seen.failures == []
    assert seen.count > 500
    lab.wait_ready([node])


@pytest.fixture
def ingress(scene: ServiceLab, web: str) -> str:
    """The first node, and at its port 80 the same pods; its address."""
    scene.cluster.kubectl("label", "node", scene.lab.state.nodes[0], "wherry/ingress=true")
    made = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": web}}
    scene.cluster.apply({**made, "spec": {"rules": [rule(INGRESS_HOST, path("/", service=web))]}})
    eventually(lambda: fetch(scene.node, INGRESS_HOST)[0] == 200, 30.0, "the pages are served")
    return scene.node


def test_a_dead_node_costs_only_its_own_connections_and_nothing_after_five_seconds(
    scene: ServiceLab, web: str, ingress: str
) -> None:
    """On a busy machine the controller may wait longer before it calls a node lost; but then the services follow."""
    lab, dead = scene.lab, scene.lab.state.nodes[1]
    outside = {"url": [ingress, 80, INGRESS_HOST], "fresh": 2, "kept": 2, "seconds": 1.0}
    with (
        loop(scene, "a2", web, seconds=1.0, fresh=4, kept=12) as seen,
        looping(scene.command("out", "loop", json.dumps(outside))) as proxied,
    ):
        time.sleep(1.0)
        died = time.monotonic()
        lab.cut(dead)
        lab.kill(dead)
        eventually(lambda: dead not in lab.ready_nodes(), LAGGARD_SECONDS, "the node counts as lost")
        lost = time.monotonic()
        time.sleep(3.0)
    print(f"lost after {lost - died:.2f} s; {_told(seen, died)}; through the Ingress {_told(proxied, died)}")
    deadline = died + LOST_SECONDS if FULL_RUN else lost + FOLLOW_SECONDS
    both = [*seen.failures, *proxied.failures]
    assert [each for each in both if each.ended < died] == []
    assert [each for each in both if each.began > deadline] == []
    assert [each for each in seen.failures if each.server and not each.server.startswith(f"{dead}/")] == []
    assert {each.error for each in seen.failures} <= {"TimeoutError('timed out')"}, "live endpoints answer"


def _told(seen: Seen, died: float) -> str:
    last = max((each.began - died for each in seen.failures), default=0.0)
    kept = sum(each.kept for each in seen.failures)
    return (
        f"{seen.count} answers, {len(seen.failures)} failures ({kept} on kept connections), the last begun {last:.2f} s"
    )
