"""As much of nftables as the policy part uses: transactions applied to a table in memory, and what becomes of a packet.

An unknown word fails the test: nothing is passed over.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple


class Packet(NamedTuple):
    saddr: str
    daddr: str
    protocol: str
    dport: int = 0
    state: str = "new"
    forged: bool = False


@dataclass
class Kernel:
    """One table."""

    sets: dict[str, dict[str, str]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)
    hooks: dict[str, list[str]] = field(default_factory=dict)

    def apply(self, transaction: str) -> None:
        """Raises KeyError or AssertionError where nft would refuse."""
        for line in transaction.splitlines():
            verb, kind, _family, _table, *rest = line.split(" ", 4)
            name, _, body = rest[0].partition(" ") if rest else ("", "", "")
            getattr(self, f"_{verb}_{kind}")(name, body)

    def _add_table(self, name: str, body: str) -> None:
        return

    def _delete_table(self, name: str, body: str) -> None:
        self.sets, self.chains, self.hooks = {}, {}, {}

    def _add_set(self, name: str, body: str) -> None:
        self.sets.setdefault(name, {})

    _add_map = _add_set

    def _delete_set(self, name: str, body: str) -> None:
        assert not any(f"@{name}" in rule for rules in self.chains.values() for rule in rules), f"{name} is in use"
        del self.sets[name]

    def _add_chain(self, name: str, body: str) -> None:
        self.chains.setdefault(name, [])
        if "hook" in body:
            self.hooks.setdefault(body.split("hook ")[1].split()[0], []).append(name)

    def _flush_chain(self, name: str, body: str) -> None:
        self.chains[name].clear()

    def _delete_chain(self, name: str, body: str) -> None:
        assert not self.chains.pop(name), f"{name} has rules"
        users = [verdict for elements in self.sets.values() for verdict in elements.values()]
        users += [rule for rules in self.chains.values() for rule in rules]
        assert not any(user.endswith(f" {name}") for user in users), f"{name} is in use"

    def _add_rule(self, name: str, body: str) -> None:
        for word in body.split():
            assert not word.startswith("@") or word[1:] in self.sets, f"no set {word}"
        self.chains[name].append(body)

    def _add_element(self, name: str, body: str) -> None:
        for element in body.strip("{} ").split(", "):
            key, _, verdict = element.partition(" : ")
            assert self.sets[name].get(key, verdict) == verdict, f"{key} is there already"
            assert not verdict or verdict.split()[1] in self.chains, f"no chain for {verdict}"
            self.sets[name][key] = verdict

    def _delete_element(self, name: str, body: str) -> None:
        for element in body.strip("{} ").split(", "):
            del self.sets[name][element]

    # Packets.

    def passes(self, hook: str, packet: Packet) -> bool:
        return all(self._run(chain, packet) != "drop" for chain in self.hooks.get(hook, ()))

    def _run(self, chain: str, packet: Packet) -> str:
        """accept, drop, or "" where the chain ends without either."""
        for rule in self.chains[chain]:
            verdict = self._judge(rule.split(), packet)
            if verdict.startswith("goto "):
                return self._run(verdict.split()[1], packet)
            if verdict.startswith("jump "):
                verdict = self._run(verdict.split()[1], packet)
            if verdict:
                return verdict
        return ""

    def _judge(self, words: list[str], packet: Packet) -> str:
        while words:
            if words[0] in ("accept", "drop"):
                return words[0]
            if words[0] in ("jump", "goto"):
                return " ".join(words[:2])
            match = _match(words)
            value = _value(match.left, packet)
            if match.operator == "vmap":
                return self.sets[match.right[1:]].get(value, "")
            if self._holds(value, match.right) == (match.operator == "!="):
                return ""
            words = match.rest
        raise AssertionError("a rule without a verdict")

    def _holds(self, value: str, wanted: str) -> bool:
        if wanted.startswith("@"):
            return value in self.sets[wanted[1:]]
        if wanted.startswith("{"):
            return value in wanted.strip("{} ").split(", ")
        if "/" in wanted:
            return ipaddress.ip_address(value) in ipaddress.ip_network(wanted)
        if "-" in wanted and value:
            first, last = wanted.split("-")
            return int(first) <= int(value) <= int(last)
        return value in wanted.split(",")


class _Match(NamedTuple):
    left: str
    operator: str
    right: str
    rest: list[str]


_FIELDS = ("ct state", "meta l4proto", "fib saddr . iif oif", "iif")


def _match(words: list[str]) -> _Match:
    text = " ".join(words)
    left = next((field for field in _FIELDS if text.startswith(field + " ")), "")
    if not left:
        left = " ".join(words[:2])
        while words[len(left.split())] == ".":
            left = " ".join(words[: len(left.split()) + 3])
    rest = words[len(left.split()) :]
    operator = rest.pop(0) if rest[0] in ("!=", "vmap") else "=="
    right = rest.pop(0)
    while right.startswith("{") and not right.endswith("}"):
        right += " " + rest.pop(0)
    return _Match(left, operator, right, rest)


def _value(left: str, packet: Packet) -> str:
    if " . " in left and not left.startswith("fib"):
        return " . ".join(_value(part, packet) for part in left.split(" . "))
    match left.split():
        case ["ip" | "ip6", "saddr" | "daddr" as side]:
            return str(getattr(packet, side))
        case ["ct", "state"]:
            return packet.state
        case ["meta", "l4proto"]:
            return packet.protocol
        case ["iif"]:
            return "eth"
        case ["fib", *_]:
            return "missing" if packet.forged else "veth"
        case ["icmpv6", "type"]:
            return ""
        case ["tcp" | "udp" | "sctp" as protocol, "dport"]:
            return str(packet.dport) if packet.protocol == protocol else ""
    raise AssertionError(f"unknown match {left!r}")
