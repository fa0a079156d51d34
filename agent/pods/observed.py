"""What is known of a pod on this node: the frozen input of `lifecycle.next_step` and of `status.pod_status`.

Built by the worker from the runtime's listings, the probes' verdicts and its own memory of failed attempts. Times are
Unix seconds. Imports runtime.protocol and api only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.pods.backoff import Entry
from agent.pods.resizing import Pending
from agent.runtime.protocol import ContainerStatus, SandboxStatus

CRASH_LOOP = "CrashLoopBackOff"
EVICTED = "Evicted"
FAILED_HOOK = "FailedPostStartHook"


@dataclass(frozen=True)
class Waiting:
    """Why a container does not run, as the API words it. Until `visible_at` the status shows `before` instead.

    A crash loop shows the exit itself first, as the kubelet does: what it says changes with its next round.
    """

    reason: str
    message: str = ""
    visible_at: float = 0.0
    before: Waiting | None = None

    def at(self, now: float) -> Waiting | None:
        return self if now >= self.visible_at else self.before


@dataclass(frozen=True)
class ContainerView:
    """One container of the spec: its newest attempt, the one before, and what the agent remembers about it."""

    current: ContainerStatus | None = None
    previous: ContainerStatus | None = None
    next_attempt: int = 0
    """The number of the next attempt at least: the API knows of earlier ones that the runtime has no more."""
    dead: tuple[str, ...] = ()
    """Ids of older attempts, to be removed."""
    waiting: Waiting | None = None
    not_before: float = 0.0
    """The next attempt to pull or create is not due before this."""
    image: str = ""
    """The id of the image that was made ready for the next attempt; "" when that is still to do."""
    hook_pending: bool = False
    """The postStart hook of `current` has not run to its end."""
    started: bool = False
    ready: bool = False
    must_restart: str = ""
    """A sentence for the Killing event when a probe (or a hook) condemned `current`."""
    killed_for_restart: bool = False
    """`current` ended because the agent restarted it; the crash back-off then looks at the exit before."""
    resources: Mapping[str, Any] | None = None
    """What `current` was made with, or has been given since."""
    back_off: Entry | None = None
    pull_back_off: Entry | None = None


@dataclass(frozen=True)
class Ending:
    """The pod must end: it was deleted, vanished from the API, was rejected, its time is over, or its phase is final.

    `grace_seconds` counts from when it was asked for; `remove`: nothing of it is to remain on the node. With a
    `reason` (and message) the pod is Failed for it, however its containers end.
    """

    grace_seconds: int
    remove: bool = True
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    """The node ends it for its own sake, not for what the pod did: condition DisruptionTarget says so."""


VolumeState = Literal["absent", "ready", "released", "removed"]
"""`released`: the pod is over, its volumes are gone; `removed`: so is everything else of it on the disk."""


@dataclass(frozen=True)
class Observed:
    """All that a decision reads. `containers` has a view for every container of the spec."""

    sandbox: SandboxStatus | None = None
    containers: Mapping[str, ContainerView] = field(default_factory=dict)
    old_sandboxes: tuple[str, ...] = ()
    volumes: VolumeState = "absent"
    volumes_not_before: float = 0.0
    sandbox_not_before: float = 0.0
    ending: Ending | None = None
    deadline: float = float("inf")
    """When the pod's activeDeadlineSeconds are over."""
    granted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The resources that the node has granted, by container."""
    pending: Pending | None = None
    """Why the node does not grant what the pod asks for now."""
    resize_fault: str = ""
    """Why what is granted could not be put in force; the next try is due at `resize_not_before`."""
    resize_not_before: float = 0.0
    confirmed: bool = False
    """The API knows the end: final status sent and, for a deleted pod, its removal confirmed."""
    doubtful: bool = False
    """A call to the runtime failed or timed out: what is known of the runtime may be wrong."""
    unsaved: bool = False
    """The pod's checkpoint is older than what the node has granted."""
    held: bool = False
    """It must not run twice, and only the control plane, not heard yet, knows whether it still belongs here."""


def is_resizing(observed: Observed, name: str) -> bool:
    """Whether a container runs with other resources than it was granted."""
    view = observed.containers.get(name) or ContainerView()
    running = view.current is not None and view.current.state == "running"
    return running and view.resources is not None and view.resources != observed.granted.get(name)
