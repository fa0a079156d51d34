"""What one worker remembers about its pod: the mutable state behind `Observed`.

Filled from the runtime's answers (`take_*`), from probes and from failed attempts; read through `observed()`. One per
worker, changed only on its event loop and never across an await, so every `Observed` is consistent. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from agent.pods.conditions import OWN, RESIZING
from agent.pods.observed import ContainerView, Ending, Observed, VolumeState
from agent.pods.resizing import Pending, asked_of, with_granted
from agent.pods.spec import all_containers, deadline, find_container, init_containers, is_sidecar
from agent.runtime.protocol import ContainerStatus, SandboxStatus
from api.objects import Object

UNKNOWN_REASON = "ContainerStatusUnknown"
UNKNOWN_MESSAGE = "The container could not be located when the pod was terminated"


class PodMemory:
    def __init__(self, pod: Object) -> None:
        self.pod = pod
        self.reported: Object = {}
        """The status computed last; its times are carried on before the API echoes them."""
        self.sandbox: SandboxStatus | None = None
        self.old_sandboxes: tuple[str, ...] = ()
        self.views: dict[str, ContainerView] = {}
        self.volumes: VolumeState = "absent"
        self.volumes_not_before = 0.0
        self.sandbox_not_before = 0.0
        self.granted = asked_of(pod)
        self.pending: Pending | None = None
        self.resize_fault = ""
        self.resize_not_before = 0.0
        self.ending: Ending | None = None
        self.confirmed = False
        self.doubtful = False
        self.unsaved = False
        """What was granted is not in the checkpoint yet."""
        self.held = False

    def observed(self) -> Observed:
        views = {container["name"]: self.view(container["name"]) for container in all_containers(self.pod)}
        return Observed(
            sandbox=self.sandbox,
            containers={**self.views, **views},
            old_sandboxes=self.old_sandboxes,
            volumes=self.volumes,
            volumes_not_before=self.volumes_not_before,
            sandbox_not_before=self.sandbox_not_before,
            ending=self.ending,
            deadline=deadline(self.seen_pod()),
            granted=self.granted,
            pending=self.pending,
            resize_fault=self.resize_fault,
            resize_not_before=self.resize_not_before,
            confirmed=self.confirmed,
            doubtful=self.doubtful,
            unsaved=self.unsaved,
            held=self.held,
        )

    def view(self, name: str) -> ContainerView:
        return self.views.get(name) or ContainerView()

    def change(self, name: str, **fields: Any) -> None:
        """Replaces fields of one container's view."""
        self.views[name] = replace(self.view(name), **fields)

    def seen_pod(self) -> Object:
        """The pod with the status that the API has, or will have once what was reported last is through."""
        known = self.pod.get("status") or {}
        if not self.reported:
            return self.pod
        own = {*OWN, *RESIZING, *(entry["type"] for entry in self.reported.get("conditions") or ())}
        foreign = [entry for entry in known.get("conditions") or () if entry["type"] not in own]
        conditions = [*(self.reported.get("conditions") or ()), *foreign]
        return {**self.pod, "status": {**known, **self.reported, "conditions": conditions}}

    def granted_pod(self) -> Object:
        """The pod with the resources that it has here, which are not always those it asks for."""
        return with_granted(self.pod, self.granted)

    def wants_resize(self) -> bool:
        return self.ending is None and asked_of(self.pod) != self.granted

    def grant(self) -> None:
        """What the pod asks for is granted; containers of before have what was granted before."""
        for name, before in self.granted.items():
            if self.view(name).resources is None:
                self.change(name, resources=before)
        self.granted = asked_of(self.pod)
        self.pending, self.resize_fault, self.resize_not_before = None, "", 0.0

    def take_sandboxes(self, sandboxes: Iterable[SandboxStatus]) -> None:
        """All sandboxes of the pod; the newest attempt is the one that counts."""
        newest_last = sorted(sandboxes, key=lambda sandbox: (sandbox.attempt, sandbox.created_at))
        if newest_last:
            *old, self.sandbox = newest_last
            self.old_sandboxes = tuple(sandbox.id for sandbox in old)
        else:
            self.sandbox, self.old_sandboxes = None, ()

    def take_sandbox(self, fresh: SandboxStatus) -> None:
        """A new sandbox, or news about the present one."""
        if self.sandbox is not None and self.sandbox.id != fresh.id:
            self.old_sandboxes = (*self.old_sandboxes, self.sandbox.id)
        self.sandbox = fresh

    def forget_sandbox(self, sandbox_id: str) -> None:
        self.old_sandboxes = tuple(old for old in self.old_sandboxes if old != sandbox_id)
        if self.sandbox is not None and self.sandbox.id == sandbox_id:
            self.sandbox = None

    def take_containers(self, statuses: Iterable[ContainerStatus]) -> None:
        """All containers of the pod, in any order."""
        for status in sorted(statuses, key=_age):
            self.take_container(status)

    def take_container(self, status: ContainerStatus) -> None:
        """News about one container: its first appearance, or a change of its state."""
        view = self.view(status.name)
        if view.current is not None and view.current.id == status.id:
            self._update(status, view.current)
        elif view.current is None or _age(status) > _age(view.current):
            dead = (*view.dead, view.previous.id) if view.previous is not None else view.dead
            previous = view.current
            if previous is not None and previous.state == "created":
                dead, previous = (*dead, previous.id), view.previous
            self.views[status.name] = replace(view, current=status, previous=previous, dead=dead)
            self._begin(status)
        elif view.previous is not None and view.previous.id == status.id:
            self.change(status.name, previous=_keep_message(status, view.previous))
        elif view.previous is None:
            self.change(status.name, previous=status)
        elif status.id not in view.dead:
            self.change(status.name, dead=(*view.dead, status.id))

    def lose_container(self, container_id: str, now: float) -> None:
        """The runtime no longer knows a container that was thought to be alive: it ended, nobody knows how."""
        for name, view in list(self.views.items()):
            current = view.current
            if current is not None and current.id == container_id and current.state == "created":
                self.forget_container(container_id)  # it never ran: there is no end to remember
            elif current is not None and current.id == container_id and current.state != "exited":
                lost = replace(current, state="exited", exit_code=137, reason=UNKNOWN_REASON, message=UNKNOWN_MESSAGE)
                self._update(replace(lost, finished_at=now), current)
                self.change(name, image="")

    def forget_container(self, container_id: str) -> None:
        for name, view in list(self.views.items()):
            dead = tuple(old for old in view.dead if old != container_id)
            if view.current is not None and view.current.id == container_id:
                self.change(name, current=view.previous, previous=None, dead=dead)
            elif view.previous is not None and view.previous.id == container_id:
                self.change(name, previous=None, dead=dead)
            elif dead != view.dead:
                self.change(name, dead=dead)

    def name_of(self, container_id: str) -> str:
        """The name of the container whose newest attempt has this id, or ""."""
        for name, view in self.views.items():
            if view.current is not None and view.current.id == container_id:
                return name
        return ""

    def _begin(self, status: ContainerStatus) -> None:
        """A new attempt: nothing that was known about the one before holds."""
        container = find_container(self.pod, status.name) or {}
        running = status.state == "running"
        regular_init = any(container is init for init in init_containers(self.pod)) and not is_sidecar(container)
        started = running and not container.get("startupProbe")
        self.change(
            status.name,
            waiting=None if running or status.state == "exited" else self.view(status.name).waiting,
            image="",
            must_restart="",
            killed_for_restart=False,
            hook_pending=False,
            started=started,
            ready=started and not container.get("readinessProbe") and not regular_init,
        )

    def _update(self, status: ContainerStatus, known: ContainerStatus) -> None:
        fresh = _keep_message(status, known)
        if known.state == "created" and fresh.state != "created":
            self.change(status.name, current=fresh)
            self._begin(fresh)
        elif fresh.state == "running":
            self.change(status.name, current=fresh)
        else:
            self.change(status.name, current=fresh, started=False, ready=False, hook_pending=False, must_restart="")


def _age(status: ContainerStatus) -> tuple[int, float]:
    return status.attempt, status.created_at


def _keep_message(fresh: ContainerStatus, known: ContainerStatus) -> ContainerStatus:
    """The termination message is read once, at the exit; later news do not carry it."""
    return replace(fresh, message=known.message) if known.message and not fresh.message else fresh
