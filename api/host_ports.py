"""Ports that a pod takes on its node, and which of them exclude each other: one rule for scheduler and agent. Pure.

Rules: Kubernetes' NodePorts filter. Main containers and sidecars take ports, for as long as the pod is there; init
containers that end do not. Imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HostPort = tuple[str, str, int]
"""(address, protocol, port); address "0.0.0.0" is every address."""

EVERY_ADDRESS = "0.0.0.0"


def host_ports(ports: Iterable[Mapping[str, Any]], host_network: bool) -> Iterator[HostPort]:
    """What one container's `ports` take; in the node's own network every containerPort is one of the node."""
    for port in ports:
        number = port.get("hostPort") or (port.get("containerPort") if host_network else 0)
        if number:
            yield port.get("hostIP") or EVERY_ADDRESS, port.get("protocol") or "TCP", number


def clash(one: HostPort, other: HostPort) -> bool:
    """Whether two pods cannot have these at once: same protocol and number, and an address in common."""
    return one[1:] == other[1:] and (one[0] == other[0] or EVERY_ADDRESS in (one[0], other[0]))
