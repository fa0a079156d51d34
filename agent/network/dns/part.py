"""The part of the node's network that keeps DNS going: address, process, and what the process knows.

Run by `network`. Adopts the process that an earlier agent started when it runs the same code with the same settings;
else starts a new one on the same sockets, tells it everything, and only then lets the old one go: no query is lost, and
none is answered from an empty state. Starts it again at once when it dies. See `process`, `control`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import orjson
import structlog

from agent.network.dns.addresses import served_addresses
from agent.network.dns.feeding import KINDS, change_lines, whole_state
from agent.network.dns.figures import FIGURES
from agent.network.dns.link import ensure_link, in_place
from agent.network.dns.process import DnsProcess, connect, control_path, open_sockets, start, stop_processes
from agent.network.dns.settings import Settings
from agent.network.feed import Feeds
from agent.network.model import Key
from agent.runtime.errors import RuntimeFault, Unavailable

if TYPE_CHECKING:
    from agent.network.network import Ground

RETRY_SECONDS = 2.0
LOOK_SECONDS = 5.0
SHORT_LIFE_SECONDS = 1.0
_log = structlog.get_logger()


class DnsPart:
    name = "dns"

    def __init__(self, ground: Ground, feeds: Feeds) -> None:
        self.problem = ""
        self._node_id = ground.node_id
        self._feeds = feeds
        self._settings = settings_of(ground)
        self._log_file = ground.data_dir / "network" / "dns.log"
        self._sockets: list[socket.socket] = []
        self._changed: dict[str, set[Key]] = {kind: set() for kind in KINDS}
        self._news = asyncio.Event()
        for kind in KINDS:
            getattr(feeds, kind).subscribe(self._noting(kind))

    def _noting(self, kind: str) -> Callable[[Iterable[Key]], None]:
        def note(keys: Iterable[Key]) -> None:
            self._changed[kind].update(keys)
            self._news.set()

        return note

    async def run(self) -> None:
        """Keep DNS going until cancelled; the process then goes on by itself."""
        while True:
            try:
                await self._serve()
            except (RuntimeFault, OSError, ValueError) as fault:
                if self.problem != str(fault):
                    _log.warning("DNS does not work on this node", error=str(fault))
                self.problem = str(fault)
                await asyncio.sleep(RETRY_SECONDS)

    async def _serve(self) -> None:
        """One process's life, from adoption or start to its death."""
        process = await self._obtain()
        began = time.monotonic()
        try:
            await ensure_link(self._node_id, self._settings.addresses)
            self.problem = ""
            if not process.runs(self._settings):
                process = await self._replace(process)
            async with asyncio.TaskGroup() as group:
                jobs = [group.create_task(self._feed(process)), group.create_task(self._watch_link())]
                await self._listen(process)
                for job in jobs:
                    job.cancel()
        except ExceptionGroup as faults:
            raise _first(faults) from faults
        finally:
            process.close()
        _log.warning("the DNS process died; starting it again", pid=process.pid)
        if time.monotonic() < began + SHORT_LIFE_SECONDS:
            await asyncio.sleep(RETRY_SECONDS)

    async def _obtain(self) -> DnsProcess:
        """The process that runs, whatever it is, else a new one."""
        path = control_path(self._node_id)
        try:
            found = await connect(path)
        except Unavailable:
            await stop_processes(self._node_id)  # one that runs but does not answer
            if not self._sockets:
                self._sockets = open_sockets(self._settings.addresses)
            return await start(path, self._settings, self._sockets, self._log_file)
        self._hold(found.sockets)
        return found

    def _hold(self, sockets: list[socket.socket]) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = sockets

    async def _replace(self, old: DnsProcess) -> DnsProcess:
        """Start a successor; the old one goes when that knows all that there is to know."""
        await self._synced()
        same = {each.getsockname()[0] for each in self._sockets} == set(self._settings.addresses)
        if not same:
            await stop_processes(self._node_id)
            self._hold([])
            self._sockets = open_sockets(self._settings.addresses)
        fresh = await start(control_path(self._node_id), self._settings, self._sockets, self._log_file)
        for line in whole_state(self._feeds):
            fresh.writer.write(line)
            await fresh.writer.drain()
        while b"synced" not in (line := await fresh.reader.readline()):
            if not line:
                raise Unavailable(f"the DNS process died; see {self._log_file}")
        old.drain()
        return fresh

    async def _synced(self) -> None:
        for kind in KINDS:
            await getattr(self._feeds, kind).synced.wait()

    async def _feed(self, process: DnsProcess) -> None:
        """Everything once the feeds are whole, then what changes. Names of the outside need not wait for that."""
        with contextlib.suppress(ConnectionError):  # the process died; `_listen` sees it, too
            if not all(getattr(self._feeds, kind).synced.is_set() for kind in KINDS):
                process.writer.write(b'{"listen": 1}\n')
            await self._synced()
            await self._write_news(process)

    async def _write_news(self, process: DnsProcess) -> None:
        for keys in self._changed.values():
            keys.clear()
        lines = whole_state(self._feeds)
        while True:
            for line in lines:
                process.writer.write(line)
                await process.writer.drain()
            await self._news.wait()
            self._news.clear()
            changes = {kind: frozenset(keys) for kind, keys in self._changed.items()}
            for keys in self._changed.values():
                keys.clear()
            lines = change_lines(self._feeds, changes)

    async def _listen(self, process: DnsProcess) -> None:
        """Take the process's figures until it dies."""
        with contextlib.suppress(ConnectionError):
            while line := await process.reader.readline():
                FIGURES.latest = orjson.loads(line).get("figures") or FIGURES.latest

    async def _watch_link(self) -> None:
        """Put the address back when somebody took it away."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not in_place(self._node_id, self._settings.addresses):
                _log.warning("the DNS address was gone; adding it again")
                await ensure_link(self._node_id, self._settings.addresses)


def settings_of(ground: Ground) -> Settings:
    cidrs = (*ground.service_cidr.split(","), *ground.cluster_cidr.split(","))
    return Settings(
        ground.cluster_domain, cidrs, served_addresses(ground.service_cidr, ground.cluster_dns), ground.resolv_conf
    )


def _first(faults: ExceptionGroup[Exception]) -> Exception:
    found: Exception = faults
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
