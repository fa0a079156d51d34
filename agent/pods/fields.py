"""The downward API: what fieldRef and resourceFieldRef say about a pod. Pure.

Called for environment variables and downwardAPI volumes. Rules:
kubernetes.io/docs/concepts/workloads/pods/downward-api.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

import orjson

from agent.pods.spec import find_container
from api.objects import Object, annotations_of, labels_of, name_of, namespace_of, uid_of
from api.quantity import parse_quantity

_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


@dataclass(frozen=True)
class Facts:
    """What the node adds: its name and addresses, the pod's addresses (once it has a sandbox), allocatable amounts."""

    node_name: str
    host_ips: tuple[str, ...]
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


class UnknownField(ValueError):
    """The path is not one the downward API offers."""


def field_value(pod: Object, path: str, facts: Facts) -> str:
    """One field as text; whole label and annotation maps as sorted `key="value"` lines. Raises UnknownField."""
    keyed = _KEYED.fullmatch(path)
    if keyed:
        entries = labels_of(pod) if keyed[1] == "labels" else annotations_of(pod)
        return entries.get(keyed[2], "")
    readers: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: name_of(pod),
        "metadata.namespace": lambda: namespace_of(pod),
        "metadata.uid": lambda: uid_of(pod),
        "metadata.labels": lambda: _lines(labels_of(pod)),
        "metadata.annotations": lambda: _lines(annotations_of(pod)),
        "spec.nodeName": lambda: facts.node_name,
        "spec.serviceAccountName": lambda: pod["spec"].get("serviceAccountName") or "",
        "status.hostIP": lambda: next(iter(facts.host_ips), ""),
        "status.hostIPs": lambda: ",".join(facts.host_ips),
        "status.podIP": lambda: next(iter(facts.pod_ips), ""),
        "status.podIPs": lambda: ",".join(facts.pod_ips),
    }
    if path not in readers:
        raise UnknownField(f"unsupported fieldPath: {path}")
    return readers[path]()


def _lines(entries: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={orjson.dumps(entries[key]).decode()}" for key in sorted(entries))


def resource_value(pod: Object, reference: Mapping[str, Any], facts: Facts, own: str = "") -> str:
    """`limits.cpu` and its like, divided and rounded up; an absent limit is what the node can give at most.

    `own` is the container an environment variable belongs to. Raises UnknownField.
    """
    name = reference.get("containerName") or own
    container = find_container(pod, name)
    if container is None:
        raise UnknownField(f"container {name} not found")
    kind, _, resource = str(reference.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise UnknownField(f"unsupported container resource : {reference.get('resource')}")
    given = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    if given is None and kind == "limits":
        given = facts.allocatable.get(resource)
    amount = parse_quantity(given) if given is not None else Decimal(0)
    divisor = parse_quantity(reference.get("divisor") or "1") or Decimal(1)
    return str(int((amount / divisor).to_integral_value(ROUND_CEILING)))
