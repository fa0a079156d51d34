"""Ingress, IngressClass and NetworkPolicy.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/networking/validation.
"""

from __future__ import annotations

from api.errors import forbidden, invalid, not_supported, required, too_long
from api.ingress import LEGACY_ANNOTATION
from api.names import is_dns_label, is_dns_subdomain, is_path_segment, is_port_number, is_wildcard_subdomain
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    IMMUTABLE,
    Errors,
    Value,
    check_cidr,
    check_domain_prefixed_path,
    check_ip,
    check_label_selector,
    check_name,
    check_port,
    check_required_name,
    check_subdomain,
    parse_address,
    parse_network,
)

_PATH_TYPES = frozenset({"Exact", "Prefix", "ImplementationSpecific"})
_BAD_PARTS, _BAD_ENDS = ("//", "/./", "/../", "%2f", "%2F"), ("/..", "/.")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_SCOPES = frozenset({"Cluster", "Namespace"})
_LONGEST_CONTROLLER = 250
_POLICY_TYPES = ("Ingress", "Egress")


def check_ingress(errors: Errors, ingress: Value) -> None:
    check_metadata(errors, ingress["metadata"], is_dns_subdomain, namespaced=True)
    spec = ingress.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        errors.append(invalid("spec", spec.get("rules"), "either `defaultBackend` or `rules` must be specified"))
    if backend is not None:
        _check_backend(errors, "spec.defaultBackend", backend)
    for index, rule in enumerate(rules):
        _check_rule(errors, f"spec.rules[{index}]", rule)
    for index, tls in enumerate(spec.get("tls") or ()):
        for place, host in enumerate(tls.get("hosts") or ()):
            _check_host_name(errors, f"spec.tls[{index}].hosts[{place}]", host)
        if tls.get("secretName"):
            check_subdomain(errors, f"spec.tls[{index}].secretName", tls["secretName"])
    if spec.get("ingressClassName") is not None:
        check_subdomain(errors, "spec.ingressClassName", spec["ingressClassName"])


def check_new_ingress(errors: Errors, ingress: Value) -> None:
    """The annotation of old says nothing else than the field."""
    check_ingress(errors, ingress)
    legacy = (ingress["metadata"].get("annotations") or {}).get(LEGACY_ANNOTATION)
    if legacy is not None and (ingress.get("spec") or {}).get("ingressClassName") not in (None, legacy):
        detail = "must match `ingressClassName` when both are specified"
        errors.append(invalid(f"annotations.{LEGACY_ANNOTATION}", legacy, detail))


def check_ingress_update(errors: Errors, ingress: Value, old: Value) -> None:
    check_updated_metadata(errors, ingress["metadata"], old["metadata"])
    check_ingress(errors, ingress)


def check_ingress_status(errors: Errors, ingress: Value, old: Value) -> None:
    check_updated_metadata(errors, ingress["metadata"], old["metadata"])
    listed = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    for index, point in enumerate(listed):
        path, name = f"status.loadBalancer.ingress[{index}]", point.get("hostname")
        if point.get("ip"):
            check_ip(errors, f"{path}.ip", point["ip"])
        if name:
            check_subdomain(errors, f"{path}.hostname", name)
            if parse_address(name) is not None:
                errors.append(invalid(f"{path}.hostname", name, "must be a DNS name, not an IP address"))


def check_ingress_class(errors: Errors, ingress_class: Value) -> None:
    check_metadata(errors, ingress_class["metadata"], is_dns_subdomain, namespaced=False)
    spec = ingress_class.get("spec") or {}
    controller = spec.get("controller") or ""
    if len(controller) > _LONGEST_CONTROLLER:
        errors.append(too_long("spec.controller", controller, _LONGEST_CONTROLLER))
    check_domain_prefixed_path(errors, "spec.controller", controller)
    if spec.get("parameters") is not None:
        _check_class_parameters(errors, "spec.parameters", spec["parameters"])


def _check_class_parameters(errors: Errors, path: str, parameters: Value) -> None:
    _check_reference(errors, path, parameters)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.append(required(f"{path}.scope"))
    elif scope not in _SCOPES:
        errors.append(not_supported(f"{path}.scope", scope, _SCOPES))
    elif scope == "Namespace" and namespace is None:
        errors.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Namespace":
        check_name(errors, f"{path}.namespace", namespace, is_dns_label)
    elif namespace is not None:
        errors.append(forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))


def _check_reference(errors: Errors, path: str, reference: Value) -> None:
    """An object of another kind, by group, kind and name."""
    if reference.get("apiGroup") is not None:
        check_subdomain(errors, f"{path}.apiGroup", reference["apiGroup"])
    for field in ("kind", "name"):
        check_required_name(errors, f"{path}.{field}", reference.get(field), is_path_segment)


def check_ingress_class_update(errors: Errors, ingress_class: Value, old: Value) -> None:
    check_updated_metadata(errors, ingress_class["metadata"], old["metadata"])
    now, was = ((obj.get("spec") or {}).get("controller") for obj in (ingress_class, old))
    if now != was:
        errors.append(invalid("spec.controller", now, IMMUTABLE))
    check_ingress_class(errors, ingress_class)


def check_network_policy(errors: Errors, policy: Value) -> None:
    check_metadata(errors, policy["metadata"], is_dns_subdomain, namespaced=True)
    _check_policy_spec(errors, policy.get("spec") or {})


def _check_policy_spec(errors: Errors, spec: Value) -> None:
    check_label_selector(errors, "spec.podSelector", spec.get("podSelector"))
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            path = f"spec.{field}[{index}]"
            for place, port in enumerate(rule.get("ports") or ()):
                _check_policy_port(errors, f"{path}.ports[{place}]", port)
            for place, peer in enumerate(rule.get(peers) or ()):
                _check_peer(errors, f"{path}.{peers}[{place}]", peer)
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        errors.append(invalid("spec.policyTypes", types, "may not specify more than two policyTypes"))
        return
    for index, kind in enumerate(types):
        if kind not in _POLICY_TYPES:
            errors.append(not_supported(f"spec.policyTypes[{index}]", kind, _POLICY_TYPES))


def check_network_policy_update(errors: Errors, policy: Value, old: Value) -> None:
    check_updated_metadata(errors, policy["metadata"], old["metadata"])
    _check_policy_spec(errors, policy.get("spec") or {})


def _check_rule(errors: Errors, path: str, rule: Value) -> None:
    host, http = rule.get("host") or "", rule.get("http")
    if host:
        if parse_address(host) is not None:
            errors.append(invalid(f"{path}.host", host, "must be a DNS name, not an IP address"))
        _check_host_name(errors, f"{path}.host", host)
    if http is None:
        return
    paths = http.get("paths") or []
    if not paths:
        errors.append(required(f"{path}.http.paths"))
    for index, entry in enumerate(paths):
        _check_path(errors, f"{path}.http.paths[{index}]", entry)


def _check_host_name(errors: Errors, path: str, host: str) -> None:
    check_name(errors, path, host, is_wildcard_subdomain if "*" in host else is_dns_subdomain)


def _check_path(errors: Errors, path: str, entry: Value) -> None:
    kind, target = entry.get("pathType"), entry.get("path") or ""
    here = f"{path}.path"
    if kind is None:
        errors.append(required(f"{path}.pathType", "pathType must be specified"))
        return
    if kind not in _PATH_TYPES:
        errors.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    elif not target.startswith("/") and (target or kind != "ImplementationSpecific"):
        errors.append(invalid(here, target, "must be an absolute path"))
    if kind in ("Exact", "Prefix"):
        errors += [invalid(here, target, f"must not contain '{part}'") for part in _BAD_PARTS if part in target]
        errors += [invalid(here, target, f"cannot end with '{end}'") for end in _BAD_ENDS if target.endswith(end)]
    _check_backend(errors, f"{path}.backend", entry.get("backend") or {})


def _check_backend(errors: Errors, path: str, backend: Value) -> None:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        errors.append(invalid(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        _check_reference(errors, f"{path}.resource", resource)
    elif service is not None:
        _check_service_backend(errors, path, service)
    else:
        errors.append(invalid(path, "", "resource or service backend is required"))


def _check_service_backend(errors: Errors, path: str, service: Value) -> None:
    check_required_name(errors, f"{path}.service.name", service.get("name"), is_dns_label)
    port = service.get("port") or {}
    name, number = port.get("name") or "", port.get("number") or 0
    if name and number:
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif name:
        check_port(errors, f"{path}.service.port.name", name)
    elif number:
        check_port(errors, f"{path}.service.port.number", number)
    else:
        errors.append(required(path, "port name or number is required"))


def _check_policy_port(errors: Errors, path: str, port: Value) -> None:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        errors.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    if end is not None and not isinstance(number, int):
        why = "non-numeric" if isinstance(number, str) else "not specified"
        errors.append(invalid(f"{path}.endPort", end, f"may not be specified when `port` is {why}"))
    if number is not None:
        check_port(errors, f"{path}.port", number)
    if end is not None and isinstance(number, int):
        if end < number:
            errors.append(invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"))
        check_name(errors, f"{path}.endPort", end, is_port_number)


def _check_peer(errors: Errors, path: str, peer: Value) -> None:
    selectors = [field for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    for field in selectors:
        check_label_selector(errors, f"{path}.{field}", peer[field])
    block = peer.get("ipBlock")
    if block is None:
        if not selectors:
            errors.append(required(path, "must specify a peer"))
        return
    _check_block(errors, f"{path}.ipBlock", block)
    if selectors:
        errors.append(forbidden(path, "may not specify both ipBlock and another peer"))


def _check_block(errors: Errors, path: str, block: Value) -> None:
    network = block.get("cidr") or ""
    if not network:
        errors.append(required(f"{path}.cidr"))
        return
    check_cidr(errors, f"{path}.cidr", network)
    outer = parse_network(network)
    for index, hole in enumerate(block.get("except") or ()):
        if outer is None:
            return
        here = f"{path}.except[{index}]"
        check_cidr(errors, here, hole)
        inner = parse_network(hole)
        if inner is not None and not (inner.network_address in outer and inner.prefixlen > outer.prefixlen):
            errors.append(invalid(here, hole, "must be a strict subset of `cidr`"))
