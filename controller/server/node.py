"""What an agent may do: only what its own pods need, and only write about itself.

Called through authorization.Chain. An agent is system:node:NAME in group system:nodes, known by its client
certificate. Reads the store's cache; what a pod refers to is computed once per version of the pod. Invariant: a stolen
agent certificate reads no Secret, ConfigMap or pod of another node (of all pods it reads addresses and labels), gets
tokens only of its own pods' accounts, and changes no other node; one of a node that the administrator labelled for
Ingress reads Ingresses and the certificates that they name, too. What a node writes *into* its objects is judged by
admission (NodeRestriction).
Rules: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.ingress import NODE_LABEL, TLS_SECRET_TYPE, is_ingress_node, tls_secrets
from controller.server.authorization import ALLOWED, Attributes, Decision
from controller.server.default_roles import NODE_RULES
from controller.server.rbac import Rule
from controller.store import Query, Store
from controller.store.types import Key, Record

LEASE_NAMESPACE = "kube-node-lease"
CACHE_PODS = 20_000
_NOT_AN_AGENT = Decision(False)
_REFERRED = ("configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims")
_READ = ("get", "list", "watch")
_INGRESSES = ("networking.k8s.io", "ingresses")
_RULES = tuple(Rule.of(rule) for rule in NODE_RULES)


class NodeAuthorizer:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._references: dict[Key, tuple[int, frozenset[tuple[str, str]]]] = {}

    def authorize(self, attributes: Attributes) -> Decision:
        node = attributes.user.node
        if not node or attributes.path:
            return _NOT_AN_AGENT
        refusal = self._judge(node, attributes)
        if refusal is None:
            return ALLOWED
        if refusal == "" and any(rule.allows(attributes) for rule in _RULES):
            return ALLOWED
        return Decision(False, refusal)

    def _judge(self, node: str, wanted: Attributes) -> str | None:
        """None: allowed. A sentence: refused, whatever the common rules say. "": the common rules decide."""
        match (wanted.group, wanted.resource):
            case ("", "pods"):
                return self._judge_pods(node, wanted)
            case ("", "nodes"):
                return _judge_nodes(node, wanted)
            case ("", "serviceaccounts") if wanted.subresource == "token":
                return self._judge_token(node, wanted)
            case ("", resource) if resource in _REFERRED:
                return self._judge_referred(node, wanted)
            case ("networking.k8s.io", "ingresses" | "ingressclasses"):
                may = wanted.verb in _READ and not wanted.subresource and self._serves_ingresses(node)
                return None if may else f"only nodes with the label {NODE_LABEL}=true may read Ingresses"
            case ("coordination.k8s.io", "leases"):
                own = wanted.namespace == LEASE_NAMESPACE and wanted.name in (node, "")
                may = wanted.verb == "create" or (
                    bool(wanted.name) and wanted.verb in ("get", "update", "patch", "delete")
                )
                return None if own and may else "can only access node lease with the same name as the requesting node"
        return ""

    def _judge_pods(self, node: str, wanted: Attributes) -> str | None:
        if wanted.subresource in ("", "status") and wanted.verb in ("list", "watch"):
            if wanted.addresses_only and not wanted.subresource and (wanted.fields is None or wanted.fields.everything):
                return None  # network policies match all pods; this shape has nothing else in it
            if selected_node(wanted) == node or (wanted.name and self._is_bound(node, wanted)):
                return None
            return "can only list/watch pods with spec.nodeName field selector"
        may = {"": ("get", "delete"), "status": ("get", "patch", "update"), "eviction": ("create",)}
        if wanted.verb not in may.get(wanted.subresource, ()):
            return "a node may not do that to pods"
        if self._is_bound(node, wanted):
            return None
        return f"no relationship found between node '{node}' and this object"

    def _is_bound(self, node: str, wanted: Attributes) -> bool:
        record = self._store.get(Key("", "pods", wanted.namespace, wanted.name))
        return record is not None and record.fields.get("spec.nodeName") == node

    def _judge_referred(self, node: str, wanted: Attributes) -> str | None:
        if wanted.verb not in _READ or wanted.subresource:
            return "can only read resources of this type"
        if not wanted.name:
            return "can only read namespaced object of this type by name"
        if self._is_referred(node, wanted.namespace, wanted.resource, wanted.name):
            return None
        if wanted.resource == "secrets" and wanted.verb == "get" and self._is_shown(node, wanted):
            return None
        return f"no relationship found between node '{node}' and this object"

    def _serves_ingresses(self, node: str) -> bool:
        record = self._store.get(Key("", "nodes", "", node))
        return record is not None and is_ingress_node(record.labels)

    def _is_shown(self, node: str, wanted: Attributes) -> bool:
        """Whether a Secret holds a certificate that this node has to show for an Ingress."""
        if not self._serves_ingresses(node):
            return False
        secret = self._store.get(Key("", "secrets", wanted.namespace, wanted.name))
        if secret is not None and secret.fields.get("type") != TLS_SECRET_TYPE:
            return False
        ingresses = self._store.list(_INGRESSES, Query(namespace=wanted.namespace)).records
        return any(("tls", wanted.name) in self._references_of(record) for record in ingresses)

    def _judge_token(self, node: str, wanted: Attributes) -> str | None:
        if wanted.verb != "create":
            return "can only create tokens for individual service accounts"
        if self._is_referred(node, wanted.namespace, "serviceaccounts", wanted.name):
            return None
        return f"no relationship found between node '{node}' and this object"

    def _is_referred(self, node: str, namespace: str, resource: str, name: str) -> bool:
        wanted = (resource, name)
        for record in self._store.by_node(node):
            if record.key.namespace == namespace and wanted in self._references_of(record):
                return True
        return False

    def _references_of(self, record: Record) -> frozenset[tuple[str, str]]:
        known = self._references.get(record.key)
        if known is not None and known[0] == record.version:
            return known[1]
        if len(self._references) >= CACHE_PODS:
            self._references.clear()
        read = _shown_by if record.key.resource == _INGRESSES else references_of
        found = frozenset(read(record.parse()))
        self._references[record.key] = (record.version, found)
        return found


def _shown_by(ingress: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return (("tls", name) for name in tls_secrets(ingress))


def _judge_nodes(node: str, wanted: Attributes) -> str | None:
    if wanted.verb in ("list", "watch") and not wanted.subresource:
        return None  # routes to its peers need their addresses and podCIDRs
    if wanted.verb == "create" and not wanted.subresource:
        return None  # the name is in the body: admission compares it
    if wanted.subresource not in ("", "status") or wanted.verb not in ("get", "update", "patch"):
        return "a node may not do that to nodes"
    return (
        None if wanted.name == node else f"node '{node}' cannot access node '{wanted.name}', only its own Node object"
    )


def selected_node(wanted: Attributes) -> str:
    """The node a field selector pins pods to, or ""."""
    return wanted.fields.equalities.get("spec.nodeName", "") if wanted.fields is not None else ""


def references_of(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(plural, name) of every object in its namespace that running this pod needs."""
    spec = pod.get("spec") or {}
    yield ("serviceaccounts", spec.get("serviceAccountName") or "default")
    for pull in spec.get("imagePullSecrets") or ():
        yield ("secrets", pull.get("name") or "")
    for section in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(section) or ():
            yield from _environment(container)
    for volume in spec.get("volumes") or ():
        yield from _volume(volume)


def _environment(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        yield from _named(source, (("configMapRef", "configmaps"), ("secretRef", "secrets")))
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        yield from _named(source, (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")))


def _volume(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if claim := volume.get("persistentVolumeClaim"):
        yield ("persistentvolumeclaims", claim.get("claimName") or "")
    if secret := volume.get("secret"):
        yield ("secrets", secret.get("secretName") or "")
    yield from _named(volume, (("configMap", "configmaps"),))
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _named(source, (("configMap", "configmaps"), ("secret", "secrets")))


def _named(source: Mapping[str, Any], fields: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for field, plural in fields:
        if reference := source.get(field):
            yield (plural, reference.get("name") or "")
