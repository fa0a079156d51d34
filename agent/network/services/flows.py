"""Conntrack entries of UDP services whose endpoint has gone: they would send a client's packets there for ever.

A UDP client that keeps its port keeps its entry, however long its endpoint is gone. Whenever the endpoints of a UDP
service changed, entries for its addresses that lead to none of its endpoints are deleted (also those made before it had
any), after the rules were changed. `part` calls `routes_of` and `forget`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from agent.network.conntrack import UDP, Flow, forget_flows
from agent.network.model import Service, Slice, family_of
from agent.network.services.choice import Site, Target, choose, families_of

Routes = Mapping[Target, frozenset[Target]]
"""From (address, port) to the endpoints it may lead to; address "" for a node port."""


def routes_of(service: Service, slices: Iterable[Slice], site: Site) -> dict[Target, frozenset[Target]]:
    """What a service's UDP addresses may lead to; {} when it has no UDP port or another proxy serves it."""
    routes: dict[Target, frozenset[Target]] = {}
    ports = [port for port in service.ports if port.protocol == "UDP" and not service.served_elsewhere]
    slices = tuple(slices) if ports else ()
    for port in ports:
        for family in families_of(service):
            choice = choose(port, slices, family, site)
            targets = frozenset((*choice.cluster, *choice.local))
            addresses = (*service.cluster_ips, *service.external_ips, *service.balancer_ips)
            routes.update({(each, port.port): targets for each in addresses if family_of(each) == family})
            if port.node_port:
                routes[("", port.node_port)] = targets | routes.get(("", port.node_port), frozenset())
    return routes


def is_stale(flow: Flow, routes: Routes, own: Collection[str]) -> bool:
    """Whether a flow to one of these routes leads elsewhere. A node port counts on our own addresses only."""
    address, port = flow.destination
    translated = flow.source_of_answers != flow.destination
    targets = routes.get(flow.destination)
    if targets is None and (translated or address in own):
        targets = routes.get(("", port))
    return targets is not None and flow.source_of_answers not in targets


def forget(routes: Routes, own: Collection[str]) -> int:
    """Delete the stale flows of these routes in the kernel; how many. OSError when it refuses. Blocks: use a thread."""
    return forget_flows(lambda flow: is_stale(flow, routes, own), UDP)
