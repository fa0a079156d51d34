"""The plain kinds of the core group: Namespace, Node, Secret, ServiceAccount, Event.

Rules from k8s.io/kubernetes/pkg/registry/core/*/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import Strategy, keep

NAMESPACE_FINALIZER = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"


def prepare_namespace(namespace: Object) -> None:
    """A new namespace is Active and has the finalizer that keeps it until its content is gone."""
    spec = namespace.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if NAMESPACE_FINALIZER not in finalizers:
        finalizers.append(NAMESPACE_FINALIZER)
    namespace["status"] = {"phase": "Active"}
    _label_with_name(namespace)


def prepare_namespace_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")
    keep(new, old, "status")
    _label_with_name(new)


def prepare_namespace_status(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")


def prepare_finalize(new: Object, old: Mapping[str, Any]) -> None:
    """namespaces/finalize writes spec.finalizers and nothing else."""
    finalizers = (new.get("spec") or {}).get("finalizers")
    version = new["metadata"].get("resourceVersion", "")
    new["metadata"] = {**old["metadata"], "resourceVersion": version}
    new["spec"] = {"finalizers": finalizers} if finalizers else {}
    keep(new, old, "status")


def _label_with_name(namespace: Object) -> None:
    """Every namespace can be selected by its name (KEP-2161)."""
    metadata = namespace["metadata"]
    labels = metadata.get("labels") or {}
    if labels.get(NAME_LABEL) != metadata.get("name"):
        metadata["labels"] = {**labels, NAME_LABEL: metadata.get("name")}


def prepare_node_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "status")


def prepare_node_status(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")


def prepare_service_account(account: Object) -> None:
    """Of the secrets only the names count."""
    if account.get("secrets"):
        account["secrets"] = [{key: each[key] for key in each if key == "name"} for each in account["secrets"]]


def prepare_service_account_update(new: Object, old: Mapping[str, Any]) -> None:
    del old
    prepare_service_account(new)


NAMESPACE = Strategy(
    prepare_create=prepare_namespace,
    prepare_update=prepare_namespace_update,
    prepare_status=prepare_namespace_status,
    returns_deleted=True,
)
NODE = Strategy(prepare_update=prepare_node_update, prepare_status=prepare_node_status)
SERVICE_ACCOUNT = Strategy(
    prepare_create=prepare_service_account, prepare_update=prepare_service_account_update, returns_deleted=True
)
EVENT = Strategy(create_on_update=True, garbage_collection="unsupported")
