"""A node's surroundings in network namespaces: its pods, another node with pods, a client outside. Real sockets in all.

    out 192.0.2.100 ─┐
    far 192.0.2.2   ─┤ bridge ─ node 192.0.2.1 ── ptp links ── a1 10.244.1.2, a2 10.244.1.3
      b1, b2 10.244.2.2, .3 (addresses of far)

Sockets are made by entering a namespace with one thread for a moment; they stay there. Every address of `SERVERS`
answers on TCP and UDP with its own name and the client's address.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NODE, FAR, OUT = "192.0.2.1", "192.0.2.2", "192.0.2.100"
PODS = {"a1": "10.244.1.2", "a2": "10.244.1.3"}
FAR_PODS = {"b1": "10.244.2.2", "b2": "10.244.2.3"}
GATEWAY = "10.244.1.1"
SERVERS = {**PODS, **FAR_PODS, "node": NODE, "far": FAR}
PORTS = (8080, 9090)
ANSWER_SECONDS = 0.4
REFUSED, DROPPED = "refused", "dropped"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Answer:
    """Who answered, or REFUSED or DROPPED; and the client's address as the server saw it."""

    name: str
    seen: str = ""


class Topology:
    """The namespaces, named after a prefix and this process. `close` takes everything away."""

    def __init__(self, prefix: str) -> None:
        self._kind = prefix
        self._prefix = f"{prefix}{os.getpid()}"
        self._names = ("node", "far", "out", *PODS)
        self._servers: Servers | None = None

    def path(self, name: str) -> str:
        return f"/run/netns/{self._prefix}-{name}"

    def run(self, name: str, *argv: str, data: str = "") -> str:
        """A command in a namespace; its output. CalledProcessError when it fails."""
        return subprocess.run(
            ["nsenter", f"--net={self.path(name)}", *argv], input=data, text=True, capture_output=True, check=True
        ).stdout

    def open(self) -> None:
        self._sweep()
        for name in (*self._names, "link"):
            subprocess.run(["ip", "netns", "add", f"{self._prefix}-{name}"], check=True)
            self.run(name, "ip", "link", "set", "lo", "up")
        self._batch("link", "link add br0 type bridge", "link set br0 up")
        for name, address in (("node", NODE), ("far", FAR), ("out", OUT)):
            self._batch("link", f"link add {name} type veth peer name eth0 netns {self._prefix}-{name}")
            self._batch("link", f"link set {name} master br0 up")
            self._batch(name, f"address add {address}/24 dev eth0", "link set eth0 up")
        self._batch("node", f"route add 10.244.2.0/24 via {FAR}", f"route add default via {OUT}")
        self._batch("far", *(f"address add {each}/32 dev lo" for each in FAR_PODS.values()))
        self._batch("far", f"route add 10.244.1.0/24 via {NODE}", f"route add default via {NODE}")
        self._batch("out", f"route add 10.96.0.0/12 via {NODE}", f"route add 203.0.112.0/23 via {NODE}")
        for name, address in PODS.items():
            self._batch("node", f"link add {name} type veth peer name eth0 netns {self._prefix}-{name}")
            self._batch("node", f"address add {GATEWAY}/32 dev {name}", f"link set {name} up")
            self._batch("node", f"route add {address}/32 dev {name}")
            self._batch(name, f"address add {address}/32 dev eth0", "link set eth0 up")
            self._batch(name, f"route add {GATEWAY}/32 dev eth0", f"route add default via {GATEWAY}")
        self.run("node", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")
        self._servers = Servers(self)

    def _batch(self, name: str, *lines: str) -> None:
        self.run(name, "ip", "-batch", "-", data="\n".join(lines) + "\n")

    def close(self) -> None:
        if self._servers is not None:
            self._servers.close()
        for name in (*self._names, "link"):
            if Path(self.path(name)).exists():
                subprocess.run(["ip", "netns", "del", f"{self._prefix}-{name}"], check=False)

    def _sweep(self) -> None:
        """Takes away what a killed run left: namespaces with the number of a process that is no more."""
        for left in Path("/run/netns").glob(f"{self._kind}*-*"):
            number = left.name.removeprefix(self._kind).partition("-")[0]
            if number.isdigit() and not Path("/proc", number).exists():
                subprocess.run(["ip", "netns", "del", left.name], check=False)

    def home(self, server: str) -> str:
        """The namespace in which a server's address lies."""
        return "far" if server in FAR_PODS else server

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread is in a namespace."""
        with open("/proc/thread-self/ns/net") as home, open(self.path(name)) as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def client(self, name: str, protocol: str = "tcp", source: str = "", port: int = 0) -> socket.socket:
        """An unconnected client socket. `name`: a namespace, or one of FAR_PODS, whose address it then has."""
        with self.inside(self.home(name)):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        made.settimeout(ANSWER_SECONDS)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source or port or name in FAR_PODS:
            made.bind((source or FAR_PODS.get(name, ""), port))
        return made

    def ask(self, name: str, address: str, port: int, protocol: str = "tcp") -> Answer:
        """One new connection from a client to an address."""
        with self.client(name, protocol) as client:
            return ask(client, address, port)


def ask(client: socket.socket, address: str, port: int) -> Answer:
    """Connect (again, for UDP) and read who answers."""
    try:
        client.connect((address, port))
        if client.type == socket.SOCK_DGRAM:
            client.send(b"?")
        text = client.recv(200).decode().split()
        return Answer(text[0], text[1])
    except (ConnectionError, PermissionError):  # a process of the node itself is told so by its own kernel
        return Answer(REFUSED)
    except (TimeoutError, IndexError):
        return Answer(DROPPED)


def _setns(fileno: int) -> None:
    if _libc.setns(fileno, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Servers:
    """One thread that answers on all servers' addresses and ports."""

    def __init__(self, topology: Topology) -> None:
        self._selector = selectors.DefaultSelector()
        self._ending, self._end = os.pipe()
        self._selector.register(self._ending, selectors.EVENT_READ)
        for name, address in SERVERS.items():
            with topology.inside(topology.home(name)):
                for port in PORTS:
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        self._listen(name, socket.socket(socket.AF_INET, kind), address, port)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _listen(self, name: str, server: socket.socket, address: str, port: int) -> None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if server.type == socket.SOCK_STREAM:
            server.listen(100)
        self._selector.register(server, selectors.EVENT_READ, f"{name}:{port}")

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._ending:
                    return
                server = key.fileobj
                assert isinstance(server, socket.socket)
                if server.type == socket.SOCK_STREAM:
                    connection, peer = server.accept()
                    connection.sendall(f"{key.data} {peer[0]}".encode())
                    connection.close()
                else:
                    _, peer = server.recvfrom(100)
                    server.sendto(f"{key.data} {peer[0]}".encode(), peer)

    def close(self) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._ending)
        os.close(self._end)
