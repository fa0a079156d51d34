"""A network namespace with a DNS part in it, its clients and fake upstream servers.

Sockets of the namespace are made in a thread that has entered it, and then used from anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from socket import AF_INET, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, SocketKind
from socket import socket as Socket
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype

from agent.network.dns.process import control_path, find_processes

SERVER = "10.96.0.10"
SERVICE_CIDR = "10.96.0.0/12"
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


@dataclass
class Scene:
    """One node's namespace. `agent` is the process that stands for the node's agent."""

    directory: Path
    name: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    node_id: str = ""

    def __post_init__(self) -> None:
        self.node_id = self.node_id or f"{os.getpid():x}{abs(hash(self.name)) % 0xFFF:03x}"
        self.resolv_conf = self.directory / "resolv.conf"
        self._inside = ThreadPoolExecutor(1, initializer=_enter, initargs=(f"/run/netns/{self.name}",))

    def run(self, *argv: str, check: bool = True) -> str:
        command = ["nsenter", f"--net=/run/netns/{self.name}", *argv]
        return subprocess.run(command, check=check, capture_output=True, text=True).stdout

    def inside(self, make: Callable[[], Any]) -> Any:
        """The result of a call made by a thread that is in the namespace."""
        return self._inside.submit(make).result()

    def client(self, kind: SocketKind = SOCK_DGRAM, family: int = AF_INET) -> Socket:
        made: Socket = self.inside(lambda: Socket(family, kind))
        made.settimeout(5)
        return made

    def start_agent(self, service_cidr: str = SERVICE_CIDR, node_id: str = "") -> subprocess.Popen[str]:
        argv = ["nsenter", f"--net=/run/netns/{self.name}", sys.executable, "-m", "tests.integration.dns.agent_program"]
        argv += [node_id or self.node_id, str(self.directory), str(self.resolv_conf), service_cidr]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
        self.processes.append(process)
        return process

    @property
    def agent(self) -> subprocess.Popen[str]:
        return self.processes[-1]

    def tell(self, **line: Any) -> None:
        assert self.agent.stdin is not None
        self.agent.stdin.write(json.dumps(line) + "\n")
        self.agent.stdin.flush()

    def ask_agent(self) -> dict[str, Any]:
        self.tell(ask=1)
        assert self.agent.stdout is not None
        answer: dict[str, Any] = json.loads(self.agent.stdout.readline())
        return answer

    def kill_agent(self) -> None:
        self.agent.kill()
        self.agent.wait()

    def servers(self) -> list[int]:
        return find_processes(self.node_id)

    def query(self, name: str, kind: str = "A", seconds: float = 5.0, server: str = SERVER) -> dns.message.Message:
        """One UDP query, sent again each second as resolvers do; TimeoutError without an answer."""
        question = dns.message.make_query(name, kind).to_wire()
        last = time.monotonic() + seconds
        with self.client() as client:
            client.settimeout(min(seconds, 1))
            while True:
                client.sendto(question, (server, 53))
                try:
                    return dns.message.from_wire(client.recv(65535))
                except TimeoutError:
                    if time.monotonic() >= last:
                        raise

    def addresses(self, name: str, kind: str = "A") -> list[str]:
        """The addresses of a name; [] for none."""
        wanted = dns.rdatatype.from_text(kind)
        return sorted(str(item) for rrset in self.query(name, kind).answer if rrset.rdtype == wanted for item in rrset)

    def until(self, look: Callable[[], bool], what: str, seconds: float = 10.0) -> float:
        """Waits for something; returns after how many seconds it was so."""
        began = time.monotonic()
        while not _true(look):
            assert time.monotonic() < began + seconds, f"not within {seconds} s: {what}"
            time.sleep(0.01)
        return time.monotonic() - began

    @contextlib.contextmanager
    def tcp(self, server: str = SERVER) -> Iterator[Socket]:
        with self.client(SOCK_STREAM) as client:
            client.connect((server, 53))
            yield client

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for pid in self.servers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(control_path(self.node_id).parent, ignore_errors=True)
        self._inside.shutdown()
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def _true(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OSError, TimeoutError):
        return False


def send_over(stream: Socket, *queries: dns.message.Message) -> None:
    wires = [query.to_wire() for query in queries]
    stream.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))


def receive_over(stream: Socket) -> dns.message.Message:
    (size,) = struct.unpack("!H", _exactly(stream, 2))
    return dns.message.from_wire(_exactly(stream, size))


def _exactly(stream: Socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


@contextlib.contextmanager
def opened_scene(directory: Path, name: str) -> Iterator[Scene]:
    subprocess.run(["ip", "netns", "add", name], check=True)
    scene = Scene(directory, name)
    try:
        scene.resolv_conf.write_text("")
        scene.run("ip", "link", "set", "lo", "up")
        yield scene
    finally:
        scene.close()


class Upstream:
    """A DNS server of the outside: `answer` makes the reply to each query, None for silence. `asked` keeps them all."""

    def __init__(self, scene: Scene, address: str, answer: Callable[[dns.message.Message, bool], Any]) -> None:
        scene.run("ip", "addr", "replace", f"{address}/32", "dev", "lo")
        self.asked: list[str] = []
        self.answer = answer
        self.ports: list[int] = []
        self._udp = scene.client()
        self._udp.bind((address, 53))
        self._udp.settimeout(0.2)
        self._tcp = scene.client(SOCK_STREAM)
        self._tcp.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self._tcp.bind((address, 53))
        self._tcp.listen()
        self._tcp.settimeout(0.2)
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _reply(self, data: bytes, *, stream: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        self.asked.append(f"{query.question[0].name} {dns.rdatatype.to_text(query.question[0].rdtype)}")
        made = self.answer(query, stream)
        return made if made is None or isinstance(made, bytes) else bytes(made.to_wire(max_size=65535))

    def _serve_udp(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = self._udp.recvfrom(4096)
                self.ports.append(peer[1])
                if (reply := self._reply(data, stream=False)) is not None:
                    self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._tcp.accept()
                with connection:
                    connection.settimeout(2)
                    (size,) = struct.unpack("!H", _exactly(connection, 2))
                    reply = self._reply(_exactly(connection, size), stream=True)
                    if reply is not None:
                        connection.sendall(struct.pack("!H", len(reply)) + reply)


def address_answer(address: str, ttl: int = 60) -> Callable[[dns.message.Message, bool], dns.message.Message]:
    """Every name is there and has this address; other types have nothing."""

    def answer(query: dns.message.Message, stream: bool) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        if query.question[0].rdtype == dns.rdatatype.A:
            reply.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", "A", address))
        return reply

    return answer


def truncating(full: Callable[[dns.message.Message, bool], dns.message.Message]) -> Callable[..., dns.message.Message]:
    """Says nothing but TC over UDP."""

    def answer(query: dns.message.Message, stream: bool) -> dns.message.Message:
        if stream:
            return full(query, stream)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.TC
        return reply

    return answer


def purge(scene: Scene) -> None:
    """What `wherry down` does, on the node's network."""
    call = f"asyncio.run(purge_network({scene.node_id!r}, '/usr/lib/cni'))"
    scene.run(sys.executable, "-c", f"import asyncio; from agent.network.purge import purge_network; {call}")
