"""What a request costs the controller's process, everything switched on but TLS and sockets.

usage: python -m bench.requests [--count N] [--profile WHAT] [--bare] [--grow]

A whole controller over an etcd of its own, in this process: API server with audit log, reconcilers, scheduler. 32
connections without sockets ask one after another, so the figures are CPU time of this process (its gRPC threads
included), best and median of many slices: steady where the wall clock of a busy machine is not. `--bare` leaves out
reconcilers and scheduler. `--profile create` prints where a verb's time goes. `--grow` creates 100,000 pods and tells
what one costs on the way, in time and memory (budget: flat within 20 %).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from api.logs import configure_logs
from bench.store import resident_mb
from controller.main import GC_THRESHOLDS
from controller.pki.files import Serving, ensure_pki
from controller.reconcilers.build import Settings, request_of, run_reconcilers
from controller.reconcilers.liveness import Liveness
from controller.registry.recorder import Recorder
from controller.scheduler.loop import run_scheduler
from controller.server.app import ApiServer
from controller.server.audit import AuditSettings
from controller.server.bootstrap import ensure_defaults
from controller.server.compose import ServerSettings, compose
from controller.store import Store, StoreConfig
from controller.store.server import ensure_etcd

CONNECTIONS = 32
SLICE = 160
LAST = 960
"""How many creates are looked at before each of GROWTH."""
GROWTH = (1_000, 10_000, 30_000, 60_000, 100_000)
POD = (
    b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%b","labels":{"app":"bench","tier":"web","release":"r1"}},'
    b'"spec":{"schedulerName":"nobody","terminationGracePeriodSeconds":1,"containers":[{"name":"web",'
    b'"image":"localhost/busybox:1","command":["sleep","infinity"],"env":[{"name":"A","value":"1"},'
    b'{"name":"B","value":"2"}],"ports":[{"containerPort":8080}],"resources":{"requests":{"cpu":"10m",'
    b'"memory":"16Mi"},"limits":{"cpu":"100m","memory":"64Mi"}},"readinessProbe":{"httpGet":{"path":"/healthz",'
    b'"port":8080},"periodSeconds":5}}]}}'
)
PODS = b"/api/v1/namespaces/bench/pods"


class Connection(asyncio.Transport):
    """The server's side of a connection whose client is `ask`."""

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._protocol = server()
        self._loop = loop
        self._answered: asyncio.Future[bytes] | None = None
        self._protocol.connection_made(self)

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._answered = self._loop.create_future()
        self._protocol.data_received(request)
        return self._answered

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self._answered is not None, "an answer nobody asked for"
        self._answered.set_result(bytes(data))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


@asynccontextmanager
async def serving(directory: Path, *, bare: bool) -> AsyncIterator[tuple[web.Server, str]]:
    """A controller without a listener; (what makes its connections, the administrator's token)."""
    pki = ensure_pki(directory, Serving(("127.0.0.1",), 6443))
    endpoint = await ensure_etcd(directory)
    store = await Store.open(StoreConfig(endpoint.endpoints, pki.encryption_key))
    liveness = Liveness()
    services = compose(store, pki, liveness, ServerSettings("https://bench", "127.0.0.1:6443"))
    app = ApiServer(services, AuditSettings(directory / "audit.log"))
    request = request_of("kube-scheduler", ())
    recorder = Recorder(services.registry, request, "default-scheduler")
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(store.run()), tasks.create_task(app.audit.run())]
            await ensure_defaults(services.registry)
            running.append(tasks.create_task(run_reconcilers(services.registry, liveness, _settings(bare))))
            if not bare:
                running.append(tasks.create_task(run_scheduler(services.registry, request, recorder)))
            yield web.Server(app.handle, access_log=None, keepalive_timeout=3600), pki.admin_token
            for task in running:
                task.cancel()
    finally:
        await services.close()
        await store.close()
        await endpoint.stop()


def _settings(bare: bool) -> Settings:
    return Settings(enabled=lambda name: not bare or name == "serviceaccount-controller")


def _request(method: bytes, path: bytes, token: str, body: bytes = b"") -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1:6443\r\nAuthorization: Bearer %b\r\nAccept: application/json\r\n"
    head %= (method, path, token.encode())
    if body:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head + b"\r\n" + body


async def measure(server: web.Server, count: int, make: Callable[[int], bytes], status: bytes) -> tuple[float, float]:
    """(best, median) microseconds of CPU a request, over slices."""
    loop = asyncio.get_running_loop()
    connections = [Connection(server, loop) for _ in range(CONNECTIONS)]
    spent = []
    for start in range(0, count, SLICE):
        requests = iter([make(number) for number in range(start, min(start + SLICE, count))])

        async def work(connection: Connection, requests: Any = requests) -> None:
            for request in requests:
                answer = await connection.ask(request)
                assert answer.startswith(status), answer[:2000].decode()

        started = time.process_time()
        await asyncio.gather(*map(work, connections))
        spent.append((time.process_time() - started) / SLICE * 1e6)
    return min(spent), statistics.median(spent)


async def _prepare(token: str, server: web.Server) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    namespace = _request(b"POST", b"/api/v1/namespaces", token, b'{"metadata":{"name":"bench"}}')
    await Connection(server, asyncio.get_running_loop()).ask(namespace)
    await asyncio.sleep(1)  # its service account is being made


def _create(token: str, name: bytes) -> bytes:
    return _request(b"POST", PODS, token, POD % name)


async def run(count: int, profile: str, *, bare: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with serving(Path(directory), bare=bare) as (server, token):
            await _prepare(token, server)
            verbs: dict[str, tuple[Callable[[int], bytes], bytes]] = {
                "warm": (lambda n: _create(token, b"warm-%d" % n), b"HTTP/1.1 201"),
                "create": (lambda n: _create(token, b"pod-%d" % n), b"HTTP/1.1 201"),
                "get": (lambda n: _request(b"GET", PODS + b"/pod-%d" % n, token), b"HTTP/1.1 200"),
            }
            for verb, (make, status) in verbs.items():
                profiler = cProfile.Profile() if verb == profile else None
                if profiler is not None:
                    profiler.enable()
                best, median = await measure(server, SLICE * 2 if verb == "warm" else count, make, status)
                if profiler is not None:
                    profiler.disable()
                    pstats.Stats(profiler).sort_stats("tottime").print_stats(60)
                print(f"{verb:10} {median:7.1f} us   (best {best:.1f})")


def _numbered(token: str, start: int, number: int) -> bytes:
    return _create(token, b"pod-%d" % (start + number))


async def grow() -> None:
    """Prints a line for each of GROWTH: the median of a create among the last thousand, and memory a pod since then."""
    with tempfile.TemporaryDirectory() as directory:
        async with serving(Path(directory), bare=False) as (server, token):
            await _prepare(token, server)
            made, before, mb = 0, 0, resident_mb()
            for amount in GROWTH:
                first = amount - LAST
                for start, count in ((made, first - made), (first, LAST)):
                    make = partial(_numbered, token, start)
                    best, median = await measure(server, count, make, b"HTTP/1.1 201")
                made, grown = amount, resident_mb() - mb
                each = grown * 1024 / (amount - before)
                print(f"{amount:8} pods: {median:7.1f} us a create (best {best:.1f}), {each:.2f} KiB of memory a pod")
                before, mb = amount, mb + grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--profile", default="")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--grow", action="store_true")
    options = parser.parse_args()
    configure_logs()
    if options.grow:
        asyncio.run(grow())
        return
    asyncio.run(run(options.count // SLICE * SLICE, options.profile, bare=options.bare))


if __name__ == "__main__":
    main()
