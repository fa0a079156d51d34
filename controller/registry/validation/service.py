"""Service: ports, type, addresses, traffic policies; what an update may change.

Called by dispatch after the registry has allocated addresses and ports. Source:
k8s.io/kubernetes/pkg/apis/core/validation, https://kubernetes.io/docs/concepts/services-networking/service/.
"""

from __future__ import annotations

from typing import Any

from api.errors import duplicate, forbidden, invalid, not_supported, required
from api.names import is_dns_label, is_port_number
from controller.registry.validation.internal import internal
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_choice,
    check_cidr,
    check_dns_label,
    check_ip,
    check_labels,
    check_name,
    check_not_special_ip,
    check_port,
    check_qualified,
    check_subdomain,
    parse_address,
)

_TYPES = frozenset({"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"})
_AFFINITIES = frozenset({"ClientIP", "None"})
_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
_POLICIES = frozenset({"Cluster", "Local"})
_FAMILIES = frozenset({"IPv4", "IPv6"})
_FAMILY_POLICIES = frozenset({"SingleStack", "PreferDualStack", "RequireDualStack"})
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_MODES = frozenset({"VIP", "Proxy"})
_LONGEST_AFFINITY = 86400
_FIXED = "may not change once set"
TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
_TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_ONLY_BALANCED = "may only be used when `type` is 'LoadBalancer'"


def check_service(errors: Errors, service: Value) -> None:
    check_metadata(errors, service["metadata"], is_dns_label, namespaced=True)
    spec, annotations = service.get("spec") or {}, service["metadata"].get("annotations") or {}
    mode, hints = annotations.get(_TOPOLOGY_MODE), annotations.get(TOPOLOGY_HINTS)
    if mode is not None and hints is not None and mode != hints:
        detail = f"must match annotations[{TOPOLOGY_HINTS}] when both are specified"
        errors.append(invalid(f"metadata.annotations[{_TOPOLOGY_MODE}]", mode, detail))
    _check_spec(errors, spec)
    text = annotations.get(_SOURCE_RANGES)
    if text is not None and not spec.get("loadBalancerSourceRanges"):
        _check_annotated_ranges(errors, text, spec.get("type") or "")


def _check_annotated_ranges(errors: Errors, text: str, kind: str) -> None:
    """The field of old, which is an annotation."""
    path = f"metadata.annotations[{_SOURCE_RANGES}]"
    if kind != "LoadBalancer":
        errors.append(forbidden(path, _ONLY_BALANCED))
    for network in text.split(",") if text.strip() else ():
        check_cidr(errors, path, network.strip())


def check_service_update(errors: Errors, service: Value, old: Value) -> None:
    check_updated_metadata(errors, service["metadata"], old["metadata"])
    spec, before = service.get("spec") or {}, old.get("spec") or {}
    if spec.get("type") != "ExternalName" and before.get("type") != "ExternalName":
        _check_same_addresses(errors, spec, before)
        _check_same_families(errors, spec, before)
    one, other = spec.get("loadBalancerClass"), before.get("loadBalancerClass")
    if spec.get("type") == before.get("type") == "LoadBalancer" and one != other:
        errors.append(invalid("spec.loadBalancerClass", one, _FIXED))
    port, old_port = spec.get("healthCheckNodePort"), before.get("healthCheckNodePort")
    if _needs_health_check(spec) and _needs_health_check(before) and port != old_port:
        errors.append(forbidden("spec.healthCheckNodePort", "field is immutable"))
    check_service(errors, service)


def check_service_status(errors: Errors, service: Value, old: Value) -> None:
    check_updated_metadata(errors, service["metadata"], old["metadata"])
    listed = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    if listed and (service.get("spec") or {}).get("type") != "LoadBalancer":
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        errors.append(forbidden("status.loadBalancer.ingress", why))
        return
    for index, ingress in enumerate(listed):
        _check_ingress_point(errors, f"status.loadBalancer.ingress[{index}]", ingress)


def _check_ingress_point(errors: Errors, path: str, ingress: Value) -> None:
    address, mode, name = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
    if address:
        check_ip(errors, f"{path}.ip", address)
    if mode is None:
        if address:
            errors.append(required(f"{path}.ipMode", "must be specified when `ip` is set"))
    elif not address:
        errors.append(forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set"))
    elif mode not in _MODES:
        errors.append(not_supported(f"{path}.ipMode", mode, _MODES))
    if name:
        check_subdomain(errors, f"{path}.hostname", name)
        if parse_address(name) is not None:
            errors.append(invalid(f"{path}.hostname", name, "must be a DNS name, not an IP address"))


def _addresses(spec: Value) -> list[str]:
    first = spec.get("clusterIP")
    return list(spec.get("clusterIPs") or ([first] if first else []))


def _is_headless(spec: Value) -> bool:
    return _addresses(spec)[:1] == ["None"]


def _needs_health_check(spec: Value) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _check_spec(errors: Errors, spec: Value) -> None:
    kind, ports = spec.get("type") or "", spec.get("ports") or []
    if not ports and not _is_headless(spec) and kind != "ExternalName":
        errors.append(required("spec.ports"))
    _check_type(errors, spec, kind)
    names: set[str] = set()
    for index, port in enumerate(ports):
        _check_port(errors, f"spec.ports[{index}]", port, names if len(ports) > 1 else None)
    check_labels(errors, "spec.selector", spec.get("selector"))
    _check_affinity(errors, spec)
    if kind != "ExternalName":
        check_cluster_ips(errors, spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        before = len(errors)
        check_ip(errors, f"spec.externalIPs[{index}]", address)
        if len(errors) == before:
            check_not_special_ip(errors, f"spec.externalIPs[{index}]", address)
    check_choice(errors, "spec.type", kind, _TYPES)
    _check_port_clashes(errors, kind, ports)
    _check_balancer(errors, spec, kind)
    _check_traffic(errors, spec, kind)


def _check_type(errors: Errors, spec: Value, kind: str) -> None:
    if kind in ("LoadBalancer", "NodePort") and _is_headless(spec):
        detail = f"may not be set to 'None' for {kind} services"
        errors.append(invalid("spec.clusterIPs[0]", "None", detail))
    if kind != "ExternalName":
        return
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field) or (field == "clusterIPs" and spec.get("clusterIP")):
            errors.append(forbidden(f"spec.{field}", "may not be set for ExternalName services"))
    name = (spec.get("externalName") or "").removesuffix(".")
    if name:
        check_subdomain(errors, "spec.externalName", name)
    else:
        errors.append(required("spec.externalName"))


def _check_port(errors: Errors, path: str, port: Value, names: set[str] | None) -> None:
    """`names` are those already taken, None when the port is the only one and needs none."""
    name = port.get("name") or ""
    if name:
        check_dns_label(errors, f"{path}.name", name)
        if names is not None and name in names:
            errors.append(duplicate(f"{path}.name", name))
        if names is not None:
            names.add(name)
    elif names is not None:
        errors.append(required(f"{path}.name"))
    check_name(errors, f"{path}.port", port.get("port") or 0, is_port_number)
    check_choice(errors, f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    check_port(errors, f"{path}.targetPort", port.get("targetPort"))
    if port.get("appProtocol") is not None:
        check_qualified(errors, f"{path}.appProtocol", port["appProtocol"])


def _check_affinity(errors: Errors, spec: Value) -> None:
    kind, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    check_choice(errors, "spec.sessionAffinity", kind, _AFFINITIES)
    path = "spec.sessionAffinityConfig"
    if kind == "None" and config is not None:
        errors.append(forbidden(path, "must not be set when session affinity is None"))
    if kind != "ClientIP":
        return
    seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
    if seconds is None:
        missing = path if config is None else f"{path}.clientIP"
        missing = f"{path}.clientIP.timeoutSeconds" if config and config.get("clientIP") is not None else missing
        errors.append(required(missing, "when session affinity type is ClientIP"))
    elif not 0 < seconds <= _LONGEST_AFFINITY:
        detail = f"must be greater than 0 and less than {_LONGEST_AFFINITY}"
        errors.append(invalid(f"{path}.clientIP.timeoutSeconds", seconds, detail))


def check_cluster_ips(errors: Errors, spec: Value) -> None:
    """Addresses, families and policy among themselves; allocation asks this, too, before it begins."""
    addresses, first = list(spec.get("clusterIPs") or ()), spec.get("clusterIP") or ""
    if first and not addresses:
        errors.append(required("spec.clusterIPs"))
    elif first and first != addresses[0]:
        errors.append(invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    elif addresses and not first:
        errors.append(invalid("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified"))
    seen: set[str] = set()
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in _FAMILIES:
            errors.append(not_supported(f"spec.ipFamilies[{index}]", family, _FAMILIES))
        if family in seen:
            errors.append(duplicate(f"spec.ipFamilies[{index}]", family))
        seen.add(family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        errors.append(not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES))
    before = len(errors)
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                errors.append(invalid("spec.clusterIPs", addresses, "'None' must be the first and only value"))
            continue
        check_ip(errors, f"spec.clusterIPs[{index}]", address)
    if len(addresses) > 2:
        errors.append(invalid("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    if len(errors) == before:
        _check_families(errors, addresses, spec.get("ipFamilies") or [])


def _check_families(errors: Errors, addresses: list[str], families: list[str]) -> None:
    versions = [f"IPv{found.version}" for address in addresses if (found := parse_address(address)) is not None]
    if len(versions) > 1 and len(set(versions)) < 2:
        detail = "may specify no more than one IP for each IP family, i.e [<IPv4>, <IPv6>] or [<IPv6>, <IPv4>]"
        errors.append(invalid("spec.clusterIPs", addresses, detail))
    for index, (version, family) in enumerate(zip(versions, families, strict=False)):
        if version != family:
            detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            errors.append(invalid(f"spec.clusterIPs[{index}]", addresses[index], detail))


def _check_same_addresses(errors: Errors, spec: Value, before: Value) -> None:
    now, was = _addresses(spec), _addresses(before)
    if was and not now:
        errors.append(invalid("spec.clusterIPs[0]", now, "primary clusterIP can not be unset"))
    for index, (one, other) in enumerate(zip(now, was, strict=False)):
        if one != other:
            errors.append(invalid(f"spec.clusterIPs[{index}]", now, _FIXED))
    _check_released(errors, spec, (now, was), "clusterIP")


def _check_same_families(errors: Errors, spec: Value, before: Value) -> None:
    free = [_is_headless(one) and not one.get("selector") for one in (spec, before)]
    if any(free):  # headless without selector: nothing in the cluster depends on them
        return
    now, was = spec.get("ipFamilies") or [], before.get("ipFamilies") or []
    for one, other in zip(now, was, strict=False):
        if one != other:
            errors.append(invalid("spec.ipFamilies[0]", now, _FIXED))
    _check_released(errors, spec, (now, was), "ipFamily")


def _check_released(errors: Errors, spec: Value, change: tuple[list[str], list[str]], what: str) -> None:
    now, was = change
    if len(was) > len(now) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        detail = f"must be set to SingleStack when releasing the secondary {what}"
        errors.append(invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), detail))


def _check_port_clashes(errors: Errors, kind: str, ports: list[Value]) -> None:
    for index, port in enumerate(ports):
        if kind == "ClusterIP" and port.get("nodePort"):
            detail = "may not be used when `type` is 'ClusterIP'"
            errors.append(forbidden(f"spec.ports[{index}].nodePort", detail))
    taken: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        claim = (port.get("protocol"), port.get("nodePort"))
        if port.get("nodePort") and claim in taken:
            errors.append(duplicate(f"spec.ports[{index}].nodePort", port["nodePort"]))
        taken.add(claim)
    taken.clear()
    for index, port in enumerate(ports):
        claim = (port.get("protocol"), port.get("port"))
        if claim in taken:
            shown = internal("core.v1.ServicePort", {"protocol": claim[0], "port": claim[1]})
            errors.append(duplicate(f"spec.ports[{index}]", shown))
        taken.add(claim)


def _check_balancer(errors: Errors, spec: Value, kind: str) -> None:
    ranges, path = spec.get("loadBalancerSourceRanges") or [], "spec.LoadBalancerSourceRanges"
    if ranges and kind != "LoadBalancer":
        errors.append(forbidden(path, _ONLY_BALANCED))
    for index, network in enumerate(ranges):
        check_cidr(errors, f"{path}[{index}]", network.strip())
    if spec.get("allocateLoadBalancerNodePorts") is not None and kind != "LoadBalancer":
        errors.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCED))
    if (balancer := spec.get("loadBalancerClass")) is not None:
        if kind != "LoadBalancer":
            errors.append(forbidden("spec.loadBalancerClass", _ONLY_BALANCED))
        else:
            check_qualified(errors, "spec.loadBalancerClass", balancer)


def _check_traffic(errors: Errors, spec: Value, kind: str) -> None:
    external, path = spec.get("externalTrafficPolicy") or "", "spec.externalTrafficPolicy"
    reachable = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if reachable:
        check_choice(errors, path, external, _POLICIES)
    elif external:
        errors.append(invalid(path, external, "may only be set for externally-accessible services"))
    health = spec.get("healthCheckNodePort") or 0
    if health and not _needs_health_check(spec):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid("spec.healthCheckNodePort", health, detail))
    internal = spec.get("internalTrafficPolicy")
    if internal is not None and internal not in _POLICIES:
        errors.append(not_supported("spec.internalTrafficPolicy", internal, _POLICIES))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        errors.append(not_supported("spec.trafficDistribution", distribution, frozenset(_DISTRIBUTIONS)))
