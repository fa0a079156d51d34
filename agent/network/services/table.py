"""One nftables table of services: what it holds, and the transactions that bring it from one state to the next. Pure.

Called by `kernel`, which runs the transactions. A change touches only the services it names: affinity sets and chains
of the others stay. A replacement writes everything anew in one transaction and keeps the affinity sets that are still
wanted, so that neither connections nor clients' stickiness notice. Invariant: what the table holds afterwards is a
function of the blocks alone (`endpoints`: up to its numbers), whatever came before.

An address that several services claim (one external IP and port twice) goes to the one that was made first.
Hooks: nft(8). The numbers of `endpoints` are never used twice between two replacements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.network.model import Key, family_of
from agent.network.services.choice import Site
from agent.network.services.render import EMPTY, MARK, MASQUERADE_MARK, Block, Draw, ElementKey, Rule

STATIC_CHAINS = ("refuse", "dispatch", "prerouting", "output", "postrouting", "forward", "input", "leaving")
STATIC_SETS = ("cluster-ips", "hairpins", "announced", "node-ips")
STATIC_MAPS = ("services", "node-ports", "externals", "endpoints")
MOST_NUMBERS = 1 << 31


@dataclass
class Change:
    """One transaction's content, in the order in which it is written. `chains` are new or written anew."""

    sets: list[str] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    chains: dict[str, list[str]] = field(default_factory=dict)
    elements_gone: dict[str, list[str]] = field(default_factory=dict)
    elements: dict[str, list[str]] = field(default_factory=dict)
    """Of a map or set: keys, or "key : value"."""
    chains_gone: list[str] = field(default_factory=list)
    sets_gone: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.chains or self.elements_gone or self.elements or self.chains_gone or self.sets_gone)


class Table:
    """The table of one family (4 or 6)."""

    def __init__(self, family: int, name: str, site: Site) -> None:
        self.family = family
        self.name = f"{'ip6' if family == 6 else 'ip'} {name}"
        self.blocks: dict[Key, Block] = {}
        self._site = site
        self._owners: dict[ElementKey, tuple[Key, ...]] = {}
        self._numbers: dict[str, list[str]] = {}
        """The numbers in `endpoints` that a chain draws from."""
        self._next_number = 0

    @property
    def exhausted(self) -> bool:
        """Time for a `replace`, which counts from 0 again."""
        return self._next_number > MOST_NUMBERS

    @property
    def serves(self) -> bool:
        """Whether there is a service; the addresses of nodes alone need no table."""
        return any(name for _, name in self.blocks)

    def change(self, desired: Mapping[Key, Block]) -> Change:
        """Take over new blocks (EMPTY: the service has gone); what the kernel has to do for it."""
        change = Change()
        touched: dict[ElementKey, str | None] = {}
        for key, block in desired.items():
            for place in (*self.blocks.get(key, EMPTY).elements, *block.elements):
                touched.setdefault(place, self._value(place))
        for key, block in desired.items():
            self._take(change, key, block)
        for (name, element), before in touched.items():
            after = self._value((name, element))
            if after != before and before is not None:
                change.elements_gone.setdefault(name, []).append(element)
            if after != before and after is not None:
                change.elements.setdefault(name, []).append(f"{element} : {after}" if after else element)
        return change

    def everything(self) -> Change:
        """All that the table shall hold, for an empty one."""
        blocks, self.blocks = self.blocks, {}
        self._owners, self._numbers, self._next_number = {}, {}, 0
        return self.change(blocks)

    def _take(self, change: Change, key: Key, block: Block) -> None:
        before = self.blocks.pop(key, EMPTY)
        if block != EMPTY:
            self.blocks[key] = block
        again = before.created != block.created  # made anew under its name: it stands behind the others now
        for element in before.elements.keys() if again else before.elements.keys() - block.elements.keys():
            if others := tuple(owner for owner in self._owners.pop(element) if owner != key):
                self._owners[element] = others
        alone = (key,)
        for element in block.elements.keys() if again else block.elements.keys() - before.elements.keys():
            rivals = self._owners.get(element)
            self._owners[element] = tuple(sorted((*rivals, key), key=self._age)) if rivals else alone
        for name, rules in block.chains.items():
            if before.chains.get(name) != rules:
                self._write_chain(change, name, rules, name in before.chains)
        for name in before.chains.keys() - block.chains.keys():
            change.chains_gone.append(name)
            self._forget_numbers(change, name)
        change.sets += [name for name in block.sets if name not in before.sets]
        change.sets_gone += [name for name in before.sets if name not in block.sets]

    def _age(self, key: Key) -> tuple[str, Key]:
        return self.blocks[key].created, key

    def _value(self, element: ElementKey) -> str | None:
        owners = self._owners.get(element)
        return self.blocks[owners[0]].elements[element] if owners else None

    def _write_chain(self, change: Change, name: str, rules: Iterable[Rule], exists: bool) -> None:
        if exists:
            change.flushed.append(name)
            self._forget_numbers(change, name)
        change.chains[name] = [rule if isinstance(rule, str) else self._draw(change, name, rule) for rule in rules]

    def _draw(self, change: Change, chain: str, draw: Draw) -> str:
        first, count = self._next_number, len(draw.addresses)
        self._next_number += count
        self._numbers.setdefault(chain, []).extend(str(number) for number in range(first, first + count))
        numbered = (f"{first + place} : {address}" for place, address in enumerate(draw.addresses))
        change.elements.setdefault("endpoints", []).extend(numbered)
        return f"{draw.before} numgen random mod {count} offset {first} {draw.after}"

    def _forget_numbers(self, change: Change, chain: str) -> None:
        if numbers := self._numbers.pop(chain, None):
            change.elements_gone.setdefault("endpoints", []).extend(numbers)

    def render_change(self, change: Change) -> str:
        """A transaction for nft. Elements come after rules, whose references to sets would else cost more and more."""
        return "\n".join((*self._rules(change), *self._elements(change), *self._removals(change), ""))

    def render_replacement(self, held_chains: Collection[str], held_sets: Collection[str]) -> str:
        """A transaction that makes the kernel's table equal to the blocks; affinity sets that stay keep their members.

        `held_*`: what the kernel has in the table now.
        """
        change = self.everything()
        change.chains_gone = sorted(set(held_chains) - change.chains.keys() - set(STATIC_CHAINS))
        change.sets_gone = sorted(set(held_sets) - set(change.sets) - set(STATIC_SETS))
        rules = (self._static_sets(), f"flush table {self.name}", self._static_chains(), *self._rules(change))
        emptied = [f"flush set {self.name} {name}" for name in STATIC_SETS]
        emptied += [f"flush map {self.name} {name}" for name in STATIC_MAPS]
        return "\n".join((*rules, *emptied, *self._elements(change), *self._removals(change), ""))

    def render_fresh(self) -> str:
        """As `render_replacement`, for when the kernel's table is of another making: nothing of it is kept."""
        start = f"add table {self.name}\ndelete table {self.name}\n{self._static_sets()}\n{self._static_chains()}\n"
        return start + self.render_change(self.everything())

    def _rules(self, change: Change) -> Iterator[str]:
        kind = "ipv6_addr" if self.family == 6 else "ipv4_addr"
        yield from (f"flush chain {self.name} {chain}" for chain in change.flushed)
        yield f"table {self.name} {{"
        yield from (f"set {name} {{ type {kind}; flags dynamic,timeout; }}" for name in change.sets)
        yield from (_chain(name, rules) for name, rules in change.chains.items())
        yield "}"

    def _elements(self, change: Change) -> Iterator[str]:
        for verb, elements in (("delete", change.elements_gone), ("add", change.elements)):
            for name, keys in elements.items():
                yield f"{verb} element {self.name} {name} {{ {', '.join(keys)} }}"

    def _removals(self, change: Change) -> Iterator[str]:
        """Chains lead to each other: all are emptied before the first goes."""
        yield from (f"flush chain {self.name} {chain}" for chain in change.chains_gone)
        yield from (f"delete chain {self.name} {chain}" for chain in change.chains_gone)
        yield from (f"delete set {self.name} {name}" for name in change.sets_gone)

    def _static_sets(self) -> str:
        kind, ip = ("ipv6_addr", "ip6") if self.family == 6 else ("ipv4_addr", "ip")
        return f"""table {self.name} {{
  set cluster-ips {{ type {kind}; }}
  set hairpins {{ type {kind} . {kind}; }}
  set announced {{ type {kind}; }}
  set node-ips {{ type {kind}; }}
  map services {{ type {kind} . inet_proto . inet_service : verdict; }}
  map externals {{ type {kind} . inet_proto . inet_service : verdict; }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  map endpoints {{ typeof numgen random mod 1 : {ip} daddr; }}
}}"""

    def _static_chains(self) -> str:
        """The way of a packet. nat hooks see a connection's first packet, filter hooks see all.

        What has a service's address after translation has no service behind it: it must not leave this node.
        """
        ip = self.name.split()[0]
        pods = ", ".join(self._mine(self._site.cluster_cidrs))
        services = ", ".join(self._mine(self._site.service_cidrs))
        loopback, ping = ("::1", "icmpv6") if self.family == 6 else ("127.0.0.0/8", "icmp")
        outsiders = f"{ip} daddr @cluster-ips {ip} saddr != {{ {pods} }} {MARK}" if pods else ""
        stray = f"{ip} daddr {{ {services} }} drop" if services else ""
        leaving = f'{ip} daddr {{ {services} }} oifname != "lo" drop' if services else ""
        return "\n".join(
            (
                f"table {self.name} {{",
                _chain("refuse", ["meta l4proto tcp reject with tcp reset", "reject"]),
                _chain("dispatch", [
                    outsiders,
                    f"{ip} daddr . meta l4proto . th dport vmap @services",
                    f"fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @node-ports",
                    f"{ip} daddr @cluster-ips goto refuse",
                    f"fib daddr type != local {ip} daddr != @node-ips "
                    f"{ip} daddr . meta l4proto . th dport vmap @externals",
                ]),
                _chain("prerouting", ["type nat hook prerouting priority dstnat;", "jump dispatch"]),
                _chain("output", ["type nat hook output priority -100;", "jump dispatch"]),
                _chain("postrouting", [
                    "type nat hook postrouting priority srcnat - 1;",
                    f"ct status dnat {ip} saddr . {ip} daddr @hairpins masquerade fully-random",
                    f"meta mark & {MASQUERADE_MARK:#x} != 0 meta mark set meta mark xor {MASQUERADE_MARK:#x} "
                    "masquerade fully-random",
                ]),
                _chain("forward", ["type filter hook forward priority filter;", stray]),
                _chain("leaving", ["type filter hook output priority filter;", leaving]),
                _chain("input", [
                    "type filter hook input priority filter;",
                    f"{ip} daddr @announced meta l4proto != {ping} ct state != {{ established, related }} goto refuse",
                ]),
                "}",
            )
        )  # fmt: skip

    def _mine(self, cidrs: Iterable[str]) -> list[str]:
        return [cidr for cidr in cidrs if family_of(cidr) == self.family]


def _chain(name: str, rules: Iterable[str]) -> str:
    return f"chain {name} {{\n" + "\n".join(rule for rule in rules if rule) + "\n}"
