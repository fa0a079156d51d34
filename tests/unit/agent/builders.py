"""Short ways to write pods and what is observed of them, for the agent's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.pods.lifecycle import HASH_ANNOTATION
from agent.pods.observed import ContainerView, Observed
from agent.pods.spec import definition
from agent.runtime.protocol import ContainerStatus, SandboxStatus
from api.objects import Object

NOW = 1_000_000.0
UID = "u-1"


def a_container(name: str = "c", **fields: Any) -> Object:
    return {"name": name, "image": "localhost/busybox:1", **fields}


def a_pod(*containers: Object, policy: str = "Always", inits: tuple[Object, ...] = (), **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": UID, "generation": 1},
        "spec": {
            "restartPolicy": policy,
            "containers": list(containers) or [a_container()],
            **({"initContainers": list(inits)} if inits else {}),
            **spec,
        },
    }


def a_sandbox(attempt: int = 0, state: str = "ready") -> SandboxStatus:
    return SandboxStatus(
        id=f"box-{attempt}", name="p", namespace="ns", uid=UID, attempt=attempt, state=state,  # type: ignore[arg-type]
        created_at=NOW - 100, labels={}, annotations={}, ip="10.0.0.2", ips=("10.0.0.2",),
    )  # fmt: skip


def status(name: str = "c", state: str = "running", attempt: int = 0, **fields: Any) -> ContainerStatus:
    made = ContainerStatus(
        id=f"{name}-{attempt}", name=name, attempt=attempt, sandbox_id="box-0", state=state,  # type: ignore[arg-type]
        created_at=NOW - 90 + attempt, image="localhost/busybox:1", image_id="sha256:1", labels={},
        annotations={HASH_ANNOTATION: definition(a_container(name))}, started_at=NOW - 80,
    )  # fmt: skip
    return replace(made, **fields)


def exited(name: str = "c", code: int = 1, attempt: int = 0, at: float = NOW - 1, **fields: Any) -> ContainerStatus:
    reason = "Error" if code else "Completed"
    return status(name, "exited", attempt, exit_code=code, reason=reason, finished_at=at, **fields)


def running(name: str = "c", **fields: Any) -> ContainerView:
    return ContainerView(current=status(name), started=True, ready=True, **fields)


def seen(pod: Object, **views: ContainerView) -> Observed:
    """Volumes and sandbox are there; containers not named have not been started."""
    spec = pod["spec"]
    names = [c["name"] for c in (*spec.get("initContainers", ()), *spec["containers"])]
    return Observed(
        sandbox=a_sandbox(), volumes="ready", containers={name: views.get(name, ContainerView()) for name in names}
    )
