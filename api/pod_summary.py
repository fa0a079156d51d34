"""A pod in one line: how many containers are ready, what it is doing, how often it was restarted.

Called by columns.py and the CLI. Pure. The wording and the order of the rules are kubectl's
(k8s.io/kubernetes/pkg/printers/internalversion, printPod), because people grep for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

View = Mapping[str, Any]
_TERMINAL = ("Succeeded", "Failed")


@dataclass(frozen=True)
class PodSummary:
    ready: int
    total: int
    reason: str
    restarts: int
    last_restart: str
    """RFC 3339, or ""."""


class _Tally:
    """What is counted while walking the containers."""

    def __init__(self) -> None:
        self.ready = 0
        self.restarts = 0
        self.last_restart = ""

    def restart(self, container: View) -> None:
        self.restarts += container.get("restartCount") or 0
        finished = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last_restart = max(self.last_restart, finished)


def summarize_pod(pod: View) -> PodSummary:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    initializing, sidecar_tally, init_tally = _initialization(spec, status, sidecars)
    if initializing and not _condition(status, "Initialized"):
        reason, tally = initializing, init_tally
        tally.ready = sidecar_tally.ready
    else:
        reason, tally = _running(status, sidecar_tally, _first_reason(status))
    return PodSummary(tally.ready, total, _deleting(pod, reason), tally.restarts, tally.last_restart)


def _first_reason(status: View) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            return "SchedulingGated"
    return status.get("reason") or status.get("phase") or ""


def _initialization(spec: View, status: View, sidecars: set[Any]) -> tuple[str, _Tally, _Tally]:
    """(reason while initializing or "", tally of sidecars, tally of all init containers up to the first unfinished)."""
    sidecar_tally, all_tally = _Tally(), _Tally()
    count = len(spec.get("initContainers") or ())
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        is_sidecar = container.get("name") in sidecars
        all_tally.restart(container)
        if is_sidecar:
            sidecar_tally.restart(container)
        state = container.get("state") or {}
        terminated = state.get("terminated")
        if terminated and not terminated.get("exitCode"):
            continue
        if is_sidecar and container.get("started"):
            sidecar_tally.ready += bool(container.get("ready"))
            continue
        return _init_reason(state, f"{index}/{count}"), sidecar_tally, all_tally
    return "", sidecar_tally, all_tally


def _init_reason(state: View, progress: str) -> str:
    if terminated := state.get("terminated"):
        return f"Init:{_terminated_reason(terminated)}"
    waiting = (state.get("waiting") or {}).get("reason")
    if waiting and waiting != "PodInitializing":
        return f"Init:{waiting}"
    return f"Init:{progress}"


def _running(status: View, tally: _Tally, reason: str) -> tuple[str, _Tally]:
    has_running = False
    for container in reversed(status.get("containerStatuses") or ()):
        tally.restart(container)
        state = container.get("state") or {}
        if waiting := (state.get("waiting") or {}).get("reason"):
            reason = waiting
        elif terminated := state.get("terminated"):
            reason = _terminated_reason(terminated)
        elif container.get("ready") and state.get("running") is not None:
            has_running = True
            tally.ready += 1
    if reason == "Completed" and has_running:
        reason = "Running" if _condition(status, "Ready") else "NotReady"
    return reason, tally


def _terminated_reason(terminated: View) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    if signal := terminated.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _condition(status: View, wanted: str) -> bool:
    conditions: Iterable[View] = status.get("conditions") or ()
    return any(c.get("type") == wanted and c.get("status") == "True" for c in conditions)


def _deleting(pod: View, reason: str) -> str:
    if not (pod.get("metadata") or {}).get("deletionTimestamp"):
        return reason
    status = pod.get("status") or {}
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in _TERMINAL else "Terminating"
