"""Pods reach pods and nodes: on one link, and across a router that knows nothing of pods. Then the way is changed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.runtime.cgroups import processes
from agent.runtime.containerd import containerd_paths
from deploy.lab import Lab
from tests.cluster import Cluster, eventually, pod
from tests.e2e.lab_scene import lab_up
from tests.lab_guard import guarded

pytestmark = pytest.mark.root
_PORT, _HOST_PORT = 5201, 5301
_MTU = 1450


@dataclass(frozen=True)
class Place:
    """A network namespace on a node: a pod's, or the node's own."""

    name: str
    node: str
    address: str
    namespace: str
    is_pod: bool

    def probe(self, *words: str) -> list[str]:
        return ["nsenter", f"--net={self.namespace}", sys.executable, "-m", "tests.e2e.probe", *words]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="wherry-routes-"))
    with guarded(directory):
        yield lab_up(directory / "lab", 3, "r", routed=1)


@pytest.fixture(scope="module")
def places(lab: Lab) -> Iterator[list[Place]]:
    """A pod on each node and a second one on the first, and the nodes themselves; a server in each."""
    cluster, nodes = Cluster(lab), lab.state.nodes
    homes = {f"pod-{number}": node for number, node in enumerate([nodes[0], *nodes])}
    ports = [{"containerPort": _PORT, "hostPort": _HOST_PORT, "protocol": kind} for kind in ("TCP", "UDP")]
    exposed = {"pod-1": {"ports": ports}, "pod-3": {"ports": ports}}  # one on the first node, one behind the router
    cluster.ready(*(pod(name, nodeName=node, container=exposed.get(name, {})) for name, node in homes.items()))
    found = [_pod_place(lab, cluster.get("pod", name)) for name in homes]
    found += [Place(node, node, lab.address(node), f"/run/netns/wherry-{node}", False) for node in nodes]
    with contextlib.ExitStack() as stack:
        for place in found:
            stack.enter_context(_served(place))
        yield found


def _pod_place(lab: Lab, found: dict[str, dict[str, str]]) -> Place:
    node, uid = found["spec"]["nodeName"], found["metadata"]["uid"]
    (pid, *_) = processes(f"{containerd_paths(lab.node_dir(node)).cgroup_root}/pod{uid}")
    return Place(found["metadata"]["name"], node, found["status"]["podIP"], f"/proc/{pid}/ns/net", True)


@contextlib.contextmanager
def _served(place: Place) -> Iterator[None]:
    with subprocess.Popen(place.probe("serve", str(_PORT)), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdin is not None
        assert server.stdout.readline() == b"ready\n"
        yield
        server.stdin.close()


def ask(place: Place, targets: list[str]) -> dict[str, dict[str, object]]:
    command = place.probe("ask", str(_MTU), *targets)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answers: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answers


def ask_all(places: list[Place]) -> dict[tuple[str, str], dict[str, object]]:
    """What each place gets of each."""
    answers = {}
    for place in places:
        found = ask(place, [f"{other.address}:{_PORT}" for other in places])
        answers.update({(place.name, other.name): found[f"{other.address}:{_PORT}"] for other in places})
    return answers


def everyone_reaches_everyone(places: list[Place]) -> None:
    """Large transfers and full datagrams arrive; everybody sees a pod's own address, however they are connected."""
    answers = ask_all(places)
    bad = {}
    for place in places:
        for other in places:
            answer = answers[place.name, other.name]
            if place.is_pod or place.node != other.node:  # a node speaks to its own pods from their gateway's address
                fine = answer.get("seen") == answer.get("datagram") == place.address
            else:
                fine = "error" not in answer
            if not (fine and answer.get("whole")):
                bad[place.name, other.name] = answer
    assert bad == {}


_HEAR = """
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", 5999))
link.settimeout(1.0)
print("ready", flush=True)
try:
    while True:
        print(link.recvfrom(9)[1][0], flush=True)
except TimeoutError:
    pass
"""
_SEND = """
import socket, sys
for source in sys.argv[2:]:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT: from any address
    link.bind((source, 0))
    link.sendto(b"?", (sys.argv[1], 5999))
"""


@pytest.mark.parametrize("receiver", ["pod-1", "pod-2", "pod-3", "its node"])
def test_a_pod_sends_from_no_address_but_its_own(lab: Lab, places: list[Place], receiver: str) -> None:
    """Not from its node's, another pod's of its node or elsewhere, another node's, or one out of the world."""
    sender, near = places[0], next(place for place in places if not place.is_pod and place.node == places[0].node)
    target = near if receiver == "its node" else next(place for place in places if place.name == receiver)
    forged = [place.address for place in places if place not in (sender, target)] + ["198.51.100.7"]
    hear = ["nsenter", f"--net={target.namespace}", sys.executable, "-c", _HEAR]
    with subprocess.Popen(hear, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        send = [sys.executable, "-c", _SEND, target.address, *forged, sender.address]
        subprocess.run(["nsenter", f"--net={sender.namespace}", *send], check=True)
        assert listening.stdout.read().split() == [sender.address]


def _ways(lab: Lab, node: str) -> dict[str, str]:
    """From podCIDR to link, of a node's routes."""
    routes = json.loads(lab.namespace_run(node, "ip", "-j", "route", "show", "proto", "119").stdout)
    return {route["dst"]: route["dev"] for route in routes if "dev" in route}


def test_every_pod_reaches_every_pod_and_node(lab: Lab, places: list[Place]) -> None:
    kinds = {node: sorted(link[:4] for link in _ways(lab, node).values()) for node in lab.state.nodes}
    near, other, far = lab.state.nodes
    assert kinds == {near: ["eth0", "whvx"], other: ["eth0", "whvx"], far: ["whvx", "whvx"]}
    everyone_reaches_everyone(places)


def host_ports_answer_everyone(lab: Lab, places: list[Place]) -> None:
    """Answers leave as the questions came, through the tunnel or not; the pod behind the port asks itself, too."""
    near, _, far = lab.state.nodes
    targets = [f"{lab.address(node)}:{_HOST_PORT}" for node in (near, far)]
    for place in places:
        answers = ask(place, targets)
        assert all(answers[target].get("whole") for target in targets), (place, answers)
        if place.node != far:
            assert answers[targets[1]]["seen"] == answers[targets[1]]["datagram"] == place.address


def test_host_ports_answer_on_every_way(lab: Lab, places: list[Place]) -> None:
    host_ports_answer_everyone(lab, places)


def test_strict_reverse_path_filtering_loses_nothing(lab: Lab, places: list[Place]) -> None:
    for node in lab.state.nodes:
        lab.namespace_run(node, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    try:
        everyone_reaches_everyone(places)
        host_ports_answer_everyone(lab, places)
    finally:
        for node in lab.state.nodes:
            lab.namespace_run(node, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")


def test_what_somebody_deletes_is_there_again_at_once(lab: Lab, places: list[Place]) -> None:
    node = lab.state.nodes[0]
    before = _ways(lab, node)
    device = next(link for link in before.values() if link.startswith("whvx"))
    for command in (
        ["ip", "route", "flush", "proto", "119"],
        ["ip", "link", "delete", device],
        ["ip", "link", "set", device, "down"],
        ["ip", "neigh", "flush", "dev", device, "nud", "permanent"],
        ["bridge", "fdb", "del", _entry(lab, node, device), "dev", device, "self"],
    ):
        lab.namespace_run(node, *command)
        eventually(lambda: _ways(lab, node) == before and _entry(lab, node, device), 1.0, f"{command} is repaired")
        eventually(
            lambda: lab.namespace_run(node, "ip", "neigh", "show", "dev", device, "nud", "permanent").stdout,
            1.0,
            f"{command} is repaired",
        )
    everyone_reaches_everyone(places)


def _entry(lab: Lab, node: str, device: str) -> str:
    """The link-layer address of a node behind the tunnel; "" when there is none."""
    entries = json.loads(lab.namespace_run(node, "bridge", "-j", "fdb", "show", "dev", device).stdout or "[]")
    return next((entry["mac"] for entry in entries if entry.get("dst")), "")


def test_a_killed_agents_routes_serve_on_and_are_adopted(lab: Lab, places: list[Place]) -> None:
    node = lab.state.nodes[0]
    before = lab.namespace_run(node, "ip", "-d", "route").stdout
    lab.kill_agent(node)
    stale = ["10.244.77.0/24", "via", lab.address(lab.state.nodes[1]), "proto", "119"]
    ours = _metric(before)
    lab.namespace_run(node, "ip", "route", "add", *stale, "metric", ours)
    lab.namespace_run(node, "ip", "route", "add", *stale, "metric", "7")
    everyone_reaches_everyone(places)
    lab.revive(node)
    eventually(lambda: f"metric {ours}" not in _left(lab, node), 20.0, "the stale route is taken away")
    assert "metric 7" in _left(lab, node), "a route that is not ours stays"
    lab.namespace_run(node, "ip", "route", "del", "10.244.77.0/24")
    assert lab.namespace_run(node, "ip", "-d", "route").stdout == before
    lab.wait_ready([node])


def _left(lab: Lab, node: str) -> str:
    return lab.namespace_run(node, "ip", "route", "show", "10.244.77.0/24").stdout


def _metric(routes: str) -> str:
    words = next(line for line in routes.splitlines() if "proto 119" in line).split()
    return words[words.index("metric") + 1]
