"""Which addresses a Service may not take by externalIPs: those of the cluster itself.

Called by `allocation` for every address that a write adds. Who may write Services in one namespace would else receive
what is meant for another namespace's Service, a node's SSH or the API server (CVE-2020-8554). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from controller.registry.ranges import ServiceRanges

_INSTEAD = "; use a Service of type LoadBalancer or NodePort"


def refusal(text: str, ranges: ServiceRanges, nodes: Iterable[Mapping[str, Any]]) -> str:
    """Why this address cannot be had, and what to do; "": it can be had, or is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    for one in ranges.addresses:
        if address in one.network:
            return f"must not be an address of Services, whose range is {one.network}"
    for network in ranges.pods:
        if address in network:
            return f"must not be an address of pods, whose range is {network}"
    if text in ranges.balancers:
        return "must not be in the pool of load balancers; use a Service of type LoadBalancer with its loadBalancerIP"
    for node in nodes:
        told = (node.get("status") or {}).get("addresses") or ()
        if any(_same(one.get("address"), text) for one in told):
            return f"must not be an address of a node, this is one of {node['metadata']['name']}{_INSTEAD}"
    return ""


def is_nodes_own(text: str, ranges: ServiceRanges) -> bool:
    """Whether an address that a node tells may be its own: one of the link it is on, none of pods or Services."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return not special and not refusal(text, ranges, ())


def _same(told: object, text: str) -> bool:
    try:
        return str(ip_address(str(told))) == text
    except ValueError:
        return False
