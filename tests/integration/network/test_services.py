"""Services in the kernel of a node: the table of cases, and what happens when things change. Real packets."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import chain
from random import Random
from typing import Any

import pytest

from tests.integration.network.service_cases import CASES, DROPPED, KEPT, MASKED, REFUSED, UDP, Backend, Case
from tests.integration.network.service_objects import (
    address_of,
    node_port_of,
    service_of,
    slices_of,
)
from tests.integration.network.topology import FAR_PODS, GATEWAY, NODE, OUT, PODS, Topology, ask

TRIES = 60
SETTLE_SECONDS = 15
NODE_ID = f"svt{os.getpid()}"
TABLE = f"wherry_{NODE_ID}_services"
ADDRESSES = {**PODS, **FAR_PODS, "node": NODE, "out": OUT}


class Proxy:
    """The services part as a process of its own on the node; `tell` returns when the kernel is as told."""

    def __init__(self, topology: Topology, log: Any) -> None:
        labels = {"topology.kubernetes.io/zone": "z1"}
        node = {"metadata": {"name": "node", "labels": labels}, "id": NODE_ID, "addresses": [NODE]}
        argv = ["nsenter", f"--net={topology.path('node')}", sys.executable]
        argv += ["-m", "tests.integration.network.services_process", json.dumps(node)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def tell(self, *objects: dict[str, Any], type: str = "MODIFIED", synced: bool = False) -> None:
        self.send(*objects, type=type, synced=synced)
        self.settle()

    def send(self, *objects: dict[str, Any], type: str = "MODIFIED", synced: bool = False) -> None:
        assert self._process.stdin is not None
        for each in objects:
            self._process.stdin.write(json.dumps({"type": type, "object": each}) + "\n")
        if synced:
            self._process.stdin.write('{"type": "SYNCED"}\n')
        self._process.stdin.flush()

    def settle(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("FLUSH\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], SETTLE_SECONDS)[0], "the rules are not written"
        assert self._process.stdout.readline() == "settled\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    made = Topology("svt")
    made.open()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (tmp_path_factory.mktemp("services") / "log").open("w") as file:
        yield file


@pytest.fixture(scope="module")
def proxy(topology: Topology, log: Any) -> Iterator[Proxy]:
    """With all services of the table."""
    made = Proxy(topology, log)
    try:
        objects = [each for number, case in enumerate(CASES) for each in everything_of(number, case)]
        made.tell(*objects, type="ADDED", synced=True)
        yield made
    finally:
        made.kill()


def everything_of(number: int, case: Case) -> list[dict[str, Any]]:
    return [service_of(number, case), *slices_of(number, case)]


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case.what for case in CASES])
@pytest.mark.proves(
    "Service.spec.externalIPs",
    "Service.spec.internalTrafficPolicy",
    "Service.spec.loadBalancerSourceRanges",
    "Service.spec.ports.protocol",
    "Service.spec.ports.port",
)
def test_case(proxy: Proxy, topology: Topology, number: int, case: Case) -> None:
    port = node_port_of(number) if case.to == "node-port" or case.port < 0 else case.port
    address = address_of(number, case.to)
    wanted = {case.expect} if isinstance(case.expect, str) else set(case.expect)
    answers = {topology.ask(case.client, address, port, case.protocol)}
    if case.expect != DROPPED:
        for _ in range(TRIES if len(wanted) > 1 else 2):
            answers.add(topology.ask(case.client, address, port, case.protocol))
            if len(wanted) > 1 and {answer.name for answer in answers} == wanted:
                break
    assert {answer.name for answer in answers} == wanted
    seen = {answer.seen for answer in answers}
    if case.seen == KEPT:
        assert seen == {ADDRESSES[case.client]}
    elif case.seen == MASKED:
        assert seen <= {NODE, GATEWAY}


def scene(number: int, *backends: Backend, **spec: Any) -> tuple[list[dict[str, Any]], str]:
    """A service of a test of its own, and its cluster IP."""
    objects = everything_of(number, Case("", "", "", "", backends or (), spec))
    if not backends:
        objects += [
            {**each, "endpoints": []} for each in slices_of(number, Case("", "", "", "", (Backend("a1"),), spec))
        ]
    return objects, address_of(number, "cluster")


def sticky(timeout_seconds: int) -> dict[str, Any]:
    config = {"clientIP": {"timeoutSeconds": timeout_seconds}}
    return {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}


def answering(topology: Topology, client: str, address: str, count: int = 12) -> set[str]:
    return {topology.ask(client, address, 80).name for _ in range(count)}


def test_an_external_ip_takes_no_address_of_a_node_a_pod_or_a_service(proxy: Proxy, topology: Topology) -> None:
    """Stored by an older version, or named before the node came: the kernel itself looks."""
    victim, address = scene(230, Backend("b1"))
    (thief, *slices), _ = scene(231, Backend("a1"))
    other = "203.0.113.250"
    thief["spec"]["externalIPs"] = [NODE, address, FAR_PODS["b2"], other]
    thief["spec"]["ports"].append({"name": "raw", "protocol": "TCP", "port": 8080})
    proxy.tell(*victim, thief, *slices)
    assert {topology.ask("out", address, 80).name for _ in range(4)} == {"b1:8080"}
    assert topology.ask("out", NODE, 80).name == REFUSED
    assert topology.ask("a2", NODE, 80).name == REFUSED
    assert topology.ask("a2", FAR_PODS["b2"], 8080).name == "b2:8080"
    assert topology.ask("out", other, 80).name == "a1:8080"
    addresses = [{"type": "InternalIP", "address": other}, {"type": "ExternalIP", "address": "no address"}]
    proxy.tell({"kind": "Node", "metadata": {"name": "new"}, "status": {"addresses": addresses}}, type="ADDED")
    assert topology.ask("a2", other, 80).name != "a1:8080"


@pytest.mark.proves("Service.spec.sessionAffinity")
def test_a_client_sticks_to_its_endpoint_until_that_goes(proxy: Proxy, topology: Topology) -> None:
    three = (Backend("a1"), Backend("b1"), Backend("b2"))
    objects, address = scene(200, *three, **sticky(600))
    proxy.tell(*objects)
    chosen = answering(topology, "a2", address)
    assert len(chosen) == 1
    proxy.tell(*scene(200, *three, Backend("node"), **sticky(600))[0])
    assert answering(topology, "a2", address) == chosen, "a new endpoint changes nothing"
    other, _ = scene(201, Backend("a1"), Backend("b1"))
    proxy.tell(*other)
    assert answering(topology, "a2", address) == chosen, "nor does another service"
    left = [each for each in three if f"{each.at}:8080" not in chosen]
    proxy.tell(*scene(200, *left, **sticky(600))[0])
    moved = answering(topology, "a2", address)
    assert len(moved) == 1
    assert moved.isdisjoint(chosen)
    proxy.tell(*scene(200, *three, **sticky(600))[0])
    assert answering(topology, "a2", address) == moved, "an endpoint that is back has forgotten its clients"


@pytest.mark.proves("Service.spec.sessionAffinityConfig.clientIP.timeoutSeconds")
def test_stickiness_ends_by_its_timeout_and_survives_a_new_agent_and_a_refused_transaction(
    proxy: Proxy, topology: Topology
) -> None:
    backends = [Backend(at, port=port) for at in ("a1", "a2", "b1", "b2") for port in (8080, 9090)]
    objects, address = scene(202, *backends, **sticky(1))
    long, long_address = scene(203, *backends, **sticky(600))
    proxy.tell(*objects, *long)
    stays = answering(topology, "a2", long_address, 3)
    seen = set()
    for _ in range(4):
        seen |= answering(topology, "a2", address, 2)
        time.sleep(1.1)
    assert len(seen) > 1
    held = topology.run("node", "nft", "list", "chain", "ip", TABLE, "cluster/cases/case-203/tcp/80")
    assert held
    topology.run("node", "nft", "delete", "element", "ip", TABLE, "services", f"{{ {address} . tcp . 80 }}")
    proxy.tell(objects[0], type="DELETED")  # the kernel refuses to delete what is gone: all is written anew
    assert answering(topology, "a2", long_address, 5) == stays
    assert topology.ask("a2", address, 80).name == DROPPED, "an address that is nobody's"


def test_udp_entries_of_gone_endpoints_are_forgotten(proxy: Proxy, topology: Topology) -> None:
    objects, address = scene(204, Backend("a1"), **UDP)
    proxy.tell(*objects)
    with topology.client("a2", "udp", port=40_001) as client:
        assert ask(client, address, 80).name == "a1:8080"
        proxy.tell(*scene(204, Backend("b1"), **UDP)[0])
        assert ask(client, address, 80).name == "b1:8080"


def test_a_udp_client_that_was_there_before_the_endpoints_is_served(proxy: Proxy, topology: Topology) -> None:
    objects, _ = scene(205, Backend("b1"), type="NodePort", **UDP)
    with topology.client("out", "udp", port=40_002) as client:
        assert ask(client, NODE, node_port_of(205)).name == REFUSED
        proxy.tell(*objects)
        assert ask(client, NODE, node_port_of(205)).name == "b1:8080"


def test_endpoints_come_and_go_by_the_hundreds(proxy: Proxy, topology: Topology) -> None:
    """More of them than a cascade of rules is made for; those that nobody answers for are not ready."""
    many = [Backend(at, port=port) for at in ("a1", "a2", "b1", "b2", "node", "far") for port in (8080, 9090)]
    objects, address = scene(206, *many)
    for slice in objects[1:]:
        slice["endpoints"] += [
            {"addresses": [f"10.244.1.{number}"], "nodeName": "node", "conditions": {"ready": True}}
            for number in range(2, 4)
        ] + [{"addresses": [FAR_PODS["b1"]], "nodeName": "far"}]
        slice["ports"].append({"name": "http", "protocol": "TCP", "port": slice["ports"][0]["port"]})
    proxy.tell(*objects)
    assert answering(topology, "a1", address, 120) == {f"{each.at}:{each.port}" for each in many}
    extra = [{"addresses": [f"10.244.1.{number}"], "nodeName": "node"} for number in range(100, 110)]
    objects[1]["endpoints"] += extra
    proxy.tell(*objects)
    assert "endpoints" in topology.run("node", "nft", "list", "chain", "ip", TABLE, "cluster/cases/case-206/tcp/80")
    objects[1]["endpoints"] = objects[1]["endpoints"][:-10]
    proxy.tell(*objects)
    assert answering(topology, "a1", address, 30) <= {f"{each.at}:{each.port}" for each in many}


def health(topology: Topology, port: int) -> tuple[int, dict[str, Any]]:
    with topology.inside("out"):
        connection = http.client.HTTPConnection(NODE, port, timeout=2)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.proves("Service.spec.healthCheckNodePort", "Service.spec.externalTrafficPolicy")
def test_the_health_check_counts_local_endpoints(proxy: Proxy, topology: Topology) -> None:
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000}
    objects, _ = scene(207, Backend("a1"), Backend("a2"), Backend("b1"), **spec)
    proxy.tell(*objects)
    status, body = health(topology, 32_000)
    assert (status, body["localEndpoints"]) == (200, 2)
    proxy.tell(*scene(207, Backend("b1"), **spec)[0])
    assert health(topology, 32_000)[0] == 503
    proxy.tell(objects[0], type="DELETED")
    with pytest.raises(ConnectionRefusedError):
        health(topology, 32_000)


def test_a_pool_address_is_answered_for_while_this_node_announces_it(proxy: Proxy, topology: Topology) -> None:
    pool = "192.0.2.200"
    objects, _ = scene(208, Backend("a1"), type="LoadBalancer")
    objects[0]["status"]["loadBalancer"]["ingress"][0]["ip"] = pool
    proxy.tell(*objects)
    assert topology.ask("out", pool, 80).name == DROPPED, "nobody's yet"
    objects[0]["metadata"]["annotations"] = {"wherry/announcer": "node"}
    proxy.tell(*objects)
    assert topology.ask("out", pool, 80).name == "a1:8080"
    assert topology.ask("out", pool, 8080).name == REFUSED, "what listens on the node is not reached by it"
    assert topology.ask("node", pool, 80).name == "a1:8080"
    link = f"wlb-{NODE_ID[:8]}"
    assert re.search(r"valid_lft (9|10)sec", topology.run("node", "ip", "address", "show", "dev", link))
    objects[0]["metadata"]["annotations"] = {"wherry/announcer": "far"}
    proxy.tell(*objects)
    assert pool not in topology.run("node", "ip", "address", "show", "dev", link)


def test_nobody_answers_for_another_nodes_address_whoever_is_named(proxy: Proxy, topology: Topology) -> None:
    """Balanced addresses may be the nodes' own, and whoever may write the Service can name an announcer."""
    held, theirs, link = "192.0.2.201", "192.0.2.202", f"wlb-{NODE_ID[:8]}"
    node = {"metadata": {"name": "other"}, "status": {"addresses": [{"type": "InternalIP", "address": theirs}]}}
    proxy.tell({"kind": "Node", **node}, type="ADDED")
    objects, _ = scene(215, Backend("a1"), type="LoadBalancer")
    objects[0]["status"]["loadBalancer"]["ingress"] = [{"ip": held}, {"ip": theirs}]
    objects[0]["metadata"]["annotations"] = {"wherry/announcer": "node"}
    proxy.tell(*objects)
    shown = topology.run("node", "ip", "address", "show", "dev", link)
    assert held in shown and theirs not in shown


def test_a_flushed_ruleset_is_written_anew(proxy: Proxy, topology: Topology) -> None:
    objects, address = scene(209, Backend("a1"))
    proxy.tell(*objects)
    topology.run("node", "nft", "flush", "ruleset")
    deadline = time.monotonic() + 12
    while topology.ask("a2", address, 80).name != "a1:8080":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kernel_state(topology: Topology) -> dict[str, Any]:
    """What the node's table means: chains with their rules, elements; numbers of `endpoints` and handles left out."""
    listed = json.loads(topology.run("node", "nft", "-j", "list", "table", "ip", TABLE))["nftables"]
    state: dict[str, Any] = {}
    for entry in listed:
        for kind, each in entry.items():
            if kind == "rule":
                state.setdefault(f"chain {each['chain']}", []).append(json.dumps(each["expr"]))
            elif kind in ("set", "map") and not each["name"].startswith("affinity/") and each["name"] != "endpoints":
                state[f"{kind} {each['name']}"] = sorted(json.dumps(element) for element in each.get("elem", ()))
            elif kind in ("set", "chain"):
                state.setdefault(f"{kind} {each['name']}", [])
    return state


def test_killed_amid_changes_the_agent_finds_its_way_back_and_other_services_never_stop(
    proxy: Proxy, topology: Topology, log: Any
) -> None:
    """A service that nobody changes is asked without a pause while agents die at random moments of churn."""
    random = Random(7)
    steady, address = scene(210, Backend("a1"), Backend("b1"))
    base = [each for number, case in enumerate(CASES) for each in everything_of(number, case)]
    places = ["a1", "a2", "b1", "b2", "node", "far"]
    proxy.kill()
    answers: list[str] = []
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            answers.append(topology.ask("a2", address, 80).name)

    churning: dict[int, list[dict[str, Any]]] = {}
    asking = threading.Thread(target=ask_on)
    agent = Proxy(topology, log)
    agent.tell(*base, *steady, type="ADDED", synced=True)
    asking.start()
    try:
        for _ in range(4):
            for _ in range(random.randrange(5, 25)):
                number = random.randrange(211, 220)
                chosen = [Backend(at) for at in random.sample(places, random.randrange(0, 5))]
                spec = random.choice([{}, sticky(60), {"type": "NodePort"}])
                churning[number], _ = scene(number, *chosen, **spec)
                agent.send(*churning[number])
                time.sleep(random.choice([0, 0, 0.005]))
            agent.kill()
            agent = Proxy(topology, log)
            agent.tell(
                *base, *steady, *(each for objects in churning.values() for each in objects), type="ADDED", synced=True
            )
        found = kernel_state(topology)
    finally:
        ended.set()
        asking.join()
        agent.kill()
    assert set(answers) == {"a1:8080", "b1:8080"}
    topology.run("node", "nft", "delete", "table", "ip", TABLE)
    fresh = Proxy(topology, log)
    fresh.tell(*base, *steady, *chain(*churning.values()), type="ADDED", synced=True)
    fresh.kill()
    assert found == kernel_state(topology)
