"""The agent process: `python -m agent.main --server URL --token-file F --data-dir D`.

Puts the parts together and runs them until SIGTERM or SIGINT. Containers outlive it: stopping or killing the agent
stops none of them. A part that breaks takes the process down, and whoever supervises it starts it again.
"""

from __future__ import annotations

from api import lean as lean  # before anything imports structlog

# isort: split
import asyncio
import contextlib
import ipaddress
import signal
import ssl
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from agent import hostinfo
from agent.access import Access
from agent.config import AgentConfig, parse_arguments
from agent.dialing import Reachable
from agent.events import NORMAL, WARNING, EventRecorder
from agent.farewell import Farewell
from agent.identity import Applicant, Identity, JoinRefused, formers, obtain_identity
from agent.kernel import KernelRefused, check_kernel
from agent.logkeeper import LiveLog, LogKeeper, LogLimits
from agent.metrics import AgentMetrics
from agent.network.cni import ensure_pod_network
from agent.network.feed import HeardServices
from agent.network.network import Ground, Network
from agent.node import STATUS_SECONDS, NodeKeeper, Profile, allocatable
from agent.paths import Paths
from agent.pods.admission import NodeFacts
from agent.pods.configs import Node
from agent.pods.dns import Resolver, read_resolv_conf
from agent.pods.images import Images
from agent.pods.roster import Roster
from agent.pods.status import Host
from agent.pods.storage_watch import StorageWatch
from agent.pods.workshop import Workshop
from agent.probing import Prober
from agent.readings import NodeGauge, measure
from agent.runtime.containerd import Containerd, containerd_paths, ensure_containerd
from agent.runtime.cri import CriRuntime
from agent.runtime.errors import RuntimeFault
from agent.runtime.protocol import Runtime
from agent.server import AgentServer, Office
from agent.session import Heartbeat, keep_lease
from agent.sources import SourceReader
from agent.stats import Meter
from agent.trusting import Trusting
from agent.volumes.places import close_data_directory
from agent.volumes.volumes import Volumes
from api import errors
from api.client import Client
from api.holding import Held, hold
from api.listeners import PortTaken, require_free
from api.logs import configure_logs
from api.objects import labels_of
from api.quantity import bytes_of
from api.tls import load_pair

NETWORK_RETRY_SECONDS = 2.0
NOT_READY_CHECK_SECONDS = 0.5
FIRST_NETWORK_SECONDS = 5.0
"""So long the first report waits for the pod network: a restarted agent must not call a working node not ready."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Engine:
    """The container runtime in use, and what goes with it."""

    runtime: Runtime
    containerd: Containerd | None
    cgroup_root: str
    node_id: str
    cni_conf_dir: Path | None


async def start_engine(config: AgentConfig) -> Engine:
    """The given containerd, or a private one. Raises RuntimeFault when that does not come up."""
    paths = containerd_paths(config.data_dir)
    if config.runtime_endpoint:
        runtime = CriRuntime(config.runtime_endpoint, paths.cgroup_root)
        return Engine(runtime, None, paths.cgroup_root, paths.node_id, config.cni_conf_dir)
    containerd = await ensure_containerd(config.data_dir, config.cni_conf_dir)
    runtime = CriRuntime(containerd.endpoint, paths.cgroup_root)
    return Engine(runtime, containerd, paths.cgroup_root, paths.node_id, config.cni_conf_dir or paths.cni_conf_dir)


class Agent:
    """One agent, put together. `engine` may be a fake one in tests."""

    def __init__(self, config: AgentConfig, engine: Engine, identity: Identity, applicant: Applicant) -> None:
        self._config = config
        self._engine = engine
        self._applicant = applicant
        self._machine = hostinfo.machine()
        self._paths = Paths(config.data_dir)
        self._pki = config.data_dir / "pki"
        self._client = Client(config.server, identity.credentials)
        self._prober = Prober(engine.runtime)
        self._events = EventRecorder(self._client, config.name)
        self._profile = Profile(
            config.name, self._machine, applicant.addresses, config.port, "containerd://unknown",
            dict(config.labels), config.taints,
        )  # fmt: skip
        self.keeper = NodeKeeper(self._client, self._profile)
        self._heartbeat = Heartbeat(self._client, config.name)
        self._facts = NodeFacts(config.name, allocatable=self._allocatable(), read_labels=self.keeper.read_labels)
        self._network = Network(self._ground())
        self._network.routes.problem_told = self.keeper.doubted.set
        self._shop = self._workshop()
        self.roster = Roster(self._shop, self._facts, formers(self._pki))
        self._trusting = Trusting(self._client, self._heartbeat, self.keeper, self._pki, applicant, identity, self._use)
        self._metrics = AgentMetrics(config.name, self._heartbeat.age_seconds)
        self.server = AgentServer(self._office(), config.bind_address or "", config.port, server_context(identity))
        self._network_problem = "container runtime network not ready: waiting for the node's podCIDR"
        self._network_tried = asyncio.Event()
        self._gauge = NodeGauge(engine.runtime, partial(measure, config.data_dir), lambda: self._network_problem)

    def _allocatable(self) -> dict[str, str]:
        return allocatable(self._profile, hostinfo.disk_use(self._config.data_dir))

    def _workshop(self) -> Workshop:
        config, runtime = self._config, self._engine.runtime
        resolver = Resolver(config.dns_addresses, config.cluster_domain, lambda: read_resolv_conf(config.resolv_conf))
        machine = self._machine
        node = Node(config.name, machine.hostname, self._paths, resolver, machine.memory_bytes, config.seccomp_default)
        sources = SourceReader(self._client)
        return Workshop(
            client=self._client,
            runtime=runtime,
            volumes=Volumes(self._paths, sources, bytes_of(self._facts.allocatable["memory"])),
            sources=sources,
            images=Images(runtime),
            prober=self._prober,
            events=self._events,
            paths=self._paths,
            node=node,
            host=Host(self._applicant.addresses),
            allocatable=self._facts.allocatable,
            gate=self._network.policy,
            services=HeardServices(self._network.feeds.services),
        )

    def _ground(self) -> Ground:
        config = self._config
        return Ground(
            client=self._client,
            node=lambda: self.keeper.node,
            node_name=config.name,
            node_id=self._engine.node_id,
            addresses=self._applicant.addresses,
            data_dir=config.data_dir,
            cluster_cidr=config.cluster_cidr,
            service_cidr=config.service_cidr,
            cluster_domain=config.cluster_domain,
            cluster_dns=config.dns_addresses,
            resolv_conf=config.resolv_conf,
            ingress_ports=config.ingress_ports,
            ingress_external_names=config.ingress_external_names,
            cni_conf_dir=self._engine.cni_conf_dir,
            vxlan_id=config.vxlan_id,
            vxlan_port=config.vxlan_port,
        )

    def _office(self) -> Office:
        return Office(
            roster=self.roster,
            shop=self._shop,
            access=Access(self._client, self._config.name),
            meter=Meter(self._engine.runtime, self._config.data_dir, self._engine.cgroup_root),
            machine=self._machine,
            metrics=self._metrics,
            prober=self._prober,
            cgroup_root=self._engine.cgroup_root,
            checker=self._network.checker,
            reachable=Reachable(
                tuple(f"{self._config.cluster_cidr},{self._config.service_cidr}".split(",")), self._applicant.addresses
            ),
        )

    async def run(self) -> None:
        """Runs every part until cancelled."""
        if told := check_kernel(protect=False):
            self._events.node_event(NORMAL, "KernelSettings", told)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.roster.run())
                group.create_task(self._metrics.stalls.run())
                group.create_task(self.server.run())
                group.create_task(self._events.run())
                group.create_task(self._keep_logs())
                group.create_task(StorageWatch(self._shop, self.roster.workers).run())
                group.create_task(self._be_a_node())
                group.create_task(self._trusting.run())
                group.create_task(
                    Farewell(self._pki, self._config.server, self._trusting.identity, self.roster.has_left).run()
                )
                if self._engine.containerd is not None:
                    group.create_task(self._engine.containerd.run())
        finally:
            await self._prober.close()
            await self._client.close()
            await self._engine.runtime.close()

    async def _be_a_node(self) -> None:
        """Registration first; then heartbeats, lease, status and network side by side."""
        await self.keeper.register()
        self._facts.labels = labels_of(self.keeper.node)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeat.run())
            group.create_task(keep_lease(self._client, self._config.name, self.keeper.uid))
            group.create_task(self.keeper.follow())
            group.create_task(self._keep_network())
            group.create_task(self._network.run())
            group.create_task(self._report_status())

    async def _keep_network(self) -> None:
        """Sets the pod network up as soon as the node has its podCIDR, and again when that changes."""
        done: tuple[str, ...] = ()
        while True:
            self.keeper.changed.clear()
            self._facts.labels = labels_of(self.keeper.node)
            cidrs = self.keeper.pod_cidrs
            if cidrs and cidrs != done and self._engine.cni_conf_dir is not None:
                done = cidrs if await self._make_network(cidrs, self._engine.cni_conf_dir) else done
            if self._engine.cni_conf_dir is None:
                self._network_problem = ""
            self._network_tried.set()
            pause = None if done == cidrs else NETWORK_RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self.keeper.changed.wait()
            except TimeoutError:
                continue

    async def _make_network(self, cidrs: tuple[str, ...], conf_dir: Path) -> bool:
        try:
            await ensure_pod_network(self._ground().pod_network(cidrs), conf_dir)
        except (RuntimeFault, ValueError, OSError) as error:
            self._network_problem = f"container runtime network not ready: {error}"
            self._events.node_event(WARNING, "NetworkNotReady", self._network_problem)
            return False
        self._network_problem = ""
        return True

    async def _report_status(self) -> None:
        """Keeps the Node's status true; looks more often while the node is not ready."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_NETWORK_SECONDS):
                await self._network_tried.wait()
                await self._network.routes.settled.wait()
        while True:
            self.keeper.doubted.clear()
            routes = self._network.routes
            readings = await self._gauge.look(routes.problem if routes.active else None)
            if self._gauge.version:
                self.keeper.with_runtime(self._gauge.version)
            try:
                await self.keeper.report(readings, time.monotonic())
            except errors.ApiError as error:
                _log.info("node status not sent", error=error.message)
            await asyncio.sleep(NOT_READY_CHECK_SECONDS)
            if not readings.problem:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STATUS_SECONDS - NOT_READY_CHECK_SECONDS):
                        await self.keeper.doubted.wait()

    async def _keep_logs(self) -> None:
        config = self._config
        limits = LogLimits(config.log_file_bytes, config.log_files, config.log_budget_bytes)
        keeper = LogKeeper(self._paths, self._engine.runtime, limits)
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.rotate(self._live_logs))
            group.create_task(keeper.keep_budget(self._present_logs))

    def _live_logs(self) -> list[LiveLog]:
        found = []
        for worker in self.roster.workers():
            for name, view in worker.memory.views.items():
                if view.current is not None and view.current.state == "running":
                    file = self._paths.container_log(worker.pod, name, view.current.attempt)
                    found.append(LiveLog(view.current.id, file))
        return found

    def _present_logs(self) -> set[Path]:
        return {self._paths.pod_logs(worker.pod) for worker in self.roster.workers()}

    async def _use(self, identity: Identity) -> None:
        await self._client.renew(identity.credentials)
        await self.server.use(server_context(identity))


def server_context(identity: Identity) -> ssl.SSLContext:
    """TLS of the agent's server: its certificate, and client certificates of the cluster's CA welcome."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=identity.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    load_pair(context, identity.cert, identity.key)
    return context


def applicant_of(config: AgentConfig) -> Applicant:
    """Name and addresses of this node: from which it speaks to the controller, or to the world if that is here."""
    parts = urlsplit(config.server)
    address = config.node_ip or hostinfo.default_address(parts.hostname or "127.0.0.1", parts.port or 443)
    if not config.node_ip and ipaddress.ip_address(address).is_loopback:
        address = hostinfo.default_address()
    return Applicant(config.server, config.name, (address,))


async def run(config: AgentConfig) -> None:
    """Joins if need be, then runs the agent until cancelled. Raises Held, PortTaken, JoinRefused, RuntimeFault."""
    paths = Paths(config.data_dir)
    close_data_directory(paths.root, paths.pods, paths.logs)
    with hold(config.data_dir, "agent"):
        require_free(config.port, "the agent (--port)", config.bind_address)
        await _work(config)


async def _work(config: AgentConfig) -> None:
    applicant = applicant_of(config)
    if told := check_kernel(protect=config.protect_kernel_defaults):
        _log.info("the kernel's settings are not those that Kubernetes expects", differ=told)
    identity = await obtain_identity(config.data_dir / "pki", applicant, config.token)
    _log.info("agent starts", node=config.name, server=config.server, address=applicant.addresses[0])
    engine = await start_engine(config)
    await Agent(config, engine, identity, applicant).run()


async def _until_signalled(config: AgentConfig) -> int:
    task = asyncio.create_task(run(config))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        _log.info("agent stops; containers run on")
    except (Held, PortTaken, JoinRefused, KernelRefused, RuntimeFault) as error:
        print(f"wherry agent: {error}", file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    config = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    configure_logs()
    return asyncio.run(_until_signalled(config))


if __name__ == "__main__":
    raise SystemExit(main())
