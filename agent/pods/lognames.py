"""Which attempt's log `kubectl logs` means, or why there is none yet. Pure; called by the agent's server.

Rules and wording: the kubelet's validateContainerLogStatus.
"""

from __future__ import annotations

from agent.pods.memory import PodMemory
from agent.pods.observed import ContainerView
from agent.pods.spec import find_container, init_containers
from agent.runtime.protocol import ContainerStatus
from api.objects import name_of


class LogRefused(Exception):
    """There is no such log; the message goes to the user."""


def choose_log(memory: PodMemory, name: str, *, previous: bool) -> ContainerStatus:
    """The attempt at a container whose log is asked for. Raises LogRefused."""
    pod = name_of(memory.pod)
    if find_container(memory.pod, name) is None:
        raise LogRefused(f"container {name} not found in pod {pod}")
    view = memory.view(name)
    where = f'container "{name}" in pod "{pod}"'
    if previous:
        before = _previous(view)
        if before is None:
            raise LogRefused(f"previous terminated {where} not found")
        return before
    if view.current is not None and view.current.state != "created":
        return view.current
    if view.previous is not None:
        return view.previous
    raise LogRefused(f"{where} is waiting to start: {_why(memory, view)}")


def _previous(view: ContainerView) -> ContainerStatus | None:
    """The attempt that ended last, if another one runs or is waited for; else the one before it."""
    current = view.current
    if current is not None and current.state == "exited" and view.waiting is not None:
        return current
    return view.previous


def _why(memory: PodMemory, view: ContainerView) -> str:
    if view.waiting is None:
        return "PodInitializing" if init_containers(memory.pod) else "ContainerCreating"
    match view.waiting.reason:
        case "ErrImagePull":
            return "image can't be pulled"
        case "ImagePullBackOff":
            return "trying and failing to pull image"
        case reason:
            return reason
