"""The DNS process's parts, put together. Called by `main`; imports the standard library and this package only."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.network.dns import resolv
from agent.network.dns.control import Control
from agent.network.dns.listeners import TcpListener, UdpListener
from agent.network.dns.resolver import Resolver
from agent.network.dns.responder import Responder
from agent.network.dns.settings import Settings, code_version
from agent.network.dns.upstream import Upstreams
from agent.network.dns.zone import Zone

DRAIN_SECONDS = 12.0
"""Longer than a TCP connection may be idle."""
_POLL_SECONDS = 0.05


class _Drained(Exception):
    """Everything under way is done."""


class Server:
    def __init__(self, settings: Settings, control: Path, sockets: list[socket.socket]) -> None:
        self._settings = settings
        self._control = control
        self._sockets = sockets

    def _new_zone(self) -> Zone:
        return Zone(self._settings.domain, self._settings.cidrs, self._settings.addresses)

    async def run(self) -> None:
        """Answers until told to end."""
        async with asyncio.TaskGroup() as tasks:
            upstreams = Upstreams(tasks)
            resolver = Resolver(upstreams, tasks)
            responder = Responder(self._new_zone(), resolver)
            control = Control(responder, self._new_zone, self._sockets)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, control.drain)

            def use(servers: list[str]) -> None:
                upstreams.use(servers)
                resolver.cache.clear()
                responder.changed()

            tasks.create_task(resolv.follow(self._settings.resolv_conf, self._settings.addresses, use))
            greeting = {"version": code_version(), "settings": self._settings.arguments(), "pid": os.getpid()}
            tcp: list[TcpListener] = []
            figures = lambda: figures_of(responder, resolver, tcp)  # noqa: E731
            tasks.create_task(control.serve(self._control, greeting, figures, tasks))
            await control.listening.wait()
            streams = [each for each in self._sockets if each.type == socket.SOCK_STREAM]
            tcp += [TcpListener(each, responder, tasks) for each in streams]
            for listener in tcp:
                await listener.start()
            datagrams = [each for each in self._sockets if each.type == socket.SOCK_DGRAM]
            udp = [UdpListener(each, responder, tasks) for each in datagrams]
            await control.draining.wait()
            for datagram in udp:
                datagram.stop()
            for listener in tcp:
                listener.stop()
            await _until_idle(responder, tcp)
            raise _Drained


async def _until_idle(responder: Responder, tcp: Sequence[TcpListener]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while responder.waiting or any(each.conversations for each in tcp):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)


def figures_of(responder: Responder, resolver: Resolver, tcp: Sequence[TcpListener]) -> dict[str, Any]:
    """What the process has counted; the agent shows it."""
    return {
        "rcodes": responder.rcodes,
        "waiting": responder.waiting,
        "hits": resolver.hits,
        "misses": resolver.misses,
        "stale": resolver.stale,
        "refused": resolver.refused,
        "prefetches": resolver.prefetches,
        "entries": len(resolver.cache),
        "connections": sum(each.conversations for each in tcp),
        "upstreams": [
            [each.address, each.asked, each.failures, each.latency_seconds, each.failing]
            for each in resolver.upstreams.servers
        ],
    }


def parse_arguments(arguments: Sequence[str]) -> tuple[Settings, Path, list[int]]:
    parser = argparse.ArgumentParser(prog="agent.network.dns.main")
    for name in ("domain", "cidrs", "addresses"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--resolv-conf", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--sockets", required=True)
    given = parser.parse_args(arguments)
    settings = Settings(
        given.domain, tuple(given.cidrs.split(",")), tuple(given.addresses.split(",")), given.resolv_conf
    )
    return settings, given.control, [int(number) for number in given.sockets.split(",")]


def main() -> None:
    settings, control, numbers = parse_arguments(sys.argv[1:])
    sockets = [socket.socket(fileno=number) for number in numbers]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    try:
        asyncio.run(Server(settings, control, sockets).run())
    except* _Drained:
        pass
