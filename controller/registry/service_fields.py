"""The linked fields of a Service before anything is allocated: what a client left out, and which IP families it gets.

Called by `allocation` for every write of a Service's spec; pure. The rules, and their order, are those of
k8s.io/kubernetes/pkg/registry/core/service (storage/alloc.go initIPFamilyFields, storage/storage.go
patchAllocatedValues and normalizeClusterIPs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from api.errors import FieldError, invalid
from api.objects import Object
from controller.registry.validation.service import check_cluster_ips

Spec = Mapping[str, Any]
HEADLESS = "None"
FAMILIES = ("IPv4", "IPv6")
_SINGLE, _REQUIRED, _PREFERRED = "SingleStack", "RequireDualStack", "PreferDualStack"


def needs_address(spec: Spec) -> bool:
    return spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer")


def needs_node_ports(spec: Spec) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def needs_health_port(spec: Spec) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def node_ports(spec: Spec) -> list[int]:
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]


def external_places(spec: Spec) -> list[str]:
    """`ADDRESS/PROTOCOL/PORT` of what a Service takes by externalIPs. A headless one takes none, whatever it names."""
    addresses = spec.get("externalIPs") or ()
    if not addresses or not needs_address(spec) or HEADLESS in (spec.get("clusterIPs") or ()):
        return []
    ports = [f"{port.get('protocol') or 'TCP'}/{port['port']}" for port in spec.get("ports") or () if port.get("port")]
    return [f"{plain_address(address)}/{port}" for address in addresses for port in ports]


def plain_address(text: str) -> str:
    """An address in the one way to write it, so that a second spelling holds nothing else."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text  # validation tells


def claims_of(service: Mapping[str, Any] | None) -> frozenset[str]:
    """What a Service, as it is stored, holds: `ip/ADDRESS`, `port/NUMBER` and `external/ADDRESS/PROTOCOL/PORT`."""
    spec = (service or {}).get("spec") or {}
    if not needs_address(spec):
        return frozenset()
    addresses = spec.get("clusterIPs") or ()
    held = {f"ip/{plain_address(address)}" for address in addresses if address != HEADLESS}
    held |= {f"external/{place}" for place in external_places(spec)}
    if needs_node_ports(spec):
        held |= {f"port/{port}" for port in node_ports(spec)}
    if needs_health_port(spec) and spec.get("healthCheckNodePort"):
        held.add(f"port/{spec['healthCheckNodePort']}")
    return frozenset(held)


def keep_allocated(spec: Object, old: Spec) -> None:
    """What an update does not mention but the Service has: a PUT need not repeat addresses and ports."""
    if needs_address(spec) and needs_address(old):
        if not spec.get("clusterIP") and old.get("clusterIP"):
            spec["clusterIP"] = old["clusterIP"]
        if not spec.get("clusterIPs") and old.get("clusterIPs") and spec.get("clusterIP") == old.get("clusterIP"):
            spec["clusterIPs"] = list(old["clusterIPs"])
    if needs_node_ports(spec) and needs_node_ports(old):
        _keep_node_ports(spec, old)
    if needs_health_port(spec) and needs_health_port(old) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = old.get("healthCheckNodePort", 0)


def _keep_node_ports(spec: Object, old: Spec) -> None:
    """By the ports' names; the rest of a port may have changed."""
    by_name = {port.get("name") or "": port.get("nodePort") or 0 for port in old.get("ports") or ()}
    used = {*node_ports(old)} & {*node_ports(spec)}
    for port in spec.get("ports") or ():
        kept = by_name.get(port.get("name") or "", 0)
        if not port.get("nodePort") and kept and kept not in used:
            port["nodePort"] = kept
            used.add(kept)


def settle_addresses(spec: Object, old: Spec | None) -> None:
    """Makes clusterIPs follow clusterIP, for clients that know only one of them."""
    if old is None:
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        return
    first, was = spec.get("clusterIP") or "", old.get("clusterIP") or ""
    both, were = spec.get("clusterIPs") or [], old.get("clusterIPs") or []
    if were and not both and first == was:
        spec["clusterIPs"] = list(were)
    elif first != was and both == were:
        spec["clusterIPs"] = [first] if first else []


def settle_families(spec: Object, old: Spec | None, configured: Sequence[str]) -> list[FieldError]:
    """Sets ipFamilyPolicy and ipFamilies; what is wrong with them, or with the addresses beside them.

    `configured`: the families of this cluster, that of a Service that does not say first.
    """
    if spec.get("type") == "ExternalName" or _prefers_as_before(spec, old):
        return []
    headless = spec.get("clusterIP") == HEADLESS
    if spec.get("ipFamilyPolicy") is None:
        spec["ipFamilyPolicy"] = (old or {}).get("ipFamilyPolicy") or (
            _REQUIRED if headless and not spec.get("selector") else _SINGLE
        )
    errors: list[FieldError] = []
    check_cluster_ips(errors, spec)
    if errors:
        return errors
    if old is not None:
        errors += _release_second(spec, old)
    errors += _too_many(spec) + _infer_families(spec, configured)
    if errors:
        return errors
    if headless and not spec.get("selector"):
        _settle_without_selector(spec, configured)
        return []
    return _complete_families(spec, configured)


def _prefers_as_before(spec: Spec, old: Spec | None) -> bool:
    """A PreferDualStack Service is not changed only because the cluster has become dual-stack, or no longer is."""
    if old is None or spec.get("type") != old.get("type") or not needs_address(spec):
        return False
    same = all((spec.get(field) or []) == (old.get(field) or []) for field in ("clusterIPs", "ipFamilies"))
    return same and spec.get("ipFamilyPolicy") == old.get("ipFamilyPolicy") == _PREFERRED


def _release_second(spec: Object, old: Spec) -> list[FieldError]:
    """SingleStack, with the rest unchanged, is clear intent to give up the second family; else it must be said."""
    errors = []
    words = {"clusterIPs": "cluster IP", "ipFamilies": "IP family"}
    for field, word in words.items():
        now, was = spec.get(field) or [], old.get(field) or []
        if spec["ipFamilyPolicy"] == _SINGLE:
            if now == was and len(now) > 1:
                spec[field] = now[:1]
        elif now and len(now) < len(was):
            detail = f"must be 'SingleStack' to release the secondary {word}"
            errors.append(invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], detail))
    return errors


def _too_many(spec: Spec) -> list[FieldError]:
    if spec["ipFamilyPolicy"] != _SINGLE:
        return []
    detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
    words = {"clusterIPs": "cluster IPs", "ipFamilies": "IP families"}
    given = [word for field, word in words.items() if len(spec.get(field) or ()) == 2]
    return [invalid("spec.ipFamilyPolicy", _SINGLE, detail.format(word)) for word in given]


def _infer_families(spec: Object, configured: Sequence[str]) -> list[FieldError]:
    """Addresses without a family beside them bring their own."""
    errors = []
    addresses = spec.get("clusterIPs") or []
    families = list(spec.get("ipFamilies") or ())
    for index in range(len(families), len(addresses)):
        if addresses[0] == HEADLESS:
            break
        family = "IPv6" if ":" in addresses[index] else "IPv4"
        if family not in configured:
            detail = f"{family} is not configured on this cluster"
            errors.append(invalid(f"spec.clusterIPs[{index}]", addresses, detail))
        else:
            families.append(family)
    if families:
        spec["ipFamilies"] = families
    return errors


def _settle_without_selector(spec: Object, configured: Sequence[str]) -> None:
    """A headless Service without selector may have families the cluster has not."""
    families = spec.get("ipFamilies") or [configured[0]]
    if len(families) < 2 and spec["ipFamilyPolicy"] != _SINGLE:
        families = [*families, *(family for family in FAMILIES if family != families[0])]
    spec["ipFamilies"] = families


def _complete_families(spec: Object, configured: Sequence[str]) -> list[FieldError]:
    errors = []
    policy, families = spec["ipFamilyPolicy"], spec.get("ipFamilies") or []
    if policy == _REQUIRED and len(configured) < 2:
        errors.append(invalid("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services"))
    for index, family in enumerate(families):
        if family not in configured:
            errors.append(invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster"))
    if errors:
        return errors
    families = families or [configured[0]]
    if policy != _SINGLE and len(families) == 1:
        families = [*families, *(family for family in configured if family != families[0])]
    spec["ipFamilies"] = families
    return []
