"""Between our dataclasses and CRI's messages: pure translation, both ways.

Called by `cri` only. Holds what CRI leaves to convention: nanoseconds become seconds, unset numbers are absent
messages, a privileged container gets no seccomp profile.
"""

from __future__ import annotations

from typing import Any

from agent.runtime import protocol as p
from agent.runtime.pb import cri_pb2 as pb

_NANOSECONDS = 1e9
_PROPAGATION = {
    "None": pb.PROPAGATION_PRIVATE,
    "HostToContainer": pb.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}
_PROTOCOLS = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}
_SECCOMP = {
    "RuntimeDefault": pb.SecurityProfile.RuntimeDefault,
    "Unconfined": pb.SecurityProfile.Unconfined,
    "Localhost": pb.SecurityProfile.Localhost,
}
_STATES: dict[int, p.ContainerState] = {
    pb.CONTAINER_CREATED: "created",
    pb.CONTAINER_RUNNING: "running",
    pb.CONTAINER_EXITED: "exited",
    pb.CONTAINER_UNKNOWN: "unknown",
}
# What a container may not see of /proc and /sys unless procMount says so (the defaults of every runtime).
_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def sandbox_message(config: p.SandboxConfig, cgroup_parent: str) -> Any:
    """A PodSandboxConfig; the same one goes with every container of the sandbox."""
    message = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt
        ),
        hostname=config.hostname,
        log_directory=config.log_directory,
        port_mappings=[_port(port) for port in config.ports],
        labels=config.labels,
        annotations=config.annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent,
            sysctls=config.sysctls,
            security_context=_sandbox_security(config),
        ),
    )
    if config.dns is not None:
        message.dns_config.CopyFrom(
            pb.DNSConfig(servers=config.dns.servers, searches=config.dns.searches, options=config.dns.options)
        )
    return message


def _port(port: p.PortMapping) -> Any:
    return pb.PortMapping(
        protocol=_PROTOCOLS[port.protocol],
        container_port=port.container_port,
        host_port=port.host_port,
        host_ip=port.host_ip,
    )


def _sandbox_security(config: p.SandboxConfig) -> Any:
    security = config.security
    return pb.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(config.namespaces),
        run_as_user=_int64(security.run_as_user),
        run_as_group=_int64(security.run_as_group),
        supplemental_groups=security.supplemental_groups,
        readonly_rootfs=True,
        privileged=security.privileged,
        seccomp=_seccomp(security.seccomp, security.privileged),
    )


def _namespaces(shared: p.Namespaces, target_id: str = "") -> Any:
    pid = pb.NODE if shared.host_pid else pb.POD if shared.share_process else pb.CONTAINER
    if target_id and pid == pb.CONTAINER:
        pid = pb.TARGET
    return pb.NamespaceOption(
        network=pb.NODE if shared.host_network else pb.POD,
        pid=pid,
        ipc=pb.NODE if shared.host_ipc else pb.POD,
        target_id=target_id,
    )


def _seccomp(profile: p.Seccomp, privileged: bool) -> Any:
    if privileged:
        return pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
    return pb.SecurityProfile(profile_type=_SECCOMP[profile.type], localhost_ref=profile.localhost_ref)


def _int64(value: int | None) -> Any:
    return None if value is None else pb.Int64Value(value=value)


def container_message(config: p.ContainerConfig, namespaces: p.Namespaces) -> Any:
    """A ContainerConfig."""
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=pb.ImageSpec(image=config.image),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in config.env],
        mounts=[_mount(mount) for mount in config.mounts],
        devices=[
            pb.Device(container_path=d.container_path, host_path=d.host_path, permissions=d.permissions)
            for d in config.devices
        ],
        labels=config.labels,
        annotations=config.annotations,
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=pb.LinuxContainerConfig(
            resources=resources_message(config.resources),
            security_context=_container_security(config.security, _namespaces(namespaces, config.target_id)),
        ),
    )


def _mount(mount: p.Mount) -> Any:
    return pb.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        propagation=_PROPAGATION[mount.propagation],
    )


def resources_message(resources: p.Resources) -> Any:
    return pb.LinuxContainerResources(
        cpu_period=resources.cpu_period,
        cpu_quota=resources.cpu_quota,
        cpu_shares=resources.cpu_shares,
        memory_limit_in_bytes=resources.memory_limit_bytes,
        oom_score_adj=resources.oom_score_adj,
        cpuset_cpus=resources.cpuset_cpus,
    )


def _container_security(security: p.ContainerSecurity, namespaces: Any) -> Any:
    masked = _MASKED_PATHS if security.masked_paths is None else security.masked_paths
    readonly = _READONLY_PATHS if security.readonly_paths is None else security.readonly_paths
    return pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(
            add_capabilities=security.add_capabilities, drop_capabilities=security.drop_capabilities
        ),
        privileged=security.privileged,
        namespace_options=namespaces,
        run_as_user=_int64(security.run_as_user),
        run_as_group=_int64(security.run_as_group),
        run_as_username=security.run_as_username if security.run_as_user is None else "",
        supplemental_groups=security.supplemental_groups,
        readonly_rootfs=security.readonly_rootfs,
        no_new_privs=security.no_new_privileges and not security.privileged,
        masked_paths=() if security.privileged else masked,
        readonly_paths=() if security.privileged else readonly,
        seccomp=_seccomp(security.seccomp, security.privileged),
    )


def read_sandbox(message: Any) -> p.Sandbox:
    """Out of a PodSandbox of a listing."""
    return p.Sandbox(**_sandbox_fields(message))


def read_sandbox_status(message: Any) -> p.SandboxStatus:
    """Out of a PodSandboxStatus."""
    ips = tuple(ip for ip in (message.network.ip, *(more.ip for more in message.network.additional_ips)) if ip)
    return p.SandboxStatus(**_sandbox_fields(message), ip=message.network.ip, ips=ips)


def _sandbox_fields(message: Any) -> dict[str, Any]:
    return {
        "id": message.id,
        "name": message.metadata.name,
        "namespace": message.metadata.namespace,
        "uid": message.metadata.uid,
        "attempt": message.metadata.attempt,
        "state": "ready" if message.state == pb.SANDBOX_READY else "notready",
        "created_at": message.created_at / _NANOSECONDS,
        "labels": dict(message.labels),
        "annotations": dict(message.annotations),
    }


def read_container(message: Any) -> p.Container:
    """Out of a Container of a listing."""
    return p.Container(**_container_fields(message), sandbox_id=message.pod_sandbox_id)


def read_container_status(message: Any, sandbox_id: str) -> p.ContainerStatus:
    """Out of a ContainerStatus, which does not say in which sandbox it is."""
    return p.ContainerStatus(
        **_container_fields(message),
        sandbox_id=sandbox_id,
        exit_code=message.exit_code,
        reason=message.reason,
        message=message.message,
        started_at=message.started_at / _NANOSECONDS,
        finished_at=message.finished_at / _NANOSECONDS,
        log_path=message.log_path,
    )


def _container_fields(message: Any) -> dict[str, Any]:
    return {
        "id": message.id,
        "name": message.metadata.name,
        "attempt": message.metadata.attempt,
        "state": _STATES.get(message.state, "unknown"),
        "created_at": message.created_at / _NANOSECONDS,
        "image": message.image.image,
        "image_id": message.image_ref,
        "labels": dict(message.labels),
        "annotations": dict(message.annotations),
    }


def read_image(message: Any) -> p.ImageStatus:
    """Out of an Image."""
    return p.ImageStatus(
        id=message.id,
        tags=tuple(message.repo_tags),
        digests=tuple(message.repo_digests),
        size_bytes=message.size,
        uid=message.uid.value if message.HasField("uid") else None,
        username=message.username,
    )


def auth_message(auth: p.ImageAuth | None) -> Any:
    """An AuthConfig, or nothing."""
    if auth is None:
        return None
    return pb.AuthConfig(
        username=auth.username,
        password=auth.password,
        auth=auth.auth,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )


def read_stats(message: Any) -> p.ContainerStats:
    """Out of a ContainerStats."""
    return p.ContainerStats(
        container_id=message.attributes.id,
        name=message.attributes.metadata.name,
        labels=dict(message.attributes.labels),
        at=message.cpu.timestamp / _NANOSECONDS,
        cpu_seconds=message.cpu.usage_core_nano_seconds.value / _NANOSECONDS,
        memory_working_set_bytes=message.memory.working_set_bytes.value,
        memory_rss_bytes=message.memory.rss_bytes.value,
        memory_usage_bytes=message.memory.usage_bytes.value,
        page_faults=message.memory.page_faults.value,
        major_page_faults=message.memory.major_page_faults.value,
        fs_used_bytes=message.writable_layer.used_bytes.value,
        fs_inodes_used=message.writable_layer.inodes_used.value,
    )
