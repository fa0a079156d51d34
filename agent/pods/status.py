"""A pod's status out of what is observed: container states, phase, conditions. Pure.

Called by the worker after every change; the reporter sends the result when it differs from what was sent. Only the
agent's own fields are computed; conditions of others (the scheduler's, readiness gates) are left alone. Rules: the
kubelet's generateAPIPodStatus (kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.pods import spec
from agent.pods.conditions import conditions, ending_conditions, resize_conditions
from agent.pods.observed import ContainerView, Observed, Waiting
from agent.pods.phase import FINAL_PHASES, phase_of
from agent.runtime.protocol import ContainerStatus
from api.objects import Object, format_time


@dataclass(frozen=True)
class Host:
    """The node as a pod's status shows it: its addresses, first one first, and the runtime's name in container ids."""

    addresses: tuple[str, ...] = ("127.0.0.1",)
    runtime: str = "containerd"


@dataclass(frozen=True)
class Rejection:
    """The node refuses the pod; nothing of it was started."""

    reason: str
    message: str


def pod_status(pod: Object, observed: Observed, now: float, host: Host) -> Object:
    """The agent's part of `pod.status`. `pod` is as last seen in the API: its times and final phase are carried on."""
    before = pod.get("status") or {}
    statuses: Object = {}
    sections = (
        ("initContainerStatuses", spec.init_containers(pod)),
        ("containerStatuses", spec.main_containers(pod)),
        ("ephemeralContainerStatuses", spec.ephemeral_containers(pod)),
    )
    for section, containers in sections:
        if containers:
            statuses[section] = [_container(pod, container, observed, now, host) for container in containers]
    status: Object = {
        "observedGeneration": pod["metadata"].get("generation", 0),
        "phase": _phase(pod, statuses, observed),
        "hostIP": host.addresses[0],
        "hostIPs": [{"ip": address} for address in host.addresses],
        "startTime": before.get("startTime") or wire_time(now),
        "qosClass": before.get("qosClass") or spec.qos_class(pod),
        **_addresses(pod, observed, host),
        **statuses,
    }
    status |= _why(before, status["phase"], observed)
    status["conditions"] = [
        *resize_conditions(pod, observed, wire_time(now)),
        *ending_conditions(pod, observed, wire_time(now)),
        *conditions(pod, status, sandbox_ready=_sandbox_ready(observed), now=wire_time(now)),
    ]
    return status


def rejected_status(pod: Object, rejection: Rejection, now: float) -> Object:
    """The status of a pod that the node refused: Failed at once, with the reason."""
    return {
        "observedGeneration": pod["metadata"].get("generation", 0),
        "phase": "Failed",
        "reason": rejection.reason,
        "message": f"Pod was rejected: {rejection.message}",
        "startTime": wire_time(now),
        "qosClass": spec.qos_class(pod),
    }


def wire_time(moment: float) -> str:
    return format_time(datetime.fromtimestamp(moment, UTC))


def _phase(pod: Object, statuses: Object, observed: Observed) -> str:
    """A pod becomes Succeeded or Failed only when nothing of it is left running: no sidecar, no sandbox."""
    views = observed.containers.values()
    running = any(view.current is not None and view.current.state in ("running", "unknown") for view in views)
    alive = running or _sandbox_ready(observed)
    over = observed.ending is not None and not alive
    known = (pod.get("status") or {}).get("phase") or "Pending"
    if observed.ending is not None and observed.ending.reason and known not in FINAL_PHASES:
        return "Failed" if over else known
    phase = phase_of(pod, statuses, terminal=over)
    return known if phase in FINAL_PHASES and alive else phase


def _why(before: Object, phase: str, observed: Observed) -> Object:
    """Why a pod failed that did not end by itself."""
    if phase not in FINAL_PHASES:
        return {}
    if observed.ending is not None and observed.ending.reason:
        return {"reason": observed.ending.reason, "message": observed.ending.message}
    return {key: before[key] for key in ("reason", "message") if before.get(key)}


def _sandbox_ready(observed: Observed) -> bool:
    return observed.sandbox is not None and observed.sandbox.state == "ready"


def _addresses(pod: Object, observed: Observed, host: Host) -> Object:
    if pod["spec"].get("hostNetwork"):
        addresses: Sequence[str] = host.addresses
    elif observed.sandbox is not None and observed.sandbox.ips:
        addresses = observed.sandbox.ips
    else:
        kept = (pod.get("status") or {}).get("podIPs") or ()
        addresses = [entry["ip"] for entry in kept]
    if not addresses:
        return {}
    return {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}


def _container(pod: Object, container: Object, observed: Observed, now: float, host: Host) -> Object:
    view = observed.containers.get(container["name"]) or ContainerView()
    init = container in spec.init_containers(pod)
    current = view.current
    running = current is not None and current.state == "running" and not view.hook_pending
    state, last = _states(pod, container, view, now, host)
    status: Object = {
        "name": container["name"],
        "state": state,
        "lastState": last,
        "ready": running and view.ready if not init or spec.is_sidecar(container) else _succeeded(state),
        "restartCount": current.attempt if current is not None else max(view.next_attempt - 1, 0),
        "image": current.image if current is not None else container.get("image", ""),
        "imageID": current.image_id if current is not None else "",
        "started": running and view.started,
    }
    if current is not None:
        status["containerID"] = _container_id(current, host)
    if running:
        granted = observed.granted.get(container["name"], container.get("resources") or {})
        status["resources"] = granted if view.resources is None else view.resources
        if requests := granted.get("requests"):
            status["allocatedResources"] = requests
    if mounts := _mounts(container):
        status["volumeMounts"] = mounts
    return status


def _succeeded(state: Object) -> bool:
    return (state.get("terminated") or {}).get("exitCode") == 0


def _states(pod: Object, container: Object, view: ContainerView, now: float, host: Host) -> tuple[Object, Object]:
    """state and lastState."""
    current = view.current
    last = {"terminated": _terminated(view.previous, host)} if view.previous is not None else {}
    waiting = view.waiting.at(now) if view.waiting is not None else None
    if current is None or current.state == "created" or (current.state == "running" and view.hook_pending):
        return _waiting(waiting or _initial(pod)), last
    if current.state == "running":
        return {"running": {"startedAt": wire_time(current.started_at)}}, last
    if current.state == "unknown":
        return {"terminated": _lost(current, host)}, last
    ended = {"terminated": _terminated(current, host)}
    init = container in spec.init_containers(pod)
    if waiting is not None and spec.should_restart(pod, container, current.exit_code, init=init):
        return _waiting(waiting), ended
    return ended, last


def _initial(pod: Object) -> Waiting:
    return Waiting("PodInitializing" if spec.init_containers(pod) else "ContainerCreating")


def _waiting(waiting: Waiting) -> Object:
    state = {"reason": waiting.reason}
    if waiting.message:
        state["message"] = waiting.message
    return {"waiting": state}


def _terminated(ended: ContainerStatus, host: Host) -> Object:
    state: Object = {
        "exitCode": ended.exit_code,
        "reason": ended.reason or ("Error" if ended.exit_code else "Completed"),
        "startedAt": wire_time(ended.started_at),
        "finishedAt": wire_time(ended.finished_at),
        "containerID": _container_id(ended, host),
    }
    if ended.message:
        state["message"] = ended.message
    return state


def _lost(current: ContainerStatus, host: Host) -> Object:
    message = "The container could not be located when the pod was terminated"
    return {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": message,
        "startedAt": wire_time(current.started_at),
        "containerID": _container_id(current, host),
    }


def _container_id(current: ContainerStatus, host: Host) -> str:
    return f"{host.runtime}://{current.id}"


def _mounts(container: Object) -> list[dict[str, Any]]:
    shown = []
    for mount in container.get("volumeMounts") or ():
        entry = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            entry |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
        shown.append(entry)
    return shown
