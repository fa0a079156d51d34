"""Services of type LoadBalancer: which addresses they are reached at from outside, and which node answers for those.

`decide` is pure; `service_lb_watch` runs it under one key, because Services compete for ports and addresses. Without a
pool a Service gets the addresses of the nodes that can take its traffic; with one it gets an address of its own, and
the annotation `wherry/announcer` names the node that answers for it. Services of another loadBalancerClass are left
alone. Invariants: on the nodes' addresses a port belongs to one Service and to none that a node needs itself, in the
pool an address does; who has it keeps it while he may. Events are those of k8s.io/cloud-provider's service controller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from api import kinds
from api.objects import Object, annotations_of, is_deleting, name_of, namespace_of, uid_of
from controller.reconcilers.actions import Action, Note, Together, Write, put_status
from controller.reconcilers.loop import NOTHING, Decision
from controller.registry.ranges import DEFAULT_RANGES, Pool, Ports

SERVICES = kinds.by_resource("", "services")
ANNOUNCER = "wherry/announcer"
_NO_NODES = "There are no available nodes for LoadBalancer"
Port = tuple[int, str]


@dataclass(frozen=True)
class Server:
    """A node that may take traffic from outside. `kept`: ports that it needs itself, and for what."""

    name: str
    addresses: tuple[str, ...]
    kept: tuple[tuple[Port, str], ...] = ()


@dataclass(frozen=True)
class Balanced:
    """A Service. `nodes`: those with ready endpoints, when only they may take its traffic; None: any node."""

    service: Object
    nodes: frozenset[str] | None = None


@dataclass(frozen=True)
class Observed:
    """`node_ports`: who has a port as its node port. `told`: uid and text of the warnings given before."""

    pool: Pool
    servers: tuple[Server, ...]
    balanced: tuple[Balanced, ...]
    node_ports: Mapping[int, str] = field(default_factory=dict)
    told: frozenset[tuple[str, str]] = frozenset()
    node_port_range: Ports = DEFAULT_RANGES.ports


@dataclass(frozen=True)
class Outcome:
    """What a Service shall have. `warning`: reason and text of what stands in the way."""

    service: Object
    addresses: tuple[str, ...] = ()
    announcer: str = ""
    warning: tuple[str, str] | None = None


def decide(observed: Observed) -> Decision:
    """Announcers are written before the addresses they answer for."""
    announced: list[Action] = []
    shown: list[Action] = []
    notes: list[Action] = []
    for outcome in outcomes_of(observed):
        announced += _announce(outcome)
        shown += _show(outcome)
        if outcome.warning is not None and (uid_of(outcome.service), outcome.warning[1]) not in observed.told:
            notes.append(Note(outcome.service, "Warning", *outcome.warning))
    actions = [Together(tuple(phase)) for phase in (announced, shown) if phase]
    return Decision((*notes, *actions)) if actions or notes else NOTHING


def outcomes_of(observed: Observed) -> list[Outcome]:
    """Who has addresses is served before who waits, the older before the younger."""
    ordered = sorted(observed.balanced, key=_rank)
    wanting = [one for one in ordered if _wants_one(one.service)]
    others = [Outcome(one.service) for one in ordered if not _wants_one(one.service)]
    share = _share_pool if observed.pool else _share_nodes
    return others + list(share(observed, wanting))


def is_ours(service: Object) -> bool:
    """Whether the Service is left to us: one that names a class waits for that class' controller."""
    return not service["spec"].get("loadBalancerClass")


def _wants_one(service: Object) -> bool:
    return service["spec"].get("type") == "LoadBalancer" and not is_deleting(service)


def _rank(balanced: Balanced) -> tuple[bool, str, str, str]:
    service = balanced.service
    created = service["metadata"].get("creationTimestamp") or ""
    return (not _shown_at(service), created, namespace_of(service), name_of(service))


def _shown_at(service: Object) -> tuple[str, ...]:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return tuple(one.get("ip") or one.get("hostname") or "" for one in ingress)


def _full_name(service: Object) -> str:
    return f"{namespace_of(service)}/{name_of(service)}"


def _families(service: Object) -> list[str]:
    return service["spec"].get("ipFamilies") or ["IPv4"]


def _spoken(port: Port) -> str:
    return f"{port[0]}/{port[1]}"


def _family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def _failed(service: Object, why: str) -> Outcome:
    text = f"Error syncing load balancer: failed to ensure load balancer: {why}"
    return Outcome(service, warning=("SyncLoadBalancerFailed", text))


def _able(observed: Observed, balanced: Balanced) -> list[Server]:
    return [server for server in observed.servers if balanced.nodes is None or server.name in balanced.nodes]


def _share_nodes(observed: Observed, wanting: list[Balanced]) -> Iterator[Outcome]:
    held: dict[Port, str] = {}
    for balanced in wanting:
        service = balanced.service
        ports = [(port["port"], port.get("protocol") or "TCP") for port in service["spec"].get("ports") or ()]
        name = _full_name(service)
        holders = {port: held.get(port) or observed.node_ports.get(port[0]) for port in ports}
        if rival := next((port for port, one in holders.items() if one not in (None, name)), None):
            yield _failed(service, f"port {_spoken(rival)} of the nodes is held by Service {holders[rival]}")
            continue
        if free := next(
            (port for port in ports if holders[port] is None and port[0] in observed.node_port_range), None
        ):
            yield _failed(service, f"port {_spoken(free)} is in the range of node ports, {observed.node_port_range}")
            continue
        outcome = _on_nodes(service, _able(observed, balanced), ports)
        if outcome.addresses:
            held |= dict.fromkeys(ports, name)
        yield outcome


def _on_nodes(service: Object, servers: list[Server], ports: list[Port]) -> Outcome:
    kept = {server.name: next((one for one in server.kept if one[0] in ports), None) for server in servers}
    free = [server for server in servers if kept[server.name] is None]
    if not free and (first := next(iter(kept.values()), None)):
        return _failed(service, f"port {_spoken(first[0])} of the nodes is held by {first[1]}")
    families = _families(service)
    addresses = [address for server in free for address in server.addresses if _family_of(address) in families]
    asked = service["spec"].get("loadBalancerIP")
    if asked and addresses:
        if asked not in addresses:
            return _failed(service, f"{asked} is no address of a node that can take its traffic")
        addresses = [asked]
    if not addresses:
        return Outcome(service, warning=("UnAvailableLoadBalancer", _NO_NODES))
    return Outcome(service, tuple(addresses))


def _share_pool(observed: Observed, wanting: list[Balanced]) -> Iterator[Outcome]:
    held: dict[str, str] = {}
    for one in wanting:
        held |= {address: _full_name(one.service) for address in _shown_at(one.service) if address not in held}
    load: Counter[str] = Counter(annotations_of(one.service).get(ANNOUNCER, "") for one in wanting)
    for balanced in wanting:
        service = balanced.service
        addresses, why = _from_pool(observed.pool, service, held)
        if not addresses:
            yield _failed(service, why)
            continue
        held |= dict.fromkeys(addresses, _full_name(service))
        names = [server.name for server in _able(observed, balanced)]
        announcer = annotations_of(service).get(ANNOUNCER, "")
        if announcer not in names:
            announcer = min(names, key=lambda name: (load[name], name), default="")
            load[announcer] += 1
        warning = None if announcer else ("UnAvailableLoadBalancer", _NO_NODES)
        yield Outcome(service, addresses, announcer, warning)


def _from_pool(pool: Pool, service: Object, held: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """An address for each family that the pool has, or why there is none. `held`: by whom what is shown is shown."""
    name, asked = _full_name(service), service["spec"].get("loadBalancerIP")
    if asked and asked not in pool:
        return (), f"{asked} is not in the load balancer pool"
    if asked and held.get(asked, name) != name:
        return (), f"{asked} is held by Service {held[asked]}"
    current = [address for address in _shown_at(service) if address in pool and held.get(address) == name]
    found = []
    for family in _families(service):
        preferred = [address for address in (asked, *current) if address and _family_of(address) == family]
        free = (address for address in pool.addresses(family) if address not in held)
        found += [chosen] if (chosen := next(iter(preferred), None) or next(free, None)) else []
    return tuple(found), "the load balancer pool has no free address"


def _announce(outcome: Outcome) -> Iterator[Action]:
    service = outcome.service
    if annotations_of(service).get(ANNOUNCER, "") != outcome.announcer:
        patch = {"metadata": {"annotations": {ANNOUNCER: outcome.announcer or None}}}
        yield Write(SERVICES, namespace_of(service), name_of(service), uid_of(service), merge=patch)


def _show(outcome: Outcome) -> Iterator[Action]:
    service, before = outcome.service, _shown_at(outcome.service)
    if before == outcome.addresses:
        return
    ingress = [{"ip": address, "ipMode": "VIP"} for address in outcome.addresses]
    balancer: dict[str, Any] = {"ingress": ingress} if ingress else {}
    write = put_status(SERVICES, service, {**(service.get("status") or {}), "loadBalancer": balancer})
    if not ingress:
        yield write
    elif before:
        yield replace(write, note=_normal(service, "UpdatedLoadBalancer", "Updated load balancer with new hosts"))
    else:
        yield _normal(service, "EnsuringLoadBalancer", "Ensuring load balancer")
        yield replace(write, note=_normal(service, "EnsuredLoadBalancer", "Ensured load balancer"))


def _normal(service: Object, reason: str, text: str) -> Note:
    return Note(service, "Normal", reason, text)
