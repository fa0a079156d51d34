"""Real etcds for tests: one that can be killed and restarted, a wire to it that can be cut, a store that runs.

Used by conftest.py and the store's tests. Nothing here pretends to be etcd: the wire only forwards bytes, or does not.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from controller.store import Store, StoreConfig
from controller.store.etcd import answers
from controller.store.history import History
from controller.store.server import command, dying_with_us, endpoint_of, environment, prepare_directories

_START_SECONDS = 30.0


class EtcdProcess:
    """One etcd on its own data directory, started with wherry's options and then `options`."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.endpoint = endpoint_of(data_dir)
        self._data_dir = data_dir
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        run = prepare_directories(self._data_dir)
        line = command(self._data_dir, *self._options)
        self._child = subprocess.Popen(
            line, cwd=run, env=environment(), stderr=subprocess.DEVNULL, preexec_fn=dying_with_us()
        )

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._child is not None, "it does not run"
        self._child.send_signal(number)

    async def answering(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not await answers((self.endpoint,), 1.0):
            assert time.monotonic() < deadline, "etcd did not start"
            await asyncio.sleep(0.02)

    def listening(self) -> None:
        """As `answering`, for fixtures without an event loop."""
        deadline = time.monotonic() + _START_SECONDS
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(self.endpoint.removeprefix("unix:")):
                assert time.monotonic() < deadline, "etcd did not start"
                time.sleep(0.02)


class Wire:
    """Forwards a unix socket to etcd's. Either direction can be held back, connections can be cut."""

    def __init__(self, endpoint: str, path: Path) -> None:
        self.endpoint = f"unix:{path}"
        self._target = endpoint.removeprefix("unix:")
        self._path = path
        self._flows = {"requests": asyncio.Event(), "replies": asyncio.Event()}
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def up(self) -> None:
        """Accepts connections and lets everything through."""
        self.release()
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    def hold(self, direction: str) -> None:
        """Takes bytes of "requests" or "replies" from now on, and passes none on."""
        self._flows[direction].clear()

    def release(self) -> None:
        for flow in self._flows.values():
            flow.set()

    async def cut(self) -> None:
        """Breaks all connections and accepts none until `up`; what was held back is lost."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._open):
            writer.transport.abort()
        self._open.clear()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        self._open |= {writer, back}
        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, back, "requests"), self._pump(there, writer, "replies"))
        for ending in (writer, back):
            self._open.discard(ending)
            ending.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        while data := await reader.read(65536):
            await self._flows[direction].wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def opened(config: StoreConfig, history: History | None = None) -> AsyncIterator[Store]:
    """A store that runs inside the block."""
    store = await Store.open(config, history)
    running = asyncio.create_task(store.run())
    try:
        yield store
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await store.close()
