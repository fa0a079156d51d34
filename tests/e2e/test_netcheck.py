"""`wherry netcheck` on three nodes, one of them behind a router: green when all is well; each fault is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.network.dns.process import find_processes
from agent.runtime.containerd import containerd_paths
from api.client import Client
from api.tls import load_kubeconfig
from deploy.lab import Lab
from tests.cluster import eventually
from tests.e2e.lab_scene import lab_up, wherry
from tests.lab_guard import guarded

pytestmark = pytest.mark.root
HEALTHY_SECONDS = 15.0


class Upstream:
    """A DNS server outside the cluster: answers every query with NXDOMAIN while it is `alive`."""

    def __init__(self, address: str) -> None:
        self.alive = True
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: the lab's bridge may not be there yet
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(512)
            if self.alive:
                self._socket.sendto(query[:2] + struct.pack("!H", 0x8183) + query[4:], asker)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Lab, Upstream]]:
    directory = Path(tempfile.mkdtemp(prefix="wherry-netcheck-"))
    resolv_conf = directory / "resolv.conf"
    with guarded(directory):
        lab = lab_up(directory / "lab", 3, "c", routed=1, agent_flags=["--resolv-conf", str(resolv_conf)])
        address = lab.server.removeprefix("https://").partition(":")[0]
        resolv_conf.write_text(f"nameserver {address}\n")
        yield lab, Upstream(address)


@pytest.fixture
def lab(place: tuple[Lab, Upstream]) -> Lab:
    return place[0]


def netcheck(lab: Lab, *words: str) -> tuple[dict[str, Any] | None, str]:
    """The first hop that failed, and what a person is told at the end."""
    done = wherry(lab, "netcheck", "-o", "json", *words, check=False)
    failed = [hop for hop in json.loads(done.stdout)["hops"] if not hop["ok"]]
    assert done.returncode == (1 if failed else 0), done.stderr
    return failed[0] if failed else None, done.stderr


def expect(lab: Lab, hop: str, ends: tuple[str, str], why: str) -> None:
    """That is the first hop that fails, and the last words name it, why, and what to do."""
    first, told = netcheck(lab)
    assert first is not None, "nothing failed"
    assert (first["hop"], first["from"], first["to"]) == (hop, *ends), first
    assert why in first["why"], first
    assert f"hop {hop}, from {ends[0]} to {ends[1]}" in told and first["do"] in told


@contextlib.contextmanager
def firewall(lab: Lab, node: str, hook: str, rule: str) -> Iterator[None]:
    """A rule of somebody's on a node."""
    chain = f"type filter hook {hook} priority -5; policy accept; {rule};"
    assert not lab.namespace_run(node, "nft", f"table inet nctest {{ chain c {{ {chain} }}; }}").returncode
    try:
        yield
    finally:
        lab.namespace_run(node, "nft", "delete table inet nctest")


def test_a_healthy_network_is_green_fast_and_left_as_it_was(lab: Lab) -> None:
    links = {node: _links(lab, node) for node in lab.state.nodes}
    netcheck(lab)
    began = time.monotonic()
    done = wherry(lab, "netcheck")
    assert time.monotonic() - began < HEALTHY_SECONDS
    assert "failed" not in done.stdout and "warning" not in done.stdout, done.stdout
    shown = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()[1:]}
    pairs = {"node": 6, "route": 6, "pod-to-pod": 6, "pod-to-node": 9}
    alone = dict.fromkeys(("controller", "kernel", "attach", "service", "dns", "upstream", "outside"), 3)
    assert shown == pairs | alone
    assert {node: _links(lab, node) for node in lab.state.nodes} == links
    assert not _reservations(lab)


def _links(lab: Lab, node: str) -> list[str]:
    shown = json.loads(lab.namespace_run(node, "ip", "-j", "link").stdout)
    return sorted(link["ifname"] for link in shown)


def _reservations(lab: Lab) -> list[Path]:
    return [path for path in lab.directory.glob("*/network/wherry-*/*") if path.name[0].isdigit()]


def test_a_blocked_tunnel_is_told_from_a_dead_node(lab: Lab) -> None:
    near, _, far = lab.state.nodes
    with firewall(lab, far, "input", "udp dport 4789 drop"):
        expect(lab, "route", (near, far), "no packet gets through the VXLAN tunnel")
        assert "UDP port 4789" in netcheck(lab)[1]


def test_large_packets_that_vanish(lab: Lab) -> None:
    near, other, _ = lab.state.nodes
    with firewall(lab, other, "forward", 'iifname "eth0" meta length > 1400 drop'):
        expect(lab, "route", (near, other), f"packets of 1450 bytes are lost on the way to {other}")


def test_a_route_that_shadows_ours(lab: Lab) -> None:
    near, other, _ = lab.state.nodes
    routes = json.loads(lab.namespace_run(near, "ip", "-j", "route", "show", "proto", "119").stdout)
    cidr = next(route["dst"] for route in routes if route.get("gateway") == lab.address(other))
    lab.namespace_run(near, "ip", "route", "add", "blackhole", cidr, "metric", "1")
    try:
        expect(lab, "route", (near, other), "a blackhole route swallows them")
    finally:
        lab.namespace_run(near, "ip", "route", "del", "blackhole", cidr, "metric", "1")


def test_a_network_that_collides_with_the_services(lab: Lab) -> None:
    near = lab.state.nodes[0]
    lab.namespace_run(near, "ip", "route", "add", "10.97.0.0/16", "via", lab.address(lab.state.nodes[1]))
    try:
        eventually(lambda: netcheck(lab)[0], 10.0, "the agent sees it")
        why = "route to 10.97.0.0/16 on eth0 lies in the range of services, 10.96.0.0/12"
        expect(lab, "route", (near, f"addresses known to {near}"), why)
        assert why in (lab.directory / "logs" / f"{near}.log").read_text()
    finally:
        lab.namespace_run(near, "ip", "route", "del", "10.97.0.0/16")
    eventually(lambda: netcheck(lab)[0] is None, 10.0, "all is well again")


def test_a_firewall_that_forwards_nothing(lab: Lab) -> None:
    _, other, _ = lab.state.nodes
    rules = lab.namespace_run(other, "iptables-save", "-t", "filter").stdout
    lab.namespace_run(other, "iptables", "-P", "FORWARD", "DROP")
    try:
        assert netcheck(lab)[0] is None, "our own rules let pods through, as with Docker"
        lab.namespace_run(other, "iptables", "-F", "FORWARD")
        expect(lab, "kernel", (other, "forwarding"), "FORWARD chain drops by default")
    finally:
        _restore(lab, other, rules, "iptables-restore")


def _restore(lab: Lab, node: str, rules: str, *program: str) -> None:
    command = ["nsenter", f"--net=/run/netns/wherry-{node}", *program]
    subprocess.run(command, input=rules, text=True, check=True)


def test_a_node_that_forwards_nothing(lab: Lab) -> None:
    near = lab.state.nodes[0]
    lab.namespace_run(near, "sysctl", "-qw", "net.ipv4.ip_forward=0")
    try:
        expect(lab, "kernel", (near, "forwarding"), "net.ipv4.ip_forward was 0")
    finally:
        lab.namespace_run(near, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def test_pods_that_may_not_speak_to_the_controller(lab: Lab) -> None:
    near = lab.state.nodes[0]
    with firewall(lab, near, "forward", f"tcp dport {lab.state.port} drop"):
        expect(lab, "service", (near, "kubernetes (10.96.0.1:443)"), "cannot be reached from pods")


def test_dns_that_hangs(lab: Lab) -> None:
    near = lab.state.nodes[0]
    (process,) = find_processes(containerd_paths(lab.node_dir(near)).node_id)
    os.kill(process, signal.SIGSTOP)
    try:
        expect(lab, "dns", (near, "10.96.0.10"), f"its process {process} is there")
    finally:
        os.kill(process, signal.SIGCONT)


def test_an_upstream_server_that_is_dead(place: tuple[Lab, Upstream]) -> None:
    lab, upstream = place
    upstream.alive = False
    try:
        address = lab.server.removeprefix("https://").partition(":")[0]
        expect(lab, "upstream", (lab.state.nodes[0], address), "does not answer")
    finally:
        upstream.alive = True


def test_pods_that_are_not_masqueraded(lab: Lab) -> None:
    near = lab.state.nodes[0]
    table = f"wherry_{containerd_paths(lab.node_dir(near)).node_id}"
    rules = lab.namespace_run(near, "nft", "list", "chain", "ip", table, "postrouting").stdout
    lab.namespace_run(near, "nft", f"flush chain ip {table} postrouting")
    try:
        first, _ = netcheck(lab, "--node", near)
        assert first is not None and first["hop"] in ("service", "outside"), first
    finally:
        _restore(lab, near, rules, "nft", "-f", "-")
    assert netcheck(lab)[0] is None


def test_a_probe_is_gone_with_a_killed_agent(lab: Lab) -> None:
    node = lab.state.nodes[1]
    links = _links(lab, node)
    asyncio.run(_open_probe(lab, node))
    assert len(_links(lab, node)) == len(links) + 1
    lab.kill_agent(node)
    eventually(lambda: _links(lab, node) == links, 5.0, "the kernel takes the link away")
    lab.revive(node)
    eventually(lambda: not _reservations(lab), 15.0, "the next agent takes the address back")
    lab.wait_ready([node])


async def _open_probe(lab: Lab, node: str) -> None:
    target = load_kubeconfig(lab.kubeconfig)
    async with Client(target.server, target.credentials) as client:
        await client.request("PUT", f"/api/v1/nodes/{node}/proxy/wherry/v1/netcheck")


def test_a_node_that_is_cut_off(lab: Lab) -> None:
    near, other, _ = lab.state.nodes
    lab.cut(other)
    try:
        eventually(lambda: other not in lab.ready_nodes(), 20.0, f"{other} is not Ready")
        expect(lab, "node", (near, other), "does not answer")
        assert f"not Ready, so not asked: {other}" in netcheck(lab)[1]
    finally:
        lab.join(other)
        lab.wait_ready([other])


def test_two_at_a_time_do_not_disturb_each_other(lab: Lab) -> None:
    command = [sys.executable, "-m", "cli.main", "--kubeconfig", str(lab.kubeconfig), "netcheck"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    for process in running:
        told, _ = process.communicate(timeout=30)
        assert process.returncode == 0, told
    assert not _reservations(lab)
