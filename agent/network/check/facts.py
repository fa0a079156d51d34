"""What the kernel says about this node's network, for `round`'s verdicts: firewalls, counters, the way out.

Looks only, by files below /proc and the programs nft and iptables. What cannot be found out is left out.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import orjson

from agent.network.check.hops import Hop, judge_forwarding
from agent.network.cni import forwarding_comment, iptables_program
from agent.network.commands import run_program
from agent.network.model import family_of

_PATH_FILTER = "IPReversePathFilter"


def switched_off(pod_cidrs: Iterable[str]) -> str:
    """The sysctl that keeps this node from forwarding pods' packets; "" when none does."""
    switches = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    wanted = (switches[family_of(cidr)] for cidr in pod_cidrs)
    return next((each for each in wanted if not int(Path("/proc/sys", each.replace(".", "/")).read_text())), "")


async def judge_kernel(hop: Hop, pod_cidrs: Iterable[str], node_id: str) -> Hop:
    """nft, and what iptables does with forwarded packets. `node_id` "": somebody else attaches pods."""
    began = time.monotonic()
    for family in sorted({family_of(cidr) for cidr in pod_cidrs}):
        program = iptables_program(family)
        rules = (await run_program(program, ["-S", "FORWARD"])).output.splitlines() if node_id else []
        hop = judge_forwarding(hop, program, rules, forwarding_comment(node_id))
        if not hop.ok:
            return hop
    outcome = await run_program("nft", ["list", "tables"])
    if outcome.code:
        return hop.failed(f"nft does not work: {outcome.complaint}", "Install nftables; the kernel must have it, too.")
    return hop.after(time.monotonic() - began)


async def dropping_chains() -> tuple[str, ...]:
    """Base chains at the hook forward, of others than iptables, that drop what none of their rules lets through."""
    outcome = await run_program("nft", ["-j", "-t", "list", "chains"])
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        chains = [each["chain"] for each in orjson.loads(outcome.output)["nftables"] if "chain" in each]
        return tuple(
            f"{chain['family']} {chain['table']} {chain['name']}"
            for chain in chains
            if chain.get("hook") == "forward" and chain.get("policy") == "drop"
        )
    return ()


def filtered_packets() -> int:
    """What the reverse-path filter has dropped since the network came up."""
    with contextlib.suppress(OSError, ValueError):
        names, values = [
            line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
        ]
        return int(values[names.index(_PATH_FILTER)])
    return 0


def default_gateway() -> str:
    """The IPv4 default route's; "" without one, or with one that needs none (a point-to-point link)."""
    with contextlib.suppress(OSError, ValueError):
        for words in (line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]):
            if words[1] == words[7] == "00000000" and words[2] != "00000000":
                return socket.inet_ntoa(struct.pack("=I", int(words[2], 16)))
    return ""
