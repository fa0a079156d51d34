"""Services in the kernel: load, change, memory, and what a ClusterIP costs a packet, beside kube-proxy's iptables mode.

Run as root: `python -m bench.services [--services 5000] [--endpoints 2] [--changes 1000] [--rounds 6]`. Works in
namespaces of its own. Packets go from pod to pod of one node: directly with nothing loaded ("bare"), directly on a node
with wherry's rules ("direct"), through a service of either proxy; the last one of all, the worst place in a list.
Budgets: full load below 3 s, one change below 0.1 s, no growth of memory, throughput at least 95 % of direct, new
connections/s at least 90 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.network.services.kernel import Kernel
from agent.network.services.render import render
from agent.network.services.table import Table
from bench.service_rules import SITE, addresses_of, cluster_ip, iptables_change, iptables_restore, made
from tests.integration.network.topology import PODS, Topology

TABLE = "wherry_bench_services"
ANSWER_PORT, SINK_PORT = 7000, 7001
SERVER, CLIENT = "a2", "a1"
SECONDS = 0.7
WAYS = ("bare", "direct", "wherry", "iptables")
_LINGER = struct.pack("ii", 1, 0)


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


async def measure_kernel(services: int, endpoints: int, changes: int) -> dict[str, Any]:
    """In the node's namespace: a full load, then single changes, one after the other."""
    kernel = Kernel(Table(4, TABLE, SITE))
    records = [made(number, addresses_of(number, endpoints)) for number in range(services)]
    started = time.monotonic()
    await kernel.apply({service.key: render(service, slices, 4, SITE) for service, slices in records})
    load = time.monotonic() - started
    del records
    chance = random.Random(1)
    took, memory = [], []
    for turn in range(changes):
        if turn % max(1, changes // 4) == changes // 8:
            memory.append(round(resident_mib(), 1))
        number = chance.randrange(services)
        service, slices = made(number, addresses_of(chance.randrange(services), chance.randrange(1, 2 * endpoints)))
        started = time.monotonic()
        await kernel.apply({service.key: render(service, slices, 4, SITE)})
        took.append(time.monotonic() - started)
    started = time.monotonic()
    again = Kernel(Table(4, TABLE, SITE))
    again._table.blocks = kernel._table.blocks
    await again.apply({})
    replaced = time.monotonic() - started
    return {"load": load, "changes": sorted(took), "memory": memory, "replace": replaced}


def answer(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.send(b"x")
        connection.close()


def swallow(listener: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    while True:
        connection, _ = listener.accept()
        while connection.recv_into(buffer):
            pass
        connection.close()


def connections_per_second(topology: Topology, address: str, port: int) -> float:
    with topology.inside(CLIENT):
        started, count = time.monotonic(), 0
        while time.monotonic() < started + SECONDS:
            with socket.create_connection((address, port), 2) as client:
                client.recv(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            count += 1
        return count / (time.monotonic() - started)


def gigabits_per_second(topology: Topology, address: str, port: int) -> float:
    block = bytes(1 << 20)
    with topology.inside(CLIENT), socket.create_connection((address, port), 2) as client:
        started, sent = time.monotonic(), 0
        while time.monotonic() < started + SECONDS:
            sent += client.send(block)
        return sent * 8 / 1e9 / (time.monotonic() - started)


def measure_packets(topology: Topology, arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Rounds over all ways, so that a busy moment of the machine meets each of them."""
    pod, total = PODS[SERVER], arguments.services
    table = Table(4, TABLE, SITE)
    last = [(total, [pod], ANSWER_PORT), (total + 1, [pod], SINK_PORT)]
    all_of_them = [(number, addresses_of(number, arguments.endpoints), 8080) for number in range(total)] + last
    for number, addresses, port in all_of_them:
        service, slices = made(number, addresses, port)
        table.change({service.key: render(service, slices, 4, SITE)})
    ours, theirs = directory / "ours", directory / "theirs"
    ours.write_text(table.render_replacement((), ()))
    theirs.write_text(iptables_restore(all_of_them))
    flush = ["nft", "flush", "ruleset"]
    pods = ((pod, ANSWER_PORT), (pod, SINK_PORT))
    services = ((cluster_ip(total), 80), (cluster_ip(total + 1), 80))
    loads = {"bare": flush, "direct": ["nft", "-f", str(ours)], "iptables": ["iptables-restore", str(theirs)]}
    found: dict[str, Any] = {way: {"connections": [], "gigabits": [], "load": []} for way in WAYS}
    for _ in range(arguments.rounds):
        for way in WAYS:
            if way in loads:  # "wherry" finds the rules of "direct"
                topology.run("node", *flush)
                started = time.monotonic()
                topology.run("node", *loads[way])
                found[way]["load"].append(time.monotonic() - started)
            answering, swallowing = services if way in ("wherry", "iptables") else pods
            found[way]["connections"].append(connections_per_second(topology, *answering))
            found[way]["gigabits"].append(gigabits_per_second(topology, *swallowing))
    change = iptables_change(7, addresses_of(8, arguments.endpoints), 8080)
    found["iptables"]["change"] = [
        timed(lambda: topology.run("node", "iptables-restore", "--noflush", data=change)) for _ in range(5)
    ]
    return found


def timed(run: Callable[[], object]) -> float:
    started = time.monotonic()
    run()
    return time.monotonic() - started


def report(kernel: dict[str, Any], packets: dict[str, Any], arguments: argparse.Namespace) -> str:
    changes = kernel["changes"]
    median = statistics.median
    theirs = packets["iptables"]
    lines = [
        f"{arguments.services} services with {arguments.services * arguments.endpoints} endpoints",
        f"full load {kernel['load']:.2f} s (iptables-restore {median(theirs['load']):.2f} s); "
        f"replaced whole in {kernel['replace']:.2f} s",
        f"one change p50 {median(changes) * 1000:.0f} ms, p99 {changes[len(changes) * 99 // 100] * 1000:.0f} ms, "
        f"most {changes[-1] * 1000:.0f} ms (iptables-restore --noflush {median(theirs['change']) * 1000:.0f} ms)",
        f"memory over {len(changes)} changes: {kernel['memory']} MiB",
    ]
    direct = packets["direct"]
    for way in WAYS:
        of_direct = {
            what: statistics.median(one / other for one, other in zip(packets[way][what], direct[what], strict=True))
            for what in ("connections", "gigabits")
        }
        rates = {what: median(packets[way][what]) for what in of_direct}
        lines.append(
            f"{way}: {rates['connections']:.0f} connections/s ({of_direct['connections']:.0%} of direct), "
            f"{rates['gigabits']:.1f} Gbit/s ({of_direct['gigabits']:.0%} of direct)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("services", 5000), ("endpoints", 2), ("changes", 1000), ("rounds", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(asyncio.run(measure_kernel(arguments.services, arguments.endpoints, arguments.changes))))
        return
    topology = Topology("svb")
    servers = []
    try:
        topology.open()
        argv = [sys.executable, "-m", "bench.services", "--inside", *sys.argv[1:]]
        kernel = json.loads(topology.run("node", *argv))
        with topology.inside(SERVER):
            listeners = [socket.create_server((PODS[SERVER], port), backlog=1000) for port in (ANSWER_PORT, SINK_PORT)]
        for serve, listener in zip((answer, swallow), listeners, strict=True):
            servers.append(multiprocessing.Process(target=serve, args=(listener,), daemon=True))
            servers[-1].start()
        with tempfile.TemporaryDirectory() as directory:
            print(report(kernel, measure_packets(topology, arguments, Path(directory)), arguments))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}: {error.stderr}")
    finally:
        for server in servers:
            server.kill()
        topology.close()


if __name__ == "__main__":
    main()
