"""Three nodes, one behind a router: every pod reaches every pod, service and name; the table of service cases holds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import Lab
from tests.e2e.lab_scene import lab_up
from tests.e2e.service_lab import HOSTS, POD_NODES, POOL, ROWS, Row, ServiceLab
from tests.lab_guard import guarded

pytestmark = pytest.mark.root
SETTLE_SECONDS = 15.0
SPECIFICATION = "github.com/kubernetes/dns/blob/master/docs/specification.md"
PODS_DNS = "kubernetes.io/docs/concepts/services-networking/dns-pod-service"
FULL = "case-0.cases.svc.cluster.local"


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
        service("alias", type="ExternalName", externalName=FULL),
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
    ("a service of the own namespace", PODS_DNS, "case-0", (FULL, "10.96.1.1")),
    ("with its namespace", PODS_DNS, "case-0.cases", (FULL, "10.96.1.1")),
    ("with its namespace and svc", PODS_DNS, "case-0.cases.svc", (FULL, "10.96.1.1")),
    ("in full", SPECIFICATION, FULL, (FULL, "10.96.1.1")),
    ("absolute", SPECIFICATION, f"{FULL}.", (FULL, "10.96.1.1")),
    ("another namespace's", PODS_DNS, "kubernetes.default", ("kubernetes.default.svc.cluster.local", "10.96.0.1")),
    ("headless: all its endpoints", SPECIFICATION, "pets", ("pets.cases.svc.cluster.local", "*")),
    ("a pod by hostname and subdomain", PODS_DNS, "b1.pets", ("b1.pets.cases.svc.cluster.local", "b1")),
    ("one behind the router", PODS_DNS, "c2.pets.cases.svc.cluster.local", ("c2.pets.cases.svc.cluster.local", "c2")),
    ("an alias", SPECIFICATION, "alias", (FULL, "10.96.1.1")),
    ("no such name", SPECIFICATION, "nobody", ()),
    ("a service's address", SPECIFICATION, "10.96.1.1", (FULL,)),
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
