"""From a pod's spec to the runtime's vocabulary: SandboxConfig and ContainerConfig. Pure.

Called by the worker right before it creates something; what must be looked up (environment, volumes, image) comes in.
Rules: the kubelet's generatePodSandboxConfig and generateContainerConfig; CRI's field comments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from agent.paths import Paths, log_path
from agent.pods import dns, spec
from agent.pods.env import ConfigFault, expand
from agent.pods.lifecycle import HASH_ANNOTATION
from agent.runtime.protocol import (
    ContainerConfig,
    ContainerSecurity,
    ImageStatus,
    Mount,
    Namespaces,
    PortMapping,
    Propagation,
    Resources,
    SandboxConfig,
    SandboxSecurity,
    Seccomp,
)
from api.objects import Object, annotations_of, labels_of, name_of, namespace_of, uid_of
from api.quantity import bytes_of, millicores

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
NODE_LABEL = "wherry.io/node"
RESTART_COUNT = "io.kubernetes.container.restartCount"
CPU_PERIOD_MICROSECONDS = 100_000
SHARES_PER_CORE = 1024
LEAST_SHARES = 2
LEAST_QUOTA_MICROSECONDS = 1000
_PROPAGATION: Mapping[str, Propagation] = {
    "None": "None",
    "HostToContainer": "HostToContainer",
    "Bidirectional": "Bidirectional",
}


@dataclass(frozen=True)
class Node:
    """What configurations need to know about this node."""

    name: str
    hostname: str
    paths: Paths
    resolver: dns.Resolver
    memory_bytes: int
    seccomp_default: bool = True
    """Containers that name no profile get the runtime's, as with the kubelet's --seccomp-default."""
    seccomp_root: str = "/var/lib/kubelet/seccomp"


@dataclass(frozen=True)
class Attempt:
    """One attempt at one container: what was looked up for it."""

    container: Object
    number: int
    image: ImageStatus
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    target_id: str = ""
    """The running container whose processes a debug container is to see."""


def sandbox_config(pod: Object, attempt: int, node: Node) -> SandboxConfig:
    security = pod["spec"].get("securityContext") or {}
    return SandboxConfig(
        name=name_of(pod),
        namespace=namespace_of(pod),
        uid=uid_of(pod),
        attempt=attempt,
        hostname=_sandbox_hostname(pod, node),
        log_directory=str(node.paths.pod_logs(pod)),
        dns=dns.dns_config(pod, node.resolver),
        ports=_ports(pod),
        labels={**labels_of(pod), **identity(pod, node)},
        annotations=dict(annotations_of(pod)),
        sysctls={entry["name"]: entry["value"] for entry in security.get("sysctls") or ()},
        namespaces=_namespaces(pod),
        security=SandboxSecurity(
            run_as_user=security.get("runAsUser"),
            run_as_group=security.get("runAsGroup"),
            supplemental_groups=_groups(security),
            privileged=any(_merged(pod, container).get("privileged") for container in spec.all_containers(pod)),
        ),
    )


def identity(pod: Object, node: Node) -> dict[str, str]:
    """The labels by which an agent finds its own sandboxes and containers again."""
    return {POD_NAME: name_of(pod), POD_NAMESPACE: namespace_of(pod), POD_UID: uid_of(pod), NODE_LABEL: node.name}


def container_config(pod: Object, attempt: Attempt, node: Node) -> ContainerConfig:
    """Raises ConfigFault when the image or user breaks runAsNonRoot."""
    container, values = attempt.container, attempt.environment
    return ContainerConfig(
        name=container["name"],
        image=attempt.image.id,
        attempt=attempt.number,
        command=tuple(expand(word, values) for word in container.get("command") or ()),
        args=tuple(expand(word, values) for word in container.get("args") or ()),
        working_dir=container.get("workingDir") or "",
        env=tuple(values.items()),
        mounts=attempt.mounts,
        labels={**identity(pod, node), CONTAINER_NAME: container["name"]},
        annotations={HASH_ANNOTATION: spec.definition(container), RESTART_COUNT: str(attempt.number)},
        log_path=log_path(container["name"], attempt.number),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=runtime_resources(pod, container, node),
        security=_security(pod, attempt, node),
        target_id=attempt.target_id,
    )


def _sandbox_hostname(pod: Object, node: Node) -> str:
    if pod["spec"].get("hostNetwork"):
        return ""  # the node's own: it has no UTS namespace to set one in
    if pod["spec"].get("setHostnameAsFQDN") and (fqdn := dns.fqdn_of(pod, node.resolver.domain)):
        return fqdn
    return dns.hostname_of(pod, node.hostname)


def _ports(pod: Object) -> tuple[PortMapping, ...]:
    if pod["spec"].get("hostNetwork"):
        return ()
    return tuple(
        PortMapping(port["containerPort"], port["hostPort"], port.get("protocol") or "TCP", port.get("hostIP") or "")
        for container in (*spec.init_containers(pod), *spec.main_containers(pod))
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def _namespaces(pod: Object) -> Namespaces:
    given = pod["spec"]
    return Namespaces(
        host_network=bool(given.get("hostNetwork")),
        host_pid=bool(given.get("hostPID")),
        host_ipc=bool(given.get("hostIPC")),
        share_process=bool(given.get("shareProcessNamespace")),
    )


def _groups(pod_security: Mapping[str, Any]) -> tuple[int, ...]:
    groups = list(pod_security.get("supplementalGroups") or ())
    if pod_security.get("fsGroup") is not None:
        groups.append(pod_security["fsGroup"])
    return tuple(dict.fromkeys(groups))


def _merged(pod: Object, container: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container's securityContext over the pod's."""
    shared = pod["spec"].get("securityContext") or {}
    inherited = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile")
    own = {name: value for name, value in (container.get("securityContext") or {}).items() if value is not None}
    return {**{name: shared[name] for name in inherited if shared.get(name) is not None}, **own}


def _container_seccomp(profile: Mapping[str, Any] | None, node: Node) -> Seccomp:
    return Seccomp("RuntimeDefault") if profile is None and node.seccomp_default else _seccomp(profile, node)


def _seccomp(profile: Mapping[str, Any] | None, node: Node) -> Seccomp:
    kind = (profile or {}).get("type")
    if kind == "RuntimeDefault":
        return Seccomp("RuntimeDefault")
    if kind == "Localhost":
        return Seccomp("Localhost", str(PurePosixPath(node.seccomp_root) / str((profile or {})["localhostProfile"])))
    return Seccomp("Unconfined")


def _security(pod: Object, attempt: Attempt, node: Node) -> ContainerSecurity:
    merged = _merged(pod, attempt.container)
    check_non_root(pod, attempt.container["name"], merged, attempt.image)
    capabilities = merged.get("capabilities") or {}
    user = merged.get("runAsUser", attempt.image.uid)
    unmasked = () if merged.get("procMount") == "Unmasked" else None
    return ContainerSecurity(
        run_as_user=0 if user is None and not attempt.image.username else user,
        run_as_group=merged.get("runAsGroup"),
        run_as_username=attempt.image.username if user is None else "",
        supplemental_groups=_groups(pod["spec"].get("securityContext") or {}),
        privileged=bool(merged.get("privileged")),
        readonly_rootfs=bool(merged.get("readOnlyRootFilesystem")),
        no_new_privileges=merged.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
        seccomp=_container_seccomp(merged.get("seccompProfile"), node),
        masked_paths=unmasked,
        readonly_paths=unmasked,
    )


def check_non_root(pod: Object, name: str, merged: Mapping[str, Any], image: ImageStatus) -> None:
    """Raises ConfigFault when runAsNonRoot is asked for and the process would be root, or might be."""
    if not merged.get("runAsNonRoot"):
        return
    where = f'(pod: "{spec.shown(pod)}", container: {name})'
    user = merged.get("runAsUser")
    if user is not None:
        if user == 0:
            raise ConfigFault(f"container's runAsUser breaks non-root policy {where}")
        return
    if image.uid is None and image.username:
        shown = f"image has non-numeric user ({image.username}), cannot verify user is non-root"
        raise ConfigFault(f"container has runAsNonRoot and {shown} {where}")
    if not image.uid:
        raise ConfigFault(f"container has runAsNonRoot and image will run as root {where}")


def runtime_resources(pod: Object, container: Mapping[str, Any], node: Node) -> Resources:
    given = container.get("resources") or {}
    limits, requests = given.get("limits") or {}, given.get("requests") or {}
    cpu_request = millicores(requests.get("cpu", limits.get("cpu", 0)))
    cpu_limit = millicores(limits.get("cpu", 0))
    quota = max(cpu_limit * CPU_PERIOD_MICROSECONDS // 1000, LEAST_QUOTA_MICROSECONDS) if cpu_limit else 0
    memory_request = bytes_of(requests.get("memory", limits.get("memory", 0)))
    return Resources(
        cpu_shares=max(cpu_request * SHARES_PER_CORE // 1000, LEAST_SHARES),
        cpu_quota=quota,
        cpu_period=CPU_PERIOD_MICROSECONDS if quota else 0,
        memory_limit_bytes=bytes_of(limits.get("memory", 0)),
        oom_score_adj=oom_score_adj(spec.qos_class(pod), memory_request, node.memory_bytes),
    )


def oom_score_adj(qos: spec.Qos, memory_request: int, memory_bytes: int) -> int:
    """How readily the kernel kills: BestEffort first, Guaranteed last, between them by what was asked for."""
    if qos == "Guaranteed":
        return -997
    if qos == "BestEffort":
        return 1000
    return min(max(1000 - 1000 * memory_request // max(memory_bytes, 1), 3), 999)


def propagation_of(mount: Mapping[str, Any]) -> Propagation:
    return _PROPAGATION[mount.get("mountPropagation") or "None"]


def named_port(container: Mapping[str, Any], port: Any) -> int | None:
    """A probe's port: a number, digits, or the name of one of the container's ports."""
    if isinstance(port, int):
        return port
    if str(port).isdigit():
        return int(port)
    declared: Sequence[Mapping[str, Any]] = container.get("ports") or ()
    return next((entry["containerPort"] for entry in declared if entry.get("name") == port), None)
