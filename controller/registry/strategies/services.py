"""What an update of a Service drops: fields its new type has no use for, unless the update changed them, too.

Registered in the table of strategies; runs after allocation, before validation. Pure. Rules:
k8s.io/kubernetes/pkg/registry/core/service/strategy.go (dropTypeDependentFields).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import keep
from controller.registry.strategies.common import spec_and_status

_ADDRESSED = ("ClusterIP", "NodePort", "LoadBalancer")
_ON_NODES = ("NodePort", "LoadBalancer")


def prepare_service_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "status")
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    _drop_addresses(spec, before)
    if before.get("type") in _ON_NODES and spec.get("type") not in _ON_NODES:
        _drop_node_ports(spec, before)
    if _has_health_port(before) and not _has_health_port(spec):
        _drop_if_same(spec, before, "healthCheckNodePort")
    if before.get("type") == "LoadBalancer" != spec.get("type"):
        _drop_if_same(spec, before, "allocateLoadBalancerNodePorts")
        _drop_if_same(spec, before, "loadBalancerClass")
    if _is_reachable(before) and not _is_reachable(spec):
        _drop_if_same(spec, before, "externalTrafficPolicy")
    if spec.get("type") != "LoadBalancer" and "status" in new:
        new["status"] = {**new["status"], "loadBalancer": {}}


def _drop_addresses(spec: Object, before: Mapping[str, Any]) -> None:
    if before.get("type") not in _ADDRESSED or spec.get("type") in _ADDRESSED:
        return
    if all((spec.get(field) or None) == (before.get(field) or None) for field in ("clusterIP", "clusterIPs")):
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)
    _drop_if_same(spec, before, "ipFamilies")
    _drop_if_same(spec, before, "ipFamilyPolicy")


def _drop_node_ports(spec: Object, before: Mapping[str, Any]) -> None:
    """Ports may come and go, as long as no new node port is asked for."""
    held = {port.get("nodePort") for port in before.get("ports") or ()}
    ports = spec.get("ports") or ()
    if all(port.get("nodePort") in held for port in ports if port.get("nodePort")):
        for port in ports:
            port.pop("nodePort", None)


def _drop_if_same(spec: Object, before: Mapping[str, Any], field: str) -> None:
    if spec.get(field) == before.get(field):
        spec.pop(field, None)


def _has_health_port(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _is_reachable(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") in _ON_NODES or bool(spec.get("type") == "ClusterIP" and spec.get("externalIPs"))


SERVICE = replace(
    spec_and_status({"loadBalancer": {}}, counted=()),
    prepare_update=prepare_service_update,
    create_on_update=True,
    returns_deleted=True,
)
