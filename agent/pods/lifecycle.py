"""What to do next for one pod: `next_step(pod, observed, now)` returns ONE step. Pure.

Called by the worker in a loop: observe, decide, perform. The rules are the kubelet's (computePodActions, pod-lifecycle
and sidecar-containers in Kubernetes' documentation). Invariants: a running container is never started again and never
touched unless something condemned it; of a pod that is held nothing starts; following the steps from any observed state
ends in `Wait` or `Done`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from agent.pods import backoff
from agent.pods.observed import CRASH_LOOP, ContainerView, Observed, Waiting, is_resizing
from agent.pods.resizing import must_restart
from agent.pods.spec import (
    all_containers,
    definition,
    ephemeral_containers,
    grace_seconds,
    init_containers,
    is_sidecar,
    main_containers,
    never_restarts,
    restart_policy,
    should_restart,
    shown,
)
from agent.runtime.protocol import ContainerStatus
from api.objects import Object, annotations_of

HASH_ANNOTATION = "io.kubernetes.container.hash"
PULL_BACK_OFF_SHOWN_SECONDS = 1.0
CRASH_LOOP_SHOWN_SECONDS = 9.0
FOREVER = float("inf")


@dataclass(frozen=True)
class Observe:
    """Look at all that the runtime has of the pod: a call failed, and what came of it is unknown."""


@dataclass(frozen=True)
class SaveCheckpoint:
    """Write down what the node has granted, before it is put in force."""


@dataclass(frozen=True)
class MountVolumes:
    """Make the pod's directories and volumes."""


@dataclass(frozen=True)
class RunSandbox:
    attempt: int


@dataclass(frozen=True)
class PullImage:
    """Make the container's image ready, by its pull policy."""

    name: str


@dataclass(frozen=True)
class StartContainer:
    """Create and start the given attempt; `restart` when one ended before: its back-off is to be remembered."""

    name: str
    attempt: int
    restart: bool = False


@dataclass(frozen=True)
class RunHook:
    """Run the postStart hook of a container that has just started."""

    name: str


@dataclass(frozen=True)
class Announce:
    """Say (status and event) that a container waits for its back-off."""

    name: str
    waiting: Waiting


@dataclass(frozen=True)
class KillContainer:
    """Stop one container gracefully, because it must be replaced or does not belong here."""

    name: str
    container_id: str
    message: str


@dataclass(frozen=True)
class ResizeContainer:
    """Give a running container what it was granted."""

    name: str


@dataclass(frozen=True)
class RemoveContainer:
    """Forget a container that is not running: an older attempt, or one that was created but never started."""

    container_id: str


@dataclass(frozen=True)
class Expire:
    """The pod's activeDeadlineSeconds are over: it is to fail."""


@dataclass(frozen=True)
class Terminate:
    """Stop all containers in their order within the grace period, then the sandbox."""

    grace_seconds: int


@dataclass(frozen=True)
class RemoveSandbox:
    sandbox_id: str


@dataclass(frozen=True)
class ReleaseVolumes:
    """Take the volumes of a pod that is over away, for it needs them no more and others need the room."""


@dataclass(frozen=True)
class UnmountVolumes:
    """Take the volumes away; what was in them is gone."""


@dataclass(frozen=True)
class Confirm:
    """Send the final status and, for a deleted pod, tell the API that nothing of it runs any more."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until` (infinity: before something happens)."""

    until: float = FOREVER


@dataclass(frozen=True)
class Done:
    """Nothing of the pod is left here: the worker ends."""


Step = (
    Observe | SaveCheckpoint | MountVolumes | RunSandbox | PullImage | StartContainer | RunHook | Announce
    | KillContainer | ResizeContainer | RemoveContainer | Expire | Terminate | RemoveSandbox | ReleaseVolumes
    | UnmountVolumes | Confirm | Wait | Done
)  # fmt: skip


def next_step(pod: Object, observed: Observed, now: float) -> Step:
    """The one thing to do now. Never blocks, never changes its input."""
    if observed.doubtful:
        return Observe()
    if observed.ending is not None:
        return _ending(observed, observed.ending.grace_seconds)
    if observed.held:
        return Wait()
    if is_finished(pod, observed):
        return _alive_or_ready(observed, grace_seconds(pod)) or _released(observed) or Wait()
    if now >= observed.deadline and _was_tried(observed):
        return Expire()
    step = _preparing(pod, observed, now) or _advancing(pod, observed, now)
    return Wait(min(step.until, observed.deadline)) if isinstance(step, Wait) else step


def _was_tried(observed: Observed) -> bool:
    """Something was attempted for the pod: as with the kubelet, its first start comes before its end by time."""
    tried = any(view.current is not None or view.waiting is not None for view in observed.containers.values())
    return tried or observed.volumes_not_before > 0 or observed.sandbox_not_before > 0


def is_finished(pod: Object, observed: Observed) -> bool:
    """Whether no container of the pod will run again by itself: it Succeeded or Failed."""
    if any(_init_failed(pod, container, observed) for container in init_containers(pod)):
        return True
    mains = [
        (container, observed.containers.get(container["name"], ContainerView())) for container in main_containers(pod)
    ]
    if any(view.current is None or view.current.state != "exited" for _, view in mains):
        return False
    return not any(_runs_again(pod, container, view) for container, view in mains)


def _init_failed(pod: Object, container: Object, observed: Observed) -> bool:
    view = observed.containers.get(container["name"], ContainerView())
    if view.current is None or view.current.state != "exited" or is_sidecar(container) or _exit_code(view) == 0:
        return False
    return not should_restart(pod, container, _exit_code(view), init=True)


def _runs_again(pod: Object, container: Object, view: ContainerView, *, init: bool = False) -> bool:
    """Its policy says so, or the agent itself stopped it to start it again: then the exit code says nothing."""
    stopped = view.killed_for_restart and not never_restarts(pod, container)
    return stopped or should_restart(pod, container, _exit_code(view), init=init)


def _exit_code(view: ContainerView) -> int:
    return view.current.exit_code if view.current is not None else 0


def _alive(view: ContainerView) -> bool:
    return view.current is not None and view.current.state in ("running", "unknown", "created")


def _alive_or_ready(observed: Observed, grace: int) -> Terminate | None:
    sandbox_ready = observed.sandbox is not None and observed.sandbox.state == "ready"
    if sandbox_ready or any(_alive(view) for view in observed.containers.values()):
        return Terminate(grace)
    return None


def _released(observed: Observed) -> ReleaseVolumes | None:
    return ReleaseVolumes() if observed.volumes == "ready" else None


def _ending(observed: Observed, grace: int) -> Step:
    stop = _alive_or_ready(observed, grace)
    if stop is not None:
        return stop
    if observed.ending is not None and not observed.ending.remove:
        return _released(observed) or (Wait() if observed.confirmed else Confirm())
    if observed.volumes != "removed":
        return UnmountVolumes()
    if not observed.confirmed:
        return Confirm()
    for sandbox_id in observed.old_sandboxes:
        return RemoveSandbox(sandbox_id)
    return RemoveSandbox(observed.sandbox.id) if observed.sandbox is not None else Done()


def _preparing(pod: Object, observed: Observed, now: float) -> Step | None:
    """Volumes, then a sandbox that is alive."""
    if observed.volumes != "ready":
        over = backoff.is_over(observed.volumes_not_before, now)
        return MountVolumes() if over else Wait(observed.volumes_not_before)
    sandbox = observed.sandbox
    if sandbox is not None and sandbox.state == "ready":
        return None
    stop = _alive_or_ready(observed, grace_seconds(pod))
    if stop is not None:
        return stop
    if not backoff.is_over(observed.sandbox_not_before, now):
        return Wait(observed.sandbox_not_before)
    return RunSandbox(0 if sandbox is None else sandbox.attempt + 1)


def _advancing(pod: Object, observed: Observed, now: float) -> Step:
    """Containers, in the sandbox that is alive: condemned ones first, then what is to start, then old ones."""
    for container in all_containers(pod):
        step = _condemned(container, observed.containers[container["name"]])
        if step is not None:
            return step
    due = FOREVER
    for step in chain(_resizing(pod, observed, now), _starting(pod, observed, now), _saving(observed)):
        if not isinstance(step, Wait):
            return step
        due = min(due, step.until)
    for view in observed.containers.values():
        for container_id in view.dead:
            return RemoveContainer(container_id)
    for sandbox_id in observed.old_sandboxes:
        return RemoveSandbox(sandbox_id)
    return Wait(due)


def _condemned(container: Object, view: ContainerView) -> Step | None:
    current = view.current
    if current is None or current.state == "exited":
        return None
    name = container["name"]
    if current.state == "created":
        return RemoveContainer(current.id)
    if current.state == "unknown":
        return KillContainer(
            name, current.id, f"Container {name} is in an unknown state, try killing it before restart"
        )
    if view.must_restart:
        return KillContainer(name, current.id, view.must_restart)
    known = annotations_of({"metadata": {"annotations": current.annotations}}).get(HASH_ANNOTATION)
    if known and known != definition(container):
        return KillContainer(name, current.id, f"Container {name} definition changed, will be restarted")
    return None


def _saving(observed: Observed) -> Iterator[Step]:
    """Last: a full disk keeps no container from starting."""
    if observed.unsaved:
        yield SaveCheckpoint()


def _resizing(pod: Object, observed: Observed, now: float) -> Iterator[Step]:
    if observed.unsaved:
        return
    for container in (*init_containers(pod), *main_containers(pod)):
        name = container["name"]
        view = observed.containers[name]
        if not is_resizing(observed, name) or view.current is None or view.resources is None:
            continue
        if must_restart(container, view.resources, observed.granted[name]):
            yield KillContainer(name, view.current.id, f"Container {name} resize requires restart")
        elif backoff.is_over(observed.resize_not_before, now):
            yield ResizeContainer(name)
        else:
            yield Wait(observed.resize_not_before)


def _starting(pod: Object, observed: Observed, now: float) -> Iterator[Step]:
    """A step, or a Wait with the time it is due, for each container whose turn it is."""
    if not _mains_begun(pod, observed):
        for container in init_containers(pod):
            view = observed.containers[container["name"]]
            yield from _one(pod, container, observed, now)
            if not _init_done(container, view, observed):
                return
    else:
        for container in init_containers(pod):
            if is_sidecar(container):
                yield from _one(pod, container, observed, now)
    for container in main_containers(pod):
        yield from _one(pod, container, observed, now)
    for container in ephemeral_containers(pod):
        if observed.containers[container["name"]].current is None:
            yield from _attempt(container, observed.containers[container["name"]], now, restart=False)


def _here(view: ContainerView, observed: Observed) -> ContainerStatus | None:
    """The newest attempt, if it belongs to the sandbox that is alive."""
    current, sandbox = view.current, observed.sandbox
    return current if current is not None and sandbox is not None and current.sandbox_id == sandbox.id else None


def _mains_begun(pod: Object, observed: Observed) -> bool:
    return any(_here(observed.containers[container["name"]], observed) for container in main_containers(pod))


def _init_done(container: Object, view: ContainerView, observed: Observed) -> bool:
    current = _here(view, observed)
    if current is None:
        return False
    if is_sidecar(container):
        return current.state == "running" and view.started and not view.hook_pending
    return current.state == "exited" and current.exit_code == 0


def _one(pod: Object, container: Object, observed: Observed, now: float) -> Iterator[Step]:
    view = observed.containers[container["name"]]
    init = container in init_containers(pod)
    current = view.current
    if current is None:
        yield from _attempt(container, view, now, restart=False)
    elif current.state == "running":
        if view.hook_pending:
            yield RunHook(container["name"])
    elif _here(view, observed) is None:
        if init or restart_policy(pod) != "OnFailure" or current.exit_code != 0:
            yield from _attempt(container, view, now, restart=True)
    elif _runs_again(pod, container, view, init=init):
        yield from _crashed(pod, container, view, now)


def _crashed(pod: Object, container: Object, view: ContainerView, now: float) -> Iterator[Step]:
    """A restart after its back-off, counted from the exit (from the one before when the agent itself restarted it)."""
    failed_at = crash_time(view)
    due = backoff.due_at(view.back_off, failed_at) if failed_at is not None else 0.0
    if backoff.is_over(due, now) or view.back_off is None:
        yield from _attempt(container, view, now, restart=True)
        return
    if view.waiting is None or view.waiting.reason != CRASH_LOOP:
        name = container["name"]
        text = f"back-off {backoff.shown(view.back_off)} restarting failed container={name} pod={shown(pod)}"
        finished = view.current.finished_at if view.current is not None else now
        yield Announce(name, Waiting(CRASH_LOOP, text, finished + CRASH_LOOP_SHOWN_SECONDS, view.waiting))
        return
    yield Wait(min(due, view.waiting.visible_at) if view.waiting.visible_at > now else due)


def crash_time(view: ContainerView) -> float | None:
    """The exit that the crash back-off counts from; None: there is none yet, so no back-off."""
    counted = view.previous if view.killed_for_restart else view.current
    return counted.finished_at if counted is not None else None


def _attempt(container: Object, view: ContainerView, now: float, *, restart: bool) -> Iterator[Step]:
    name, waiting = container["name"], view.waiting
    if not backoff.is_over(view.not_before, now):
        shown_at = view.not_before
        if waiting is not None and waiting.reason == "ErrImagePull" and view.pull_back_off is not None:
            shown_at = view.pull_back_off.updated_at + PULL_BACK_OFF_SHOWN_SECONDS
            if now >= shown_at:
                text = f'Back-off pulling image "{container.get("image", "")}": ErrImagePull: {waiting.message}'
                yield Announce(name, Waiting("ImagePullBackOff", text))
                return
        yield Wait(min(shown_at, view.not_before))
    elif not view.image:
        yield PullImage(name)
    else:
        following = 0 if view.current is None else view.current.attempt + 1
        yield StartContainer(name, max(following, view.next_attempt), restart)
