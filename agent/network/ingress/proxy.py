"""The HAProxy of one data directory: found, started, reloaded, asked, ended.

Called by the part and by `purge`. It runs as a master with workers in a session of its own: it outlives the agent, and
the next agent finds it by the path of its socket, which is under /run/wherry/ID (a path may have 107 bytes at most).
The master is root (it reads keys and binds ports), its workers are not. A reload starts a new worker, which takes the
listening sockets over from the old one; that one finishes its connections.
Source: docs.haproxy.org/2.6/management.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.network.commands import run_program
from agent.network.ingress.config import CONFIG
from agent.runtime.errors import Failed, Unavailable
from agent.runtime.processes import alive, command_lines, stop_process, wait_until_gone

RUN = Path("/run/wherry")
START_SECONDS = 10.0
DRAIN_SECONDS = 10.0
ASK_SECONDS = 5.0
POLL_SECONDS = 0.03
LOG_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Workers:
    """Process ids: the present worker's (0: none), and of those that finish what a reload left to them."""

    present: int
    old: tuple[int, ...]


def socket_path(node_id: str) -> Path:
    return RUN / node_id / "haproxy.sock"


def _mark(node_id: str) -> bytes:
    """The argument that tells this node's HAProxy from others."""
    return os.fsencode(f"{socket_path(node_id)},mode,600")


def find_proxies(node_id: str) -> list[int]:
    """This node's HAProxy processes, the master first; a worker has the master's arguments."""
    wanted = _mark(node_id)
    pids = {pid for pid, argv in command_lines() if os.path.basename(argv[0]) == b"haproxy" and wanted in argv}
    return sorted(pids, key=lambda pid: (_parent(pid) in pids, pid))


def _parent(pid: int) -> int:
    return int((_stat(pid) or ["", "0"])[1])


def _stat(pid: int) -> list[str]:
    """State, parent and more of a process; [] for none. Z: dead, and nobody has buried it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


async def stop_proxies(node_id: str) -> None:
    """End them at once. Idempotent."""
    for pid in find_proxies(node_id):
        await stop_process(pid)


def kill_proxies(node_id: str) -> None:
    """SIGKILL all at once and wait for nothing: what a power cut does."""
    for pid in find_proxies(node_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Proxy:
    """`pid` is the master's, 0 when none runs."""

    def __init__(self, node_id: str, directory: Path) -> None:
        self._node_id = node_id
        self.socket = socket_path(node_id)
        self.reloads = 0
        self._config = directory / CONFIG
        self._log = directory / "haproxy.log"
        found = find_proxies(node_id)
        self.pid = found[0] if found else 0

    @property
    def running(self) -> bool:
        return bool(self.pid) and alive(self.pid) and _stat(self.pid)[:1] not in (["Z"], [])

    async def gone(self) -> None:
        """Until the master has ended."""
        await wait_until_gone(self.pid)

    async def check(self) -> None:
        """Failed, with HAProxy's words, when it would not take the configuration."""
        outcome = await run_program("haproxy", ["-c", "-q", "-f", str(self._config)])
        if outcome.code:
            raise Failed(f"haproxy refuses its configuration: {outcome.complaint or outcome.output}")

    async def start(self) -> None:
        """Unavailable, with the end of its log, when it is not there or does not come up."""
        binary = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if binary is None:
            raise Unavailable("haproxy is not installed (apt-get install haproxy)")
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        arguments = ["-W", "-S", os.fsdecode(_mark(self._node_id)), "-f", str(self._config)]
        self.pid = _spawn([binary, *arguments], self._log)
        if not await self._new_worker(0):
            await stop_proxies(self._node_id)
            self.pid = 0
            raise Unavailable(f"haproxy does not start; {self._log} ends with: {self._log_tail()}")

    async def reload(self) -> None:
        """A new worker with the present configuration; Unavailable when none comes up (the old one then runs on)."""
        before = (await self.workers()).present
        os.kill(self.pid, signal.SIGUSR2)
        if not await self._new_worker(before):
            raise Unavailable(f"haproxy does not reload; {self._log} ends with: {self._log_tail()}")
        self.reloads += 1
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT_BYTES:
            os.truncate(self._log, 0)

    async def stop(self) -> None:
        """Ends it after the requests under way, at most 10 s."""
        if self.running:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                os.kill(self.pid, signal.SIGUSR1)
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self.gone()
        await stop_proxies(self._node_id)
        self.pid = 0

    async def workers(self) -> Workers:
        """Raises OSError, TimeoutError."""
        present, old, section = 0, [], "workers"
        for words in (line.split() for line in (await self._talk("show proc\n")).splitlines()):
            if words[:2] == ["#", "old"]:
                section = "old"
            elif len(words) > 1 and words[1] == "worker" and section == "workers":
                present = int(words[0])
            elif len(words) > 1 and words[1] == "worker":
                old.append(int(words[0]))
        return Workers(present, tuple(old))

    async def ask(self, worker: int, commands: Sequence[str]) -> str:
        """What a worker answers to these commands, all in one. Raises OSError, TimeoutError."""
        return await self._talk("".join(f"{line}\n" for line in (f"@!{worker}", *commands, "quit"))) if commands else ""

    async def _talk(self, text: str) -> str:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self.socket)
            try:
                writer.write(text.encode())
                if not text.endswith("quit\n"):
                    writer.write_eof()
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()

    async def _new_worker(self, before: int) -> bool:
        """Whether a worker other than `before` answers in time."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while self.running and asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(OSError, TimeoutError):
                if (await self.workers()).present not in (0, before):
                    return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        alerts = [line for line in lines if "[ALERT]" in line]
        return " / ".join((alerts or lines)[-3:])


def _spawn(argv: list[str], log: Path) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    finally:
        os.close(descriptor)
    process.returncode = 0  # it outlives us; whoever waits for it uses its pidfd
    return process.pid
