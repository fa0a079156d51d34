"""Reading a pod's spec: its containers by role, restart rules, grace periods, names for messages, QoS. Pure.

Called by every module of the pods room. Takes pods as the API serves them (defaults filled in); imports api only.
Rules: kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle, .../sidecar-containers, .../pod-qos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from api.objects import Object, annotations_of, name_of, namespace_of, parse_time, uid_of
from api.quantity import parse_quantity

Qos = Literal["Guaranteed", "Burstable", "BestEffort"]
DEFAULT_GRACE_SECONDS = 30
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"


def init_containers(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"].get("initContainers") or []
    return found


def main_containers(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"].get("containers") or []
    return found


def ephemeral_containers(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"].get("ephemeralContainers") or []
    return found


def all_containers(pod: Object) -> Iterator[Object]:
    yield from init_containers(pod)
    yield from main_containers(pod)
    yield from ephemeral_containers(pod)


def find_container(pod: Object, name: str) -> Object | None:
    return next((container for container in all_containers(pod) if container["name"] == name), None)


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """An init container with restartPolicy Always: it starts in order and then runs beside the others."""
    return container.get("restartPolicy") == "Always"


def has_post_start(container: Mapping[str, Any]) -> bool:
    return bool((container.get("lifecycle") or {}).get("postStart"))


def restart_policy(pod: Object) -> str:
    return pod["spec"].get("restartPolicy") or "Always"


def deadline(pod: Object) -> float:
    """When a pod has been active for its activeDeadlineSeconds, counted from its startTime; infinity without."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    started = (pod.get("status") or {}).get("startTime")
    return parse_time(started).timestamp() + float(seconds) if seconds is not None and started else float("inf")


def field_path(pod: Object, name: str) -> str:
    """How events name one container of a pod: `spec.containers{name}`."""
    sections = (("spec.initContainers", init_containers), ("spec.ephemeralContainers", ephemeral_containers))
    for section, members in sections:
        if any(container["name"] == name for container in members(pod)):
            return f"{section}{{{name}}}"
    return f"spec.containers{{{name}}}"


def shown(pod: Object) -> str:
    """`name_namespace(uid)`: how the kubelet's messages name a pod."""
    return f"{name_of(pod)}_{namespace_of(pod)}({uid_of(pod)})"


def grace_seconds(pod: Object) -> int:
    """How long containers get between SIGTERM and SIGKILL: the deletion's grace if there is one, else the spec's."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    if asked is not None and pod["metadata"].get("deletionTimestamp"):
        return int(asked)
    given = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if given is None else int(given)


def definition(container: Mapping[str, Any]) -> str:
    """Changes when a running container must be replaced. Of what a pod update may change, that is the image."""
    return hashlib.sha256(f"{container['name']}\0{container.get('image', '')}".encode()).hexdigest()[:8]


def should_restart(pod: Object, container: Mapping[str, Any], exit_code: int, *, init: bool = False) -> bool:
    """Whether a container that ended runs again, by its own restart rules, else its own or the pod's policy.

    An init container (not a sidecar) is done when it succeeded, whatever the policy.
    """
    for rule in container.get("restartPolicyRules") or ():
        wanted = rule.get("exitCodes") or {}
        if (exit_code in (wanted.get("values") or ())) == (wanted.get("operator") == "In"):
            return bool(rule.get("action") == "Restart")
    policy = container.get("restartPolicy") or restart_policy(pod)
    if policy == "Never":
        return False
    if policy == "Always" and not (init and not is_sidecar(container)):
        return True
    return exit_code != 0


def never_restarts(pod: Object, container: Mapping[str, Any]) -> bool:
    """Whether a container that the agent stops stays stopped, by its own or the pod's policy."""
    return (container.get("restartPolicy") or restart_policy(pod)) == "Never"


def qos_class(pod: Object) -> Qos:
    """Guaranteed when every container limits cpu and memory and requests the same; BestEffort when none asks."""
    guaranteed = asked = True
    anything = False
    for container in (*init_containers(pod), *main_containers(pod)):
        resources = container.get("resources") or {}
        limits, requests = _sized(resources.get("limits")), _sized(resources.get("requests"))
        anything = anything or bool(limits or requests)
        asked = asked and {"cpu", "memory"} <= limits.keys()
        guaranteed = (
            guaranteed and asked and all(requests.get(name, amount) == amount for name, amount in limits.items())
        )
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _sized(amounts: Mapping[str, Any] | None) -> dict[str, Any]:
    parsed = {name: parse_quantity(amount) for name, amount in (amounts or {}).items() if name in ("cpu", "memory")}
    return {name: amount for name, amount in parsed.items() if amount > 0}


def is_mirror(pod: Object) -> bool:
    return MIRROR_ANNOTATION in annotations_of(pod)
