"""Roles and bindings: rules that can match something, subjects that can exist, a role reference that stays.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/rbac/validation.
"""

from __future__ import annotations

from api.errors import invalid, not_supported, required
from api.names import is_dns_subdomain, is_path_segment
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_label_selector,
    check_name,
    check_required_name,
    go_form,
)

_GROUP = "rbac.authorization.k8s.io"
_SUBJECTS = ("ServiceAccount", "User", "Group")


def check_role(errors: Errors, role: Value) -> None:
    check_metadata(errors, role["metadata"], is_path_segment, namespaced=True)
    _check_rules(errors, role, namespaced=True)


def check_role_update(errors: Errors, role: Value, old: Value) -> None:
    for _ in range(2):  # as Kubernetes does
        check_role(errors, role)
    check_updated_metadata(errors, role["metadata"], old["metadata"])


def check_cluster_role(errors: Errors, role: Value) -> None:
    check_metadata(errors, role["metadata"], is_path_segment, namespaced=False)
    _check_rules(errors, role, namespaced=False)
    aggregation = role.get("aggregationRule")
    if aggregation is None:
        return
    path, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or []
    if not selectors:
        detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        errors.append(required(path, detail))
    for index, selector in enumerate(selectors):
        check_label_selector(errors, f"{path}[{index}]", selector)


def check_cluster_role_update(errors: Errors, role: Value, old: Value) -> None:
    for _ in range(2):  # as Kubernetes does
        check_cluster_role(errors, role)
    check_updated_metadata(errors, role["metadata"], old["metadata"])


def check_role_binding(errors: Errors, binding: Value) -> None:
    _check_binding(errors, binding, namespaced=True)


def check_role_binding_update(errors: Errors, binding: Value, old: Value) -> None:
    for _ in range(2):
        _check_binding(errors, binding, namespaced=True)
    _check_same_role(errors, binding, old)


def check_cluster_role_binding(errors: Errors, binding: Value) -> None:
    _check_binding(errors, binding, namespaced=False)


def check_cluster_role_binding_update(errors: Errors, binding: Value, old: Value) -> None:
    for _ in range(2):
        _check_binding(errors, binding, namespaced=False)
    _check_same_role(errors, binding, old)


def _check_rules(errors: Errors, role: Value, *, namespaced: bool) -> None:
    for index, rule in enumerate(role.get("rules") or ()):
        path, urls = f"rules[{index}]", rule.get("nonResourceURLs") or []
        if not rule.get("verbs"):
            errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if urls:
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid(f"{path}.nonResourceURLs", urls, detail))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid(f"{path}.nonResourceURLs", urls, detail))
            continue
        if not rule.get("apiGroups"):
            errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))


def _check_binding(errors: Errors, binding: Value, *, namespaced: bool) -> None:
    check_metadata(errors, binding["metadata"], is_path_segment, namespaced=namespaced)
    reference = binding.get("roleRef") or {}
    group, kind = reference.get("apiGroup") or "", reference.get("kind") or ""
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if group != _GROUP:
        errors.append(not_supported("roleRef.apiGroup", group, (_GROUP,)))
    if kind not in kinds:
        errors.append(not_supported("roleRef.kind", kind, kinds))
    check_required_name(errors, "roleRef.name", reference.get("name"), is_path_segment)
    for index, subject in enumerate(binding.get("subjects") or ()):
        _check_subject(errors, f"subjects[{index}]", subject, namespaced=namespaced)


def _check_subject(errors: Errors, path: str, subject: Value, *, namespaced: bool) -> None:
    name, kind, group = subject.get("name") or "", subject.get("kind") or "", subject.get("apiGroup") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name:
            check_name(errors, f"{path}.name", name, is_dns_subdomain)
        if group:
            errors.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):  # a RoleBinding means its own namespace
            errors.append(required(f"{path}.namespace"))
    elif kind in _SUBJECTS:
        if not name:
            errors.append(invalid(f"{path}.name", name, f"{kind.lower()} name cannot be empty"))
        if group != _GROUP:
            errors.append(not_supported(f"{path}.apiGroup", group, (_GROUP,)))
    else:
        errors.append(not_supported(f"{path}.kind", kind, _SUBJECTS))


def _check_same_role(errors: Errors, binding: Value, old: Value) -> None:
    """Another role would be another grant: delete and create the binding instead."""
    check_updated_metadata(errors, binding["metadata"], old["metadata"])
    if (reference := binding.get("roleRef") or {}) != (old.get("roleRef") or {}):
        shown = go_form(reference, ("apiGroup=APIGroup", "kind", "name"))
        errors.append(invalid("roleRef", shown, "cannot change roleRef"))
