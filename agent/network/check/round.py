"""One round of netcheck from this node: asks along every hop at once, as far as one does not need another.

Called by `check`. What came back is judged by `hops`; nothing here decides what is wrong. Where a hop failed, it looks
at what may explain it. How many peers are asked at a time is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.network.check import hops as verdicts
from agent.network.check.asking import NewSocket, connect, echoes, open_socket, ping, query, rcode
from agent.network.check.facts import default_gateway, dropping_chains, filtered_packets, judge_kernel
from agent.network.check.hops import Answer, Around, Echoes, Hop
from agent.network.check.probe import Probe
from agent.network.check.watch import peer_address
from agent.network.cni import foreign_config
from agent.network.dns.addresses import default_addresses
from agent.network.dns.process import find_processes
from agent.network.dns.resolv import parse_nameservers
from agent.network.model import NodeAddress, family_of, parse_node
from agent.network.routes.kernel import observe_kernel
from agent.network.routes.model import Route, settings_of
from api import errors

if TYPE_CHECKING:
    from agent.network.network import Ground, Network

AT_A_TIME = 64
CONTROLLER_SECONDS = 3.0
_A, _AAAA, _NS = 1, 28, 2
_HTTPS, _DNS = 443, 53


@dataclass(frozen=True)
class Far:
    """Where a peer's probe answers; without addresses it has none."""

    addresses: tuple[str, ...] = ()
    port: int = 0

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Far:
        """From what a node's PUT replied. Raises ValueError."""
        addresses, port = given.get("addresses") or (), given.get("port") or 0
        if not isinstance(port, int) or not 0 <= port < 1 << 16:
            raise ValueError(f"no port: {port}")
        return cls(tuple(str(ipaddress.ip_address(address)) for address in addresses), port)


@dataclass(frozen=True)
class Meeting:
    """What was seen of one peer; None is what could not be asked."""

    peer: NodeAddress
    address: str
    node: Answer
    route: Echoes | None = None
    pods: Echoes | None = None
    pod_to_node: Answer | None = None
    own: str = ""
    """The probe's address that the peer must see."""

    @property
    def failed(self) -> bool:
        paths = [path.small.error for path in (self.route, self.pods) if path is not None]
        return any(paths) or not (self.pod_to_node or Answer()).heard


class Round:
    def __init__(self, ground: Ground, network: Network, probe: Probe | None) -> None:
        self._ground = ground
        self._network = network
        self._probe = probe
        self._me = parse_node(ground.node())
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._filtered = filtered_packets()

    async def run(self, peers: Mapping[str, tuple[NodeAddress, Far]]) -> list[Hop]:
        """All hops but the probe's own making, in no order."""
        ways = await asyncio.to_thread(self._ways, [record for record, _ in peers.values()])
        jobs = [self._controller(), self._kernel(), self._upstream()]
        if self._probe is not None:
            jobs += [self._pods(self._probe), self._service(self._probe), self._dns(self._probe)]
            jobs.append(self._outside(self._probe))
        meetings, single = await asyncio.gather(self._meet_all(peers), asyncio.gather(*jobs))
        around = await self._around(any(meeting.failed for meeting in meetings) or not all(hop.ok for hop in single))
        problems = [(part.name, part.problem) for part in self._network.parts]
        found = verdicts.judge_parts(self._ground.node_name, problems)
        found += verdicts.judge_addresses(self._ground.node_name, self._network.routes.figures.complaints)
        for meeting in meetings:
            found += self._judge(meeting, ways[meeting.peer.name], around)
        return [*found, *(verdicts.explain(hop, around) for hop in single)]

    async def _around(self, failed: bool) -> Around:
        if not failed:
            return Around()
        return Around(filtered_packets() - self._filtered, await dropping_chains())

    def _hop(self, hop: str, target: str) -> Hop:
        return Hop(hop, self._ground.node_name, target)

    # The node itself.

    async def _controller(self) -> Hop:
        hop, began = self._hop("controller", self._ground.client.server), time.monotonic()
        try:
            async with asyncio.timeout(CONTROLLER_SECONDS):
                reply = await self._ground.client.request("GET", "/readyz")
        except (TimeoutError, errors.ApiError) as error:
            why = f"the agent does not reach the controller: {error or 'nothing came back'}"
            return hop.failed(why, "See that the controller runs, and that no firewall stops TCP to its port.")
        hop = hop.after(time.monotonic() - began)
        said = reply.headers.get("Date")
        return (
            verdicts.judge_clock(hop, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
            if said
            else hop
        )

    async def _kernel(self) -> Hop:
        node_id = "" if self._foreign() else self._ground.node_id
        return await judge_kernel(self._hop("kernel", "forwarding"), self._me.pod_cidrs, node_id)

    def _foreign(self) -> bool:
        return self._ground.cni_conf_dir is None or foreign_config(self._ground.cni_conf_dir) is not None

    async def _upstream(self) -> Hop:
        servers = self._upstreams()
        answers = await asyncio.gather(*(query(open_socket, server, "", _NS) for server in servers))
        hop = self._hop("upstream", ", ".join(servers) or "upstream DNS servers")
        return verdicts.judge_upstream(hop, list(zip(servers, answers, strict=True)))

    def _upstreams(self) -> list[str]:
        own = (*default_addresses(self._ground.service_cidr), *self._ground.cluster_dns)
        with contextlib.suppress(OSError):
            return parse_nameservers(self._ground.resolv_conf.read_text(errors="replace"), own)
        return []

    # Peers.

    def _ways(self, peers: Sequence[NodeAddress]) -> dict[str, str]:
        if self._foreign():
            return {peer.name: verdicts.FOREIGN for peer in peers}
        settings = settings_of(self._ground.node_id)
        routes = {item.destination: item for item in observe_kernel(settings).items if isinstance(item, Route)}
        ways = {}
        for peer in peers:
            links = [routes[cidr].link for cidr in peer.pod_cidrs if cidr in routes and routes[cidr].link]
            tunnel = settings.device in links
            ways[peer.name] = verdicts.TUNNEL if tunnel else verdicts.DIRECT if links else verdicts.NO_WAY
        return ways

    async def _meet_all(self, peers: Mapping[str, tuple[NodeAddress, Far]]) -> list[Meeting]:
        return await asyncio.gather(*(self._meet(*peer) for peer in peers.values()))

    async def _meet(self, peer: NodeAddress, far: Far) -> Meeting:
        probe, address = self._probe, peer_address(peer, self._ground.addresses)
        target = _shared(far.addresses, probe.addresses) if probe else ""
        async with self._turns:
            asking = _dial(open_socket, address, peer.agent_port)
            if probe is None or not target:
                return Meeting(peer, address, await asking)
            node, route, pods, pod_to_node = await asyncio.gather(
                asking,
                echoes(open_socket, (target, far.port), probe.mtu),
                echoes(probe.open_socket, (target, far.port), probe.mtu),
                _dial(probe.open_socket, _shared(peer.ips, probe.addresses), peer.agent_port),
            )
        return Meeting(peer, address, node, route, pods, pod_to_node, _shared(probe.addresses, (target,)))

    def _judge(self, meeting: Meeting, way: str, around: Around) -> list[Hop]:
        name = meeting.peer.name
        found = [verdicts.judge_node(self._hop("node", name), meeting.node, meeting.address)]
        if meeting.route is not None:
            hop = Hop("route", self._ground.node_name, name, way=way)
            found.append(verdicts.judge_route(hop, meeting.route, meeting.node.heard, self._ground.vxlan_port))
        if meeting.pods is not None:
            found.append(verdicts.judge_pod_path(self._hop("pod-to-pod", name), meeting.pods, meeting.own))
        if meeting.pod_to_node is not None:
            hop = verdicts.judge_pod_to_node(self._hop("pod-to-node", name), meeting.pod_to_node, meeting.address)
            found.append(hop)
        return [verdicts.explain(hop, around) for hop in found]

    # As a pod.

    async def _pods(self, probe: Probe) -> Hop:
        """To its own node."""
        address = _shared(self._ground.addresses, probe.addresses) or self._ground.addresses[0]
        answer = await _dial(probe.open_socket, address, self._me.agent_port)
        return verdicts.judge_pod_to_node(self._hop("pod-to-node", self._ground.node_name), answer, address)

    async def _service(self, probe: Probe) -> Hop:
        address = _kubernetes(self._ground.service_cidr)
        answer = await _dial(probe.open_socket, address, _HTTPS)
        reached = []
        for name, port in self._endpoints() if answer.error else ():
            reached.append((f"{name}:{port}", not (await _dial(probe.open_socket, name, port)).error))
        return verdicts.judge_service(self._hop("service", f"kubernetes ({address}:{_HTTPS})"), answer, reached)

    def _endpoints(self) -> list[tuple[str, int]]:
        """Some of the controllers, as the service leads to."""
        slices = self._network.feeds.slices.records.values()
        own = [each for each in slices if each.key[0] == "default" and each.service == "kubernetes"]
        return [(end.addresses[0], port.port) for one in own for end in one.endpoints for port in one.ports][:3]

    async def _dns(self, probe: Probe) -> Hop:
        server = (self._ground.cluster_dns or default_addresses(self._ground.service_cidr))[0]
        expected = ipaddress.ip_address(_kubernetes(self._ground.service_cidr))
        name = f"kubernetes.default.svc.{self._ground.cluster_domain}"
        answer = await query(probe.open_socket, server, name, _A if expected.version == 4 else _AAAA)
        said = (rcode(answer.data), expected.packed in answer.data) if answer.data else (0, False)
        processes = find_processes(self._ground.node_id) if answer.error else ()
        return verdicts.judge_dns(self._hop("dns", server), answer, said, processes)

    async def _outside(self, probe: Probe) -> Hop:
        """The default gateway and upstream servers, asked by a pod and, to compare, by the node."""
        gateway, began = default_gateway(), time.monotonic()
        servers = [each for each in self._upstreams() if not ipaddress.ip_address(each.partition("%")[0]).is_loopback]
        places = list(dict.fromkeys((gateway, *servers))) if gateway else []
        found = await asyncio.gather(
            *(_is_there(new, place) for new in (probe.open_socket, open_socket) for place in places)
        )
        asked = list(zip(places, found[: len(places)], found[len(places) :], strict=True))
        hop = self._hop("outside", gateway or "the outside").after(time.monotonic() - began)
        return verdicts.judge_outside(hop, gateway, asked)


async def _dial(new: NewSocket, address: str, port: int) -> Answer:
    if not address:
        return Answer(verdicts.NO_ADDRESS, at_once=True)
    return await connect(new(family_of(address), socket.SOCK_STREAM, 0), (address, port))


async def _is_there(new: NewSocket, place: str) -> bool:
    """What answers no ping may answer a connection, be it with a refusal."""
    asking = [asyncio.ensure_future(ping(new, place)), asyncio.ensure_future(_dial(new, place, _DNS))]
    try:
        for answer in asyncio.as_completed(asking):
            if (await answer).heard:
                return True
    finally:
        for each in asking:
            each.cancel()
    return False


def _shared(addresses: Iterable[str], others: Iterable[str]) -> str:
    """The first address of a family that the others have, too; "" without any."""
    families = {family_of(other) for other in others}
    return next((address for address in addresses if family_of(address) in families), "")


def _kubernetes(service_cidr: str) -> str:
    """The service kubernetes has the range's first address."""
    return str(ipaddress.ip_network(service_cidr.split(",")[0])[1])
