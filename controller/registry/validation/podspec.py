"""A pod's spec, in a Pod or in a workload's template.

Called by pods and workloads. Composes the rules of volumes, containers, security and scheduling in Kubernetes' order.
Source: k8s.io/kubernetes/pkg/apis/core/validation (ValidatePodSpec).
"""

from __future__ import annotations

import re
from decimal import Decimal

import orjson

from api.errors import duplicate, invalid, not_supported, required
from api.names import is_dns_subdomain
from api.quantity import canonical, parse_quantity, render_quantity
from controller.registry.validation.containers import (
    Scope,
    check_containers,
    check_ephemeral_containers,
    check_init_containers,
)
from controller.registry.validation.internal import internal
from controller.registry.validation.resources import check_container_resources, check_pod_resources
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_choice,
    check_dns_label,
    check_ip,
    check_labels,
    check_name,
    check_qualified,
    check_required_name,
    check_subdomain,
)
from controller.registry.validation.scheduling import check_affinity, check_gates, check_spread, check_tolerations
from controller.registry.validation.security import check_host_users, check_os_fields, check_pod_security
from controller.registry.validation.volumes import check_volumes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MOST_SECONDS = 2**31 - 1
_MOST_REMEMBERED, _LONGEST_REMEMBERED = 1024, 16_384
_find_generated = re.compile(rb"kube-api-access-[a-z0-9]{5}\b").findall
_valid: set[bytes] = set()
_MOST_NAMESERVERS, _MOST_SEARCHES, _LONGEST_SEARCH = 3, 32, 2048


def check_pod_spec(errors: Errors, path: str, spec: Value, *, pod_name: str = "", is_pod: bool = False) -> None:
    """`pod_name` and `is_pod` only for a real pod: some rules wait until a template becomes one."""
    key = _memo_key(spec, is_pod=is_pod)
    if key is not None and key in _valid:
        return
    before = len(errors)
    _check(errors, path, spec, pod_name=pod_name, is_pod=is_pod)
    if key is not None and len(errors) == before:
        if len(_valid) >= _MOST_REMEMBERED:
            _valid.clear()
        _valid.add(key)


def _memo_key(spec: Value, *, is_pod: bool) -> bytes | None:
    """What makes a spec judged once need no second judgement: many pods have one template.

    The service account volume is named at random in each pod; any such name is as valid as another.
    """
    text = orjson.dumps(spec)
    if len(text) > _LONGEST_REMEMBERED or b'"ephemeral"' in text:
        return None
    generated = set(_find_generated(text))
    if len(generated) > 1:
        return None
    for name in generated:
        text = text.replace(name, b"kube-api-access")
    return text + b"p" if is_pod else text


def _check(errors: Errors, path: str, spec: Value, *, pod_name: str, is_pod: bool) -> None:
    if spec.get("terminationGracePeriodSeconds") is None:
        errors.append(required(f"{path}.terminationGracePeriodSeconds"))
    volumes = check_volumes(errors, f"{path}.volumes", spec.get("volumes") or [], pod_name)
    claims = spec.get("resourceClaims") or []
    _check_claims(errors, f"{path}.resourceClaims", claims)
    scope = Scope(
        volumes=volumes,
        claims=frozenset(claim.get("name") or "" for claim in claims) - {""},
        grace_seconds=spec.get("terminationGracePeriodSeconds"),
        restart_policy=spec.get("restartPolicy") or "",
        host_users=spec.get("hostUsers") is not False,
        is_pod=is_pod,
    )
    regular, initial = spec.get("containers") or [], spec.get("initContainers") or []
    check_containers(errors, f"{path}.containers", regular, scope)
    check_init_containers(errors, f"{path}.initContainers", initial, regular, scope)
    ephemeral = spec.get("ephemeralContainers") or []
    check_ephemeral_containers(errors, f"{path}.ephemeralContainers", ephemeral, [*regular, *initial], scope)
    if (resources := spec.get("resources")) is not None:
        check_pod_resources(errors, f"{path}.resources", resources)
        _check_within_pod(errors, f"{path}.resources", resources, regular)
    if spec.get("hostNetwork"):
        _check_host_network(errors, f"{path}.containers", regular, is_pod=is_pod)
    _check_policies(errors, path, spec)
    _check_placement(errors, path, spec)


def _check_policies(errors: Errors, path: str, spec: Value) -> None:
    check_choice(errors, f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES)
    check_choice(errors, f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    check_labels(errors, f"{path}.nodeSelector", spec.get("nodeSelector"))
    check_pod_security(errors, f"{path}.securityContext", spec)
    check_affinity(errors, f"{path}.affinity", spec.get("affinity"))
    _check_dns_config(errors, f"{path}.dnsConfig", spec)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        check_qualified(errors, f"{path}.readinessGates[{index}].conditionType", gate.get("conditionType") or "")
    check_gates(errors, f"{path}.schedulingGates", spec.get("schedulingGates") or [])
    check_spread(errors, f"{path}.topologySpreadConstraints", spec.get("topologySpreadConstraints") or [])
    check_host_users(errors, path, spec)


def _check_placement(errors: Errors, path: str, spec: Value) -> None:
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            check_subdomain(errors, f"{path}.{field}", spec[field])
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MOST_SECONDS:
        detail = f"must be between 1 and {_MOST_SECONDS}, inclusive"
        errors.append(invalid(f"{path}.activeDeadlineSeconds", deadline, detail))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            check_dns_label(errors, f"{path}.{field}", spec[field])
    check_tolerations(errors, f"{path}.tolerations", spec.get("tolerations") or [])
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        check_ip(errors, f"{path}.hostAliases[{index}].ip", alias.get("ip"))
        for place, hostname in enumerate(alias.get("hostnames") or ()):
            check_subdomain(errors, f"{path}.hostAliases[{index}].hostnames[{place}]", hostname)
    if spec.get("priorityClassName"):
        check_subdomain(errors, f"{path}.priorityClassName", spec["priorityClassName"])
    if (runtime := spec.get("runtimeClassName")) is not None:
        check_subdomain(errors, f"{path}.runtimeClassName", runtime)
    if (preemption := spec.get("preemptionPolicy")) is not None:
        check_choice(errors, f"{path}.preemptionPolicy", preemption, ("PreemptLowerPriority", "Never"))
    if (overhead := spec.get("overhead")) is not None:
        check_container_resources(errors, f"{path}.overhead", {"limits": overhead})
    if (system := spec.get("os")) is not None:
        _check_os(errors, path, system.get("name") or "", spec)


def _check_os(errors: Errors, path: str, name: str, spec: Value) -> None:
    if not name:
        errors.append(required(f"{path}.os.name", "cannot be empty"))
    elif name not in ("linux", "windows"):
        errors.append(not_supported(f"{path}.os", name, frozenset({"linux", "windows"})))
    else:
        check_os_fields(errors, path, spec)


def _check_claims(errors: Errors, path: str, claims: list[Value]) -> None:
    names: set[str] = set()
    for index, claim in enumerate(claims):
        here, name = f"{path}[{index}]", claim.get("name") or ""
        if not name:
            errors.append(required(f"{here}.name"))
        elif name in names:
            errors.append(duplicate(f"{here}.name", name))
        else:
            check_dns_label(errors, f"{here}.name", name)
        names.add(name)
        given = [field for field in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(field) is not None]
        if len(given) > 1:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(invalid(here, internal("core.v1.PodResourceClaim", claim), detail))
        elif not given:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(invalid(here, internal("core.v1.PodResourceClaim", claim), detail))
        for field in given:
            check_name(errors, f"{here}.{field}", claim[field], is_dns_subdomain)


def _check_within_pod(errors: Errors, path: str, resources: Value, containers: list[Value]) -> None:
    """Containers together may not request more than their pod, nor one have a higher limit."""
    total: dict[str, Decimal] = {}
    for container in containers:
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, Decimal(0)) + parse_quantity(value)
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in sorted(total):
        if total[name] > parse_quantity(requests.get(name, "0")):
            shown = render_quantity(total[name], requests.get(name, ""))
            detail = f"must be greater than or equal to aggregate container requests of {shown}"
            errors.append(invalid(f"{path}.requests[{name}]", canonical(requests.get(name, "0")), detail))
    for index, container in enumerate(containers):
        own = (container.get("resources") or {}).get("limits") or {}
        for name in sorted(own.keys() & limits.keys()):
            if parse_quantity(own[name]) > parse_quantity(limits[name]):
                detail = f"must be less than or equal to pod limits of {canonical(limits[name])}"
                where = f"{path}.containers[{index}][{name}].limits"
                errors.append(invalid(where, canonical(own[name]), detail))


def _check_host_network(errors: Errors, path: str, containers: list[Value], *, is_pod: bool) -> None:
    """On the host's network a container port is the host port; a template may leave it open."""
    for index, container in enumerate(containers):
        for place, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort") or 0
            if (is_pod or host) and host != port.get("containerPort"):
                detail = "must match `containerPort` when `hostNetwork` is true"
                errors.append(invalid(f"{path}[{index}].ports[{place}].hostPort", host, detail))


def _check_dns_config(errors: Errors, path: str, spec: Value) -> None:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            errors.append(required(path, "must provide `dnsConfig` when `dnsPolicy` is None"))
        elif not config.get("nameservers"):
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            errors.append(required(f"{path}.nameservers", detail))
            return
    if config is None:
        return
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > _MOST_NAMESERVERS:
        detail = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        errors.append(invalid(f"{path}.nameservers", servers, detail))
    for index, server in enumerate(servers):
        check_ip(errors, f"{path}.nameservers[{index}]", server)
    if len(searches) > _MOST_SEARCHES:
        detail = f"must not have more than {_MOST_SEARCHES} search paths"
        errors.append(invalid(f"{path}.searches", searches, detail))
    if len(" ".join(searches)) > _LONGEST_SEARCH:
        detail = f"must not have more than {_LONGEST_SEARCH} characters (including spaces) in the search list"
        errors.append(invalid(f"{path}.searches", searches, detail))
    for index, search in enumerate(searches):
        _check_search(errors, f"{path}.searches[{index}]", search)
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{path}.options[{index}]", "must not be empty"))


def _check_search(errors: Errors, path: str, search: str) -> None:
    """A search domain: `.`, or a subdomain whose labels may also begin with and hold underscores."""
    domain = search.removesuffix(".")
    plain = ".".join(label.removeprefix("_") for label in domain.split(".")).replace("_", "-")
    if search != "." and is_dns_subdomain(plain):
        check_required_name(errors, path, domain, is_dns_subdomain)
