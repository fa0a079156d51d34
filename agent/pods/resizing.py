"""Resizing a pod that is here: what its spec asks for, what the node has granted, what is in force. Pure.

The spec may ask for other cpu and memory at any time (pods/resize). The node grants it as a whole when it fits; then
each running container is given its share, or started again where its resizePolicy says so. Called by the worker's
memory, `lifecycle` and `status`. Rules: KEP-1287 and kubernetes.io/docs/tasks/configure-pod-container/
resize-container-resources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.pods.spec import init_containers, main_containers
from api.objects import Object

Granted = Mapping[str, Mapping[str, Any]]
_SIDES = ("requests", "limits")


@dataclass(frozen=True)
class Pending:
    """The node cannot grant a resize: not now (Deferred), or never (Infeasible)."""

    reason: Literal["Deferred", "Infeasible"]
    message: str


def asked_of(pod: Object) -> dict[str, Object]:
    """The resources of each container, by name, as the spec has them."""
    containers = (*init_containers(pod), *main_containers(pod))
    return {container["name"]: container.get("resources") or {} for container in containers}


def shown_sizes(pod: Object) -> str:
    """What the pod asks for, as its events tell it."""
    given = [{"name": name, "resources": resources} for name, resources in asked_of(pod).items()]
    return json.dumps({"containers": given}, separators=(",", ":"))


def with_granted(pod: Object, granted: Granted) -> Object:
    """The pod as the node has taken it on: the same object unless it asks for something else by now."""
    if asked_of(pod) == granted:
        return pod
    spec = dict(pod["spec"])
    for field in ("initContainers", "containers"):
        if field in spec:
            spec[field] = [{**one, "resources": granted.get(one["name"], {})} for one in spec[field]]
    return {**pod, "spec": spec}


def must_restart(container: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the container's resizePolicy asks for a restart when these resources change."""
    named = {
        policy["resourceName"]
        for policy in container.get("resizePolicy") or ()
        if policy.get("restartPolicy") == "RestartContainer"
    }
    return any(
        (before.get(side) or {}).get(name) != (after.get(side) or {}).get(name) for side in _SIDES for name in named
    )
