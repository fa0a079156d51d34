"""LimitRanges: what a container gets when it names no resources, and how little or much a pod or claim may name.

Called by the chain when a pod or a claim is created. Rules and words from the admission plugin LimitRanger
(https://kubernetes.io/docs/concepts/policy/limit-range/). Changes only the pod: defaults first, then the bounds are
judged on what came of it, all faults in one Forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from api.objects import Object
from api.quantity import parse_quantity, render_quantity
from controller.admission.attributes import Attributes, Reader

LIMIT_RANGES = ("", "limitranges")
CLAIMS = ("", "persistentvolumeclaims")
ANNOTATION = "kubernetes.io/limit-ranger"

Amounts = Mapping[str, Any]


def admit_within_limits(attributes: Attributes, reader: Reader) -> None:
    """Sets defaults and checks bounds. Raises Forbidden."""
    if not reader.count(LIMIT_RANGES):
        return
    rules = [rule for limits in _limits_in(attributes.namespace, reader) for rule in limits["spec"].get("limits") or ()]
    if not rules:
        return
    obj = attributes.obj
    assert obj is not None
    if attributes.is_pod:
        _set_defaults(obj, [rule for rule in rules if rule.get("type") == "Container"])
        faults = [fault for rule in rules for fault in _pod_faults(obj["spec"], rule)]
    else:
        asked = (obj["spec"].get("resources") or {}).get("requests") or {}
        claims = (rule for rule in rules if rule.get("type") == "PersistentVolumeClaim")
        faults = [fault for rule in claims for fault in _claim_faults(asked, rule)]
    if faults:
        raise attributes.forbidden(faults[0] if len(faults) == 1 else "[" + ", ".join(faults) + "]")


def _limits_in(namespace: str, reader: Reader) -> Iterator[Object]:
    for record in reader.list(LIMIT_RANGES).records:
        if record.key.namespace == namespace:
            yield record.parse()


# ---- defaults ----


def _set_defaults(pod: Object, rules: list[Object]) -> None:
    said = []
    for section, word in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(section) or ():
            requests, limits = _set_container(container, rules)
            where = f"{word} {container['name']}"
            said += [f"{', '.join(requests)} request for {where}"] if requests else []
            said += [f"{', '.join(limits)} limit for {where}"] if limits else []
    if said:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(said)


def _set_container(container: Object, rules: list[Object]) -> tuple[list[str], list[str]]:
    """The names of the requests and limits that were set."""
    resources = {**(container.get("resources") or {})}
    found: list[list[str]] = []
    for field, source in (("requests", "defaultRequest"), ("limits", "default")):
        present = {**(resources.get(field) or {})}
        added = []
        for rule in rules:
            for name, amount in sorted((rule.get(source) or {}).items()):
                if name not in present:
                    present[name] = amount
                    added.append(name)
        if present:
            resources[field] = present
        found.append(added)
    if any(found):
        container["resources"] = resources
    return found[0], found[1]


# ---- bounds ----


def _pod_faults(spec: Object, rule: Object) -> Iterator[str]:
    kind = rule.get("type")
    if kind == "Container":
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            resources = container.get("resources") or {}
            yield from _bounds(rule, "Container", resources.get("requests") or {}, resources.get("limits") or {})
    elif kind == "Pod":
        yield from _bounds(rule, "Pod", _pod_total(spec, "requests"), _pod_total(spec, "limits"))


def _pod_total(spec: Object, field: str) -> dict[str, str]:
    """What the pod names as a whole: the sum of its containers, or its hungriest init container."""
    total: dict[str, str] = {}
    for container in spec.get("containers") or ():
        for name, amount in ((container.get("resources") or {}).get(field) or {}).items():
            total[name] = _added(total[name], amount) if name in total else amount
    for container in spec.get("initContainers") or ():
        for name, amount in ((container.get("resources") or {}).get(field) or {}).items():
            if name not in total or parse_quantity(amount) > parse_quantity(total[name]):
                total[name] = amount
    return total


def _added(one: str, other: str) -> str:
    return render_quantity(parse_quantity(one) + parse_quantity(other), one)


def _bounds(rule: Object, kind: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, least in sorted((rule.get("min") or {}).items()):
        yield from _below(f"minimum {name} usage per {kind} is {least}", least, requests.get(name), limits.get(name))
    for name, most in sorted((rule.get("max") or {}).items()):
        yield from _above(f"maximum {name} usage per {kind} is {most}", most, limits.get(name), requests.get(name))
    for name, ratio in sorted((rule.get("maxLimitRequestRatio") or {}).items()):
        words = f"{name} max limit to request ratio per {kind} is {ratio}"
        yield from _ratio(words, ratio, requests.get(name), limits.get(name))


def _below(words: str, least: Any, request: Any, limit: Any) -> Iterator[str]:
    if request is None:
        yield f"{words}.  No request is specified"
    elif parse_quantity(request) < parse_quantity(least):
        yield f"{words}, but request is {request}"
    elif limit is not None and parse_quantity(limit) < parse_quantity(least):
        yield f"{words}, but limit is {limit}"


def _above(words: str, most: Any, limit: Any, request: Any) -> Iterator[str]:
    if limit is None:
        yield f"{words}.  No limit is specified"
    elif parse_quantity(limit) > parse_quantity(most):
        yield f"{words}, but limit is {limit}"
    elif request is not None and parse_quantity(request) > parse_quantity(most):
        yield f"{words}, but request is {request}"


def _ratio(words: str, most: Any, request: Any, limit: Any) -> Iterator[str]:
    asked = parse_quantity(request) if request is not None else Decimal(0)
    granted = parse_quantity(limit) if limit is not None else Decimal(0)
    if not asked:
        yield f"{words}, but no request is specified or request is 0"
    elif not granted:
        yield f"{words}, but no limit is specified or limit is 0"
    elif granted / asked > parse_quantity(most):
        yield f"{words}, but provided ratio is {float(granted / asked):f}"


def _claim_faults(asked: Amounts, rule: Object) -> Iterator[str]:
    for name, least in sorted((rule.get("min") or {}).items()):
        words = f"minimum {name} usage per PersistentVolumeClaim is {least}"
        yield from _below(words, least, asked.get(name), None)
    for name, most in sorted((rule.get("max") or {}).items()):
        request = asked.get(name)
        words = f"maximum {name} usage per PersistentVolumeClaim is {most}"
        if request is None:
            yield f"{words}.  No request is specified"
        elif parse_quantity(request) > parse_quantity(most):
            yield f"{words}, but request is {request}"
