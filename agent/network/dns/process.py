"""The DNS process as the agent sees it: found, started, spoken to, ended.

Called by `part`, `purge` and the node's teardown. The agent opens the sockets, hands them to the process, and holds
them as well: while a process is replaced, or dies, queries wait in the kernel for the next one. An agent that starts
gets them from the running process. Invariant: one process a node, known by its control socket's path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agent.network.dns.settings import Settings, code_version
from agent.network.model import family_of
from agent.runtime.errors import Failed, Unavailable
from agent.runtime.processes import alive, command_lines, stop_process

MODULE = "agent.network.dns.main"
_RUN = Path("/run/wherry")
_START_SECONDS = 10.0
_GREETING_SECONDS = 2.0
_POLL_SECONDS = 0.02
_LINE_BYTES = 1 << 20
_MOST_SOCKETS = 16
_RECEIVE_BYTES = 1 << 20
_FREEBIND = {socket.AF_INET: (socket.SOL_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
"""Options that let a socket be bound before its address is local (linux/in.h, in6.h)."""
_LOG_LIMIT_BYTES = 1 << 20


def control_path(node_id: str) -> Path:
    return _RUN / node_id / "dns.sock"


@dataclass
class DnsProcess:
    """A running one, spoken to over its control socket. Made by `connect`."""

    pid: int
    version: str
    settings: list[str]
    sockets: list[socket.socket]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def runs(self, settings: Settings) -> bool:
        """Whether it is what this agent would start."""
        return self.version == code_version() and self.settings == settings.arguments()

    def close(self) -> None:
        """End the conversation; the process runs on."""
        self.writer.close()

    def drain(self) -> None:
        """Let it finish what it has begun, and end."""
        self.writer.write(b'{"drain": 1}\n')
        self.writer.close()


async def connect(path: Path) -> DnsProcess:
    """Speak to the process behind a control socket; Unavailable when nobody answers there."""
    try:
        connection, greeting, sockets = await asyncio.to_thread(_greet, path)
    except (OSError, orjson.JSONDecodeError) as error:
        raise Unavailable(f"the DNS process does not answer: {error}") from error
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LINE_BYTES)
    return DnsProcess(greeting["pid"], greeting["version"], greeting["settings"], sockets, reader, writer)


def _greet(path: Path) -> tuple[socket.socket, dict[str, Any], list[socket.socket]]:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_GREETING_SECONDS)
        connection.connect(str(path))
        line, numbers, _, _ = socket.recv_fds(connection, 1, _MOST_SOCKETS)
        sockets = [socket.socket(fileno=number) for number in numbers]
        while line[-1:] != b"\n":  # not a byte more: what follows is the stream reader's
            line += (more := connection.recv(1))
            if not more:
                raise ConnectionResetError("closed")
        greeting: dict[str, Any] = orjson.loads(line)
    except BaseException:
        connection.close()
        raise
    connection.setblocking(False)
    return connection, greeting, sockets


def open_sockets(addresses: Sequence[str]) -> list[socket.socket]:
    """UDP and TCP on port 53 of each address, which need not be local yet. Failed when somebody else has one."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                opened.append(_open_socket(address, kind))
    except OSError as error:
        for each in opened:
            each.close()
        raise Failed(
            f"cannot answer DNS on {address} port 53: {error.strerror}; does another agent or DNS server run in this "
            "network namespace?"
        ) from error
    return opened


def _open_socket(address: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if family_of(address) == 6 else socket.AF_INET
    fresh = socket.socket(family, kind)
    try:
        fresh.setsockopt(*_FREEBIND[family], 1)
        if kind == socket.SOCK_STREAM:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        fresh.bind((address, 53))
        if kind == socket.SOCK_STREAM:
            fresh.listen(128)
    except OSError:
        fresh.close()
        raise
    return fresh


async def start(path: Path, settings: Settings, sockets: Sequence[socket.socket], log: Path) -> DnsProcess:
    """Start a process on open sockets; it answers once fed or told to. Unavailable when it does not come up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = _spawn(path, settings, sockets, log)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    while alive(pid) and loop.time() < deadline:
        with contextlib.suppress(Unavailable):
            found = await connect(path)
            if found.pid == pid:
                return found
            found.close()
            _close_all(found.sockets)
        await asyncio.sleep(_POLL_SECONDS)
    await stop_process(pid)
    raise Unavailable(f"the DNS process does not start; see {log}")


def _spawn(path: Path, settings: Settings, sockets: Sequence[socket.socket], log: Path) -> int:
    numbers = [each.fileno() for each in sockets]
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    argv = [sys.executable, "-m", MODULE, "--control", str(path), *settings.arguments()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*argv, "--sockets", ",".join(map(str, numbers))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=numbers,
            start_new_session=True,
        )
    process.returncode = 0  # it may outlive us; whoever waits for it uses its pidfd
    return process.pid


def _close_all(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def find_processes(node_id: str) -> list[int]:
    """The node's DNS processes by their command line; two while one replaces the other."""
    wanted = [b"-m", MODULE.encode(), b"--control", os.fsencode(control_path(node_id))]
    return [pid for pid, argv in command_lines() if argv[1:5] == wanted]


async def stop_processes(node_id: str) -> None:
    """End the node's DNS processes; returns when they are gone. Idempotent."""
    kill_processes(node_id)
    for pid in find_processes(node_id):
        await stop_process(pid)
    for left in control_path(node_id).parent.glob("dns.*"):
        left.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # containerd lives there, too
        control_path(node_id).parent.rmdir()


def kill_processes(node_id: str) -> None:
    """SIGKILL: there is nothing that one would have to tidy up."""
    for pid in find_processes(node_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
