"""The conditions of a pod that the agent owns. Pure; called by `status`.

PodReadyToStartContainers, Initialized, ContainersReady, Ready, PodScheduled, with the kubelet's reasons and messages. A
condition's lastTransitionTime moves only when its status does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.pods.observed import Observed, is_resizing
from agent.pods.phase import FINAL_PHASES
from agent.pods.spec import init_containers, is_sidecar, main_containers
from api.objects import Object

RESIZING = ("PodResizePending", "PodResizeInProgress")
"""Those that are there only while they are true."""
OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True)
class Verdict:
    status: bool
    reason: str = ""
    message: str = ""


GOOD = Verdict(True)


def conditions(pod: Object, status: Object, *, sandbox_ready: bool, now: str) -> list[Object]:
    """The own conditions as wire objects; `status` already has its phase and container statuses."""
    containers_ready = _containers_ready(pod, status)
    verdicts = {
        "PodReadyToStartContainers": Verdict(sandbox_ready),
        "Initialized": _initialized(pod, status),
        "Ready": _ready(pod, containers_ready),
        "ContainersReady": containers_ready,
        "PodScheduled": GOOD,
    }
    return _told(pod, verdicts, now)


def resize_conditions(pod: Object, observed: Observed, now: str) -> list[Object]:
    """What stands between the resources a pod asks for and those its containers have."""
    verdicts = {}
    if observed.pending is not None:
        verdicts["PodResizePending"] = Verdict(True, observed.pending.reason, observed.pending.message)
    if observed.resize_fault:
        verdicts["PodResizeInProgress"] = Verdict(True, "Error", observed.resize_fault)
    elif any(is_resizing(observed, name) for name in observed.granted):
        verdicts["PodResizeInProgress"] = GOOD
    return _told(pod, verdicts, now)


def ending_conditions(pod: Object, observed: Observed, now: str) -> list[Object]:
    """Why the node ends a pod that would have run on."""
    ending = observed.ending
    if ending is None or not ending.disrupted:
        return []
    return _told(pod, {"DisruptionTarget": Verdict(True, "TerminationByKubelet", ending.message)}, now)


def _told(pod: Object, verdicts: Mapping[str, Verdict], now: str) -> list[Object]:
    known = {entry["type"]: entry for entry in (pod.get("status") or {}).get("conditions") or ()}
    generation = pod["metadata"].get("generation", 0)
    return [_wire(kind, verdict, known.get(kind), generation, now) for kind, verdict in verdicts.items()]


def _wire(kind: str, verdict: Verdict, before: Object | None, generation: int, now: str) -> Object:
    text = "True" if verdict.status else "False"
    same = before is not None and before.get("status") == text
    entry: Object = {
        "type": kind,
        "status": text,
        "observedGeneration": generation,
        "lastTransitionTime": before.get("lastTransitionTime") if same and before is not None else now,
    }
    if verdict.reason:
        entry["reason"] = verdict.reason
    if verdict.message:
        entry["message"] = verdict.message
    return entry


def _initialized(pod: Object, status: Object) -> Verdict:
    statuses = status.get("initContainerStatuses") or []
    if status["phase"] == "Succeeded":
        return Verdict(True, "PodCompleted")
    if any(_begun(entry) for entry in status.get("containerStatuses") or ()):
        return GOOD
    incomplete = []
    for container, entry in zip(init_containers(pod), statuses, strict=False):
        done = entry.get("started") if is_sidecar(container) else entry["ready"]
        if not done:
            incomplete.append(container["name"])
    if not incomplete:
        return GOOD
    return Verdict(False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")


def _begun(entry: Object) -> bool:
    return "waiting" not in entry["state"] or "terminated" in (entry.get("lastState") or {})


def _containers_ready(pod: Object, status: Object) -> Verdict:
    if status["phase"] in FINAL_PHASES:
        return Verdict(False, "PodCompleted" if status["phase"] == "Succeeded" else "PodFailed")
    sidecars = {container["name"] for container in init_containers(pod) if is_sidecar(container)}
    entries = [entry for entry in status.get("initContainerStatuses") or () if entry["name"] in sidecars]
    entries += status.get("containerStatuses") or ()
    unready = [entry["name"] for entry in entries if not entry["ready"]]
    if not unready and main_containers(pod):
        return GOOD
    return Verdict(False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")


def _ready(pod: Object, containers_ready: Verdict) -> Verdict:
    """ContainersReady and every readiness gate."""
    if not containers_ready.status:
        return containers_ready
    known = {entry["type"]: entry["status"] for entry in (pod.get("status") or {}).get("conditions") or ()}
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in known:
            return Verdict(
                False,
                "ReadinessGatesNotReady",
                f'corresponding condition of pod readiness gate "{kind}" does not exist.',
            )
        if known[kind] != "True":
            text = f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}'
            return Verdict(False, "ReadinessGatesNotReady", text)
    return GOOD
