"""External IPs of Services: none that the cluster needs itself."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from controller.registry.external_addresses import refusal
from controller.registry.ranges import ServiceRanges, parse_pool, parse_service_range
from controller.registry.service_fields import claims_of

RANGES = ServiceRanges(
    parse_service_range("10.96.0.0/16,fd00:1::/112"),
    pods=(ip_network("10.244.0.0/16"),),
    balancers=parse_pool("198.51.100.0/28"),
)
NODE = {"metadata": {"name": "n1"}, "status": {"addresses": [
    {"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": "n1"},
]}}  # fmt: skip


@pytest.mark.parametrize(("address", "why"), [
    ("10.96.0.1", "must not be an address of Services, whose range is 10.96.0.0/16"),
    ("fd00:1::5", "must not be an address of Services, whose range is fd00:1::/112"),
    ("10.244.3.4", "must not be an address of pods, whose range is 10.244.0.0/16"),
    ("198.51.100.3", "must not be in the pool of load balancers; use a Service of type LoadBalancer with its "
     "loadBalancerIP"),
    ("192.0.2.7", "must not be an address of a node, this is one of n1; use a Service of "
     "type LoadBalancer or NodePort"),
    ("203.0.113.1", ""),
    ("no address", ""),
])  # fmt: skip
def test_addresses_of_the_cluster_are_refused_and_told_what_they_are(address: str, why: str) -> None:
    assert refusal(address, RANGES, [NODE]) == why


def test_an_external_address_is_held_by_port_however_it_is_written() -> None:
    spec = {
        "type": "ClusterIP",
        "clusterIPs": ["fd00:1::A"],
        "externalIPs": ["2001:DB8::1"],
        "ports": [{"port": 53, "protocol": "UDP"}],
    }
    assert claims_of({"spec": spec}) == {"ip/fd00:1::a", "external/2001:db8::1/UDP/53"}
    assert claims_of({"spec": {**spec, "clusterIPs": ["None"]}}) == frozenset()
