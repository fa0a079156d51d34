"""Rulesets as nftables transactions: the whole table at once, or what changed since the last one.

Called by `part`; pure. The table `wherry_<node>_policy` judges at the hooks forward and input, after addresses were
translated: what a packet's real ends are. Three base chains, so that an accept of one direction does not decide the
other:

    egress    forward   packets of this node's pods to others
    ingress   forward   packets to this node's pods
    own       input     packets of this node's pods to this node, its DNS among it

The IPv6 table is there also where pods have no IPv6: they have link-local addresses, by which they reach their node.

What the node itself sends to its pods passes none of them. A packet of a connection that was let through once is let
through; a pod may always talk to itself. An address out of the node's podCIDR that is not `known` sends and receives
nothing, so that no pod has a packet through before its policies are in the kernel, whoever started it; and one that
does not come in on the link that leads to it is forged. Element lists that no rule looks at cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.network.cni import table_name
from agent.network.model import family_of
from agent.network.policy.compiler import Ruleset
from agent.network.policy.members import Elements
from agent.network.policy.rules import NamedPort, Source

_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept"


def policy_table(node_id: str) -> str:
    """The nftables table of a node's network policies."""
    return f"{table_name(node_id)}_policy"


@dataclass(frozen=True)
class Table:
    """Whose table it is. `pod_cidrs`: those of this node, of this family."""

    name: str
    family: int
    pod_cidrs: tuple[str, ...]
    uplink: str = ""
    """The interface towards the peers: no pod's, whatever it is called."""

    @property
    def ip(self) -> str:
        return "ip6" if self.family == 6 else "ip"

    @property
    def where(self) -> str:
        return f"{self.ip} {self.name}"


def render_removal(table: Table) -> str:
    """A transaction that takes the table away, be it there or not."""
    return f"add table {table.where}\ndelete table {table.where}\n"


def render_whole(table: Table, ruleset: Ruleset) -> str:
    """A transaction that puts this ruleset in place of whatever the table holds; no packet sees a state between."""
    lines = [*render_removal(table).splitlines(), f"add table {table.where}"]
    lines += _skeleton(table)
    lines += _new_sets(table, ruleset, ruleset.sets)
    lines += _new_chains(table, ruleset, ruleset.chains)
    lines += _assignments(table, Ruleset(), ruleset)
    lines += _base_chains(table)
    return "\n".join(lines) + "\n"


def render_changes(table: Table, old: Ruleset, new: Ruleset) -> str:
    """A transaction from `old`, which the kernel holds, to `new`; "" when nothing changed."""
    lines = list(_new_sets(table, new, new.sets.keys() - old.sets.keys()))
    for name in new.sets.keys() & old.sets.keys():
        come, gone = new.sets[name][1].changes()
        lines += _elements(table, "add", name, come)
        lines += _elements(table, "delete", name, gone)
    lines += _new_chains(table, new, new.chains.keys() - old.chains.keys())
    lines += _assignments(table, old, new)
    stale = sorted(old.chains.keys() - new.chains.keys(), reverse=True)  # union_... before the policy_... they jump to
    lines += [f"flush chain {table.where} {name}" for name in stale]
    lines += [f"delete chain {table.where} {name}" for name in stale]
    lines += [f"delete set {table.where} {name}" for name in sorted(old.sets.keys() - new.sets.keys())]
    return "\n".join(lines) + "\n" if lines else ""


def _skeleton(table: Table) -> Iterator[str]:
    address = "ipv6_addr" if table.family == 6 else "ipv4_addr"
    yield f"add set {table.where} known {{ type {address}; }}"
    yield f"add set {table.where} itself {{ type {address} . {address}; }}"
    yield f"add map {table.where} ingress {{ type {address} : verdict; }}"
    yield f"add map {table.where} egress {{ type {address} : verdict; }}"


def _base_chains(table: Table) -> Iterator[str]:
    ip = table.ip
    passed = ["ct state established,related accept", f"{ip} saddr . {ip} daddr @itself accept"]
    sender, receiver = _gate(ip, "saddr", table.pod_cidrs), _gate(ip, "daddr", table.pod_cidrs)
    forged = [f"{ip} saddr {cidr} fib saddr . iif oif missing drop" for cidr in table.pod_cidrs]
    yield from _base(table, "egress", ("forward", -2), [*passed, *sender, *forged, f"{ip} saddr vmap @egress"])
    yield from _base(table, "ingress", ("forward", -1), [*passed, *receiver, f"{ip} daddr vmap @ingress"])
    first = ["iif lo accept", "ct state established,related accept"]
    if table.family == 6:
        first += [_NEIGHBOURS, _no_other_source(table)]
    yield from _base(table, "own", ("input", -2), [*first, *sender, *forged, f"{ip} saddr vmap @egress"])


def _no_other_source(table: Table) -> str:
    """Pods have link-local addresses, too, and policies know none of those: what a pod's link brings from anything but
    the podCIDR does not reach the node. (ptp calls these links veth...)"""
    links = 'iifname "veth*"' + (f' iifname != "{table.uplink}"' if table.uplink else "")
    return f"{links}{''.join(f' ip6 saddr != {cidr}' for cidr in table.pod_cidrs)} drop"


def _gate(ip: str, side: str, cidrs: Sequence[str]) -> list[str]:
    return [f"{ip} {side} {cidr} {ip} {side} != @known drop" for cidr in cidrs]


def _base(table: Table, name: str, hook: tuple[str, int], rules: Iterable[str]) -> Iterator[str]:
    """`hook`: its name, and how much before the usual filters."""
    where, offset = hook
    chain = f"{table.where} at_{where}_{name}"
    yield f"add chain {chain} {{ type filter hook {where} priority filter - {-offset}; policy accept; }}"
    yield from (f"add rule {chain} {rule}" for rule in rules)


def _new_sets(table: Table, ruleset: Ruleset, names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        source, elements = ruleset.sets[name]
        yield f"add set {table.where} {name} {{ type {_type_of(source, table.family)}; }}"
        yield from _elements(table, "add", name, elements)


def _type_of(source: Source, family: int) -> str:
    address = "ipv6_addr" if family == 6 else "ipv4_addr"
    return f"{address} . inet_service" if isinstance(source, NamedPort) else address


def _elements(table: Table, verb: str, name: str, elements: Iterable[str] | Elements) -> Iterator[str]:
    own = [each for each in elements if family_of(each) == table.family]
    if own:
        yield f"{verb} element {table.where} {name} {{ {', '.join(own)} }}"


def _new_chains(table: Table, ruleset: Ruleset, names: Iterable[str]) -> Iterator[str]:
    names = sorted(names)
    yield from (f"add chain {table.where} {name}" for name in names)
    yield from (f"add rule {table.where} {name} {rule}" for name in names for rule in ruleset.chains[name])


def _assignments(table: Table, old: Ruleset, new: Ruleset) -> Iterator[str]:
    """Which address is judged by which chain, and which addresses are known."""
    for name, before, after in (("ingress", old.ingress, new.ingress), ("egress", old.egress, new.egress)):
        gone = [ip for ip, chain in before.items() if after.get(ip) != chain]
        come = [f"{ip} : goto {chain}" for ip, chain in after.items() if before.get(ip) != chain]
        yield from _elements(table, "delete", name, gone)
        if come:
            yield f"add element {table.where} {name} {{ {', '.join(come)} }}"
    for verb, changed in (("add", sorted(new.known - old.known)), ("delete", sorted(old.known - new.known))):
        yield from _elements(table, verb, "known", changed)
        yield from _elements(table, verb, "itself", [f"{ip} . {ip}" for ip in changed])
