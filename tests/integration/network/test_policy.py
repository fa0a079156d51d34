"""Network policies on a real kernel: a table of flows, and for each what source the other end sees, if any."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from agent.network.feed import Feed, Feeds
from agent.network.model import key_of, parse_namespace, parse_pod_address
from agent.network.network import Ground
from agent.network.policy.part import Kernel, PolicyPart, forget_connections
from agent.network.policy.records import parse_policy
from agent.runtime.errors import Failed
from api.client import Client
from tests.integration.network import policy_site
from tests.integration.network.policy_site import ADDRESSES, Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
Flow = tuple[str, str, str, int]
HTTP = [
    {"name": "http", "protocol": "TCP", "containerPort": 8080},
    {"name": "dns", "protocol": "UDP", "containerPort": 53},
]
NAMESPACES = {"shop": {"team": "red"}, "lab": {"team": "blue"}, "kube-system": {}}
PODS = {
    "web": ("shop", {"app": "web"}), "db": ("shop", {"app": "db"}), "cli": ("shop", {"app": "cli"}),
    "alien": ("lab", {"app": "cli"}), "far": ("lab", {"app": "far"}), "newborn": ("shop", {"app": "newborn"}),
}  # fmt: skip
DENY = "podSelector: {matchLabels: {app: web}}, policyTypes: "

# Each scenario: its policies (in namespace shop), and rows of: from, to, protocol, port, what the other end sees.
# "src": the sender's own address; "": nothing arrives; another end's name: that end's address.
SCENARIOS: dict[str, tuple[list[str], list[tuple[Flow, str]]]] = {
    "no policy": (
        [],
        [
            (("cli", "web", "TCP", 8080), "src"),
            (("far", "web", "TCP", 8080), "src"),
            (("out1", "web", "UDP", 53), "src"),
            (("web", "out1", "TCP", 9090), "src"),
            (("cli", "dns", "UDP", 53), "src"),
            (("cli", "service", "TCP", 80), "src"),
            (("web", "service", "TCP", 80), "gateway"),
            (("out1", "node port", "TCP", 0), "src"),
        ],
    ),
    "default deny of ingress": (
        ["{" + DENY + "[Ingress]}"],
        [
            (("cli", "web", "TCP", 8080), ""),
            (("alien", "web", "TCP", 9090), ""),
            (("far", "web", "UDP", 8080), ""),
            (("out1", "web", "TCP", 8080), ""),
            (("cli", "web", "ICMP", 0), ""),
            (("cli", "service", "TCP", 80), ""),
            (("out1", "node port", "TCP", 0), ""),
            (("web", "service", "TCP", 80), "gateway"),
            (("node", "web", "TCP", 8080), "gateway"),
            (("node", "web", "ICMP", 0), "pong"),
            (("web", "db", "TCP", 9090), "src"),
            (("web", "out1", "TCP", 9090), "src"),
            (("web", "dns", "UDP", 53), "src"),
            (("cli", "db", "TCP", 8080), "src"),
        ],
    ),
    "default deny of egress": (
        ["{" + DENY + "[Egress]}"],
        [
            (("web", "db", "TCP", 8080), ""),
            (("web", "far", "TCP", 8080), ""),
            (("web", "out1", "UDP", 8080), ""),
            (("web", "dns", "UDP", 53), ""),
            (("web", "dns", "TCP", 53), ""),
            (("web", "node", "TCP", 9090), ""),
            (("web", "out1", "ICMP", 0), ""),
            (("cli", "web", "TCP", 8080), "src"),
            (("out1", "web", "TCP", 8080), "src"),
            (("node", "web", "TCP", 8080), "gateway"),
            (("web", "service", "TCP", 80), "gateway"),
        ],
    ),
    "peers": (
        [
            "{" + DENY + "[Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: cli}}}],"
            " ports: [{port: 8080}]}, {from: [{namespaceSelector: {matchLabels: {team: blue}},"
            " podSelector: {matchLabels: {app: far}}}]}]}"
        ],
        [
            (("cli", "web", "TCP", 8080), "src"),
            (("cli", "web", "TCP", 9090), ""),
            (("cli", "web", "UDP", 8080), ""),
            (("alien", "web", "TCP", 8080), ""),
            (("db", "web", "TCP", 8080), ""),
            (("far", "web", "TCP", 9090), "src"),
            (("far", "web", "UDP", 53), "src"),
            (("far", "web", "ICMP", 0), "pong"),
            (("cli", "web", "ICMP", 0), ""),
            (("cli", "service", "TCP", 80), "src"),
            (("db", "service", "TCP", 80), ""),
            (("out1", "web", "TCP", 8080), ""),
        ],
    ),
    "blocks, ranges, names, a union of two": (
        [
            "{" + DENY + "[Ingress], ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]}",
            "{" + DENY + "[Ingress], ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 8080, endPort: 8090},"
            "{port: dns, protocol: UDP}]}]}",
        ],
        [
            (("out1", "web", "TCP", 9090), "src"),
            (("out2", "web", "TCP", 9090), ""),
            (("out1", "node port", "TCP", 0), "src"),
            (("out2", "node port", "TCP", 0), ""),
            (("alien", "web", "TCP", 8085), "src"),
            (("alien", "web", "TCP", 9090), ""),
            (("far", "web", "UDP", 53), "src"),
            (("far", "web", "UDP", 8080), ""),
            (("far", "web", "TCP", 53), ""),
        ],
    ),
    "egress with DNS": (
        [
            "{podSelector: {}, policyTypes: [Egress], egress: ["
            "{to: [{podSelector: {matchLabels: {app: web}}}],"
            " ports: [{port: http}]}, {to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name:"
            " kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], "
            "ports: [{port: 53, protocol: UDP}]}]}"
        ],
        [
            (("cli", "web", "TCP", 8080), "src"),
            (("cli", "service", "TCP", 80), "src"),
            (("cli", "web", "TCP", 8085), ""),
            (("cli", "dns", "UDP", 53), "src"),
            (("cli", "dns", "TCP", 53), ""),
            (("cli", "dns", "TCP", 9090), ""),
            (("cli", "out1", "TCP", 9090), ""),
            (("cli", "node", "UDP", 53), ""),
            (("alien", "db", "TCP", 8080), "src"),
        ],
    ),
    "both ends have to agree": (
        [
            "{podSelector: {matchLabels: {app: cli}}, policyTypes: [Egress], "
            "egress: [{ports: [{port: 53, protocol: UDP},"
            "{port: 9090}]}]}",
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchExpressions: "
            "[{key: app, operator: In, values: [cli, db]}]}}], ports: [{protocol: TCP}]}]}",
        ],
        [
            (("cli", "web", "TCP", 9090), "src"),
            (("cli", "web", "TCP", 8080), ""),
            (("cli", "web", "UDP", 53), ""),
            (("cli", "dns", "UDP", 53), "src"),
            (("db", "web", "TCP", 8080), "src"),
            (("cli", "far", "TCP", 9090), "src"),
            (("alien", "web", "TCP", 9090), ""),
        ],
    ),
}


class Node:
    """The part with hand-fed feeds, writing into the site's node."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.feeds = Feeds(cast(Client, None))
        self.applied = 0
        node = {"spec": {"podCIDRs": ["10.244.1.0/24"]}}
        ground = Ground(cast(Client, None), lambda: node, "n1", "test", ("192.0.2.1",), Path("/nonexistent"),
                        "10.244.0.0/16", "10.96.0.0/12", "cluster.local")  # fmt: skip
        self.part = PolicyPart(ground, self.feeds, Kernel(self.apply, self.forget))

    async def apply(self, transaction: str) -> None:
        done = self.site.run("node", "nft", "-f", "-", stdin=transaction)
        if done.returncode:
            raise Failed(done.stderr)
        self.applied += 1

    async def forget(self, addresses: Collection[str]) -> None:
        self.site.inside("node", lambda: asyncio.run(forget_connections(addresses)))

    def feed(self, feed: Feed[Any], parse: Callable[[Any], Any], *objects: Any) -> None:
        """A whole new list."""
        old = set(feed.records)
        feed.records.clear()
        feed.records.update({key_of(obj): parse(obj) for obj in objects})
        feed.synced.set()
        feed._tell(frozenset({*old, *feed.records}))

    async def policies(self, specs: list[str]) -> None:
        before = self.applied
        named = [({"name": f"p{n}", "namespace": "shop"}, yaml.safe_load(spec)) for n, spec in enumerate(specs)]
        self.feed(self.feeds.policies, parse_policy, *({"metadata": meta, "spec": spec} for meta, spec in named))
        await reached(lambda: self.applied > before)


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def pod(name: str) -> dict[str, Any]:
    namespace, labels = PODS[name]
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": {"nodeName": "n2" if name == "far" else "n1", "containers": [{"ports": HTTP}]},
        "status": {"phase": "Running", "podIP": ADDRESSES[name]},
    }


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with policy_site.built() as made:
        yield made


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Node]:
    node = Node(site)
    labelled = [{"metadata": {"name": name, "labels": {**labels, "kubernetes.io/metadata.name": name}}}
                for name, labels in NAMESPACES.items()]  # fmt: skip
    node.feed(node.feeds.namespaces, parse_namespace, *labelled)
    node.feed(node.feeds.pods, parse_pod_address, *(pod(name) for name in PODS if name != "newborn"))
    task = asyncio.create_task(node.part.run())
    try:
        yield node
    finally:
        task.cancel()


async def seen(site: Site, flows: list[Flow]) -> list[str]:
    return await asyncio.to_thread(site.try_flows, flows)


@pytest.mark.proves(
    "NetworkPolicy.spec.podSelector",
    "NetworkPolicy.spec.ingress.from.namespaceSelector",
    "NetworkPolicy.spec.ingress.from.ipBlock.cidr",
    "NetworkPolicy.spec.ingress.from.ipBlock.except",
    "NetworkPolicy.spec.ingress.ports.port",
    "NetworkPolicy.spec.ingress.ports.endPort",
)
async def test_the_table_of_flows(site: Site) -> None:
    assert sum(len(rows) for _, rows in SCENARIOS.values()) >= 60
    wrong = []
    async with running(site) as node:
        for name, (policies, rows) in SCENARIOS.items():
            await node.policies(policies)
            for (flow, wanted), got in zip(rows, await seen(site, [flow for flow, _ in rows]), strict=True):
                expected = {"src": ADDRESSES[flow[0]]}.get(wanted) or ADDRESSES.get(wanted, wanted)
                if got != expected:
                    wrong.append(f"{name}: {flow} arrives as {got!r}, not {expected!r}")
    assert not wrong, "\n".join(wrong)


async def test_a_pod_has_no_packet_through_before_it_is_admitted_and_a_dead_agent_holds_the_line(site: Site) -> None:
    both: list[Flow] = [("newborn", "cli", "TCP", 8080), ("cli", "newborn", "TCP", 8080), ("newborn", "dns", "UDP", 53)]
    async with running(site) as node:
        await node.policies(["{podSelector: {matchLabels: {app: web}}}"])
        assert await seen(site, both) == ["", "", ""]
        assert (await seen(site, [("node", "newborn", "TCP", 8080)]))[0]  # probes and the node itself
        node.part.announce(pod("newborn"), (ADDRESSES["newborn"],))
        async with asyncio.timeout(2):
            await node.part.admitted(pod("newborn"))
        assert all(await seen(site, both))
        node.part.withdraw(pod("newborn"))
        await reached(
            lambda: "10.244.1.9" not in site.run("node", "nft", "list", "table", "ip", "wherry_test_policy").stdout
        )
        assert await seen(site, both) == ["", "", ""]
    assert await seen(site, [("cli", "web", "TCP", 8080), ("cli", "db", "TCP", 8080), both[0]]) == [
        "",
        ADDRESSES["cli"],
        "",
    ]
    again = Node(site)  # hears nothing from the API server
    task = asyncio.create_task(again.part.run())
    again.part.announce(pod("newborn"), (ADDRESSES["newborn"],))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await again.part.admitted(pod("newborn"))
    assert not again.applied and await seen(site, [("cli", "web", "TCP", 8080), both[0]]) == ["", ""]
    again.feed(again.feeds.policies, parse_policy)
    async with asyncio.timeout(2):
        await again.part.admitted(pod("newborn"))
    await reached(lambda: again.applied > 0)
    assert "wherry_test_policy" not in site.run("node", "nft", "list", "tables").stdout
    task.cancel()


async def test_who_gets_an_address_inherits_no_open_connections(site: Site) -> None:
    heard = site.listeners["newborn", "UDP", 8080]
    async with running(site) as node:
        open_port = "[{ports: [{port: 8080, protocol: UDP}]}]"
        await node.policies([f"{{podSelector: {{matchLabels: {{app: newborn}}}}, ingress: {open_port}}}"])
        node.part.announce(pod("newborn"), (ADDRESSES["newborn"],))
        await node.part.admitted(pod("newborn"))
        caller = site.inside("out1", lambda: _datagram((ADDRESSES["out1"], 0)))
        assert _passes(caller, heard)
        heard.sendto(b"answer", caller.getsockname())
        await node.policies(["{podSelector: {matchLabels: {app: newborn}}}"])
        assert _passes(caller, heard), "open connections outlive a change of policy"
        applied = node.applied
        node.part.withdraw(pod("newborn"))
        await reached(lambda: node.applied > applied)
        await asyncio.sleep(0.1)
        node.part.announce(pod("newborn"), (ADDRESSES["newborn"],))
        await node.part.admitted(pod("newborn"))
        assert not _passes(caller, heard)
        caller.close()


async def test_a_pod_comes_in_the_moment_another_goes(site: Site) -> None:
    async with running(site) as node:
        await node.policies(["{podSelector: {matchLabels: {app: newborn}}}"])
        node.part.announce(pod("newborn"), (ADDRESSES["newborn"],))
        await node.part.admitted(pod("newborn"))
        node.part.withdraw(pod("newborn"))
        node.part.announce(pod("db"), (ADDRESSES["db"],))
        await node.part.admitted(pod("db"))
        assert await seen(site, [("cli", "db", "TCP", 8080)]) == [ADDRESSES["cli"]]


def _passes(caller: socket.socket, heard: socket.socket) -> bool:
    caller.sendto(b"0", (ADDRESSES["newborn"], 8080))
    if not select.select([heard], [], [], 0.2)[0]:
        return False
    heard.recv(10)
    return True


async def test_a_forged_source_does_not_get_through(site: Site) -> None:
    async with running(site) as node:
        await node.policies(["{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: "
                             "{matchLabels: {app: cli}}}]}]}"])  # fmt: skip
        site.run("db", "ip", "addr", "add", "10.244.1.4/32", "dev", "lo")
        forged = site.inside("db", lambda: _datagram(("10.244.1.4", 0)))
        site._drain()
        forged.sendto(b"0", (ADDRESSES["web"], 53))
        await asyncio.sleep(0.2)
        with pytest.raises(BlockingIOError):
            site.listeners["web", "UDP", 53].recv(10)
        forged.close()
        site.run("db", "ip", "addr", "del", "10.244.1.4/32", "dev", "lo")
        await node.policies([])


def _datagram(address: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(address)
    return made
