"""Service and EndpointSlice objects of the table of cases, with addresses of their own by their number."""

from __future__ import annotations

from typing import Any

from tests.integration.network.service_cases import DEFAULT_SPEC, Backend, Case
from tests.integration.network.topology import NODE, SERVERS

Object = dict[str, Any]
_OWN = ("externalIPs", "ipMode", "labels")


def name_of(number: int) -> str:
    return f"case-{number}"


def address_of(number: int, to: str) -> str:
    """Where a client turns to; external IPs lie beside the pool of load balancers."""
    block = {"cluster": "10.96.1", "balancer": "203.0.113", "external": "203.0.112"}
    return f"{block[to]}.{number + 1}" if to in block else NODE


def node_port_of(number: int) -> int:
    return 30_000 + number


def service_of(number: int, case: Case) -> Object:
    spec = {**DEFAULT_SPEC, **{key: value for key, value in case.spec.items() if key not in _OWN}}
    spec["ports"] = [dict(port) for port in spec["ports"]]
    spec["clusterIP"] = address_of(number, "cluster")
    spec["clusterIPs"] = [spec["clusterIP"]]
    if case.spec.get("externalIPs"):
        spec["externalIPs"] = [address_of(number, "external")]
    if spec["type"] != "ClusterIP" and spec.get("allocateLoadBalancerNodePorts", True):
        spec["ports"][0]["nodePort"] = node_port_of(number)
    status: Object = {}
    if spec["type"] == "LoadBalancer":
        ingress = {"ip": address_of(number, "balancer"), "ipMode": case.spec.get("ipMode", "VIP")}
        status = {"loadBalancer": {"ingress": [ingress]}}
    metadata = {"namespace": "cases", "name": name_of(number), "labels": case.spec.get("labels", {})}
    return {"kind": "Service", "metadata": metadata, "spec": spec, "status": status}


def slices_of(number: int, case: Case) -> list[Object]:
    """One slice for each port number that the backends use; all ports of the service lead to it."""
    names = [(port["name"], port["protocol"]) for port in case.spec.get("ports", DEFAULT_SPEC["ports"])]
    return [
        slice_of(name_of(number), [each for each in case.backends if each.port == port], port, names)
        for port in sorted({backend.port for backend in case.backends})
    ]


def slice_of(service: str, backends: list[Backend], port: int, names: list[tuple[str, str]]) -> Object:
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "cases",
            "name": f"{service}-{port}",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol in names],
        "endpoints": [_endpoint(backend) for backend in backends],
    }


def _endpoint(backend: Backend) -> Object:
    states = {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating}
    made: Object = {
        "addresses": [SERVERS[backend.at]],
        "conditions": {key: value for key, value in states.items() if value is not None},
    }
    if not backend.nameless:
        made["nodeName"] = "node" if backend.at.startswith("a") or backend.at == "node" else "far"
    zones, nodes = [{"name": zone} for zone in backend.zones], [{"name": node} for node in backend.nodes]
    made["hints"] = {**({"forZones": zones} if zones else {}), **({"forNodes": nodes} if nodes else {})}
    return made
