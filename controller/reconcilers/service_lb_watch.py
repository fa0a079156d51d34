"""Runs `service_lb`: what makes its decision due, and what it looks at.

Run by the loop under one key. A node that falls silent loses its condition Ready when its TTL ends (node lifecycle),
and so its announcements within milliseconds of that.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from api.ingress import NODE_LABEL
from api.objects import Object, is_deleting, is_ready, labels_of, name_of, uid_of
from api.selectors import parse_label_selector
from controller.reconcilers.loop import Decision, Failure, Source, Watch
from controller.reconcilers.node_lifecycle import NODES
from controller.reconcilers.service_lb import (
    ANNOUNCER,
    SERVICES,
    Balanced,
    Observed,
    Server,
    decide,
    is_ours,
    outcomes_of,
)
from controller.reconcilers.views import Views
from controller.registry.external_addresses import is_nodes_own
from controller.registry.ranges import Pool, ServiceRanges
from controller.store import Query
from controller.store.types import Event, EventType, Key, Record

SLICES = ("discovery.k8s.io", "endpointslices")
SERVICE_NAME = "kubernetes.io/service-name"
_API = ("default", "kubernetes")
"""Namespace and name of the API servers' own Service, and of its slice."""
DEFAULT_AGENT_PORT = 10250
_KEPT = (((22, "TCP"), "SSH"), ((4789, "UDP"), "the tunnel between nodes"))
_INGRESS = tuple(((port, "TCP"), "the built-in Ingress proxy") for port in (80, 443))
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
_MARKS = (b'"type":"LoadBalancer"', f'"{ANNOUNCER}"'.encode())
_ALL = "load balancers"


class ServiceLoadBalancers:
    name = "service-lb"
    concurrency = 1

    def __init__(self, views: Views, pool: Pool, ranges: ServiceRanges) -> None:
        self._views = views
        self._pool = pool
        self._ranges = ranges
        self._keys: dict[Key, bool] = {}
        """The Services of concern, and whether only nodes with endpoints may take their traffic."""
        self._told: frozenset[tuple[str, str]] = frozenset()

    def sources(self) -> Sequence[Source]:
        return (
            Watch(SERVICES.resource, self._on_service),
            Watch(NODES.resource, self._on_node),
            Watch(SLICES, self._on_slice),
        )

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del key, failure
        services = [service for key in self._keys if (service := self._views.get(key)) is not None]
        ours = [service for service in services if is_ours(service)]
        observed = Observed(
            self._pool,
            self._servers(),
            tuple(map(self._balanced, ours)),
            self._node_ports(ours),
            self._told,
            self._ranges.ports,
        )
        warned = ((one.service, one.warning) for one in outcomes_of(observed))
        self._told = frozenset((uid_of(service), warning[1]) for service, warning in warned if warning is not None)
        return observed

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _servers(self) -> tuple[Server, ...]:
        nodes = (self._views.object(record) for record in self._views.store.list(NODES.resource).records)
        api_servers = api_places(self._views.get(Key(*SLICES, *_API)))
        servers = (server_of(node, api_servers) for node in nodes if takes_traffic(node))
        return tuple(credible(server, self._ranges) for server in servers)

    def _balanced(self, service: Object) -> Balanced:
        if not _only_local(service):
            return Balanced(service)
        query = Query(service["metadata"]["namespace"], parse_label_selector(f"{SERVICE_NAME}={name_of(service)}"))
        slices = (self._views.object(record) for record in self._views.store.list(SLICES, query).records)
        return Balanced(service, frozenset(node for one in slices for node in ready_nodes(one)))

    def _node_ports(self, services: Iterable[Object]) -> Mapping[int, str]:
        """Node ports that are also ports of load balancers: at the nodes' addresses they are the same."""
        ports = {port["port"] for service in services for port in service["spec"].get("ports") or ()}
        held = ((port, self._views.store.claims.holder(f"port/{port}")) for port in ports)
        return {port: holder for port, holder in held if holder is not None}

    def _on_service(self, event: Event) -> Iterable[Hashable]:
        record, known = event.record, event.record.key in self._keys
        concerns = event.type is not EventType.DELETED and any(mark in record.raw for mark in _MARKS)
        if concerns:
            self._keys[record.key] = _only_local(self._views.object(record))
        elif known:
            del self._keys[record.key]
        return (_ALL,) if concerns or known else ()

    def _on_node(self, event: Event) -> Iterable[Hashable]:
        """Most of what a node reports is nothing new here."""
        if event.type is EventType.MODIFIED and event.previous is not None:
            return (_ALL,) if _facts(event.previous) != _facts(event.record) else ()
        return (_ALL,)

    def _on_slice(self, event: Event) -> Iterable[Hashable]:
        namespace, name = event.record.key.namespace, event.record.labels.get(SERVICE_NAME, "")
        return (_ALL,) if (namespace, name) == _API or self._keys.get(Key(*SERVICES.resource, namespace, name)) else ()


def _facts(record: Record) -> tuple[bool, Server]:
    node = record.parse()
    return takes_traffic(node), server_of(node)


def _only_local(service: Object) -> bool:
    return bool(service["spec"].get("externalTrafficPolicy") == "Local")


def takes_traffic(node: Object) -> bool:
    return is_ready(node) and EXCLUDED not in labels_of(node) and not is_deleting(node)


def server_of(node: Object, api_servers: Collection[tuple[str, int]] = ()) -> Server:
    """A node with external addresses is reached at those. `api_servers`: addresses and ports of them all."""
    status = node.get("status") or {}
    addresses = status.get("addresses") or ()
    by_type = {
        kind: tuple(one["address"] for one in addresses if one.get("type") == kind)
        for kind in ("ExternalIP", "InternalIP")
    }
    agent = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or DEFAULT_AGENT_PORT
    here = {one["address"] for one in addresses}
    kept = [*_KEPT, ((agent, "TCP"), "the node's agent")]
    kept += [((port, "TCP"), "the API server") for address, port in api_servers if address in here]
    kept += _INGRESS if labels_of(node).get(NODE_LABEL) == "true" else ()
    return Server(name_of(node), by_type["ExternalIP"] or by_type["InternalIP"], tuple(kept))


def credible(server: Server, ranges: ServiceRanges) -> Server:
    """A node may tell anything: what is loopback, or belongs to pods or Services, would lead their traffic away."""
    return replace(server, addresses=tuple(one for one in server.addresses if is_nodes_own(one, ranges)))


def api_places(endpoint_slice: Object | None) -> list[tuple[str, int]]:
    """Where API servers listen, out of the slice of Service `kubernetes`."""
    found = endpoint_slice or {}
    ports = [port["port"] for port in found.get("ports") or () if port.get("port")]
    ends = [address for one in found.get("endpoints") or () for address in one.get("addresses") or ()]
    return [(address, port) for address in ends for port in ports]


def ready_nodes(endpoint_slice: Object) -> Iterable[str]:
    for endpoint in endpoint_slice.get("endpoints") or ():
        ready = (endpoint.get("conditions") or {}).get("ready")
        if ready is not False and endpoint.get("nodeName"):
            yield endpoint["nodeName"]
