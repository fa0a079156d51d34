"""One node with four pods of its own, a pod of another node, and two clients outside, each in a network namespace.

Pods hang on links of their own, as CNI's ptp attaches them. The node has a Service and a node port (by DNAT, with
hairpin) and a DNS address. Sockets are made inside a namespace by a thread that enters it; they stay there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
PODS = {"web": "10.244.1.2", "db": "10.244.1.3", "cli": "10.244.1.4", "alien": "10.244.1.5", "newborn": "10.244.1.9"}
FAR = {"far": "10.244.2.2"}
OUT = {"out1": "192.0.2.2", "out2": "192.0.2.130"}
NODE = {"node": "192.0.2.1", "dns": "10.96.0.10", "gateway": "10.244.1.1"}
SERVICE, NODE_PORT = ("10.96.5.5", 80), 30080
ADDRESSES = {**PODS, **FAR, **OUT, **NODE}
TCP_PORTS, UDP_PORTS, SCTP_PORTS = (53, 8080, 8085, 9090), (53, 8080), (8080,)
WAIT_SECONDS = 0.4
NAT = f"""table ip services {{
  chain pre {{
    type nat hook prerouting priority dstnat;
    ip daddr {SERVICE[0]} tcp dport {SERVICE[1]} dnat to {PODS["web"]}:8080
    ip daddr {NODE["node"]} tcp dport {NODE_PORT} dnat to {PODS["web"]}:8080
  }}
  chain post {{
    type nat hook postrouting priority srcnat;
    ct status dnat ip saddr {PODS["web"]} ip daddr {PODS["web"]} masquerade
  }}
}}
"""


@dataclass
class Site:
    prefix: str
    listeners: dict[tuple[str, str, int], socket.socket] = field(default_factory=dict)

    def space(self, end: str) -> str:
        if end in NODE:
            end = "node"
        return f"{self.prefix}{'far' if end in FAR else 'out' if end in OUT else end}"

    def run(self, end: str, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net=/run/netns/{self.space(end)}", *argv]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    def inside(self, end: str, work: Callable[[], T]) -> T:
        """Runs `work` in a thread that is in the end's network namespace."""
        made: list[T] = []

        def enter() -> None:
            descriptor = os.open(f"/run/netns/{self.space(end)}", os.O_RDONLY)
            try:
                assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0, ctypes.get_errno()
                made.append(work())
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]

    def up(self) -> None:
        spaces = ["node", "far", "out", *PODS]
        for name in spaces:
            subprocess.run(["ip", "netns", "add", self.prefix + name], check=True)
        node = ["link set lo up", f"addr add {NODE['dns']}/32 dev lo"]
        for number, (name, ip) in enumerate(PODS.items()):
            node += [f"link add p{number} type veth peer name eth0 netns {self.prefix}{name}", f"link set p{number} up"]
            node += [f"addr add {NODE['gateway']}/32 dev p{number}", f"route add {ip}/32 dev p{number}"]
        for name in ("far", "out"):
            node += [f"link add {name} type veth peer name eth0 netns {self.prefix}{name}", f"link set {name} up"]
        node += [
            "addr add 192.0.2.1/24 dev out",
            "addr add 10.0.9.1/30 dev far",
            "route add 10.244.2.0/24 via 10.0.9.2",
        ]
        self._batch("node", node)
        for name, ip in PODS.items():
            gateway = ["route add 10.244.1.1/32 dev eth0", "route add default via 10.244.1.1"]
            self._batch(name, ["link set lo up", "link set eth0 up", f"addr add {ip}/32 dev eth0", *gateway])
        far = ["addr add 10.0.9.2/30 dev eth0", "addr add 10.244.2.2/32 dev lo"]
        self._batch(
            "far", ["link set lo up", "link set eth0 up", *far, "route add default via 10.0.9.1 src 10.244.2.2"]
        )
        out = [f"addr add {ip}/24 dev eth0" for ip in OUT.values()]
        self._batch("out", ["link set lo up", "link set eth0 up", *out, "route add default via 192.0.2.1"])
        self.run("node", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        assert self.run("node", "nft", "-f", "-", stdin=NAT).returncode == 0
        for end in ("web", "db", "cli", "alien", "newborn", "far", "out1", "node", "dns"):
            self.inside(end, lambda end=end: self._listen(end))  # type: ignore[misc]

    def _batch(self, end: str, lines: list[str]) -> None:
        done = self.run(end, "ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        assert done.returncode == 0, (end, done.stderr)

    def _listen(self, end: str) -> None:
        for protocol, ports in (("TCP", TCP_PORTS), ("UDP", UDP_PORTS), ("SCTP", SCTP_PORTS)):
            for port in ports:
                made = _socket(protocol)
                if made is None:
                    continue
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((ADDRESSES[end], port))
                if protocol != "UDP":
                    made.listen(64)
                made.setblocking(False)
                self.listeners[end, protocol, port] = made

    def down(self) -> None:
        for made in self.listeners.values():
            made.close()
        for name in ("node", "far", "out", *PODS):
            subprocess.run(["ip", "netns", "del", self.prefix + name], check=False, capture_output=True)

    def try_flows(self, flows: list[tuple[str, str, str, int]]) -> list[str]:
        """What came of each (from, to, protocol, port), all tried at once: the source that the other end saw, or "".

        `to`: an end, `service` or `node port`. A datagram carries its number; ping's answer has no source to show.
        """
        self._drain()
        tries = {number: self.inside(flow[0], lambda f=flow, n=number: _begin(f, n))  # type: ignore[misc]
                 for number, flow in enumerate(flows)}  # fmt: skip
        results = self._gather(flows, tries)
        for made in tries.values():
            made.close()
        return [results.get(number, "") for number in range(len(flows))]

    def _drain(self) -> None:
        for (_, protocol, _), made in self.listeners.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    if protocol == "UDP":
                        made.recv(100)
                    else:
                        made.accept()[0].close()

    def _gather(self, flows: list[tuple[str, str, str, int]], tries: Mapping[int, socket.socket]) -> dict[int, str]:
        found: dict[int, str] = {}
        locals_ = {made.getsockname(): n for n, made in tries.items() if flows[n][2] != "ICMP"}
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and len(found) < len(flows):
            ready, _, _ = select.select(list(self.listeners.values()), [], [], 0.05)
            for (_, protocol, _), made in self.listeners.items():
                if made in ready and protocol == "UDP":
                    data, source = made.recvfrom(100)
                    found[int(data)] = source[0]
                elif made in ready:
                    connection, source = made.accept()
                    connection.close()
                    number = locals_.get(source)
                    if number is None:  # masqueraded: the port is kept
                        number = next(n for (_, port), n in locals_.items() if port == source[1])
                    found[number] = source[0]
        for number, made in tries.items():
            if flows[number][2] == "ICMP" and select.select([made], [], [], 0)[0]:
                found[number] = "pong"
        return found


def _socket(protocol: str) -> socket.socket | None:
    if protocol == "SCTP":
        with contextlib.suppress(OSError):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        return None
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)


def _ping(address: str) -> socket.socket:
    """An echo request on its way; the socket becomes readable with the answer."""
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    made.setblocking(False)
    made.setsockopt(255, 1, (~(1 << 0)).to_bytes(4, "little", signed=True))  # ICMP_FILTER: replies only
    made.connect((address, 0))
    made.send(bytes((8, 0, 0xF7, 0xFF, 0, 0, 0, 0)))
    return made


def _begin(flow: tuple[str, str, str, int], number: int) -> socket.socket:
    source, to, protocol, port = flow
    target = {"service": SERVICE, "node port": (NODE["node"], NODE_PORT)}.get(to) or (ADDRESSES[to], port)
    if protocol == "ICMP":
        return _ping(target[0])
    made = _socket(protocol)
    assert made is not None
    made.bind((ADDRESSES["node" if source == "dns" else source] if source in (*PODS, *FAR, *OUT) else "0.0.0.0", 0))
    made.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        made.connect(target)
    if protocol == "UDP":
        made.send(str(number).encode())
    return made


@contextlib.contextmanager
def built() -> Iterator[Site]:
    site = Site(f"np{os.getpid()}-")
    try:
        site.up()
        yield site
    finally:
        site.down()
