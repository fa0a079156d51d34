"""THE table of kinds: everything generic code needs to know about a kind.

Adding a kind is adding a row here plus, where its rules go beyond the schema, a strategy in
`controller/registry/strategies`. Read by server (routes, discovery, tables), registry, agent and CLI. Pure data, but
for the rows of custom kinds, which the API server puts in and takes out (`serve_custom`) as definitions come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])
Row = TypeVar("Row")
STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Subresource:
    """A path below an object, `pods/log`; `kind` (with its group/version) is what it reads and writes."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""


STATUS = Subresource("status", ("get", "patch", "update"))
SCALE = Subresource("scale", ("get", "patch", "update"), kind="Scale", group="autoscaling", version="v1")


@dataclass(frozen=True)
class Kind:
    """One served kind. `stored_as` names the (group, plural) whose objects it shows when it has none of its own."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    verbs: tuple[str, ...] = STANDARD_VERBS
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    stored_as: tuple[str, str] | None = None
    selectable_fields: tuple[str, ...] = field(default=())
    custom: object = field(default=None, compare=False, repr=False)
    """The schema of a custom kind (`api.schema.custom.CustomType`); None for the built-in ones."""
    stored: bool = True
    """Whether its objects lie in the store; others are made when they are asked for."""
    reshaped: bool = False
    """A custom kind of several versions, or whose schema may have changed: an object may lie in the store otherwise."""

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def resource(self) -> tuple[str, str]:
        """(group, plural): where its objects live in the store."""
        return self.stored_as or (self.group, self.plural)

    @cached_property
    def is_view(self) -> bool:
        """Whether its objects may be stored otherwise than it shows them."""
        return self.stored_as is not None or self.reshaped

    @cached_property
    def has_status(self) -> bool:
        return STATUS in self.subresources


_POD_SUBRESOURCES = (
    Subresource("attach", ("create", "get"), kind="PodAttachOptions"),
    Subresource("binding", ("create",), kind="Binding"),
    Subresource("ephemeralcontainers", ("get", "patch", "update")),
    Subresource("eviction", ("create",), kind="Eviction", group="policy", version="v1"),
    Subresource("exec", ("create", "get"), kind="PodExecOptions"),
    Subresource("log", ("get",)),
    Subresource("portforward", ("create", "get"), kind="PodPortForwardOptions"),
    Subresource("proxy", ("create", "delete", "get", "patch", "update"), kind="PodProxyOptions"),
    Subresource("resize", ("get", "patch", "update")),
    STATUS,
)
_NODE_SUBRESOURCES = (
    Subresource("proxy", ("create", "delete", "get", "patch", "update"), kind="NodeProxyOptions"),
    STATUS,
)
_SERVICE_SUBRESOURCES = (
    Subresource("proxy", ("create", "delete", "get", "patch", "update"), kind="ServiceProxyOptions"),
    STATUS,
)
_NAMESPACE_SUBRESOURCES = (Subresource("finalize", ("update",)), STATUS)
_NAMESPACE_VERBS = tuple(verb for verb in STANDARD_VERBS if verb != "deletecollection")
_TOKEN = Subresource("token", ("create",), kind="TokenRequest", group="authentication.k8s.io", version="v1")
EVENT_FIELDS_STORED = {
    "reportingController": "reportingComponent",
    **{
        f"regarding.{field}": f"involvedObject.{field}"
        for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
}
"""Selectable fields of events that have another name in the store, which keeps core/v1's."""
_EVENTS_V1_FIELDS = (*EVENT_FIELDS_STORED, "reason", "type")
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
)
_APPS = "apps"
_RBAC = "rbac.authorization.k8s.io"
_AUTHN = "authentication.k8s.io"
_AUTHZ = "authorization.k8s.io"
_CREATE, _LOOKED_AT = ("create",), ("get", "list")
_ALL = ("all",)
_BATCH, _AUTOSCALING, _NETWORKING, _STORAGE = "batch", "autoscaling", "networking.k8s.io", "storage.k8s.io"
_EXTENSIONS, _ADMISSION = "apiextensions.k8s.io", "admissionregistration.k8s.io"

KINDS: tuple[Kind, ...] = (
    Kind(
        "",
        "v1",
        "Namespace",
        "namespaces",
        namespaced=False,
        verbs=_NAMESPACE_VERBS,
        short_names=("ns",),
        subresources=_NAMESPACE_SUBRESOURCES,
        selectable_fields=("status.phase",),
    ),
    Kind(
        "",
        "v1",
        "Node",
        "nodes",
        namespaced=False,
        short_names=("no",),
        subresources=_NODE_SUBRESOURCES,
        selectable_fields=("spec.unschedulable",),
    ),
    Kind(
        "",
        "v1",
        "Pod",
        "pods",
        short_names=("po",),
        categories=("all",),
        subresources=_POD_SUBRESOURCES,
        selectable_fields=_POD_FIELDS,
    ),
    Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",)),
    Kind("", "v1", "Secret", "secrets", selectable_fields=("type",)),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",), subresources=(_TOKEN,)),
    Kind("", "v1", "Event", "events", short_names=("ev",), selectable_fields=(*_EVENT_FIELDS, "reportingController")),
    Kind("", "v1", "Binding", "bindings", verbs=_CREATE),
    Kind(
        "",
        "v1",
        "Service",
        "services",
        short_names=("svc",),
        categories=_ALL,
        subresources=_SERVICE_SUBRESOURCES,
        selectable_fields=("spec.clusterIP", "spec.type"),
    ),
    Kind("", "v1", "Endpoints", "endpoints", singular="endpoints", short_names=("ep",)),
    Kind(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        short_names=("rc",),
        categories=_ALL,
        subresources=(SCALE, STATUS),
        selectable_fields=("status.replicas",),
    ),
    Kind("", "v1", "PodTemplate", "podtemplates"),
    Kind("", "v1", "ResourceQuota", "resourcequotas", short_names=("quota",), subresources=(STATUS,)),
    Kind("", "v1", "LimitRange", "limitranges", short_names=("limits",)),
    Kind(
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        namespaced=False,
        short_names=("pv",),
        subresources=(STATUS,),
    ),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",), subresources=(STATUS,)),
    Kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        short_names=("ev",),
        stored_as=("", "events"),
        selectable_fields=_EVENTS_V1_FIELDS,
    ),
    Kind("coordination.k8s.io", "v1", "Lease", "leases"),
    Kind(
        _APPS,
        "v1",
        "Deployment",
        "deployments",
        short_names=("deploy",),
        categories=("all",),
        subresources=(SCALE, STATUS),
    ),
    Kind(
        _APPS, "v1", "ReplicaSet", "replicasets", short_names=("rs",), categories=("all",), subresources=(SCALE, STATUS)
    ),
    Kind(
        _APPS,
        "v1",
        "StatefulSet",
        "statefulsets",
        short_names=("sts",),
        categories=_ALL,
        subresources=(SCALE, STATUS),
    ),
    Kind(_APPS, "v1", "DaemonSet", "daemonsets", short_names=("ds",), categories=_ALL, subresources=(STATUS,)),
    Kind(_APPS, "v1", "ControllerRevision", "controllerrevisions"),
    Kind(
        _BATCH,
        "v1",
        "Job",
        "jobs",
        categories=_ALL,
        subresources=(STATUS,),
        selectable_fields=("status.successful",),
    ),
    Kind(_BATCH, "v1", "CronJob", "cronjobs", short_names=("cj",), categories=_ALL, subresources=(STATUS,)),
    Kind(
        _AUTOSCALING,
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        short_names=("hpa",),
        categories=_ALL,
        subresources=(STATUS,),
    ),
    Kind(
        _AUTOSCALING,
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        short_names=("hpa",),
        categories=_ALL,
        subresources=(STATUS,),
        stored_as=(_AUTOSCALING, "horizontalpodautoscalers"),
    ),
    Kind(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        short_names=("pdb",),
        subresources=(STATUS,),
    ),
    Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False, short_names=("pc",)),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Kind(_NETWORKING, "v1", "Ingress", "ingresses", short_names=("ing",), subresources=(STATUS,)),
    Kind(_NETWORKING, "v1", "IngressClass", "ingressclasses", namespaced=False),
    Kind(_NETWORKING, "v1", "NetworkPolicy", "networkpolicies", short_names=("netpol",)),
    Kind(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        namespaced=False,
        short_names=("csr",),
        subresources=(Subresource("approval", ("get", "patch", "update")), STATUS),
        selectable_fields=("spec.signerName",),
    ),
    Kind("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False),
    Kind(_STORAGE, "v1", "CSIStorageCapacity", "csistoragecapacities"),
    Kind(_STORAGE, "v1", "StorageClass", "storageclasses", namespaced=False, short_names=("sc",)),
    Kind(_RBAC, "v1", "Role", "roles"),
    Kind(_RBAC, "v1", "RoleBinding", "rolebindings"),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False),
    Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    Kind(
        _EXTENSIONS,
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        namespaced=False,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        subresources=(STATUS,),
    ),
    Kind(
        _ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        namespaced=False,
        categories=("api-extensions",),
    ),
    Kind(
        _ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        namespaced=False,
        categories=("api-extensions",),
    ),
    Kind(
        _ADMISSION,
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        namespaced=False,
        categories=("api-extensions",),
        subresources=(STATUS,),
    ),
    Kind(
        _ADMISSION,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        namespaced=False,
        categories=("api-extensions",),
    ),
    Kind(_AUTHN, "v1", "TokenReview", "tokenreviews", namespaced=False, verbs=_CREATE),
    Kind(_AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False, verbs=_CREATE),
    Kind("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", namespaced=False, verbs=_LOOKED_AT, stored=False),
    Kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", verbs=_LOOKED_AT, stored=False),
    Kind(_AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False, verbs=_CREATE),
    Kind(_AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=_CREATE),
    Kind(_AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False, verbs=_CREATE),
    Kind(_AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False, verbs=_CREATE),
)

_BY_PATH: dict[tuple[str, str, str], Kind] = {}
_BY_GVK: dict[tuple[str, str, str], Kind] = {}
_STORED: dict[tuple[str, str], Kind] = {}
_custom: tuple[Kind, ...] = ()
_listeners: list[Callable[[], object]] = []


def serve_custom(kinds: Iterable[Kind]) -> None:
    """From now on these custom kinds, and no others, are served beside the built-in ones.

    Of a kind's versions, the one without `stored_as` is the one its objects are stored in; one without verbs is stored
    in but not served.
    """
    global _custom
    _custom = tuple(kinds)
    served = served_kinds()
    stored = (kind for kind in (*served, *_custom) if kind.stored_as is None and _is_stored(kind))
    _refill(_BY_PATH, {(kind.group, kind.version, kind.plural): kind for kind in served})
    _refill(_BY_GVK, {(kind.group, kind.version, kind.kind): kind for kind in served})
    _refill(_STORED, {kind.resource: kind for kind in stored})
    for listener in (*_listeners,):
        listener()


def _is_stored(kind: Kind) -> bool:
    return kind.stored and ("get" in kind.verbs or kind.custom is not None)


def _refill(table: dict[Row, Kind], rows: dict[Row, Kind]) -> None:
    table.clear()
    table.update(rows)


def cached_by_table(function: Function) -> Function:
    """`functools.cache` for what is made from the table: forgotten when custom kinds come, change or go."""
    kept = cache(function)
    _listeners.append(kept.cache_clear)
    return kept  # type: ignore[return-value]


def when_changed(listener: Callable[[], object]) -> Callable[[], None]:
    """Calls back whenever the custom kinds have changed. Returns what ends it."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def served_kinds() -> tuple[Kind, ...]:
    """Every row that answers requests, the custom kinds last."""
    return (*KINDS, *(kind for kind in _custom if kind.verbs))


def by_path(group: str, version: str, plural: str) -> Kind | None:
    """The kind served at /apis/GROUP/VERSION/PLURAL (group "" at /api/v1), or None."""
    return _BY_PATH.get((group, version, plural))


def by_gvk(group: str, version: str, kind: str) -> Kind | None:
    return _BY_GVK.get((group, version, kind))


def by_resource(group: str, plural: str) -> Kind:
    """The kind whose objects the store keeps under (group, plural). Raises KeyError for an unknown one."""
    return _STORED[group, plural]


def stored_kinds() -> tuple[Kind, ...]:
    """Every kind that has objects of its own in the store."""
    return tuple(_STORED.values())


serve_custom(())
