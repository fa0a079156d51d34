"""ControllerRevision, PodTemplate and Endpoints: kinds that only hold data for others.

Called by dispatch. Sources: k8s.io/kubernetes/pkg/apis/{apps,core}/validation.
"""

from __future__ import annotations

from api.errors import invalid, required
from api.names import is_dns_label, is_dns_subdomain
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    IMMUTABLE,
    Errors,
    Value,
    check_choice,
    check_ip,
    check_name,
    check_not_negative,
    check_not_special_ip,
    check_port,
    check_qualified,
    check_subdomain,
)
from controller.registry.validation.workloads import check_template

_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})


def check_revision(errors: Errors, revision: Value) -> None:
    check_metadata(errors, revision["metadata"], is_dns_subdomain, namespaced=True)
    if revision.get("data") is None:
        errors.append(required("data", "data is mandatory"))
    check_not_negative(errors, "revision", revision.get("revision"))


def check_revision_update(errors: Errors, revision: Value, old: Value) -> None:
    """A revision's data is what a rollback returns to, so it never changes."""
    check_updated_metadata(errors, revision["metadata"], old["metadata"])
    check_not_negative(errors, "revision", revision.get("revision"))
    if revision.get("data") != old.get("data"):
        errors.append(invalid("data", revision.get("data"), IMMUTABLE))


def check_pod_template(errors: Errors, template: Value) -> None:
    check_metadata(errors, template["metadata"], is_dns_subdomain, namespaced=True)
    check_template(errors, "template", template.get("template") or {})


def check_pod_template_update(errors: Errors, template: Value, old: Value) -> None:
    check_updated_metadata(errors, template["metadata"], old["metadata"])
    check_template(errors, "template", template.get("template") or {})


def check_endpoints(errors: Errors, endpoints: Value) -> None:
    check_metadata(errors, endpoints["metadata"], is_dns_subdomain, namespaced=True)
    _check_subsets(errors, endpoints)


def check_endpoints_update(errors: Errors, endpoints: Value, old: Value) -> None:
    check_updated_metadata(errors, endpoints["metadata"], old["metadata"])
    _check_subsets(errors, endpoints)


def _check_subsets(errors: Errors, endpoints: Value) -> None:
    for index, subset in enumerate(endpoints.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(field) or ()):
                _check_address(errors, f"{path}.{field}[{place}]", address)
        ports = subset.get("ports") or ()
        for place, port in enumerate(ports):
            _check_port(errors, f"{path}.ports[{place}]", port, named=len(ports) > 1)


def _check_address(errors: Errors, path: str, address: Value) -> None:
    text = address.get("ip") or ""
    check_ip(errors, f"{path}.ip", text)
    if address.get("hostname"):
        check_name(errors, f"{path}.hostname", address["hostname"], is_dns_label)
    if address.get("nodeName") is not None:
        check_subdomain(errors, f"{path}.nodeName", address["nodeName"])
    check_not_special_ip(errors, f"{path}.ip", text)


def _check_port(errors: Errors, path: str, port: Value, *, named: bool) -> None:
    if port.get("name"):
        check_name(errors, f"{path}.name", port["name"], is_dns_label)
    elif named:
        errors.append(required(f"{path}.name"))
    check_port(errors, f"{path}.port", port.get("port") or 0)
    check_choice(errors, f"{path}.protocol", port.get("protocol") or "", _PROTOCOLS)
    if port.get("appProtocol") is not None:
        check_qualified(errors, f"{path}.appProtocol", port["appProtocol"])
