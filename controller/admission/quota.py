"""What an object costs in the currency of ResourceQuotas, and whether a quota can pay for it.

Called by the registry's ledger (which charges) and the quota reconciler (which counts). Decisions are pure; `count`
reads one state of the cache. Rules: https://kubernetes.io/docs/concepts/policy/resource-quotas/ and
k8s.io/kubernetes/pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Protocol

from api import kinds
from api.kinds import Kind
from api.quantity import parse_quantity, render_quantity
from controller.store import Page, Query

Amounts = dict[str, Decimal]
View = Mapping[str, Any]

QUOTAS = kinds.by_resource("", "resourcequotas")
_PODS, _SERVICES, _CLAIMS = ("", "pods"), ("", "services"), ("", "persistentvolumeclaims")
_PLAIN_COUNTS = ("services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", _CLAIMS[1])
_NAMED_TWICE = ("cpu", "memory", "ephemeral-storage")
_MUST_BE_GIVEN = ("cpu", "memory", *(f"{side}.{name}" for side in ("limits", "requests") for name in ("cpu", "memory")))
_FINISHED = ("Succeeded", "Failed")
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_ONE = Decimal(1)


class Lister(Protocol):
    def list(self, resource: tuple[str, str], query: Query = ...) -> Page: ...


def usage_of(kind: Kind, obj: View) -> Amounts:
    """Everything this object could be charged for, by the names quotas use."""
    counted = {_count_name(kind): _ONE}
    if kind.resource == _PODS:
        return counted | ({} if _is_finished(obj) else _pod_usage(obj["spec"]))
    if kind.resource == _SERVICES:
        counted |= _service_usage(obj.get("spec") or {})
    elif kind.resource == _CLAIMS:
        counted |= _claim_usage(obj.get("spec") or {})
    if not kind.group and kind.plural in _PLAIN_COUNTS:
        counted[kind.plural] = _ONE
    return counted


def demand_of(quota: View, kind: Kind, obj: View) -> Amounts:
    """What `quota` has to pay for this object: {} when it has nothing to do with it."""
    hard = hard_of(quota)
    if not _is_in_scope(quota, kind, obj):
        return {}
    return {name: amount for name, amount in usage_of(kind, obj).items() if name in hard}


def more_of(quota: View, kind: Kind, obj: View, old: View | None) -> Amounts:
    """`demand_of` an object; of one that is changed, only what it costs more than before."""
    demand = demand_of(quota, kind, obj)
    if old is None:
        return demand
    paid_for = demand_of(quota, kind, old)
    more = {name: amount - paid_for.get(name, Decimal(0)) for name, amount in demand.items()}
    return {name: amount for name, amount in more.items() if amount > 0}


def hard_of(quota: View) -> Mapping[str, Any]:
    return (quota.get("spec") or {}).get("hard") or {}


def missing_in(quota: View, kind: Kind, obj: View) -> str:
    """Compute resources that the quota bounds and some containers of a pod do not name: `cpu for: a,b`; "" if none."""
    bounded = [name for name in sorted(hard_of(quota)) if name in _MUST_BE_GIVEN]
    if kind.resource != _PODS or not bounded or not _is_in_scope(quota, kind, obj):
        return ""
    spec = obj["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    faults = []
    for name in bounded:
        lacking = [container["name"] for container in containers if not _names(container, name)]
        if lacking:
            faults.append(f"{name} for: {','.join(sorted(lacking))}")
    return "; ".join(faults)


def refusal(quota: View, demand: Amounts, used: View) -> str:
    """Why the quota cannot pay, in Kubernetes' words; "" when it can."""
    hard = hard_of(quota)
    beyond = [name for name in sorted(demand) if _amount(used.get(name)) + demand[name] > _amount(hard[name])]
    if not beyond:
        return ""
    requested = ",".join(f"{name}={render_quantity(demand[name], str(hard[name]))}" for name in beyond)
    taken = ",".join(f"{name}={used.get(name, 0)}" for name in beyond)
    limited = ",".join(f"{name}={hard[name]}" for name in beyond)
    return f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {taken}, limited: {limited}"


def paid(quota: View, used: View, demand: Amounts) -> dict[str, str]:
    """`status.used` after this demand is met, for every bounded name."""
    sums = {name: _amount(used.get(name)) + demand.get(name, 0) for name in hard_of(quota)}
    return rendered(quota, sums)


def rendered(quota: View, amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {
        name: render_quantity(amounts.get(name, Decimal(0)), str(most)) for name, most in sorted(hard_of(quota).items())
    }


def is_counted(quota: View) -> bool:
    """Whether status.used says something about every bounded name."""
    used = (quota.get("status") or {}).get("used") or {}
    return all(name in used for name in hard_of(quota))


def count(store: Lister, quota: View) -> dict[str, str]:
    """`status.used` from what there is, by one state of the cache."""
    totals: Amounts = {}
    query = Query(namespace=quota["metadata"]["namespace"])
    for kind in _bounded_kinds(hard_of(quota)):
        records = store.list(kind.resource, query).records
        if _only_counts(quota):  # thousands of pods need not be parsed to be counted
            totals[_count_name(kind)] = Decimal(len(records))
            going_on = sum(record.fields.get("status.phase") not in _FINISHED for record in records)
            if not kind.group:
                totals[kind.plural] = Decimal(going_on if kind.resource == _PODS else len(records))
            continue
        for record in records:
            for name, amount in demand_of(quota, kind, record.parse()).items():
                totals[name] = totals.get(name, Decimal(0)) + amount
    return rendered(quota, totals)


def _only_counts(quota: View) -> bool:
    """Whether all it bounds is how many objects there are."""
    spec = quota.get("spec") or {}
    counts = all(name.startswith("count/") or name in ("pods", *_PLAIN_COUNTS) for name in hard_of(quota))
    return counts and not spec.get("scopes") and not spec.get("scopeSelector")


def _count_name(kind: Kind) -> str:
    return f"count/{kind.plural}.{kind.group}" if kind.group else f"count/{kind.plural}"


def _bounded_kinds(hard: Iterable[str]) -> list[Kind]:
    """The kinds whose objects the names in `hard` speak of."""
    wanted = {_resource_of(name) for name in hard}
    return [kind for kind in kinds.stored_kinds() if kind.namespaced and kind.resource in wanted]


def _resource_of(name: str) -> tuple[str, str]:
    if name.startswith("count/"):
        plural, _, group = name.removeprefix("count/").partition(".")
        return (group, plural)
    if name == "requests.storage" or _CLASS_SUFFIX in name:
        return _CLAIMS
    plain = name.partition(".")[0]
    return ("", plain) if plain in _PLAIN_COUNTS else _PODS


def _amount(text: Any) -> Decimal:
    return parse_quantity(text) if text is not None else Decimal(0)


def _is_finished(pod: View) -> bool:
    return (pod.get("status") or {}).get("phase") in _FINISHED


def _pod_usage(spec: View) -> Amounts:
    usage = {"pods": _ONE}
    for name, amount in _sum_of(spec, "requests").items():
        if name in _NAMED_TWICE or name.startswith("hugepages-"):
            usage[name] = amount
        usage[f"requests.{name}"] = amount
    for name, amount in _sum_of(spec, "limits").items():
        usage[f"limits.{name}"] = amount
    return usage


def _sum_of(spec: View, side: str) -> Amounts:
    """The larger of: all long-running containers together, or any init container beside the sidecars before it."""
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _added(_amounts(container, side), sidecars)
        peak = {name: max(own.get(name, Decimal(0)), peak.get(name, Decimal(0))) for name in own.keys() | peak.keys()}
        if container.get("restartPolicy") == "Always":
            sidecars = own
    total = sidecars
    for container in spec.get("containers") or ():
        total = _added(total, _amounts(container, side))
    total = {name: max(total.get(name, Decimal(0)), peak.get(name, Decimal(0))) for name in total.keys() | peak.keys()}
    overhead = {name: parse_quantity(text) for name, text in (spec.get("overhead") or {}).items()}
    return _added(total, overhead) if side == "requests" or total else total


def _amounts(container: View, side: str) -> Amounts:
    given = (container.get("resources") or {}).get(side) or {}
    return {name: parse_quantity(text) for name, text in given.items()}


def _added(first: Amounts, second: Amounts) -> Amounts:
    names = first.keys() | second.keys()
    return {name: first.get(name, Decimal(0)) + second.get(name, Decimal(0)) for name in names}


def _service_usage(spec: View) -> Amounts:
    kind, usage = spec.get("type"), {}
    if kind == "LoadBalancer":
        usage["services.loadbalancers"] = _ONE
    ports = spec.get("ports") or ()
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        ports = [port for port in ports if port.get("nodePort")]  # only what is asked for by number
    if kind in ("NodePort", "LoadBalancer"):
        usage["services.nodeports"] = Decimal(len(ports))
    return usage


def _claim_usage(spec: View) -> Amounts:
    usage, storage = {}, ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is not None:
        usage["requests.storage"] = parse_quantity(storage)
    if spec.get("storageClassName"):
        prefix = spec["storageClassName"] + _CLASS_SUFFIX
        usage |= {f"{prefix}{name}": amount for name, amount in usage.items()}
        usage[f"{prefix}{_CLAIMS[1]}"] = _ONE
    return usage


def _names(container: View, resource: str) -> bool:
    side, _, name = resource.rpartition(".")
    return name in ((container.get("resources") or {}).get(side or "requests") or {})


def _is_in_scope(quota: View, kind: Kind, obj: View) -> bool:
    """Scopes speak of pods only; a quota that has some covers nothing else."""
    spec = quota.get("spec") or {}
    rules = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    rules += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return not rules or (kind.resource == _PODS and all(_matches(rule, obj) for rule in rules))


def _matches(rule: View, pod: View) -> bool:
    scope, spec = rule.get("scopeName"), pod["spec"]
    if scope == "PriorityClass":
        return _selects(rule, spec.get("priorityClassName") or "")
    if scope in ("Terminating", "NotTerminating"):
        return bool((spec.get("activeDeadlineSeconds") is not None) == (scope == "Terminating"))
    if scope in ("BestEffort", "NotBestEffort"):
        return bool(_is_best_effort(spec) == (scope == "BestEffort"))
    return scope == "CrossNamespacePodAffinity" and _reaches_out(spec)


def _selects(rule: View, name: str) -> bool:
    operator, values = rule.get("operator"), rule.get("values") or ()
    if operator in ("In", "NotIn"):
        return bool((name in values) == (operator == "In"))
    return bool(bool(name) == (operator == "Exists"))


def _is_best_effort(spec: View) -> bool:
    """As the QoS class: no container asks for any cpu or memory."""
    asked = [_sum_of(spec, side) for side in ("requests", "limits")]
    return not any(amounts.get(name) for amounts in asked for name in ("cpu", "memory"))


def _reaches_out(spec: View) -> bool:
    """A pod affinity that looks into other namespaces."""
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [one.get("podAffinityTerm") or {} for one in preferred]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False
