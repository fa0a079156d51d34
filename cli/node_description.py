"""What `wherry describe node` adds: what the node has, what is promised of it, what is used, and its pods. Pure.

Called with what reading.py fetched. Sums are the scheduler's own, so that what is shown is what decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.objects import Object, name_of, namespace_of
from api.quantity import bytes_of, millicores
from cli.output import render_age, render_table
from controller.scheduler.demand import class_of

_FINISHED = ("Succeeded", "Failed")
_FIRST = ("cpu", "memory", "ephemeral-storage", "pods")
_UNITS = (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


def render_node(node: Object, pods: Iterable[Object], used: Mapping[str, Any] | None) -> str:
    """`used` is NodeMetrics' usage, None when nobody measures it."""
    living = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in _FINISHED]
    return "\n".join((_facts(node), _resources(node, living, used), _pods(living)))


def _facts(node: Object) -> str:
    status = node.get("status") or {}
    info = status.get("nodeInfo") or {}
    addresses = ", ".join(f"{one['address']} ({one['type']})" for one in status.get("addresses") or ())
    facts = [
        ("Addresses", addresses),
        ("System", ", ".join(filter(None, (info.get("osImage"), info.get("kernelVersion"), info.get("architecture"))))),
        ("Runtime", info.get("containerRuntimeVersion")),
    ]
    return "\n".join(f"{name + ':':<16}{value}" for name, value in facts if value)


def _resources(node: Object, pods: Sequence[Object], used: Mapping[str, Any] | None) -> str:
    status = node.get("status") or {}
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    requests, limits = promised(pods, "requests"), promised(pods, "limits")
    rows = []
    for name in sorted(capacity, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        whole = _amount(name, allocatable.get(name, capacity[name]))
        if name == "pods":
            requests[name], limits[name] = len(pods), None
        usage = _spoken(name, _amount(name, used[name])) if used and name in used else ""
        cells = [_share(name, amount, whole) for amount in (requests.get(name, 0), limits.get(name, 0))]
        rows.append((name, _spoken(name, _amount(name, capacity[name])), _spoken(name, whole), *cells, usage))
    return "Resources:\n" + _indented(
        render_table(("RESOURCE", "CAPACITY", "ALLOCATABLE", "REQUESTS", "LIMITS", "USED"), rows)
    )


def promised(pods: Iterable[Object], kind: str) -> dict[str, int | None]:
    """What these pods request, or their limits, in millicores, bytes or numbers."""
    total: dict[str, int | None] = {}
    for pod in pods:
        for name, amount in _asked(pod, kind).items():
            total[name] = (total.get(name) or 0) + amount
    return total


def _asked(pod: Object, kind: str) -> Mapping[str, int]:
    """The scheduler's sum for a pod; for limits, of a pod that requests them."""
    if kind == "requests":
        return class_of(pod).requests
    spec = dict(pod["spec"])
    for group in ("initContainers", "containers"):
        if group in spec:
            spec[group] = [{**one, "resources": {"requests": _limits(one)}} for one in spec[group]]
    spec.pop("resources", None)
    return class_of({**pod, "spec": spec, "status": {}}).requests


def _limits(container: Object) -> Mapping[str, Any]:
    limits: Mapping[str, Any] = (container.get("resources") or {}).get("limits") or {}
    return limits


def _pods(pods: Sequence[Object]) -> str:
    if not pods:
        return "Pods: none"
    rows = []
    for pod in sorted(pods, key=lambda pod: (namespace_of(pod), name_of(pod))):
        requests, limits = _asked(pod, "requests"), _asked(pod, "limits")
        cells = [_spoken(name, asked.get(name, 0)) for name in ("cpu", "memory") for asked in (requests, limits)]
        rows.append((namespace_of(pod), name_of(pod), *cells, render_age(pod["metadata"].get("creationTimestamp"))))
    header = ("NAMESPACE", "NAME", "CPU REQUESTS", "CPU LIMITS", "MEMORY REQUESTS", "MEMORY LIMITS", "AGE")
    return f"Pods: {len(pods)}\n" + _indented(render_table(header, rows))


def _amount(name: str, quantity: Any) -> int:
    return millicores(quantity) if name == "cpu" else bytes_of(quantity)


def _spoken(name: str, amount: int) -> str:
    if name == "cpu":
        return f"{amount // 1000}" if amount % 1000 == 0 else f"{amount}m"
    if name == "memory" or name.endswith("storage") or name.startswith("hugepages-"):
        for unit, size in _UNITS:
            if amount >= size:
                return f"{amount / size:.3g}{unit}" if amount < 1000 * size else f"{amount // size}{unit}"
    return str(amount)


def _share(name: str, amount: int | None, whole: int) -> str:
    if amount is None:
        return ""
    return f"{_spoken(name, amount)} ({100 * amount // whole}%)" if whole else _spoken(name, amount)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
