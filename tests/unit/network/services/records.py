"""Services and slices for tests, by what matters in them."""

from __future__ import annotations

from typing import Any

from agent.network.model import Endpoint, Service, ServicePort, Slice, SlicePort
from agent.network.services.choice import Site

SITE = Site("n1", "z1", ("192.0.2.1",), ("10.244.0.0/16", "fd00:2::/56"), ("10.96.0.0/12", "fd00:1::/108"))
HTTP = ServicePort("http", "TCP", 80)


def service(name: str = "web", ip: str = "10.96.1.1", **fields: Any) -> Service:
    given = {"type": "ClusterIP", "headless": False, "external_name": "", "ports": (HTTP,), **fields}
    return Service(key=("shop", name), uid="u", cluster_ips=(ip,) if ip else (), **given)


def endpoint(address: str, node: str = "n2", **fields: Any) -> Endpoint:
    state = {"ready": True, "serving": True, "terminating": False, **fields}
    return Endpoint((address,), node=node, **state)


def ending(address: str, node: str = "n2") -> Endpoint:
    return endpoint(address, node, ready=False, terminating=True)


def slice(*endpoints: Endpoint, name: str = "web", port: int = 8080, **fields: Any) -> Slice:
    given = {"address_type": "IPv4", "ports": (SlicePort("http", "TCP", port),), **fields}
    return Slice(("shop", f"{name}-{port}"), name, endpoints=endpoints, **given)
