"""The roles and bindings every Kubernetes cluster starts with, for the kinds wherry serves.

Called by bootstrap.py at start, which creates what is missing and leaves alone what a person changed (annotation
rbac.authorization.kubernetes.io/autoupdate: "false"). Pure data. The source is Kubernetes' page "Using RBAC
Authorization", default roles; rules for kinds not served yet are there too, so that a chart's view role means the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.objects import Object

GROUP = "rbac.authorization.k8s.io"
API_VERSION = f"{GROUP}/v1"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
BOOTSTRAPPING = "kubernetes.io/bootstrapping"
_LABELS = {BOOTSTRAPPING: "rbac-defaults"}

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")
_AUTHENTICATED = "system:authenticated"
_UNAUTHENTICATED = "system:unauthenticated"


def _rule(verbs: Iterable[str], groups: Iterable[str], resources: Iterable[str], names: Iterable[str] = ()) -> Object:
    rule: Object = {"apiGroups": sorted(groups), "resources": sorted(resources), "verbs": list(verbs)}
    if names:
        rule["resourceNames"] = sorted(names)
    return rule


def _urls(*urls: str) -> Object:
    return {"nonResourceURLs": list(urls), "verbs": ["get"]}


_CORE = ("",)
_WORKLOADS = ("daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets")
_CORE_SHOWN = (
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
    "services/status",
)
_CORE_LOOKED_AT = (
    "bindings",
    "events",
    "limitranges",
    "namespaces",
    "namespaces/status",
    "pods/log",
    "pods/status",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
)
_APPS_SHOWN = (
    "controllerrevisions",
    "daemonsets/status",
    "deployments/status",
    "replicasets/status",
    "statefulsets/scale",
    "statefulsets/status",
    *_WORKLOADS,
)

_VIEW = [
    _rule(READ, _CORE, (*_CORE_SHOWN, *_CORE_LOOKED_AT)),
    _rule(READ, ("discovery.k8s.io",), ("endpointslices",)),
    _rule(READ, ("metrics.k8s.io",), ("nodes", "pods")),
    _rule(READ, ("apps",), _APPS_SHOWN),
    _rule(READ, ("autoscaling",), ("horizontalpodautoscalers", "horizontalpodautoscalers/status")),
    _rule(READ, ("batch",), ("cronjobs", "cronjobs/status", "jobs", "jobs/status")),
    _rule(READ, ("policy",), ("poddisruptionbudgets", "poddisruptionbudgets/status")),
    _rule(READ, ("networking.k8s.io",), ("ingresses", "ingresses/status", "networkpolicies")),
]
_EDIT = [
    _rule(READ, _CORE, ("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy")),
    _rule(("impersonate",), _CORE, ("serviceaccounts",)),
    _rule(WRITE, _CORE, ("pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy")),
    _rule(("create",), _CORE, ("pods/eviction", "serviceaccounts/token")),
    _rule(WRITE, _CORE, ("configmaps", "events", "persistentvolumeclaims", "replicationcontrollers", "secrets")),
    _rule(WRITE, _CORE, ("replicationcontrollers/scale", "serviceaccounts", "services", "services/proxy")),
    _rule(WRITE, ("apps",), ("statefulsets/scale", *_WORKLOADS)),
    _rule(WRITE, ("autoscaling",), ("horizontalpodautoscalers",)),
    _rule(WRITE, ("batch",), ("cronjobs", "jobs")),
    _rule(WRITE, ("policy",), ("poddisruptionbudgets",)),
    _rule(WRITE, ("networking.k8s.io",), ("ingresses", "networkpolicies")),
    _rule((*WRITE, *READ), ("coordination.k8s.io",), ("leases",)),
]
_ADMIN = [
    _rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews",)),
    _rule((*WRITE, *READ), (GROUP,), ("rolebindings", "roles")),
]
_NODE = [
    _rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    _rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews", "subjectaccessreviews")),
    _rule(READ, _CORE, ("services", "namespaces")),
    _rule(READ, ("discovery.k8s.io",), ("endpointslices",)),
    _rule(READ, ("networking.k8s.io",), ("networkpolicies",)),
    _rule(READ, ("node.k8s.io",), ("runtimeclasses",)),
    _rule(("create", "patch", "update"), ("", "events.k8s.io"), ("events",)),
]

NODE_RULES: tuple[Object, ...] = tuple(_NODE)
"""What every agent may do whatever runs on it; the rest is judged by node.py against its pods."""

_CLUSTER_ROLES: tuple[tuple[str, list[Object], str], ...] = (
    (
        "cluster-admin",
        [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ],
        "",
    ),
    ("admin", [*_ADMIN, *_EDIT, *_VIEW], "admin"),
    ("edit", [*_EDIT, *_VIEW], "edit"),
    ("view", _VIEW, "view"),
    ("system:node", _NODE, ""),
    (
        "system:discovery",
        [
            _urls("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*"),
            _urls("/readyz", "/version", "/version/"),
        ],
        "",
    ),
    (
        "system:public-info-viewer",
        [_urls("/healthz", "/livez", "/readyz", "/version", "/version/")],
        "",
    ),
    (
        "system:basic-user",
        [
            _rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
            _rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
        ],
        "",
    ),
    (
        "system:monitoring",
        [_urls("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/readyz", "/readyz/*")],
        "",
    ),
    (
        "system:service-account-issuer-discovery",
        [_urls("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks")],
        "",
    ),
    (
        "system:auth-delegator",
        [
            _rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
            _rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
        ],
        "",
    ),
    (
        "system:kubelet-api-admin",
        [
            _rule(READ, _CORE, ("nodes",)),
            _rule(("*",), _CORE, ("nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats")),
        ],
        "",
    ),
    ("system:node-bootstrapper", [_rule(("create",), ("certificates.k8s.io",), ("certificatesigningrequests",))], ""),
)

_CLUSTER_BINDINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cluster-admin", ("system:masters",)),
    ("system:discovery", (_AUTHENTICATED,)),
    ("system:basic-user", (_AUTHENTICATED,)),
    ("system:public-info-viewer", (_AUTHENTICATED, _UNAUTHENTICATED)),
    ("system:monitoring", ("system:monitoring",)),
    ("system:service-account-issuer-discovery", ("system:serviceaccounts",)),
)


def cluster_roles() -> list[Object]:
    return [_cluster_role(name, rules, aggregates) for name, rules, aggregates in _CLUSTER_ROLES]


def cluster_role_bindings() -> list[Object]:
    return [_cluster_role_binding(name, groups) for name, groups in _CLUSTER_BINDINGS]


def _cluster_role(name: str, rules: list[Object], aggregates: str) -> Object:
    role: Object = {
        "apiVersion": API_VERSION,
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": dict(_LABELS), "annotations": {AUTOUPDATE: "true"}},
        "rules": rules,
    }
    if aggregates:
        wanted = {f"{GROUP}/aggregate-to-{aggregates}": "true"}
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": wanted}]}
    return role


def _cluster_role_binding(name: str, groups: tuple[str, ...]) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": dict(_LABELS), "annotations": {AUTOUPDATE: "true"}},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups],
    }
