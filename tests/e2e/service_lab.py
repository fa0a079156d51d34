"""The scene of the services' stories: three nodes, one of them behind a router, pods that are real containers, and a
machine outside the cluster. And the table of service cases as objects of its API.

    outside 192.0.2.100 ─┐
    node 2: b1, b2, near ─┤ link ─ node 1: a1, a2, node
                          └─ router ─ node 3: c1, c2, far

`node`, `near` and `far` are pods in their node's own network. The pods run `prober.py` with this machine's Python,
which they see read-only. The table speaks of one other node with b1, b2 and "far": a FLAVOUR says which node that is.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.runtime.cgroups import processes
from agent.runtime.containerd import containerd_paths
from api.client import MERGE_PATCH, Client
from api.errors import NotFound
from api.kinds import Kind, by_resource
from api.tls import load_kubeconfig
from deploy.lab import Lab
from tests.cluster import Cluster
from tests.images import BUSYBOX
from tests.integration.network.service_cases import CASES, KEPT, Backend, Case
from tests.integration.network.service_objects import address_of, name_of, node_port_of, service_of, slices_of

NAMESPACE = "cases"
OUT = "192.0.2.100"
POOL = "203.0.113.0/24"
EXTERNAL = "203.0.112.0/24"
PROBER = Path(__file__).with_name("prober.py")
PYTHON = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
POD_NODES = {"a1": 0, "a2": 0, "b1": 1, "b2": 1, "c1": 2, "c2": 2, "node": 0, "near": 1, "far": 2}
"""Which pods there are, and on which of the lab's nodes."""
HOSTS = ("node", "near", "far")
FLAVOURS: Mapping[str, Mapping[str, str]] = {
    "one link": {"b1": "b1", "b2": "b2", "far": "near"},
    "router": {"b1": "c1", "b2": "c2", "far": "far"},
}
_APART = 100
"""Between the numbers of a case's flavours."""
_OUTSIDE_PLACE = 100
_HEALTH_PORTS = 31_000
Question = dict[str, Any]
Answers = list[list[str]]
SERVICES, SLICES = by_resource("", "services"), by_resource("discovery.k8s.io", "endpointslices")


def python_pod(name: str, *words: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs the prober."""
    paths = [path for path in (Path("/usr"), Path("/lib"), Path("/lib64"), PROBER.parent) if path.exists()]
    prefix = Path(sys.base_prefix)
    paths += [] if prefix.is_relative_to("/usr") else [prefix]
    mounts = [{"name": f"v{number}", "mountPath": str(path), "readOnly": True} for number, path in enumerate(paths)]
    container = {
        "name": "c",
        "image": BUSYBOX,
        "command": [*prober(), *words],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "volumeMounts": mounts,
        **spec.pop("container", {}),
    }
    volumes = [{"name": f"v{number}", "hostPath": {"path": str(path)}} for number, path in enumerate(paths)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **spec.pop("labels", {})}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],  # an agent that is slow to start again on a busy machine
            "containers": [container],
            "volumes": volumes,
            **spec,
        },
    }


def prober(*words: str) -> list[str]:
    return [str(PYTHON), "-I", str(PROBER), *words]


@dataclass(frozen=True)
class Row:
    """A case in a flavour. `number` is unique among all rows."""

    flavour: str
    place: int
    case: Case

    @property
    def number(self) -> int:
        return self.place + _APART * list(FLAVOURS).index(self.flavour)

    @property
    def client(self) -> str:
        return self.pod(self.case.client)

    def pod(self, place: str) -> str:
        return FLAVOURS[self.flavour].get(place, place)

    @property
    def wanted(self) -> set[str]:
        expected = self.case.expect
        answers = (expected,) if isinstance(expected, str) else expected
        return {":".join((self.pod(place), *port)) for place, *port in (each.split(":") for each in answers)}

    @property
    def is_plain(self) -> bool:
        """All its endpoints are Ready pods, as a selector finds them."""
        return all(each == Backend(each.at) for each in self.case.backends)

    def question(self, node: str) -> Question:
        """`node`: the address of the first node. By name, where it has one for this client."""
        case = self.case
        named = case.to == "cluster" and self.client != "out"
        short, full = name_of(self.number), f"{name_of(self.number)}.{NAMESPACE}.svc.cluster.local"
        name = short if self.flavour == "one link" else full
        host = name if named else node if case.to == "node-port" else address_of(self.number, case.to)
        port = node_port_of(self.number) if case.to == "node-port" or case.port < 0 else case.port
        wanted = sorted(self.wanted)
        return {"host": host, "port": port, "protocol": case.protocol, "wanted": wanted,
                "silent": case.expect == "dropped"}  # fmt: skip


ROWS = tuple(Row(flavour, place, case) for flavour in FLAVOURS for place, case in enumerate(CASES))


class ServiceLab:
    """The lab with its pods and the outside."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = Cluster(lab, NAMESPACE)
        self.node = lab.address(lab.state.nodes[0])
        self.addresses: dict[str, str] = {"out": OUT}

    def open(self) -> None:
        """Pods Ready, all rows' objects made."""
        nodes = self.lab.state.nodes
        self._add_outside()
        Cluster(self.lab).kubectl("create", "namespace", NAMESPACE)
        for node, zone in zip(nodes, ("z1", "z2", "z2"), strict=True):
            self.cluster.kubectl("label", "node", node, f"topology.kubernetes.io/zone={zone}")
            self.lab.namespace_run(
                node, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"
            )  # else few refusals of UDP a second
        self.cluster.ready(*(self._pod(name, nodes[number]) for name, number in POD_NODES.items()))
        self.addresses |= {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in self.cluster.get("pods")["items"]}
        self._for_all(_create)

    def clear(self) -> None:
        """The rows' objects go."""
        self._for_all(_delete)

    def _add_outside(self) -> None:
        """It knows nothing of the cluster but a way to the first node, and is known by an address of its own."""
        lab = self.lab
        namespace, address = lab.add_machine("out", _OUTSIDE_PLACE)
        ways = [f"{address.rpartition('.')[0]}.0/24 dev eth0"]
        ways += [f"{network} via {self.node}" for network in ("10.96.0.0/12", POOL, EXTERNAL)]
        lines = [f"address add {OUT}/32 dev lo", *(f"route replace {way} src {OUT}" for way in ways)]
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines), text=True, check=True)
        for node in lab.state.nodes:
            if not lab.is_routed(node):
                assert not lab.namespace_run(node, "ip", "route", "add", OUT, "via", address).returncode

    def _pod(self, name: str, node: str) -> dict[str, Any]:
        plain = [row for row in ROWS if row.is_plain]
        labels = {name_of(row.number): "in" for row in plain for each in row.case.backends if row.pod(each.at) == name}
        network = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if name in HOSTS else {}
        ready = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
        identity = {"hostname": name, "subdomain": "pets"}
        return python_pod(
            name, "serve", name, nodeName=node, labels={**labels, "pet": "yes"}, container=ready, **identity, **network
        )

    def _objects(self, row: Row) -> Iterator[tuple[Kind, dict[str, Any]]]:
        service = service_of(row.number, row.case)
        status = service.pop("status")
        spec = service["spec"]
        if spec["type"] == "LoadBalancer" and row.case.spec.get("ipMode"):
            spec["loadBalancerClass"] = "example.com/another"
            service["status"] = status
        elif spec["type"] == "LoadBalancer":
            spec["loadBalancerIP"] = address_of(row.number, "balancer")
        if spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            spec["healthCheckNodePort"] = _HEALTH_PORTS + row.number  # one of its own choice may be another row's
        if row.is_plain:
            spec["selector"] = {name_of(row.number): "in"}
            for port in spec["ports"]:
                port["targetPort"] = 8080
        yield SERVICES, service
        if not row.is_plain:
            yield from ((SLICES, each) for each in self._slices(row))

    def _slices(self, row: Row) -> Iterator[dict[str, Any]]:
        """As a person, or another controller, would write them."""
        nodes = self.lab.state.nodes
        for port, made in zip(sorted({each.port for each in row.case.backends}), slices_of(row.number, row.case),
                              strict=True):  # fmt: skip
            backends = [each for each in row.case.backends if each.port == port]
            for backend, endpoint in zip(backends, made["endpoints"], strict=True):
                pod = row.pod(backend.at)
                endpoint["addresses"] = [self.addresses[pod]]
                if "nodeName" in endpoint:
                    endpoint["nodeName"] = nodes[POD_NODES[pod]]
                for hint in endpoint["hints"].get("forNodes", ()):
                    hint["name"] = nodes[POD_NODES[row.pod(hint["name"])]]
            yield made

    def _for_all(self, act: Callable[[Client, Kind, dict[str, Any]], Awaitable[None]]) -> None:
        """Some of the rows' objects at a time."""

        async def run() -> None:
            target = load_kubeconfig(self.lab.kubeconfig)
            async with Client(target.server, target.credentials) as client, asyncio.TaskGroup() as group:
                turns = asyncio.Semaphore(_AT_ONCE)

                async def take_turn(kind: Kind, each: dict[str, Any]) -> None:
                    async with turns:
                        await act(client, kind, each)

                for kind, each in (one for row in ROWS for one in self._objects(row)):
                    group.create_task(take_turn(kind, each))

        asyncio.run(run())

    def ask(self, questions: Mapping[str, list[Question]]) -> dict[str, list[Answers]]:
        """The answers of each client to its questions; all clients at once, each in one process."""
        asked = {client: each for client, each in questions.items() if each}
        with ThreadPoolExecutor(len(asked)) as threads:
            return dict(zip(asked, threads.map(self._ask, asked, asked.values()), strict=True))

    def _ask(self, client: str, questions: list[Question]) -> list[Answers]:
        done = self.cluster.run(*self.command(client, "ask"), stdin=json.dumps(questions))
        answers: list[Answers] = json.loads(done.stdout)
        return answers

    def command(self, client: str, *words: str) -> list[str]:
        """The prober as a client runs it."""
        if client == "out":
            return ["nsenter", f"--net=/run/netns/{self.lab.state.machines[0]}", *prober(*words)]
        return self.cluster.kubectl_command("exec", "-i", client, "--", *prober(*words))

    def inside(self, pod: str, *words: str) -> list[str]:
        """The prober in a pod, started past its agent, which may die meanwhile."""
        found = self.cluster.get("pod", pod)
        root = containerd_paths(self.lab.node_dir(found["spec"]["nodeName"])).cgroup_root
        pids = [pid for pid in processes(f"{root}/pod{found['metadata']['uid']}") if _runs_python(pid)]
        return ["nsenter", "-t", str(pids[0]), "-m", "-n", "-r", "-w", *prober(*words)]

    def own_addresses(self) -> set[str]:
        """What "an address of the node" may be, of the first one."""
        links = json.loads(self.lab.namespace_run(self.lab.state.nodes[0], "ip", "-j", "-4", "addr").stdout)
        return {each["local"] for link in links for each in link["addr_info"] if link["ifname"] != "lo"}

    def fault(self, row: Row, answers: Answers, own: set[str]) -> str:
        """What is wrong with the answers to a row's question; "" when nothing is."""
        if {name for name, _ in answers} != row.wanted:
            return f"wanted {sorted(row.wanted)}, came {answers}"
        seen = {seen for _, seen in answers}
        allowed = {self.addresses[row.client]} if row.case.seen == KEPT else own
        return f"seen from {seen}, allowed {allowed}" if row.case.seen and not seen <= allowed else ""


def _runs_python(pid: int) -> bool:
    return str(PROBER).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


_AT_ONCE = 20


async def _create(client: Client, kind: Kind, given: dict[str, Any]) -> None:
    made = {"apiVersion": kind.api_version, **given}
    status = made.pop("status", None)
    await client.create(kind, made)
    if status:
        where = (NAMESPACE, made["metadata"]["name"], "status")
        await client.patch(kind, where, {"status": status}, MERGE_PATCH)


async def _delete(client: Client, kind: Kind, given: dict[str, Any]) -> None:
    with suppress(NotFound):
        await client.delete(kind, NAMESPACE, given["metadata"]["name"])
