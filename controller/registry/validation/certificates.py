"""CertificateSigningRequest and RuntimeClass.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/{certificates,node}/validation.
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509

from api.errors import duplicate, forbidden, invalid, not_supported, required
from api.names import is_dns_label, is_dns_subdomain, is_path_segment
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.resources import check_container_resources
from controller.registry.validation.rules import Errors, Value, check_immutable, check_labels, check_name
from controller.registry.validation.scheduling import check_tolerations

_USAGES = frozenset(
    (
        *("signing", "digital signature", "content commitment", "key encipherment", "key agreement"),
        *("data encipherment", "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth"),
        *("client auth", "code signing", "email protection", "s/mime", "ipsec end system", "ipsec tunnel"),
        *("ipsec user", "timestamping", "ocsp signing", "microsoft sgc", "netscape sgc"),
    )
)
_LEAST_SECONDS = 600
_LEGACY = "kubernetes.io/legacy-unknown"
_SETTLED = ("Approved", "Denied")


def check_signing_request(errors: Errors, obj: Value) -> None:
    check_metadata(errors, obj["metadata"], is_path_segment, namespaced=False)
    spec = obj.get("spec") or {}
    _check_request(errors, spec.get("request") or "")
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            errors.append(not_supported(f"spec.usages[{index}]", usage, _USAGES))
        elif usage in usages[:index]:
            errors.append(duplicate(f"spec.usages[{index}]", usage))
    signer = spec.get("signerName") or ""
    if signer == _LEGACY:
        errors.append(invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version"))
    else:
        _check_signer(errors, signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _LEAST_SECONDS:
        detail = f"may not specify a duration less than {_LEAST_SECONDS} seconds (10 minutes)"
        errors.append(invalid("spec.expirationSeconds", seconds, detail))
    _check_conditions(errors, obj)


def check_signing_request_update(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"])
    _check_conditions(errors, obj)
    before = {each["type"] for each in (old.get("status") or {}).get("conditions") or () if each["type"] in _SETTLED}
    now = {each["type"] for each in (obj.get("status") or {}).get("conditions") or ()}
    for kind in sorted(before - now):
        detail = f"updates may not remove a condition of type {kind!r}".replace("'", '"')
        errors.append(forbidden("status.conditions", detail))


def check_signing_request_status(errors: Errors, obj: Value, old: Value) -> None:
    check_signing_request_update(errors, obj, old)
    fresh = (obj.get("status") or {}).get("certificate")
    before = (old.get("status") or {}).get("certificate")
    if before and fresh != before:
        errors.append(invalid("status.certificate", None, "updates may not modify a certificate that was issued"))
    elif fresh and fresh != before:
        try:
            x509.load_pem_x509_certificates(base64.b64decode(fresh))
        except ValueError as error:
            errors.append(invalid("status.certificate", "<certificate data>", str(error)))


def _check_request(errors: Errors, text: str) -> None:
    try:
        x509.load_pem_x509_csr(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        errors.append(invalid("spec.request", text, "PEM block type must be CERTIFICATE REQUEST"))


def _check_signer(errors: Errors, signer: str) -> None:
    if not signer:
        errors.append(required("spec.signerName"))
        return
    domain, slash, path = signer.partition("/")
    if not slash or not path:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errors.append(invalid("spec.signerName", signer, detail))
    elif faults := is_dns_subdomain(domain):
        errors.append(invalid("spec.signerName", domain, f'validating label "{domain}": {",".join(faults)}'))
    elif "." not in domain:
        errors.append(
            invalid("spec.signerName", domain, "should be a domain with at least two segments separated by dots")
        )


def _check_conditions(errors: Errors, obj: Value) -> None:
    seen: set[str] = set()
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{index}]", condition.get("type") or ""
        if not kind:
            errors.append(required(f"{path}.type"))
        elif kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        elif kind in _SETTLED and seen & set(_SETTLED):
            errors.append(invalid(f"{path}.type", kind, "Approved and Denied conditions are mutually exclusive"))
        elif kind in (*_SETTLED, "Failed") and condition.get("status") != "True":
            errors.append(not_supported(f"{path}.status", condition.get("status") or "", ("True",)))
        seen.add(kind)


def check_runtime_class(errors: Errors, obj: Value) -> None:
    check_metadata(errors, obj["metadata"], is_dns_subdomain, namespaced=False, finalizers=False)
    check_name(errors, "handler", obj.get("handler") or "", is_dns_label)
    if (overhead := obj.get("overhead")) is not None:
        check_container_resources(errors, "overhead", {"limits": overhead.get("podFixed")})
    if (scheduling := obj.get("scheduling")) is not None:
        check_labels(errors, "scheduling.nodeSelector", scheduling.get("nodeSelector"))
        check_tolerations(errors, "scheduling.tolerations", scheduling.get("tolerations") or [])


def check_runtime_class_update(errors: Errors, obj: Value, old: Value) -> None:
    check_runtime_class(errors, obj)
    check_updated_metadata(errors, obj["metadata"], old["metadata"], finalizers=False)
    check_immutable(errors, "handler", obj.get("handler"), old.get("handler"))
