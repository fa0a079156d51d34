"""EndpointSlice: where the traffic of a Service goes.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/discovery/validation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from api.errors import duplicate, invalid, required, too_many
from api.names import is_dns_label, is_dns_subdomain, is_label_value, is_port_number
from controller.registry.validation.meta import check_metadata
from controller.registry.validation.rules import (
    IMMUTABLE,
    Errors,
    Value,
    check_choice,
    check_ip,
    check_labels,
    check_name,
    check_not_special_ip,
    check_qualified,
    check_subdomain,
    check_unique,
)

_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
_ADDRESS_TYPES = frozenset({"IPv4", "IPv6", "FQDN"})
_MOST_ENDPOINTS, _MOST_ADDRESSES, _MOST_PORTS = 1000, 100, 20_000
_MOST_HINTS, _MOST_TOPOLOGY_LABELS = 8, 16


def check_slice(errors: Errors, endpoint_slice: Value) -> None:
    check_metadata(errors, endpoint_slice["metadata"], is_dns_subdomain, namespaced=True)
    kind = endpoint_slice.get("addressType") or ""
    check_choice(errors, "addressType", kind, _ADDRESS_TYPES)
    endpoints = endpoint_slice.get("endpoints") or []
    if len(endpoints) > _MOST_ENDPOINTS:
        errors.append(too_many("endpoints", len(endpoints), _MOST_ENDPOINTS))
    for index, endpoint in enumerate(endpoints):
        _check_endpoint(errors, f"endpoints[{index}]", endpoint, kind)
    _check_slice_ports(errors, endpoint_slice.get("ports") or [])


def check_slice_update(errors: Errors, endpoint_slice: Value, old: Value) -> None:
    """The address type stays; addresses that were there are not judged by another one again."""
    if (kind := endpoint_slice.get("addressType")) != old.get("addressType"):
        errors.append(invalid("addressType", kind, IMMUTABLE))
        endpoint_slice = {**endpoint_slice, "addressType": old.get("addressType")}
    check_slice(errors, endpoint_slice)


def _check_endpoint(errors: Errors, path: str, endpoint: Value, kind: str) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errors.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MOST_ADDRESSES:
        errors.append(too_many(f"{path}.addresses", len(addresses), _MOST_ADDRESSES))
    for index, address in enumerate(addresses):
        _check_address(errors, f"{path}.addresses[{index}]", address, kind)
    if endpoint.get("nodeName") is not None:
        check_subdomain(errors, f"{path}.nodeName", endpoint["nodeName"])
    topology = endpoint.get("deprecatedTopology") or {}
    if len(topology) > _MOST_TOPOLOGY_LABELS:
        errors.append(too_many(f"{path}.deprecatedTopology", len(topology), _MOST_TOPOLOGY_LABELS))
    check_labels(errors, f"{path}.deprecatedTopology", topology)
    if endpoint.get("hostname") is not None:
        check_name(errors, f"{path}.hostname", endpoint["hostname"], is_dns_label)
    hints = endpoint.get("hints") or {}
    _check_hints(errors, f"{path}.hints.forZones", hints.get("forZones") or (), is_label_value)
    _check_hints(errors, f"{path}.hints.forNodes", hints.get("forNodes") or (), is_dns_subdomain)


def _check_hints(errors: Errors, path: str, hints: Sequence[Value], rule: Callable[[str], list[str]]) -> None:
    if len(hints) > _MOST_HINTS:
        errors.append(too_many(path, len(hints), _MOST_HINTS))
        return
    seen: set[str] = set()
    for index, hint in enumerate(hints):
        check_unique(errors, f"{path}[{index}].name", hint.get("name") or "", seen)
        check_name(errors, f"{path}[{index}].name", hint.get("name") or "", rule)


def _check_domain(errors: Errors, path: str, address: str) -> None:
    """A fully qualified domain name."""
    name = address.removesuffix(".")
    if not address:
        errors.append(required(path))
    elif faults := is_dns_subdomain(name):
        errors.append(invalid(path, name, ",".join(faults)))
    elif "." not in name:
        errors.append(invalid(path, name, "should be a domain with at least two segments separated by dots"))


def _check_address(errors: Errors, path: str, address: str, kind: str) -> None:
    if kind == "FQDN":
        _check_domain(errors, path, address)
        return
    if kind not in ("IPv4", "IPv6"):
        return
    before = len(errors)
    check_ip(errors, path, address)
    if len(errors) > before:
        return
    if f"IPv{ipaddress.ip_address(address).version}" != kind:
        errors.append(invalid(path, address, f"must be an {kind} address"))
    else:
        check_not_special_ip(errors, path, address)


def _check_slice_ports(errors: Errors, ports: list[Value]) -> None:
    if len(ports) > _MOST_PORTS:
        errors.append(too_many("ports", len(ports), _MOST_PORTS))
    names: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            check_name(errors, f"{path}.name", name, is_dns_label)
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
        if port.get("port") is not None:
            check_name(errors, f"{path}.port", port["port"], is_port_number)
        check_choice(errors, f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
        if port.get("appProtocol") is not None:
            check_qualified(errors, f"{path}.appProtocol", port["appProtocol"])
