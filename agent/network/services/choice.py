"""Which endpoints a node sends a service port's traffic to. Pure; called by `render` and the health check.

The rules are kube-proxy's: ready endpoints, narrowed by topology hints; if there is none, those that end but still
serve (KEP-1669); apart from these, the node's own ones for the policy Local, with the same fallback of their own.
Sources: kubernetes.io/docs/reference/networking/virtual-ips, KEP-1669, KEP-2433, KEP-3015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.network.model import Endpoint, Service, ServicePort, Slice

Target = tuple[str, int]
"""(address, port) of an endpoint."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a node knows of itself. `addresses` are its own; `zone` "" when its label is not set."""

    node: str
    zone: str = ""
    addresses: tuple[str, ...] = ()
    cluster_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Where one service port's traffic goes; both lists are sorted.

    `somewhere`: there are usable endpoints, be it on other nodes only. Without any, traffic is rejected; with some,
    but none that the policy allows, it is dropped. `hairpins`: addresses of this node's own endpoints among them.
    """

    cluster: tuple[Target, ...] = ()
    local: tuple[Target, ...] = ()
    somewhere: bool = False
    hairpins: tuple[str, ...] = ()


def choose(port: ServicePort, slices: Iterable[Slice], family: int, site: Site) -> Choice:
    """The endpoints of one service port in one family (4 or 6), out of the slices of its service."""
    candidates = _candidates(port, slices, family)
    near = _hinted({target: endpoint for target, endpoint in candidates.items() if endpoint.ready}, site)
    own = {target: endpoint for target, endpoint in candidates.items() if endpoint.node == site.node}
    cluster = near or _ending(candidates)
    local = tuple(sorted(target for target, endpoint in own.items() if endpoint.ready)) or _ending(own)
    reached = {address for address, _ in (*cluster, *local) if address not in site.addresses}
    return Choice(cluster, local, bool(cluster), tuple(sorted(reached & {address for address, _ in own})))


def count_local(slices: Iterable[Slice], node: str) -> int:
    """Ready endpoints on a node, as a load balancer's health check counts them: by address, whatever the port."""
    ready = (each for slice in slices for each in slice.endpoints if each.ready and each.node == node)
    return len({endpoint.addresses[0] for endpoint in ready if endpoint.addresses})


def _candidates(port: ServicePort, slices: Iterable[Slice], family: int) -> dict[Target, Endpoint]:
    """Endpoints by target. One that is in two slices for a moment counts once, in its better state."""
    found: dict[Target, Endpoint] = {}
    for slice in slices:
        if slice.address_type != f"IPv{family}":
            continue
        number = _number_of(port, slice)
        for endpoint in slice.endpoints if number else ():
            target = (endpoint.addresses[0], number)
            if target not in found or _state(endpoint) > _state(found[target]):
                found[target] = endpoint
    return found


def _number_of(port: ServicePort, slice: Slice) -> int:
    """A service port meets a slice's port by name and protocol; 0 when the slice has none of that name."""
    matching = (each.port for each in slice.ports if (each.name, each.protocol) == (port.name, port.protocol))
    return next(matching, 0)


def _state(endpoint: Endpoint) -> tuple[bool, bool]:
    return endpoint.ready, endpoint.serving


def _ending(candidates: dict[Target, Endpoint]) -> tuple[Target, ...]:
    return tuple(sorted(target for target, each in candidates.items() if each.serving and each.terminating))


def _hinted(ready: dict[Target, Endpoint], site: Site) -> tuple[Target, ...]:
    """Hints for nodes, else for zones, count if every ready endpoint has some and one is meant for this node."""
    ways: tuple[Callable[[Endpoint], bool | None], ...] = (
        lambda each: site.node in each.for_nodes if each.for_nodes else None,
        lambda each: site.zone in each.for_zones if each.for_zones else None,
    )
    for meant in ways:
        answers = {target: meant(endpoint) for target, endpoint in ready.items()}
        if None not in answers.values() and any(answers.values()):
            return tuple(sorted(target for target, answer in answers.items() if answer))
    return tuple(sorted(ready))


def families_of(service: Service) -> tuple[int, ...]:
    """The families a service is served in: those of its cluster IPs."""
    return tuple(dict.fromkeys(6 if ":" in address else 4 for address in service.cluster_ips))
