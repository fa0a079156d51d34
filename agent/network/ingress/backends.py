"""The servers behind each Service that an Ingress names: its endpoints, straight to the pods' addresses.

Called by the part at every change. Pure. Ready endpoints that are not terminating get requests; where there are none,
those that terminate but still serve do, as for kube-proxy (KEP-1669). A Service without any answers 503. The protocol
is the port's appProtocol (kubernetes.io/docs/concepts/services-networking/service/#application-protocol).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.network.ingress.routes import Target
from agent.network.model import Endpoint, Key, Service, ServicePort, Slice, family_of

Server = tuple[str, int]
"""Address and port."""

_H2, _TLS = "proto h2", "ssl verify none"
_OPTIONS = {
    "kubernetes.io/h2c": _H2,
    "h2c": _H2,
    "grpc": _H2,
    "kubernetes.io/wss": _TLS,
    "https": _TLS,
}
"""How HAProxy speaks to a server of an application protocol; HTTP/1.1 by default."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The servers of one Service port. `options`: how HAProxy speaks to them."""

    name: str
    options: str
    servers: frozenset[Server]


@dataclass(frozen=True)
class Cluster:
    """What pools are made from. `resolved`: the addresses of external names."""

    services: Mapping[Key, Service]
    slices: Mapping[Key, tuple[Slice, ...]]
    """By Service."""
    resolved: Mapping[str, frozenset[str]]


def pool_name(target: Target, port: ServicePort | None) -> str:
    """One name for a port, whether it was asked for by number or by name."""
    return "_".join((*target.service, str(port.port if port is not None else target.port)))


def make_pool(target: Target, cluster: Cluster) -> Pool:
    service = cluster.services.get(target.service)
    if service is not None and service.type == "ExternalName":
        return _external(target, service, cluster)
    port = _find_port(service, target.port) if service is not None else None
    name = pool_name(target, port)
    if port is None or port.protocol != "TCP":
        return Pool(name, "", frozenset())
    options = _OPTIONS.get(port.app_protocol.lower(), "")
    return Pool(name, options, servers_of(cluster.slices.get(target.service, ()), port.name))


def _find_port(service: Service, wanted: int | str) -> ServicePort | None:
    return next((port for port in service.ports if wanted in (port.port, port.name)), None)


def _external(target: Target, service: Service, cluster: Cluster) -> Pool:
    """A port that the Service lists, or simply the number that the Ingress says."""
    port = _find_port(service, target.port)
    number = port.port if port is not None else target.port if isinstance(target.port, int) else 0
    options = _OPTIONS.get(port.app_protocol.lower(), "") if port is not None else ""
    addresses = cluster.resolved.get(service.external_name, frozenset()) if number else frozenset()
    return Pool(pool_name(target, port), options, frozenset((address, number) for address in addresses))


def servers_of(slices: Iterable[Slice], port_name: str) -> frozenset[Server]:
    """Where requests for a Service's port go; of a dual-stack Service only the IPv4 side."""
    ready: set[Server] = set()
    leaving: set[Server] = set()
    for piece in slices:
        number = next((port.port for port in piece.ports if port.name == port_name and port.protocol == "TCP"), 0)
        if not number or piece.address_type == "FQDN":
            continue
        for endpoint in piece.endpoints:
            _sort_in(endpoint, number, ready, leaving)
    servers = ready or leaving
    return frozenset({server for server in servers if family_of(server[0]) == 4} or servers)


def _sort_in(endpoint: Endpoint, port: int, ready: set[Server], leaving: set[Server]) -> None:
    if endpoint.addresses and endpoint.ready and not endpoint.terminating:
        ready.add((endpoint.addresses[0], port))
    elif endpoint.addresses and endpoint.serving and endpoint.terminating:
        leaving.add((endpoint.addresses[0], port))


def may_proxy_to(address: str) -> bool:
    """Whether an external name may lead there: not to the node itself, its link or everybody."""
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)
