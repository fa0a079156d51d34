"""Which addresses DNS is answered on. Pure; called by the agent's configuration and `network`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_SERVICE_OFFSET = 10
_LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")


def default_addresses(service_cidr: str) -> tuple[str, ...]:
    """The cluster's DNS address, the tenth of the services' range (of each, joined by commas), as kubeadm has it."""
    return tuple(str(ipaddress.ip_network(each)[_SERVICE_OFFSET]) for each in service_cidr.split(","))


def served_addresses(service_cidr: str, cluster_dns: Iterable[str]) -> tuple[str, ...]:
    """Which addresses this node answers on: the default one, and of those given to pods the ones that can be local.

    An address outside the services' range and no link-local one is somebody else's server: pods ask that one.
    """
    ranges = [ipaddress.ip_network(each) for each in (*service_cidr.split(","), *_LINK_LOCAL)]
    ours = [each for each in cluster_dns if any(ipaddress.ip_address(each) in known for known in ranges)]
    return tuple(dict.fromkeys((*default_addresses(service_cidr), *ours)))
