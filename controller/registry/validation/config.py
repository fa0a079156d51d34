"""Namespace, ConfigMap, Secret, ServiceAccount and its tokens.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/core/validation.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from api.codec.json_text import parse_json
from api.errors import forbidden, invalid, required, too_long
from api.names import byte_length, is_config_key, is_dns_label, is_dns_subdomain, is_qualified_name
from api.patch.json import unmarshal_fault
from controller.registry.validation.meta import check_kube_finalizer, check_metadata, check_updated_metadata
from controller.registry.validation.rules import Errors, Value, check_immutable, check_name

_LARGEST = 1024 * 1024
_FIXED = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"
_ACCOUNT = "kubernetes.io/service-account.name"


def check_namespace(errors: Errors, namespace: Value) -> None:
    check_metadata(errors, namespace["metadata"], is_dns_label, namespaced=False)
    for finalizer in (namespace.get("spec") or {}).get("finalizers") or ():
        check_name(errors, "spec.finalizers", finalizer, is_qualified_name)
        check_kube_finalizer(errors, "spec.finalizers", finalizer)


def check_namespace_update(errors: Errors, namespace: Value, old: Value) -> None:
    check_namespace(errors, namespace)
    check_updated_metadata(errors, namespace["metadata"], old["metadata"])


def check_namespace_status(errors: Errors, namespace: Value, old: Value) -> None:
    check_updated_metadata(errors, namespace["metadata"], old["metadata"])
    phase = (namespace.get("status") or {}).get("phase") or ""
    if namespace["metadata"].get("deletionTimestamp"):
        if phase != "Terminating":
            detail = "may only be 'Terminating' if `deletionTimestamp` is not empty"
            errors.append(invalid("status.Phase", phase, detail))
    elif phase != "Active":
        errors.append(invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty"))


def check_namespace_finalize(errors: Errors, namespace: Value, old: Value) -> None:
    check_updated_metadata(errors, namespace["metadata"], old["metadata"])
    for index, finalizer in enumerate((namespace.get("spec") or {}).get("finalizers") or ()):
        check_name(errors, f"spec.finalizers[{index}]", finalizer, is_qualified_name)
        check_kube_finalizer(errors, f"spec.finalizers[{index}]", finalizer)


def check_config_map(errors: Errors, config_map: Value) -> None:
    check_metadata(errors, config_map["metadata"], is_dns_subdomain, namespaced=True)
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    size = 0
    for key in sorted(data):
        check_name(errors, f"data[{key}]", key, is_config_key)
        if key in binary:
            errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += byte_length(data[key] or "")
    for key in sorted(binary):
        check_name(errors, f"binaryData[{key}]", key, is_config_key)
        size += _decoded_size(binary[key])
    if size > _LARGEST:
        errors.append(too_long("", "", _LARGEST))


def check_config_map_update(errors: Errors, config_map: Value, old: Value) -> None:
    check_updated_metadata(errors, config_map["metadata"], old["metadata"])
    _check_fixed(errors, config_map, old, ("data", "binaryData"))
    check_config_map(errors, config_map)


def check_secret(errors: Errors, secret: Value) -> None:
    check_metadata(errors, secret["metadata"], is_dns_subdomain, namespaced=True)
    data = secret.get("data") or {}
    for key in sorted(data):
        check_name(errors, f"data[{key}]", key, is_config_key)
    if sum(_decoded_size(value) for value in data.values()) > _LARGEST:
        errors.append(too_long("data", "", _LARGEST))
    match secret.get("type") or "":
        case "kubernetes.io/service-account-token":
            if not (secret["metadata"].get("annotations") or {}).get(_ACCOUNT):
                errors.append(required(f"metadata.annotations[{_ACCOUNT}]"))
        case "kubernetes.io/dockercfg":
            _check_json(errors, data, ".dockercfg")
        case "kubernetes.io/dockerconfigjson":
            _check_json(errors, data, ".dockerconfigjson")
        case "kubernetes.io/basic-auth":
            if "username" not in data and "password" not in data:
                errors += [required("data[username]"), required("data[password]")]
        case "kubernetes.io/ssh-auth":
            if not data.get("ssh-privatekey"):
                errors.append(required("data[ssh-privatekey]"))
        case "kubernetes.io/tls":
            errors += [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]


def check_secret_update(errors: Errors, secret: Value, old: Value) -> None:
    check_updated_metadata(errors, secret["metadata"], old["metadata"])
    check_immutable(errors, "type", secret.get("type"), old.get("type"))
    _check_fixed(errors, secret, old, ("data",))
    check_secret(errors, secret)


def check_service_account(errors: Errors, account: Value) -> None:
    check_metadata(errors, account["metadata"], is_dns_subdomain, namespaced=True)


def check_service_account_update(errors: Errors, account: Value, old: Value) -> None:
    check_updated_metadata(errors, account["metadata"], old["metadata"])
    check_service_account(errors, account)


def _check_fixed(errors: Errors, obj: Value, old: Value, fields: tuple[str, ...]) -> None:
    """`immutable: true` can neither be taken back nor worked around."""
    if not old.get("immutable"):
        return
    if not obj.get("immutable"):
        errors.append(forbidden("immutable", _FIXED))
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            errors.append(forbidden(field, _FIXED))


def _check_json(errors: Errors, data: Mapping[str, str], key: str) -> None:
    if key not in data:
        errors.append(required(f"data[{key}]"))
        return
    try:
        decoded = parse_json(base64.b64decode(data[key] or ""))[0]
    except (binascii.Error, ValueError) as fault:
        errors.append(invalid(f"data[{key}]", _REDACTED, str(fault)))
        return
    if decoded is not None and not isinstance(decoded, dict):
        errors.append(invalid(f"data[{key}]", _REDACTED, unmarshal_fault(decoded)))


def _decoded_size(text: str | None) -> int:
    """Bytes that a base64 text stands for."""
    return len(text or "") * 3 // 4 - (text or "")[-2:].count("=")
