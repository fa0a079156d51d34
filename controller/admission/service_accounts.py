"""ServiceAccount admission: every pod runs as a service account that exists, and gets its token mounted.

Called by the chain when a pod is created. The volume and its mount are those of the admission plugin ServiceAccount
(https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/): a projected volume with a bound
token, the cluster's CA bundle and the namespace. Reads ServiceAccounts, changes only the pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from api.names import generate_name
from api.objects import Object
from controller.admission.attributes import Attributes, Reader
from controller.store.types import Key

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
ROOT_CA_CONFIG_MAP = "kube-root-ca.crt"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
TOKEN_SECONDS = 3607
"""One hour and a bit: agents refresh tokens at 80 % of their life, clients that cannot reload last an hour."""

_RANDOM = Random()
_AUTOMOUNT, _PULL_SECRETS = b'"automountServiceAccountToken"', b'"imagePullSecrets"'
"""An account without these says nothing about its pods: it need not be parsed."""


async def admit_service_account(attributes: Attributes, reader: Reader) -> None:
    """Names, checks and mounts the pod's service account. Raises Forbidden when it does not exist."""
    pod = attributes.obj
    assert pod is not None
    if MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {}):
        return
    spec = pod["spec"]
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = await _account(attributes, reader, name)
    if _wants_token(spec, account):
        _mount_token(spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": each["name"]} for each in account["imagePullSecrets"] if "name" in each]


async def _account(attributes: Attributes, reader: Reader, name: str) -> Object:
    key = Key("", "serviceaccounts", attributes.namespace, name)
    record = reader.get(key) or await reader.read(key)
    if record is None:
        where = f"{attributes.namespace}/{name}"
        raise attributes.forbidden(f'error looking up service account {where}: serviceaccount "{name}" not found')
    raw = record.raw
    return record.parse() if _AUTOMOUNT in raw or _PULL_SECRETS in raw else {}


def _wants_token(spec: Mapping[str, Any], account: Mapping[str, Any]) -> bool:
    """The pod's word counts before the account's; silence means yes."""
    own = spec.get("automountServiceAccountToken")
    return account.get("automountServiceAccountToken") is not False if own is None else own is not False


def _mount_token(spec: Object) -> None:
    volumes: list[Object] = spec.get("volumes") or []
    names = [each.get("name") or "" for each in volumes]
    present = next((name for name in names if name.startswith(VOLUME_PREFIX)), "") if names else ""
    name = present or generate_name(VOLUME_PREFIX, _RANDOM)
    mounted = False
    for container in _containers(spec):
        mounts = container.get("volumeMounts") or []
        if MOUNT_PATH not in [mount.get("mountPath") for mount in mounts]:
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
            mounted = True
    if mounted and not present:
        spec["volumes"] = [*volumes, _token_volume(name)]


def _containers(spec: Mapping[str, Any]) -> Iterator[Object]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _token_volume(name: str) -> Object:
    namespace_field = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": ROOT_CA_CONFIG_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace_field]}},
            ],
            "defaultMode": 420,
        },
    }
