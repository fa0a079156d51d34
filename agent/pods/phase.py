"""The phase of a pod, counted from its container statuses. Pure; called by `status`.

Rule: the kubelet's getPhase. Phases only move forward: a final one is never left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from agent.pods.spec import init_containers, is_sidecar, restart_policy
from api.objects import Object

FINAL_PHASES = ("Succeeded", "Failed")
Fate = Literal["pending", "running", "succeeded", "failed"]


def phase_of(pod: Object, statuses: Object, *, terminal: bool) -> str:
    """`statuses` holds containerStatuses and initContainerStatuses; `terminal`: the pod ends and nothing runs."""
    known = (pod.get("status") or {}).get("phase")
    if known in FINAL_PHASES:
        return str(known)
    fates = [_fate(status) for status in statuses.get("containerStatuses") or ()]
    begun = any(fate != "pending" for fate in fates)
    inits = list(_inits(pod, statuses))
    if "failed" in inits and restart_policy(pod) == "Never":
        return "Failed"
    if terminal:
        return "Succeeded" if fates and all(fate == "succeeded" for fate in fates) else "Failed"
    if (not begun and any(fate != "succeeded" for fate in inits)) or "pending" in fates:
        return "Pending"
    if "running" in fates:
        return "Running"
    return _when_all_stopped(pod, fates)


def _when_all_stopped(pod: Object, fates: list[Fate]) -> str:
    policy = restart_policy(pod)
    if policy == "Always":
        return "Running"
    if all(fate == "succeeded" for fate in fates):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _inits(pod: Object, statuses: Object) -> Iterable[Fate]:
    """What each init container means for the phase: a sidecar is as good as done once it has started."""
    for container, status in zip(init_containers(pod), statuses.get("initContainerStatuses") or (), strict=False):
        if is_sidecar(container):
            yield "succeeded" if status.get("started") else "pending"
        else:
            fate = _fate(status)
            yield "pending" if fate == "running" else fate


def _fate(status: Object) -> Fate:
    state = status["state"]
    if "running" in state:
        return "running"
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    if ended is None:
        return "pending"
    return "succeeded" if ended["exitCode"] == 0 else "failed"
