"""One controller process: store, registry, API server and, while it leads, reconcilers and scheduler.

`python -m controller.main --data-dir D` or `run(config)` from the CLI. Composes the rooms and owns their lifetimes.
Invariants: nothing is served before the cache is filled and the defaults exist; when any part dies, the process ends
loudly; on SIGTERM requests finish, watches end and leadership is given up before the store closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from controller.config import ControllerConfig, parse_arguments
from controller.pki.files import Pki, Serving, ensure_pki
from controller.reconcilers.build import Settings, request_of, run_reconcilers
from controller.reconcilers.liveness import Liveness
from controller.registry import Registry
from controller.registry.recorder import Recorder
from controller.scheduler.loop import run_scheduler
from controller.server.app import ApiServer
from controller.server.bootstrap import ensure_defaults
from controller.server.call import Services
from controller.server.compose import ServerSettings, compose
from controller.server.listener import Address, Listener, load_serving_certificate, server_context
from controller.store import Store, StoreConfig
from controller.store.server import ensure_etcd
from controller.store.types import Guard

LEADER_LEASE = "controller"
LEADER_TTL_SECONDS = 5
PKI_CHECK_SECONDS = 12 * 3600.0

log = structlog.get_logger()


async def run(config: ControllerConfig) -> None:
    """Runs until SIGTERM, SIGINT or cancellation. Raises what a part that died raised."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _parts(config):
        await stop.wait()
        log.info("stopping")


@contextlib.asynccontextmanager
async def _parts(config: ControllerConfig) -> AsyncIterator[None]:
    """Everything, in the order it needs each other; torn down in reverse."""
    pki = ensure_pki(config.data_dir, Serving(config.hosts, config.port))
    async with asyncio.TaskGroup() as tasks, _etcd(config, tasks) as endpoints:
        store = await Store.open(_store_config(config, pki, endpoints))
        following = tasks.create_task(store.run())
        try:
            async with _serving(config, pki, store) as (registry, liveness):
                leading = tasks.create_task(_lead(config, pki, registry, liveness)) if config.runs_any else None
                gc.collect()
                gc.freeze()
                log.info("ready", url=f"https://{config.hosts[0]}:{config.port}", data_dir=str(config.data_dir))
                yield
                if leading is not None:
                    leading.cancel()
                    await asyncio.wait([leading])
        finally:
            following.cancel()
            await asyncio.wait([following])
            await store.close()


@contextlib.asynccontextmanager
async def _etcd(config: ControllerConfig, tasks: asyncio.TaskGroup) -> AsyncIterator[tuple[str, ...]]:
    if config.etcd_endpoints:
        yield config.etcd_endpoints
        return
    endpoint = await ensure_etcd(config.data_dir)
    supervisor = tasks.create_task(endpoint.run())
    try:
        yield endpoint.endpoints
    finally:
        supervisor.cancel()
        await asyncio.wait([supervisor])


def _store_config(config: ControllerConfig, pki: Pki, endpoints: tuple[str, ...]) -> StoreConfig:
    tls = config.etcd_tls
    return StoreConfig(
        endpoints=endpoints, encryption_key=pki.encryption_key, ca=tls.ca, cert=tls.certificate, key=tls.key
    )


@contextlib.asynccontextmanager
async def _serving(config: ControllerConfig, pki: Pki, store: Store) -> AsyncIterator[tuple[Registry, Liveness]]:
    """The API server, listening."""
    liveness = Liveness()
    shown = f"{config.hosts[0]}:{config.port}"
    services = compose(store, pki, liveness, ServerSettings(config.service_account_issuer, shown))
    await ensure_defaults(services.registry)
    context = server_context(pki)
    address = Address(config.bind_address, config.port)
    listener = Listener(ApiServer(services), context, address, config.shutdown_grace_seconds)
    try:
        async with listener, asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(_renew(config, context, services))
            yield services.registry, liveness
            renewing.cancel()
    finally:
        await services.close()


async def _renew(config: ControllerConfig, context: ssl.SSLContext, services: Services) -> None:
    """Twice a day: certificates that run out are made anew and taken into use for new connections."""
    while True:
        await asyncio.sleep(PKI_CHECK_SECONDS)
        pki = ensure_pki(config.data_dir, Serving(config.hosts, config.port))
        load_serving_certificate(context, pki)
        services.agents.reload()


async def _lead(config: ControllerConfig, pki: Pki, registry: Registry, liveness: Liveness) -> None:
    """Stands for election for ever; reconciles and schedules while elected."""
    identity = f"{socket.gethostname()}_{os.getpid()}"
    while True:
        async with registry.store.lead(LEADER_LEASE, identity, LEADER_TTL_SECONDS) as leadership:
            log.info("leading", identity=identity)
            guards = (leadership.guard,)
            settings = Settings(
                cluster_cidr=config.cluster_cidr, ca_pem=pki.authority.pem.decode(), enabled=config.runs
            )
            work = [run_reconcilers(registry, liveness, settings, guards)]
            if config.runs("scheduler"):
                work.append(_schedule(registry, guards))
            await _until_lost(leadership.lost, work)
        log.warning("leadership lost; standing for election again")


async def _schedule(registry: Registry, guards: tuple[Guard, ...]) -> None:
    request = replace(request_of("kube-scheduler", guards), field_manager="kube-scheduler")
    recorder = Recorder(registry, request, "default-scheduler")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        tasks.create_task(run_scheduler(registry, request, recorder))


async def _until_lost(lost: asyncio.Event, work: list[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part) for part in work]
        await lost.wait()
        for task in running:
            task.cancel()


def main(argv: list[str] | None = None) -> None:
    config = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        asyncio.run(run(config))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
