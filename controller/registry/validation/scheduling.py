"""Where a pod may run: affinity, tolerations, topology spread, taints, gates.

Called by podspec, node and storage. Source: k8s.io/kubernetes/pkg/apis/core/validation,
https://kubernetes.io/docs/concepts/scheduling-eviction/.
"""

from __future__ import annotations

from api.errors import duplicate, forbidden, invalid, not_supported, required
from api.names import is_dns_label, is_dns_subdomain, is_label_value
from controller.registry.validation.rules import (
    NOT_POSITIVE,
    Errors,
    Value,
    check_label_selector,
    check_name,
    check_operator,
    check_optional_choice,
    check_qualified,
    check_unique,
)

_NOW = "requiredDuringSchedulingIgnoredDuringExecution"
_RATHER = "preferredDuringSchedulingIgnoredDuringExecution"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_UNSATISFIABLE = frozenset({"DoNotSchedule", "ScheduleAnyway"})
_NODE_POLICIES = frozenset({"Honor", "Ignore"})
_NO_SELECTOR = "must not be specified when labelSelector is not set"


def check_affinity(errors: Errors, path: str, affinity: Value | None) -> None:
    if not affinity:
        return
    if (node := affinity.get("nodeAffinity")) is not None:
        if (needed := node.get(_NOW)) is not None:
            check_node_selector(errors, f"{path}.nodeAffinity.{_NOW}", needed)
        _check_preferred_nodes(errors, f"{path}.nodeAffinity.{_RATHER}", node.get(_RATHER) or [])
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind)
        if terms is None:
            continue
        for index, term in enumerate(terms.get(_NOW) or ()):
            _check_pod_term(errors, f"{path}.{kind}.{_NOW}[{index}]", term)
        for index, weighted in enumerate(terms.get(_RATHER) or ()):
            here = f"{path}.{kind}.{_RATHER}[{index}]"
            _check_weight(errors, here, weighted)
            _check_pod_term(errors, f"{here}.podAffinityTerm", weighted.get("podAffinityTerm") or {})


def check_node_selector(errors: Errors, path: str, selector: Value) -> None:
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        errors.append(required(f"{path}.nodeSelectorTerms", "must have at least one node selector term"))
    for index, term in enumerate(terms):
        _check_node_term(errors, f"{path}.nodeSelectorTerms[{index}]", term, values=True)


def check_tolerations(errors: Errors, path: str, tolerations: list[Value]) -> None:
    for index, toleration in enumerate(tolerations):
        _check_toleration(errors, f"{path}[{index}]", toleration)


def check_effect(errors: Errors, path: str, effect: str) -> None:
    if effect not in _EFFECTS:
        errors.append(not_supported(path, effect, _EFFECTS))


def check_spread(errors: Errors, path: str, constraints: list[Value]) -> None:
    """Topology spread constraints, one per (topologyKey, whenUnsatisfiable)."""
    pairs = [(c.get("topologyKey") or "", c.get("whenUnsatisfiable") or "") for c in constraints]
    last = {pair: index for index, pair in enumerate(pairs)}
    for index, constraint in enumerate(constraints):
        _check_constraint(errors, f"{path}[{index}]", constraint, repeated=last[pairs[index]] > index)


def check_gates(errors: Errors, path: str, gates: list[Value]) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name") or ""
        check_qualified(errors, f"{path}[{index}]", name)
        check_unique(errors, f"{path}[{index}]", name, seen)


def _check_preferred_nodes(errors: Errors, path: str, terms: list[Value]) -> None:
    for index, term in enumerate(terms):
        _check_weight(errors, f"{path}[{index}]", term)
        # A preference may name impossible values: with one node nobody noticed, so Kubernetes still takes them.
        _check_node_term(errors, f"{path}[{index}].preference", term.get("preference") or {}, values=False)


def _check_weight(errors: Errors, path: str, term: Value) -> None:
    weight = term.get("weight") or 0
    if not 1 <= weight <= 100:
        errors.append(invalid(f"{path}.weight", weight, "must be in the range 1-100"))


def _check_node_term(errors: Errors, path: str, term: Value, *, values: bool) -> None:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        _check_node_expression(errors, f"{path}.matchExpressions[{index}]", requirement, values=values)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        _check_node_field(errors, f"{path}.matchFields[{index}]", requirement)


def _check_node_expression(errors: Errors, path: str, requirement: Value, *, values: bool) -> None:
    operator, listed = requirement.get("operator") or "", requirement.get("values") or []
    if operator in ("Gt", "Lt"):
        if len(listed) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(f"{path}.values", detail))
    else:
        check_operator(errors, path, operator, listed)
    check_qualified(errors, f"{path}.key", requirement.get("key") or "")
    for index, value in enumerate(listed if values else ()):
        check_name(errors, f"{path}.values[{index}]", value, is_label_value)


def _check_node_field(errors: Errors, path: str, requirement: Value) -> None:
    operator, key = requirement.get("operator") or "", requirement.get("key") or ""
    values = requirement.get("values") or []
    if operator not in ("In", "NotIn"):
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errors.append(required(f"{path}.values", detail))
    if key != "metadata.name":
        errors.append(invalid(f"{path}.key", key, "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        check_name(errors, f"{path}.values[{index}]", value, is_dns_subdomain)


def _check_pod_term(errors: Errors, path: str, term: Value) -> None:
    selector = term.get("labelSelector")
    check_label_selector(errors, f"{path}.labelSelector", selector)
    check_label_selector(errors, f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for name in term.get("namespaces") or ():
        check_name(errors, f"{path}.namespace", name, is_dns_label)
    _check_match_keys(errors, path, term)
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    check_qualified(errors, f"{path}.topologyKey", key)


def _check_match_keys(errors: Errors, path: str, term: Value) -> None:
    """Of an affinity term or a spread constraint; a new pod's keys were merged into the selector before."""
    same, other, selector = (
        term.get("matchLabelKeys") or [],
        term.get("mismatchLabelKeys") or [],
        term.get("labelSelector"),
    )
    for field, keys in (("matchLabelKeys", same), ("mismatchLabelKeys", other)):
        if keys and selector is None:
            errors.append(forbidden(f"{path}.{field}", _NO_SELECTOR))
            continue
        for index, key in enumerate(keys):
            check_qualified(errors, f"{path}.{field}[{index}]", key)
    places = {key: index for index, key in enumerate(same)}
    named = set((selector or {}).get("matchLabels") or ())
    for key in (requirement.get("key") or "" for requirement in (selector or {}).get("matchExpressions") or ()):
        if key in places and key in named:
            errors.append(invalid(f"{path}[{places[key]}]", key, "exists in both matchLabelKeys and labelSelector"))
        named.add(key)
    for index, key in enumerate(same):
        if key in other:
            errors.append(
                invalid(f"{path}.matchLabelKeys[{index}]", key, "exists in both matchLabelKeys and mismatchLabelKeys")
            )


def _check_toleration(errors: Errors, path: str, toleration: Value) -> None:
    key, operator = toleration.get("key") or "", toleration.get("operator") or ""
    value, effect = toleration.get("value") or "", toleration.get("effect") or ""
    if key:
        check_qualified(errors, f"{path}.key", key)
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        errors.append(invalid(f"{path}.operator", operator, detail))
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errors.append(invalid(f"{path}.effect", effect, detail))
    if operator in ("Equal", ""):
        if faults := is_label_value(value):
            errors.append(invalid(f"{path}.operator", value, ";".join(faults)))
    elif operator != "Exists":
        errors.append(not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    elif value:
        errors.append(invalid(f"{path}.operator", value, "value must be empty when `operator` is 'Exists'"))
    if effect:
        check_effect(errors, f"{path}.effect", effect)


def _check_constraint(errors: Errors, path: str, constraint: Value, *, repeated: bool) -> None:
    skew, key = constraint.get("maxSkew") or 0, constraint.get("topologyKey") or ""
    action = constraint.get("whenUnsatisfiable") or ""
    if skew <= 0:
        errors.append(invalid(f"{path}.maxSkew", skew, NOT_POSITIVE))
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        check_qualified(errors, f"{path}.topologyKey", key)
    if action not in _UNSATISFIABLE:
        errors.append(not_supported(f"{path}.whenUnsatisfiable", action, _UNSATISFIABLE))
    if repeated:
        errors.append(duplicate(f"{path}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
    if (domains := constraint.get("minDomains")) is not None:
        if domains <= 0:
            errors.append(invalid(f"{path}.minDomains", domains, NOT_POSITIVE))
        if action != "DoNotSchedule":
            detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
            errors.append(invalid(f"{path}.minDomains", domains, detail))
    for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        check_optional_choice(errors, f"{path}.{field}", constraint.get(field), _NODE_POLICIES)
    _check_match_keys(errors, path, constraint)
    check_label_selector(errors, f"{path}.labelSelector", constraint.get("labelSelector"))
