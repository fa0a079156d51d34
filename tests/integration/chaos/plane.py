"""A real control plane as processes that can be killed, frozen and started again.

Used by the chaos tests. `Plane` is one `python -m controller.main` on a data directory and a fixed port, over its own
private etcd (which dies with it) or over a given one (`Plane.over`), which then is killed on its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.store.server import dying_with_us
from tests.integration.chaos.wire import Answer, Broken, Connection, Unsent

FULL = bool(os.environ.get("WHERRY_FULL"))
START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_bytes(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@dataclass
class Plane:
    """One controller process. `module`: what is run instead of controller.main, with arguments before ours."""

    directory: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    module: tuple[str, ...] = ("controller.main",)
    port: int = field(default_factory=free_port)
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """Everything the process ever said."""
        return (self.directory / "controller.log").read_text()

    @property
    def token(self) -> str:
        return (self.directory / "admin.token").read_text()

    @property
    def pid(self) -> int:
        assert self._child is not None, "it does not run"
        return self._child.pid

    def start(self) -> None:
        """Starts the process; it may take a while until it answers (`ready`)."""
        line = [sys.executable, "-m", *self.module, "--data-dir", str(self.directory), "--port", str(self.port)]
        line += ["--bind-address", "127.0.0.1", *self.options]
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "controller.log").open("ab") as log:
            self._child = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                preexec_fn=dying_with_us(),
            )

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; a private etcd dies with it."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def exited(self) -> int | None:
        return self._child.poll() if self._child is not None else None

    def context(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's TLS, trusting this cluster's CA; with a client certificate if one is given."""
        context = ssl.create_default_context(cafile=str(self.directory / "pki" / "ca.crt"))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def connection(self, seconds: float = 30.0) -> Connection:
        """As the administrator."""
        return Connection(self.port, self.context(), self.token, seconds)

    async def ready(self, seconds: float = START_SECONDS) -> None:
        """Returns when /readyz says ok. Fails when the process ends before, or with the time."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.exited() is None, f"the controller ended:\n{self.log[-3000:]}"
            assert time.monotonic() < deadline, f"the controller is not ready:\n{self.log[-3000:]}"
            if await self._is_ready():
                return
            await asyncio.sleep(0.03)

    async def _is_ready(self) -> bool:
        if not (self.directory / "admin.kubeconfig").exists() or not (self.directory / "admin.token").exists():
            return False
        connection = self.connection(2.0)
        try:
            return (await connection.request("GET", "/readyz")).status == 200
        except (Unsent, Broken):
            return False
        finally:
            connection.close()

    async def get(self, path: str) -> Answer:
        """One request on a connection of its own."""
        connection = self.connection()
        try:
            return await connection.request("GET", path)
        finally:
            connection.close()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        text = (await self.get("/metrics")).body.decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(part in line for part in wanted))


@asynccontextmanager
async def running(plane: Plane) -> AsyncIterator[Plane]:
    """The plane inside the block, ready; killed at its end, and it must not have crashed with a traceback."""
    plane.start()
    try:
        await plane.ready()
        yield plane
    finally:
        plane.kill()
    assert "Traceback" not in plane.log, plane.log[-6000:]


Prepare = Callable[[Plane], Awaitable[None]]


@contextmanager
def prepared_plane(directory: Path, *options: str, prepare: Prepare | None = None) -> Iterator[Plane]:
    """A plane for a module's tests, ready and, if need be, prepared; killed at the end."""

    async def prepared() -> None:
        await plane.ready()
        if prepare is not None:
            await prepare(plane)

    plane = Plane(directory, options)
    plane.start()
    try:
        asyncio.run(prepared())
        yield plane
    finally:
        plane.kill()
