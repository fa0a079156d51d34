"""Makes the DNS addresses local on this node: a link of our own that carries them, and no connection tracking for them.

Called by `part`, and by `purge` to take it away. The link is a dummy, or a bridge without ports where the kernel has no
dummies. Untracked, because two queries sent at once from one socket (A and AAAA, as libc does) race for one conntrack
entry, and the loser's packet is dropped: the five-second stalls of clusters. Nothing rewrites these packets.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from agent.network.cni import apply_nft, table_name
from agent.network.commands import run_program
from agent.network.model import family_of
from agent.runtime.errors import Failed

_FAMILIES = {4: ("ip", socket.AF_INET, 32), 6: ("ip6", socket.AF_INET6, 128)}


def link_name(node_id: str) -> str:
    """An interface's name has at most 15 bytes."""
    return f"wh-dns-{node_id[:8]}"


def dns_table(node_id: str) -> str:
    return f"{table_name(node_id)}_dns"


def render_notrack(node_id: str, addresses: Sequence[str]) -> str:
    """The node's nftables tables for DNS, as a transaction that replaces earlier ones."""
    lines = []
    for number, (family, *_) in _FAMILIES.items():
        ours = [each for each in addresses if family_of(each) == number]
        lines += [f"add table {family} {dns_table(node_id)}", f"delete table {family} {dns_table(node_id)}"]
        if not ours:
            continue
        known = f"{{ {', '.join(ours)} }}"
        rules = [
            f"    {family} {side} {known} meta l4proto {{ tcp, udp }} th {port} 53 notrack"
            for side, port in (("daddr", "dport"), ("saddr", "sport"))
        ]
        lines.append(f"table {family} {dns_table(node_id)} {{")
        for hook in ("prerouting", "output"):
            lines += [f"  chain {hook} {{", f"    type filter hook {hook} priority raw; policy accept;", *rules, "  }"]
        lines.append("}")
    return "\n".join(lines) + "\n"


async def ensure_link(node_id: str, addresses: Sequence[str]) -> None:
    """The addresses are this node's own when this returns. Failed, Timeout when a program refuses."""
    name = link_name(node_id)
    if not _exists(name):
        made = await run_program("ip", ["link", "add", name, "type", "dummy"])
        if made.code:
            made = await run_program("ip", ["link", "add", name, "type", "bridge"])
        if made.code and not _exists(name):
            raise Failed(f"ip link add {name}: {made.complaint}")
    for address in addresses:
        width = _FAMILIES[family_of(address)][2]
        options = ["nodad"] if width > 32 else []
        done = await run_program("ip", ["addr", "replace", f"{address}/{width}", "dev", name, *options])
        if done.code:
            raise Failed(f"ip addr replace {address} dev {name}: {done.complaint}")
    done = await run_program("ip", ["link", "set", name, "up"])
    if done.code:
        raise Failed(f"ip link set {name} up: {done.complaint}")
    await apply_nft(render_notrack(node_id, addresses))


def in_place(node_id: str, addresses: Sequence[str]) -> bool:
    """Whether link and addresses are there; cheap, asks the kernel without a program."""
    return _exists(link_name(node_id)) and all(_is_local(each) for each in addresses)


async def remove_link(node_id: str) -> None:
    for family, *_ in _FAMILIES.values():
        await run_program("nft", ["delete", "table", family, dns_table(node_id)])
    if _exists(link_name(node_id)):
        await run_program("ip", ["link", "delete", link_name(node_id)])


def _exists(name: str) -> bool:
    return any(known == name for _, known in socket.if_nameindex())


def _is_local(address: str) -> bool:
    with socket.socket(_FAMILIES[family_of(address)][1], socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
