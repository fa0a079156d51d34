"""Turns one service into nftables: chains, affinity sets and map elements of one family. Pure; called by `part`.

For a port `NS/NAME/tcp/80` there are up to four chains: `cluster/…` and `local/…` send a new connection to an endpoint,
`external/…` applies externalTrafficPolicy and its masquerading, `firewall/…` loadBalancerSourceRanges. Addresses lead
into them by elements of the maps `services`, `node-ports` and `externals` (external IPs, which every namespace may
name: they come last, and nodes' addresses are none); a port that has nothing to lead to gets a verdict there.

Up to MOST_RULES endpoints are a cascade of rules (quick to load and to change); more of them lie in the shared map
`endpoints` and one rule draws a number. Rules of a chain that look up a set cost the kernel, in one transaction, time
in proportion to what is in it already; hence the cascade, and elements come after rules (see `table`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.network.model import Service, ServicePort, Slice, family_of
from agent.network.services.choice import Choice, Site, Target, choose

MASQUERADE_MARK = 0x4000
"""The bit kube-proxy uses: from the first rule to postrouting it says "take the node's address"."""
MARK = f"meta mark set meta mark or {MASQUERADE_MARK:#x}"
REFUSE = "goto refuse"
DROP = "drop"
MOST_RULES = 16


@dataclass(frozen=True, slots=True)
class Draw:
    """A rule that sends a connection to one of `addresses` at random: the table gives them numbers of its own."""

    addresses: tuple[str, ...]
    before: str
    after: str


Rule = str | Draw
ElementKey = tuple[str, str]
"""(map or set, key)."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one service needs in one table. `elements` map to a verdict; "" for an element of a set."""

    chains: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    elements: Mapping[ElementKey, str] = field(default_factory=dict)
    created: str = ""
    """When the service was made: the oldest of several keeps an element."""


EMPTY = Block()


class _Draft:
    """A block in the making."""

    def __init__(self, service: Service, family: int, site: Site) -> None:
        self.service = service
        self.family = family
        self.site = site
        self.ip = "ip6" if family == 6 else "ip"
        self.chains: dict[str, tuple[Rule, ...]] = {}
        self.sets: dict[str, None] = {}
        self.elements: dict[ElementKey, str] = {}

    def mine(self, addresses: Iterable[str]) -> list[str]:
        return [address for address in addresses if family_of(address) == self.family]


def render(service: Service, slices: Iterable[Slice], family: int, site: Site) -> Block:
    """The block of a service in a family; EMPTY for what has no address there or is served by somebody else."""
    draft = _Draft(service, family, site)
    cluster_ips = draft.mine(service.cluster_ips)
    if service.served_elsewhere or service.type == "ExternalName" or not cluster_ips:
        return EMPTY
    slices = tuple(slices)
    draft.elements.update({("cluster-ips", address): "" for address in cluster_ips})
    if service.announcer == site.node:
        pool = (address for address in draft.mine(service.balancer_ips) if address not in site.addresses)
        draft.elements.update({("announced", address): "" for address in pool})
    for port in service.ports:
        _add_port(draft, port, choose(port, slices, family, site))
    return Block(draft.chains, tuple(draft.sets), draft.elements, service.created)


def _add_port(draft: _Draft, port: ServicePort, choice: Choice) -> None:
    service = draft.service
    protocol = port.protocol.lower()
    name = f"{service.key[0]}/{service.key[1]}/{protocol}/{port.port}"
    balanced = draft.mine(service.balancer_ips) if service.type == "LoadBalancer" else []
    balancers = [each for each in balanced if not _is_clusters(each, draft.site)]
    outside = [each for each in draft.mine(service.external_ips) if not _is_clusters(each, draft.site)]
    external = bool(balancers or outside or port.node_port)
    if choice.somewhere and (external or not service.internal_local):
        draft.chains[f"cluster/{name}"] = _pick(draft, name, protocol, choice.cluster)
    if choice.local and (service.internal_local or (external and service.external_local)):
        draft.chains[f"local/{name}"] = _pick(draft, name, protocol, choice.local)
    draft.elements.update({("hairpins", f"{address} . {address}"): "" for address in choice.hairpins})
    for address in draft.mine(service.cluster_ips):
        draft.elements[("services", f"{address} . {protocol} . {port.port}")] = _internal(draft, name, choice)
    if not external:
        return
    verdict = REFUSE
    if choice.somewhere:
        draft.chains[f"external/{name}"] = _external(draft, name, choice)
        verdict = f"goto external/{name}"
    if port.node_port:
        draft.elements[("node-ports", f"{protocol} . {port.node_port}")] = verdict
    for address in outside:
        draft.elements[("externals", f"{address} . {protocol} . {port.port}")] = verdict
    if choice.somewhere and balancers and service.source_ranges:
        draft.chains[f"firewall/{name}"] = _firewall(draft, verdict, balancers)
        verdict = f"goto firewall/{name}"
    for address in balancers:
        draft.elements[("services", f"{address} . {protocol} . {port.port}")] = verdict


def _is_clusters(address: str, site: Site) -> bool:
    """Addresses of pods and Services, and every machine's loopback, are nobody's to give away, whatever was stored
    before the API refused them."""
    found = ipaddress.ip_address(address)
    if found.is_loopback:
        return True
    cidrs = (*site.cluster_cidrs, *site.service_cidrs)
    return any(found in ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)


def _internal(draft: _Draft, name: str, choice: Choice) -> str:
    if not choice.somewhere:
        return REFUSE
    if not draft.service.internal_local:
        return f"goto cluster/{name}"
    return f"goto local/{name}" if choice.local else DROP


def _external(draft: _Draft, name: str, choice: Choice) -> tuple[Rule, ...]:
    """Local keeps the client's address; what pods and this node itself send outwards is as if it were internal."""
    if not draft.service.external_local:
        return (MARK, f"goto cluster/{name}")
    pods = [f"{draft.ip} saddr {cidr} goto cluster/{name}" for cidr in draft.mine(draft.site.cluster_cidrs)]
    here = ["fib saddr type local " + MARK, f"fib saddr type local goto cluster/{name}"]
    return (*pods, *here, f"goto local/{name}" if choice.local else DROP)


def _firewall(draft: _Draft, verdict: str, balancers: list[str]) -> tuple[Rule, ...]:
    """Who is in a range may pass; where a range has this node, its own connections come from the balanced address."""
    ranges = [ipaddress.ip_network(each.strip(), strict=False) for each in draft.service.source_ranges]
    ranges = [each for each in ranges if each.version == draft.family]
    own = [ipaddress.ip_address(address) for address in draft.mine(draft.site.addresses)]
    sources = [str(each) for each in ranges]
    if any(address in each for address in own for each in ranges):
        sources += balancers
    return (*(f"{draft.ip} saddr {source} {verdict}" for source in sources), DROP)


def _pick(draft: _Draft, name: str, protocol: str, targets: tuple[Target, ...]) -> tuple[Rule, ...]:
    if draft.service.affinity_seconds:
        return _sticky(draft, name, protocol, targets)
    return _spread(draft, protocol, targets)


def _spread(draft: _Draft, protocol: str, targets: tuple[Target, ...]) -> tuple[Rule, ...]:
    """Every endpoint with the same probability; for many endpoints one draw for each port they use."""
    if len(targets) <= MOST_RULES:
        return _cascade([(1, _dnat(draft, protocol, target)) for target in targets])
    by_port: dict[int, list[str]] = {}
    for address, port in targets:
        by_port.setdefault(port, []).append(address)
    before = f"meta l4proto {protocol} dnat {draft.ip} to"
    return _cascade(
        [(len(each), Draw(tuple(each), before, f"map @endpoints : {port}")) for port, each in by_port.items()]
    )


def _cascade(weighted: list[tuple[int, Rule]]) -> tuple[Rule, ...]:
    """Rules of which the first whose draw succeeds acts; the last one always does."""
    left = sum(weight for weight, _ in weighted)
    rules: list[Rule] = []
    for weight, rule in weighted:
        drawn = "" if weight == left else f"numgen random mod {left} < {weight} "
        left -= weight
        rules.append(drawn + rule if isinstance(rule, str) else Draw(rule.addresses, drawn + rule.before, rule.after))
    return tuple(rules)


def _sticky(draft: _Draft, name: str, protocol: str, targets: tuple[Target, ...]) -> tuple[Rule, ...]:
    """A client goes where it went within the timeout, which each connection renews; an endpoint's set goes with it.

    The last rules are for a set that is full: an `update` without room ends its rule.
    """
    saddr = f"{draft.ip} saddr"
    known: list[Rule] = []
    new: list[tuple[int, Rule]] = []
    for target in targets:
        address, port = target
        members = f"affinity/{name}/{address.replace(':', '_')}/{port}"
        draft.sets[members] = None
        renew = f"update @{members} {{ {saddr} timeout {draft.service.affinity_seconds}s }}"
        dnat = _dnat(draft, protocol, target)
        known.append(f"{saddr} @{members} {renew} {dnat}")
        new.append((1, f"{renew} {dnat}"))
    return (*known, *_cascade(new), *_spread(draft, protocol, targets))


def _dnat(draft: _Draft, protocol: str, target: Target) -> str:
    address, port = target
    place = f"[{address}]:{port}" if draft.family == 6 else f"{address}:{port}"
    return f"meta l4proto {protocol} dnat {draft.ip} to {place}"
