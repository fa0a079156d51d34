"""The roles and bindings every Kubernetes cluster starts with, for the kinds wherry serves.

Called by bootstrap.py at start, which creates what is missing and leaves alone what a person changed (annotation
rbac.authorization.kubernetes.io/autoupdate: "false"). Pure data. The source is Kubernetes' page "Using RBAC
Authorization", default roles; rules for kinds not served yet are there too, so that a chart's view role means the same.
`admin`, `edit` and `view` gather what carries their labels, so that charts add the rules of their own kinds to them.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.objects import Object, clone, name_of
from controller.reconcilers.cluster_roles import ClusterRoleAggregation, aggregated_rules

GROUP = "rbac.authorization.k8s.io"
API_VERSION = f"{GROUP}/v1"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
BOOTSTRAPPING = "kubernetes.io/bootstrapping"

_READ = "get,list,watch"
_WRITE = "create,delete,deletecollection,patch,update"
_CHANGE = "create,patch,update"
_BOTH = f"{_WRITE},{_READ}"
_WORKLOADS = "daemonsets,deployments,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale"
_PODS = "pods/attach,pods/exec,pods/portforward,pods/proxy"
_EVENTS = f"{_CHANGE} core,events.k8s.io events"
_REVIEWS = (
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io subjectaccessreviews",
)
_SIGNERS = "system:certificates.k8s.io"
_AUTHENTICATED = "system:authenticated"
_UNAUTHENTICATED = "system:unauthenticated"


def _rules(*lines: str) -> list[Object]:
    """Lines `VERBS GROUPS RESOURCES [NAMES]`, each a list with commas; a line of paths alone may be got."""
    return [_rule(line) for line in lines]


def _rule(line: str) -> Object:
    if line.startswith("/"):
        return {"nonResourceURLs": line.split(), "verbs": ["get"]}
    verbs, groups, resources, *names = (word.split(",") for word in line.split())
    rule: Object = {
        "apiGroups": ["" if group == "core" else group for group in groups],
        "resources": sorted(resources),
        "verbs": sorted(verbs),
    }
    return rule | {"resourceNames": names[0]} if names else rule


_VIEW = _rules(
    f"{_READ} core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,"
    "replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status",
    f"{_READ} core bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,"
    "resourcequotas,resourcequotas/status",
    f"{_READ} core namespaces",
    f"{_READ} discovery.k8s.io endpointslices",
    f"{_READ} apps controllerrevisions,daemonsets/status,deployments/status,replicasets/status,statefulsets/status,"
    f"{_WORKLOADS}",
    f"{_READ} autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status",
    f"{_READ} batch cronjobs,cronjobs/status,jobs,jobs/status",
    f"{_READ} policy poddisruptionbudgets,poddisruptionbudgets/status",
    f"{_READ} networking.k8s.io ingresses,ingresses/status,networkpolicies",
)
_EDIT = _rules(
    f"{_READ} core {_PODS},secrets,services/proxy",
    "impersonate core serviceaccounts",
    f"{_WRITE} core pods,{_PODS}",
    "create core pods/eviction",
    f"{_WRITE} core configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,"
    "secrets,serviceaccounts,services,services/proxy",
    "create core serviceaccounts/token",
    f"{_WRITE} apps deployments/rollback,{_WORKLOADS}",
    f"{_WRITE} autoscaling horizontalpodautoscalers",
    f"{_WRITE} batch cronjobs,jobs",
    f"{_WRITE} policy poddisruptionbudgets",
    f"{_WRITE} networking.k8s.io ingresses,networkpolicies",
    f"{_BOTH} coordination.k8s.io leases",
)
_ADMIN = _rules("create authorization.k8s.io localsubjectaccessreviews", f"{_BOTH} {GROUP} rolebindings,roles")
_NODE = _rules(
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews",
    f"{_READ} core services,namespaces",
    f"{_READ} discovery.k8s.io endpointslices",
    f"{_READ} networking.k8s.io networkpolicies",
    f"{_READ} node.k8s.io runtimeclasses",
    _EVENTS,
)

NODE_RULES: tuple[Object, ...] = tuple(_NODE)
"""What every agent may do whatever runs on it; the rest is judged by node.py against its pods."""

_AGGREGATED = {"view": ("edit",), "edit": ("admin",), "admin": ()}
"""Each gathers what is labelled for it, and is part of the next."""

_PARTS: tuple[tuple[str, list[Object], tuple[str, ...]], ...] = (
    ("system:aggregate-to-admin", _ADMIN, ("admin",)),
    ("system:aggregate-to-edit", _EDIT, ("edit",)),
    ("system:aggregate-to-view", _VIEW, ("view",)),
    ("system:aggregated-metrics-reader", _rules(f"{_READ} metrics.k8s.io nodes,pods"), ("admin", "edit", "view")),
)

_CLUSTER_ROLES: dict[str, list[Object]] = {
    "cluster-admin": [*_rules("* * *"), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
    "system:node": _NODE,
    "system:discovery": _rules(
        "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"
    ),
    "system:public-info-viewer": _rules("/healthz /livez /readyz /version /version/"),
    "system:basic-user": _rules(
        "create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
        "create authentication.k8s.io selfsubjectreviews",
    ),
    "system:monitoring": _rules("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
    "system:service-account-issuer-discovery": _rules("/.well-known/openid-configuration /openid/v1/jwks"),
    "system:auth-delegator": _rules(*_REVIEWS),
    "system:kubelet-api-admin": _rules(
        f"{_READ} core nodes", "proxy core nodes", "* core nodes/log,nodes/metrics,nodes/proxy,nodes/stats"
    ),
    "system:node-bootstrapper": _rules(f"create,{_READ} certificates.k8s.io certificatesigningrequests"),
    "system:node-proxier": _rules(
        "list,watch core endpoints,services",
        f"{_READ} core nodes",
        _EVENTS,
        "list,watch discovery.k8s.io endpointslices",
    ),
    "system:node-problem-detector": _rules("get core nodes", "patch core nodes/status", _EVENTS),
    "system:kube-dns": _rules("list,watch core endpoints,services"),
    "system:kube-aggregator": _rules(f"{_READ} core endpoints,services"),
    "system:kube-controller-manager": _rules(
        _EVENTS,
        "create coordination.k8s.io leases",
        "get,update coordination.k8s.io leases kube-controller-manager",
        "create core secrets,serviceaccounts,serviceaccounts/token",
        "delete core secrets",
        "get core configmaps,namespaces,secrets,serviceaccounts",
        "update core secrets,serviceaccounts",
        *_REVIEWS,
        "list,watch * *",
    ),
    "system:kube-scheduler": _rules(
        _EVENTS,
        "create coordination.k8s.io leases",
        "get,update coordination.k8s.io leases kube-scheduler",
        f"{_READ} core namespaces,nodes,replicationcontrollers,services",
        f"delete,{_READ} core pods",
        "create core bindings,pods/binding",
        "patch,update core pods/status",
        f"{_READ} apps replicasets,statefulsets",
        f"{_READ} policy poddisruptionbudgets",
        f"{_READ} core persistentvolumeclaims,persistentvolumes",
        f"{_READ} storage.k8s.io csidrivers,csinodes,csistoragecapacities",
        *_REVIEWS,
    ),
    "system:volume-scheduler": _rules(
        f"{_READ},patch,update core persistentvolumeclaims,persistentvolumes", f"{_READ} storage.k8s.io storageclasses"
    ),
    "system:persistent-volume-provisioner": _rules(
        f"create,delete,{_READ} core persistentvolumes",
        f"{_READ},update core persistentvolumeclaims",
        f"{_READ} storage.k8s.io storageclasses",
        "watch core events",
        _EVENTS,
    ),
    f"{_SIGNERS}:certificatesigningrequests:nodeclient": _rules(
        "create certificates.k8s.io certificatesigningrequests/nodeclient"
    ),
    f"{_SIGNERS}:certificatesigningrequests:selfnodeclient": _rules(
        "create certificates.k8s.io certificatesigningrequests/selfnodeclient"
    ),
    **{
        f"{_SIGNERS}:{signer}-approver": _rules(f"approve certificates.k8s.io signers kubernetes.io/{signer}")
        for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    },
    f"system:controller:{ClusterRoleAggregation.name}": _rules(f"escalate,{_READ},patch,update {GROUP} clusterroles"),
}

_CLUSTER_BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("Group system:masters",),
    "system:discovery": (f"Group {_AUTHENTICATED}",),
    "system:basic-user": (f"Group {_AUTHENTICATED}",),
    "system:public-info-viewer": (f"Group {_AUTHENTICATED}", f"Group {_UNAUTHENTICATED}"),
    "system:monitoring": ("Group system:monitoring",),
    "system:service-account-issuer-discovery": ("Group system:serviceaccounts",),
    "system:node-proxier": ("User system:kube-proxy",),
    "system:kube-controller-manager": ("User system:kube-controller-manager",),
    "system:kube-scheduler": ("User system:kube-scheduler",),
    "system:volume-scheduler": ("User system:kube-scheduler",),
    "system:kube-dns": ("ServiceAccount kube-dns",),
    f"system:controller:{ClusterRoleAggregation.name}": (f"ServiceAccount {ClusterRoleAggregation.name}",),
}


def cluster_roles() -> list[Object]:
    """Aggregated ones come with their rules, so that they mean something before the reconciler runs."""
    roles = [_cluster_role(name, rules) for name, rules in _CLUSTER_ROLES.items()]
    roles += [_cluster_role(name, rules, parts) for name, rules, parts in _PARTS]
    for name, parts in _AGGREGATED.items():
        role = _cluster_role(name, [], parts)
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": _labels((name,))}]}
        role["rules"] = aggregated_rules(role, roles)
        roles.append(role)
    return [clone(role) for role in sorted(roles, key=name_of)]


def cluster_role_bindings() -> list[Object]:
    return [_cluster_role_binding(name, subjects) for name, subjects in _CLUSTER_BINDINGS.items()]


def _labels(parts: Iterable[str]) -> dict[str, str]:
    return {f"{GROUP}/aggregate-to-{part}": "true" for part in parts}


def _metadata(name: str, parts: Iterable[str] = ()) -> Object:
    labels = {BOOTSTRAPPING: "rbac-defaults", **_labels(parts)}
    return {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}}


def _cluster_role(name: str, rules: list[Object], parts: Iterable[str] = ()) -> Object:
    return {"apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": _metadata(name, parts), "rules": rules}


def _cluster_role_binding(name: str, subjects: Iterable[str]) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": _metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [_subject(*subject.split()) for subject in subjects],
    }


def _subject(kind: str, name: str) -> Object:
    if kind == "ServiceAccount":
        return {"kind": kind, "name": name, "namespace": "kube-system"}
    return {"apiGroup": GROUP, "kind": kind, "name": name}
