"""Node: taints, pod networks, resources; what an update may change.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/core/validation (ValidateNode, ValidateNodeUpdate).
"""

from __future__ import annotations

import ipaddress

from api.errors import FieldError, duplicate, forbidden, invalid, required
from api.names import is_dns_subdomain, is_label_value
from controller.registry.validation.internal import internal
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.resources import check_quantity
from controller.registry.validation.rules import Errors, Value, check_cidr, check_qualified, check_unique
from controller.registry.validation.scheduling import check_effect


def check_node(errors: Errors, node: Value) -> None:
    check_metadata(errors, node["metadata"], is_dns_subdomain, namespaced=False)
    spec = node.get("spec") or {}
    _check_taints(errors, spec.get("taints") or [])
    _check_resources(errors, node.get("status") or {})
    _check_networks(errors, spec.get("podCIDRs") or [])


def check_node_update(errors: Errors, node: Value, old: Value) -> None:
    check_node(errors, node)
    check_node_change(errors, node, old)


def check_node_change(errors: Errors, node: Value, old: Value) -> None:
    """Also for status: a node's status is only checked for what would break others."""
    check_updated_metadata(errors, node["metadata"], old["metadata"])
    status, spec, before = node.get("status") or {}, node.get("spec") or {}, old.get("spec") or {}
    _check_resources(errors, status)
    seen: list[Value] = []
    for index, address in enumerate(status.get("addresses") or ()):
        if address in seen:
            shown = {"Type": address.get("type") or "", "Address": address.get("address") or ""}
            errors.append(duplicate(f"status.addresses[{index}]", shown))
        seen.append(address)
    if before.get("podCIDRs") and before["podCIDRs"] != spec.get("podCIDRs"):
        detail = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden("spec.podCIDRs", detail))
    if before.get("providerID") and before["providerID"] != spec.get("providerID"):
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden("spec.providerID", detail))
    _check_taints(errors, spec.get("taints") or [])
    if spec.get("externalID") != before.get("externalID"):
        errors.append(forbidden("spec.externalID", "may not be updated"))


def _check_taints(errors: Errors, taints: list[Value]) -> None:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        # Kubernetes names the wrong parent, metadata; clients match on it.
        path, key, effect = f"metadata.taints[{index}]", taint.get("key") or "", taint.get("effect") or ""
        check_qualified(errors, f"{path}.key", key)
        if faults := is_label_value(taint.get("value") or ""):
            errors.append(invalid(f"{path}.value", taint["value"], ";".join(faults)))
        if not effect:
            errors.append(required(f"{path}.effect"))
        else:
            check_effect(errors, f"{path}.effect", effect)
        if (key, effect) in seen:
            found = duplicate(path, internal("core.v1.Taint", taint))
            body = f"{found.body}: taints must be unique by key and effect pair"
            errors.append(FieldError(found.field, found.reason, body))
        seen.add((key, effect))


def _check_resources(errors: Errors, status: Value) -> None:
    for field in ("capacity", "allocatable"):
        for name, value in sorted((status.get(field) or {}).items()):
            check_quantity(errors, f"status.{field}.{name}", name, value)


def _check_networks(errors: Errors, networks: list[str]) -> None:
    before = len(errors)
    for index, network in enumerate(networks):
        check_cidr(errors, f"spec.podCIDRs[{index}]", network)
    if len(networks) > 1 and len(errors) == before:
        versions = {ipaddress.ip_network(network, strict=False).version for network in networks}
        if len(networks) > 2 or len(versions) < 2:
            detail = "may specify no more than one CIDR for each IP family"
            errors.append(invalid("spec.podCIDRs", networks, detail))
    seen: set[str] = set()
    for index, network in enumerate(networks):
        check_unique(errors, f"spec.podCIDRs[{index}]", network, seen)
