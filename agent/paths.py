"""Where the agent keeps things under its data directory. Pure names; nothing here touches the disk.

The layout below `pods/` is the kubelet's, so that people find what they know:

    DATA/pods/UID/pod.json                    the pod as last seen, for a start without the control plane
    DATA/pods/UID/volumes/KIND/NAME           kubernetes.io~empty-dir, ~configmap, ~secret, ~projected, ~downward-api
    DATA/pods/UID/volume-subpaths/CONTAINER/N bind mounts of subPaths
    DATA/pods/UID/containers/NAME/ATTEMPT     the termination message file
    DATA/pods/UID/etc-hosts
    DATA/pods/UID/services.json               the variables that its containers were last told of services
    DATA/volumes/NAME                         named volumes, which belong to no pod
    DATA/logs/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from api.objects import Object, name_of, namespace_of, uid_of


@dataclass(frozen=True)
class Paths:
    root: Path

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def named_volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def pod(self, uid: str) -> Path:
        return self.pods / uid

    def checkpoint(self, uid: str) -> Path:
        return self.pod(uid) / "pod.json"

    def volumes(self, uid: str) -> Path:
        return self.pod(uid) / "volumes"

    def volume(self, uid: str, kind: str, name: str) -> Path:
        return self.volumes(uid) / f"kubernetes.io~{kind}" / name

    def subpaths(self, uid: str) -> Path:
        return self.pod(uid) / "volume-subpaths"

    def subpath(self, uid: str, container: str, index: int) -> Path:
        return self.subpaths(uid) / container / str(index)

    def termination_log(self, uid: str, container: str, attempt: int) -> Path:
        return self.pod(uid) / "containers" / container / str(attempt)

    def etc_hosts(self, uid: str) -> Path:
        return self.pod(uid) / "etc-hosts"

    def service_environment(self, uid: str) -> Path:
        return self.pod(uid) / "services.json"

    def pod_logs(self, pod: Object) -> Path:
        return self.logs / f"{namespace_of(pod)}_{name_of(pod)}_{uid_of(pod)}"

    def container_log(self, pod: Object, container: str, attempt: int) -> Path:
        return self.pod_logs(pod) / log_path(container, attempt)


def log_path(container: str, attempt: int) -> str:
    """A container's log file, relative to its pod's log directory."""
    return f"{container}/{attempt}.log"
