"""Whether a node's own network lies where pods or services shall be: packets would go to one instead of the other.

Called by `decide`; pure. Host routes are left out (links of pods are such), and so are the routes of other agents.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from agent.network.routes.model import METRICS, Observed, Path

RANGES = {"pods": "--cluster-cidr", "services": "--service-cluster-ip-range"}


def find_overlaps(observed: Observed) -> Iterator[str]:
    """A sentence for each, with what to do about it."""
    for kind, text in observed.ranges:
        whole = ipaddress.ip_network(text)
        end = f"the range of {kind}, {whole}: choose another {RANGES[kind]} for the cluster, or renumber the node"
        for address in observed.me.ips:
            if ipaddress.ip_address(address) in whole:
                yield f"this node's address {address} lies in {end}"
        for path in observed.kernel.paths:
            if relation := _relation(path, whole):
                yield f"this node's route to {path.destination} on {path.link or 'several links'} {relation} {end}"


def _relation(path: Path, whole: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """A way to more than the range matters only if it ends at the link: else ours are the narrower ones, and win."""
    network = ipaddress.ip_network(path.destination)
    is_host = network.prefixlen == network.max_prefixlen
    if is_host or path.metric in METRICS or network.version != whole.version:
        return ""
    if not network.prefixlen or not network.overlaps(whole):
        return ""
    if network.prefixlen >= whole.prefixlen:
        return "lies in"
    return "covers" if path.direct else ""
