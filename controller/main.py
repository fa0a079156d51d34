"""One controller process: store, registry, API server and, while it leads, reconcilers and scheduler.

`python -m controller.main --data-dir D` or `run(config)` from the CLI. Composes the rooms and owns their lifetimes.
Invariants: nothing is served before the cache is filled and the defaults exist; when any part dies, the process ends
loudly; on SIGTERM requests finish, watches end and leadership is given up before the store closes.
"""

from __future__ import annotations

from api import lean as lean  # before anything imports structlog

# isort: split
import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import replace
from typing import Any

import structlog
from prometheus_client import REGISTRY

from api.errors import ApiError
from api.holding import hold_beside
from api.listeners import PortTaken, require_free
from api.logs import configure_logs
from api.network_facts import POD_CIDR, SERVICE_CIDR
from api.watchdog import Stalls
from controller.config import ControllerConfig, parse_arguments
from controller.instance import Instance, claim_instance
from controller.pki.files import Pki, PkiError, Serving, ensure_pki
from controller.reconcilers.build import Settings, request_of, run_reconcilers
from controller.reconcilers.hearing import Hearing
from controller.reconcilers.liveness import Liveness
from controller.registry import Registry
from controller.registry.recorder import Recorder
from controller.renewal import Renewal
from controller.scheduler.loop import run_scheduler
from controller.server.app import ApiServer
from controller.server.bootstrap import ensure_defaults, publish_network
from controller.server.builtin_services import Advertised, BuiltinServices
from controller.server.call import Services
from controller.server.compose import ServerSettings, compose
from controller.server.definitions import Definitions
from controller.server.listener import Address, Listener, server_context
from controller.store import Store, StoreConfig
from controller.store.reserve import Reserve
from controller.store.server import EtcdStartError, ensure_etcd
from controller.store.types import Guard, Unavailable

GC_THRESHOLDS = (20_000, 20, 50)
"""The cache grows by objects without cycles: looking as often as Python does costs a create 5 % of its CPU."""
LEADER_LEASE = "controller"
LEADER_TTL_SECONDS = 5
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0

log = structlog.get_logger()


class CannotStart(Exception):
    """For the person who started the process: what stood in the way."""


async def run(config: ControllerConfig) -> None:
    """Runs until SIGTERM, SIGINT or cancellation. Raises CannotStart, and what a part that died raised."""
    loop = asyncio.get_running_loop()
    working = loop.create_task(_work(config))
    stopping = asyncio.Event()

    def stop() -> None:
        if not stopping.is_set():
            log.info("stopping")
            stopping.set()
            working.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await working
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise


async def _work(config: ControllerConfig) -> None:
    """Everything, in the order it needs each other, until cancelled; torn down in reverse."""
    try:
        require_free(config.port, "the API server (--port)", config.bind_address)
    except PortTaken as error:
        raise CannotStart(str(error)) from error
    with _explained(f"the certificates in {config.data_dir}"):
        pki = ensure_pki(config.data_dir, Serving(config.hosts, config.port))
        instance = claim_instance(config.data_dir)
        lock = hold_beside(config.data_dir, "controller")
    with lock:
        await _with_instance(config, pki, instance)


async def _with_instance(config: ControllerConfig, pki: Pki, instance: Instance) -> None:
    async with asyncio.TaskGroup() as tasks, _etcd(config, tasks) as etcd:
        store = await _opened(_store_config(config, pki, *etcd))
        try:
            serving = _serving(config, pki, store, instance.identity)
            async with _task(tasks, _watched()), _task(tasks, store.run()), serving as (services, liveness):
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                log.info("ready", url=f"https://{config.hosts[0]}:{config.port}", data_dir=str(config.data_dir))
                async with _task(tasks, _lead(config, instance.identity, services, liveness)):
                    await asyncio.Event().wait()
        finally:
            await store.close()


async def _watched() -> None:
    """Tells Prometheus how long this loop stood still."""
    stalls = Stalls()
    REGISTRY.register(stalls)
    try:
        await stalls.run()
    finally:
        REGISTRY.unregister(stalls)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EtcdStartError, PkiError) as error:
        raise CannotStart(f"{what}: {error}") from error


@contextlib.asynccontextmanager
async def _task(tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Runs inside the block, and has ended when the block has."""
    task = tasks.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _opened(config: StoreConfig) -> Store:
    """The store, as soon as etcd answers: an etcd that is away delays a controller, it does not end it."""
    delay = FIRST_RETRY_SECONDS
    while True:
        try:
            return await Store.open(config)
        except Unavailable as error:
            log.warning("waiting for etcd", error=str(error), retry_in=delay)
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_RETRY_SECONDS)


async def _with_defaults(registry: Registry, builtin: BuiltinServices, cluster_cidr: str) -> None:
    services = ",".join(str(one.network) for one in registry.ranges.addresses)
    delay = FIRST_RETRY_SECONDS
    while True:
        try:
            await ensure_defaults(registry)
            await publish_network(registry, {POD_CIDR: cluster_cidr, SERVICE_CIDR: services})
            return await builtin.ensure()
        except ApiError as error:
            if not error.retryable:
                raise
            log.warning("waiting for etcd to take the default objects", error=error.message, retry_in=delay)
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_RETRY_SECONDS)


@contextlib.asynccontextmanager
async def _etcd(
    config: ControllerConfig, tasks: asyncio.TaskGroup
) -> AsyncIterator[tuple[tuple[str, ...], Reserve | None]]:
    """Where etcd is, and what is kept of its disk if it is ours."""
    if config.etcd_endpoints:
        yield config.etcd_endpoints, None
        return
    with _explained("the private etcd"):
        endpoint = await ensure_etcd(config.data_dir)
    async with _task(tasks, endpoint.run()):
        yield endpoint.endpoints, endpoint.reserve


def _store_config(
    config: ControllerConfig, pki: Pki, endpoints: tuple[str, ...], reserve: Reserve | None
) -> StoreConfig:
    tls = config.etcd_tls
    return StoreConfig(
        endpoints=endpoints,
        encryption_key=pki.encryption_key,
        former_encryption_key=pki.former_encryption_key,
        ca=tls.ca,
        cert=tls.certificate,
        key=tls.key,
        reserve=reserve,
    )


@contextlib.asynccontextmanager
async def _serving(
    config: ControllerConfig, pki: Pki, store: Store, identity: str
) -> AsyncIterator[tuple[Services, Liveness]]:
    """The API server, listening."""
    liveness = Liveness()
    shown = f"{config.hosts[0]}:{config.port}"
    settings = ServerSettings(config.service_account_issuer, shown, config.service_ranges, config.plugins)
    services = compose(store, pki, liveness, settings)
    builtin = BuiltinServices(services.registry, Advertised(identity, config.endpoint_address, config.port))
    await _with_defaults(services.registry, builtin, config.cluster_cidr)
    definitions = Definitions(services.registry)
    definitions.install()
    address = Address(config.bind_address, config.port)
    server = ApiServer(services, config.audit)
    listener = Listener(server, server_context(pki), address, config.shutdown_grace_seconds)
    renewal = Renewal(config.data_dir, Serving(config.hosts, config.port), listener, services)
    try:
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            with _explained(f"port {config.port}"):
                await stack.enter_async_context(listener)
            async with (
                _task(tasks, renewal.run()),
                _task(tasks, definitions.run()),
                _task(tasks, server.audit.run()),
                _task(tasks, builtin.run()),
                _task(tasks, Hearing(liveness, store.hearing, identity).run()),
            ):
                yield services, liveness
    finally:
        await services.close()


async def _lead(config: ControllerConfig, identity: str, services: Services, liveness: Liveness) -> None:
    """Stands for election for ever; reconciles and schedules while elected."""
    registry = services.registry
    while config.runs_any:
        async with registry.store.lead(LEADER_LEASE, identity, LEADER_TTL_SECONDS) as leadership:
            log.info("leading", identity=identity)
            guards = (leadership.guard,)
            while not leadership.lost.is_set():
                services.trust_changed.clear()
                work = [run_reconcilers(registry, liveness, _settings(config, services), guards)]
                if config.runs("scheduler"):
                    work.append(_schedule(registry, guards))
                await _until_any((leadership.lost, services.trust_changed), work)
        log.warning("leadership lost; standing for election again")


async def _schedule(registry: Registry, guards: tuple[Guard, ...]) -> None:
    request = replace(request_of("kube-scheduler", guards), field_manager="kube-scheduler")
    recorder = Recorder(registry, request, "default-scheduler")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        tasks.create_task(run_scheduler(registry, request, recorder))


async def _until_any(events: Iterable[asyncio.Event], work: list[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part) for part in work]
        waiting = [tasks.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in (*running, *waiting):
            task.cancel()


def _settings(config: ControllerConfig, services: Services) -> Settings:
    """With the CAs as they are now."""
    return Settings(
        cluster_cidr=config.cluster_cidr,
        ca_pem=services.pki.bundle.decode(),
        authority=services.pki.authority,
        signer=services.signer,
        load_balancer_pool=config.load_balancer_pool,
        enabled=config.runs,
    )


def main(argv: list[str] | None = None) -> None:
    config = parse_arguments(sys.argv[1:] if argv is None else argv)
    configure_logs()
    try:
        asyncio.run(run(config))
    except KeyboardInterrupt:
        return
    except CannotStart as error:
        sys.exit(f"error: cannot start: {error}")
    except BaseExceptionGroup as group:
        told, others = group.split(CannotStart)
        if told is None or others is not None:
            raise
        sys.exit(f"error: cannot start: {_first_of(told)}")


def _first_of(group: BaseExceptionGroup[CannotStart]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


if __name__ == "__main__":
    main()
