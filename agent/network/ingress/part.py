"""The node's part for Ingress: an HAProxy that serves what the cluster's Ingresses say, on nodes that carry the label.

Run by the agent's network. One step looks at what is wanted and makes HAProxy do it: servers change in the running
workers at once, anything else by a reload, at most one a second. The first step waits until all feeds are read, so a
restarted agent changes nothing that is right. A port that is taken, or HAProxy missing, is told as `problem` and as an
event of the node, and tried again; the rest of the node does not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from agent.events import NORMAL, WARNING, EventRecorder, Happening
from agent.network.feed import Feeds
from agent.network.ingress import config as files
from agent.network.ingress.config import Plan, Site
from agent.network.ingress.desired import Desired, Wanted
from agent.network.ingress.live import ask_state, decide_commands, parse_state
from agent.network.ingress.metrics import ProxyCollector
from agent.network.ingress.ports import holder_of
from agent.network.ingress.proxy import Proxy
from agent.network.ingress.routes import Finding
from agent.network.model import Key
from agent.runtime.errors import RuntimeFault
from api.ingress import is_ingress_node

if TYPE_CHECKING:
    from agent.network.network import Ground

GATHER_SECONDS = 0.02
RELOAD_SECONDS = 1.0
RETRY_SECONDS = 5.0
MOST_THREADS = 8
MOST_CONNECTIONS = 20_000
_USERS = (("haproxy", "haproxy"), ("nobody", "nogroup"))
_log = structlog.get_logger()


class IngressPart:
    name = "ingress"

    def __init__(self, ground: Ground, feeds: Feeds) -> None:
        self.problem = ""
        self._ground = ground
        self._feeds = feeds
        self._directory = ground.data_dir / "ingress"
        self._labelled = asyncio.Event()
        self._unlabelled = asyncio.Event()
        self._dirty = asyncio.Event()
        self._desired = Desired(ground, feeds, self._dirty.set)
        self._events = EventRecorder(ground.client, ground.node_name, "wherry-ingress")
        self._told: set[tuple[str, str, str]] = set()
        self.proxy = Proxy(ground.node_id, self._directory)
        self._running = self._read(files.CONFIG)
        self._slots = files.slots_of(self._running)
        self._reload_at = 0.0

    async def run(self) -> None:
        self._feeds.nodes.subscribe(self._on_nodes)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            await self._feeds.nodes.synced.wait()
            while True:
                if not self._labelled.is_set():
                    await self.proxy.stop()
                    self._set_problem("")
                    await self._labelled.wait()
                serving = group.create_task(self._serve())
                await self._unlabelled.wait()
                serving.cancel()
                await asyncio.wait([serving])

    def _on_nodes(self, keys: frozenset[Key]) -> None:
        own = ("", self._ground.node_name)
        if own not in keys:
            return
        node = self._feeds.nodes.records.get(own)
        on = node is not None and is_ingress_node(node.labels)
        now, other = (self._labelled, self._unlabelled) if on else (self._unlabelled, self._labelled)
        now.set()
        other.clear()

    async def _serve(self) -> None:
        collector = ProxyCollector(self.proxy)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._desired.run())
                group.create_task(self._watch_process())
                await self._desired.synced()
                self._dirty.set()
                while True:
                    await self._step_when_dirty()
        finally:
            collector.close()

    async def _watch_process(self) -> None:
        while True:
            if self.proxy.running:
                await self.proxy.gone()
                _log.warning("haproxy ended; starting it again")
                self._dirty.set()
            await asyncio.sleep(RELOAD_SECONDS)

    async def _step_when_dirty(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS if self.problem else None):
                await self._dirty.wait()
        await asyncio.sleep(GATHER_SECONDS)
        self._dirty.clear()
        try:
            wanted = await self._desired.look()
            if wanted is None:
                self._again(RELOAD_SECONDS)
                return
            self._tell(wanted.findings)
            await self._step(wanted)
        except (RuntimeFault, OSError, TimeoutError) as error:
            self._set_problem(str(error) or "haproxy does not answer")

    async def _step(self, wanted: Wanted) -> None:
        site, problem = self._site()
        if not (site.http_port or site.https_port):
            self._set_problem(problem)
            return
        for pool in wanted.pools.values():
            if len(pool.servers) > self._slots.get(pool.name, 0):
                self._slots[pool.name] = files.room_for(len(pool.servers))
            self._slots.setdefault(pool.name, files.room_for(0))
        plan = Plan(site, wanted.table, wanted.pools, self._slots, wanted.names, wanted.pems)
        rendered = files.render_files(plan)
        if self.proxy.running:
            await self._change_servers(plan)
            if files.fingerprint(rendered[files.CONFIG]) != files.fingerprint(self._running):
                await self._reload(plan, rendered)
        else:
            await self._install(rendered)
            await self.proxy.start()
            self._running = rendered[files.CONFIG]
            _log.info("haproxy started", pid=self.proxy.pid)
        self._set_problem(problem)

    async def _change_servers(self, plan: Plan) -> None:
        """In the present worker, and in those that a reload left with connections."""
        servers = {name: pool.servers for name, pool in plan.by_name().items()}
        workers = await self.proxy.workers()
        for worker in (workers.present, *workers.old):
            slots = parse_state(await self.proxy.ask(worker, ask_state(servers)))
            if commands := decide_commands(slots, servers):
                await self.proxy.ask(worker, commands)

    async def _reload(self, plan: Plan, rendered: dict[str, bytes]) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._reload_at:
            self._again(self._reload_at - loop.time())
            return
        names = plan.by_name()
        self._slots = {name: slots for name, slots in self._slots.items() if name in names}
        await self._install(rendered)
        await self.proxy.reload()
        self._running = rendered[files.CONFIG]
        self._reload_at = loop.time() + RELOAD_SECONDS

    def _again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._dirty.set)

    async def _install(self, rendered: dict[str, bytes]) -> None:
        """Writes the files, if HAProxy accepts them; what it had before otherwise."""
        before = {name: self._read(name) for name in rendered}
        self._write(rendered)
        try:
            await self.proxy.check()
        except RuntimeFault:
            self._write({name: content for name, content in before.items() if content})
            raise
        kept = {Path(name).name for name in rendered if name.startswith(files.CERTIFICATE_DIR)}
        for stale in (self._directory / files.CERTIFICATE_DIR).iterdir():
            if stale.name not in kept:
                stale.unlink()

    def _read(self, name: str) -> bytes:
        with contextlib.suppress(OSError):
            return (self._directory / name).read_bytes()
        return b""

    def _write(self, contents: dict[str, bytes]) -> None:
        (self._directory / files.CERTIFICATE_DIR).mkdir(parents=True, exist_ok=True)
        os.chmod(self._directory, 0o700)
        if not (self._directory / files.DEFAULT_PEM).exists():
            from agent.network.ingress.pairs import self_signed

            contents = {**contents, files.DEFAULT_PEM: self_signed()}
        for name, content in contents.items():
            _write_private(self._directory / name, content)

    def _site(self) -> tuple[Site, str]:
        """Where to listen, and what keeps us from one of the ports."""
        held = files.ports_of(self._running) if self.proxy.running else set()
        ports, problems = [], []
        for port in self._ground.ingress_ports:
            holder = "" if port in held or not port else holder_of(port)
            ports.append(0 if holder else port)
            if holder:
                problems.append(f"port {port} is taken by {holder}; end that or choose another port for the agent")
        families = (4, 6) if Path("/proc/net/if_inet6").exists() else (4,)
        user, group = next(pair for pair in _USERS if _exists(pair[0]))
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        site = Site(self._directory, ports[0], ports[1], families, user, group, threads, _connections())
        return site, "; ".join(problems)

    def _tell(self, findings: tuple[Finding, ...]) -> None:
        present = {(each.ingress.uid, each.reason, each.message): each.ingress for each in findings}
        for (uid, reason, message), ingress in present.items():
            if (uid, reason, message) not in self._told:
                namespace, name = ingress.key
                reference = {"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "namespace": namespace}
                reference |= {"name": name, "uid": uid}
                self._events.record(Happening(tuple(reference.items()), WARNING, reason, message))
        self._told = set(present)

    def _set_problem(self, problem: str) -> None:
        if problem == self.problem:
            return
        if problem:
            _log.warning("ingress does not work as it should", problem=problem)
            self._events.node_event(WARNING, "IngressNotReady", problem)
        elif self.problem:
            self._events.node_event(NORMAL, "IngressReady", "ingress works again")
        self.problem = problem


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, and for root's eyes only."""
    fresh = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)


def _connections() -> int:
    """As many as this machine's limit of open files allows."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else max(1, min(MOST_CONNECTIONS, limit // 2 - 200))


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False
