"""NodeRestriction: a node's agent writes only what is its own.

Called by the chain for every write whose user is a node (system:node:NAME in system:nodes), whatever authorization
already allowed. The closed list: its Node and its status, its Lease, the status and the deletion or eviction of pods
bound to it, events, tokens of service accounts its pods use. Rules from the admission plugin NodeRestriction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.admission.attributes import Attributes, Operation

LEASE_NAMESPACE = "kube-node-lease"
_AGENT_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    }
)
_AGENT_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_OUR_DOMAIN = "wherry"
"""Labels `wherry/...` give a node rights (to read the certificates of Ingresses): only people and controllers set them,
not even a node that registers, because a join token may be stolen."""
_FREE = {("", "events"), ("events.k8s.io", "events"), ("certificates.k8s.io", "certificatesigningrequests")}
_REVIEWS = {"authentication.k8s.io", "authorization.k8s.io"}


def restrict_node(attributes: Attributes) -> None:
    """Refuses what this node's agent may not write. Raises Forbidden."""
    if attributes.operation is Operation.CONNECT:
        return
    node = attributes.request.user.node
    resource = attributes.kind.resource
    if resource == ("", "pods"):
        _restrict_pod(attributes, node)
    elif resource == ("", "nodes"):
        _restrict_own_node(attributes, node)
    elif resource == ("coordination.k8s.io", "leases"):
        _restrict_lease(attributes, node)
    elif resource == ("", "serviceaccounts") and attributes.subresource == "token":
        return
    elif resource not in _FREE and attributes.kind.group not in _REVIEWS:
        raise attributes.forbidden(f'node "{node}" is not allowed to write {attributes.kind.plural}')


def _restrict_pod(attributes: Attributes, node: str) -> None:
    if attributes.operation is Operation.CREATE and not attributes.subresource:
        raise attributes.forbidden(f'node "{node}" is not allowed to create pods')
    old = attributes.old or attributes.whole or {}
    if (old.get("spec") or {}).get("nodeName") != node:
        what = {Operation.DELETE: "delete pods", Operation.UPDATE: "update pod status for pods"}
        deed = what.get(attributes.operation, "evict pods")
        raise attributes.forbidden(f'node "{node}" can only {deed} with spec.nodeName set to itself')
    if attributes.operation is not Operation.UPDATE:
        return
    if attributes.subresource != "status":
        raise attributes.forbidden(f'node "{node}" can only update the status of its pods')
    if _labels(attributes.obj) != _labels(old):
        raise attributes.forbidden(f'node "{node}" cannot update labels through pod status')


def _restrict_own_node(attributes: Attributes, node: str) -> None:
    name = attributes.name or (attributes.obj or {}).get("metadata", {}).get("name", "")
    if name != node:
        raise attributes.forbidden(f'node "{node}" is not allowed to modify node "{name}"')
    if attributes.operation is Operation.DELETE:
        raise attributes.forbidden(f'node "{node}" is not allowed to delete itself')
    writes_spec = attributes.operation is Operation.UPDATE and not attributes.subresource
    if writes_spec and _spec(attributes.obj, "taints") != _spec(attributes.old, "taints"):
        raise attributes.forbidden(f'node "{node}" is not allowed to modify taints')
    if not attributes.subresource and any(
        _spec(attributes.obj, name) != _spec(attributes.old, name) for name in ("podCIDR", "podCIDRs")
    ):
        raise attributes.forbidden(f'node "{node}" is not allowed to set its podCIDR: the controller gives it one')
    if _meta(attributes.obj, "ownerReferences") != _meta(attributes.old, "ownerReferences"):
        # an owner that does not exist has the node collected, and it would register again without its taints
        raise attributes.forbidden(f'node "{node}" is not allowed to modify ownerReferences')
    if _meta(attributes.obj, "finalizers") != _meta(attributes.old, "finalizers"):
        # deleting the Node revokes its certificate: it must not be able to put that off
        raise attributes.forbidden(f'node "{node}" is not allowed to modify finalizers')
    if added := sorted(_outside_addresses(attributes.obj) - _outside_addresses(attributes.old)):
        # load balancers and Ingresses would be reached there
        listed = ", ".join(added)
        raise attributes.forbidden(f'node "{node}" is not allowed to give itself the ExternalIP {listed}')
    _restrict_labels(attributes, node)


def _restrict_labels(attributes: Attributes, node: str) -> None:
    new, old = _labels(attributes.obj), _labels(attributes.old)
    changed = {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
    reserved = sorted(key for key in changed if _is_reserved(key))
    if reserved:
        if attributes.operation is Operation.CREATE:
            listed = f'node "{node}" is not allowed to set the following labels: {", ".join(reserved)}'
            raise attributes.forbidden(listed)
        raise attributes.forbidden(f"is not allowed to modify labels: {', '.join(reserved)}")


def _is_reserved(label: str) -> bool:
    """Labels in Kubernetes' domains and ours place workloads and give rights; an agent may set only those that describe
    its machine."""
    domain = label.partition("/")[0] if "/" in label else ""
    if domain == _OUR_DOMAIN:
        return True
    in_kubernetes = any(domain == root or domain.endswith("." + root) for root in ("kubernetes.io", "k8s.io"))
    if not in_kubernetes or label in _AGENT_LABELS:
        return False
    return not any(domain == root or domain.endswith("." + root) for root in _AGENT_LABEL_DOMAINS)


def _restrict_lease(attributes: Attributes, node: str) -> None:
    name = attributes.name or (attributes.obj or {}).get("metadata", {}).get("name", "")
    if attributes.namespace != LEASE_NAMESPACE:
        raise attributes.forbidden(f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
    if name != node:
        raise attributes.forbidden("can only access node lease with the same name as the requesting node")


def _labels(obj: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((obj or {}).get("metadata") or {}).get("labels") or {}


def _spec(obj: Mapping[str, Any] | None, name: str) -> Any:
    """A field of the spec; what is empty is none."""
    return ((obj or {}).get("spec") or {}).get(name) or None


def _meta(obj: Mapping[str, Any] | None, name: str) -> list[Any]:
    return list(((obj or {}).get("metadata") or {}).get(name) or ())


def _outside_addresses(obj: Mapping[str, Any] | None) -> set[str]:
    told = ((obj or {}).get("status") or {}).get("addresses") or ()
    return {str(one.get("address")) for one in told if one.get("type") == "ExternalIP"}
