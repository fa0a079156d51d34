"""The strategy of every kind, by (group, plural). A kind without a row here behaves generically.

Called by the registry. Kinds whose PUT may create, or must name a version, say so here: the sources are the
AllowCreateOnUpdate and AllowUnconditionalUpdate of k8s.io/kubernetes/pkg/registry.
"""

from __future__ import annotations

from dataclasses import replace

from api.kinds import Kind
from api.objects import Object
from controller.registry.strategies import batch, certificates, core, custom, extras, pods, services, workloads
from controller.registry.strategies.base import PrepareUpdate, Strategy
from controller.registry.strategies.common import keep_status_and_count, spec_and_status, start

_RBAC = "rbac.authorization.k8s.io"
_NETWORKING, _STORAGE = "networking.k8s.io", "storage.k8s.io"
_ROLE = Strategy(create_on_update=True)
_ADMISSION = "admissionregistration.k8s.io"
_HOOKS = Strategy(
    prepare_create=start(None), prepare_update=keep_status_and_count("webhooks"), unconditional_update=False
)
_BALANCED: Object = {"loadBalancer": {}}

_STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "events"): core.EVENT,
    ("", "namespaces"): core.NAMESPACE,
    ("", "nodes"): core.NODE,
    ("", "pods"): pods.STRATEGY,
    ("", "serviceaccounts"): core.SERVICE_ACCOUNT,
    ("", "services"): services.SERVICE,
    ("", "endpoints"): Strategy(create_on_update=True),
    ("", "replicationcontrollers"): workloads.REPLICATION_CONTROLLER,
    ("", "podtemplates"): workloads.POD_TEMPLATE,
    ("", "resourcequotas"): replace(spec_and_status({}, counted=()), returns_deleted=True),
    ("", "limitranges"): Strategy(create_on_update=True),
    ("", "persistentvolumes"): extras.PERSISTENT_VOLUME,
    ("", "persistentvolumeclaims"): replace(spec_and_status({"phase": "Pending"}, counted=()), returns_deleted=True),
    ("apps", "deployments"): workloads.DEPLOYMENT,
    ("apps", "replicasets"): workloads.REPLICA_SET,
    ("apps", "statefulsets"): workloads.STATEFUL_SET,
    ("apps", "daemonsets"): workloads.DAEMON_SET,
    ("batch", "jobs"): batch.JOB,
    ("batch", "cronjobs"): batch.CRON_JOB,
    ("autoscaling", "horizontalpodautoscalers"): extras.AUTOSCALER,
    ("policy", "poddisruptionbudgets"): extras.DISRUPTION_BUDGET,
    ("scheduling.k8s.io", "priorityclasses"): extras.PRIORITY_CLASS,
    ("discovery.k8s.io", "endpointslices"): extras.ENDPOINT_SLICE,
    (_NETWORKING, "ingresses"): spec_and_status(_BALANCED),
    (_NETWORKING, "ingressclasses"): spec_and_status(None),
    (_NETWORKING, "networkpolicies"): spec_and_status(None),
    (_STORAGE, "csistoragecapacities"): Strategy(unconditional_update=False),
    (_STORAGE, "storageclasses"): Strategy(returns_deleted=True),
    ("coordination.k8s.io", "leases"): Strategy(create_on_update=True, unconditional_update=False),
    (_ADMISSION, "mutatingwebhookconfigurations"): _HOOKS,
    (_ADMISSION, "validatingwebhookconfigurations"): _HOOKS,
    (_ADMISSION, "validatingadmissionpolicies"): replace(spec_and_status({}), unconditional_update=False),
    (_ADMISSION, "validatingadmissionpolicybindings"): replace(spec_and_status(None), unconditional_update=False),
    ("node.k8s.io", "runtimeclasses"): Strategy(create_on_update=True, unconditional_update=False),
    ("certificates.k8s.io", "certificatesigningrequests"): certificates.SIGNING_REQUEST,
    ("apiextensions.k8s.io", "customresourcedefinitions"): custom.DEFINITION,
    (_RBAC, "roles"): _ROLE,
    (_RBAC, "rolebindings"): _ROLE,
    (_RBAC, "clusterroles"): _ROLE,
    (_RBAC, "clusterrolebindings"): _ROLE,
}
_PLAIN = Strategy()

_SUBRESOURCES = {
    ("pods", "ephemeralcontainers"): pods.prepare_ephemeral_containers,
    ("pods", "resize"): pods.prepare_resize,
    ("namespaces", "finalize"): core.prepare_finalize,
    ("certificatesigningrequests", "approval"): certificates.prepare_approval,
}


def strategy_of(kind: Kind) -> Strategy:
    if kind.custom is not None:
        return custom.custom_strategy(kind.has_status)
    return _STRATEGIES.get(kind.resource, _PLAIN)


def prepare_update_of(kind: Kind, subresource: str) -> PrepareUpdate:
    """The function that takes back what a write of `subresource` ("" for the object itself) may not change."""
    if subresource in ("", "scale"):
        return strategy_of(kind).prepare_update
    if subresource == "status":
        return strategy_of(kind).prepare_status
    return _SUBRESOURCES[kind.plural, subresource]


__all__ = ["Strategy", "prepare_update_of", "strategy_of"]
