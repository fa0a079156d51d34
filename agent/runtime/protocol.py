"""The border between the agent and whatever runs containers: frozen data in, frozen data out, few verbs.

Implemented by `cri.CriRuntime` (containerd over CRI v1) and `fake.FakeRuntime`; both pass the same contract suite.
Called by the pod workers, the agent's HTTP server and its statistics. Nouns are CRI's: a *sandbox* is a pod's network
namespace and pause process, *containers* live in it. Times are Unix seconds (0.0: has not happened). Every verb
raises `errors.RuntimeFault` and nothing else. This module imports only the standard library.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

NetworkProtocol = Literal["TCP", "UDP", "SCTP"]
Propagation = Literal["None", "HostToContainer", "Bidirectional"]
SeccompType = Literal["RuntimeDefault", "Unconfined", "Localhost"]
SandboxState = Literal["ready", "notready"]
ContainerState = Literal["created", "running", "exited", "unknown"]
EventKind = Literal["started", "exited", "oom", "sandbox-exited", "resync"]


@dataclass(frozen=True)
class DnsConfig:
    """What the pod's /etc/resolv.conf says. None in a SandboxConfig: a copy of the node's."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class PortMapping:
    """A port of the pod published on the node (`hostPort`). Never set on a sandbox in the node's network."""

    container_port: int
    host_port: int
    protocol: NetworkProtocol = "TCP"
    host_ip: str = ""


@dataclass(frozen=True)
class Seccomp:
    """`localhost_ref` is the absolute path of a profile on the node, for type Localhost only."""

    type: SeccompType = "RuntimeDefault"
    localhost_ref: str = ""


@dataclass(frozen=True)
class Resources:
    """Cgroup limits, in the kernel's units. 0 means unset everywhere except oom_score_adj."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""


@dataclass(frozen=True)
class Namespaces:
    """Which of the node's or pod's namespaces containers share; False everywhere is the default of a pod."""

    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process: bool = False


@dataclass(frozen=True)
class SandboxSecurity:
    """The pod's securityContext as far as the sandbox itself needs it (supplemental groups include fsGroup).

    The pause process has no seccomp filter by default: it is our own 209 bytes, nobody can exec into it, and building
    the filter costs each pod 8 ms. The pod's containers have theirs.
    """

    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    seccomp: Seccomp = Seccomp("Unconfined")


@dataclass(frozen=True)
class SandboxConfig:
    """All that a sandbox is made from. `log_directory` is absolute; containers' log paths are relative to it."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: DnsConfig | None = None
    ports: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    namespaces: Namespaces = Namespaces()
    security: SandboxSecurity = SandboxSecurity()


@dataclass(frozen=True)
class Mount:
    """A directory or file of the node, seen in the container. A missing host path becomes a directory."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: Propagation = "None"


@dataclass(frozen=True)
class Device:
    """A device node given to the container; `permissions` from r, w, m."""

    container_path: str
    host_path: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class ContainerSecurity:
    """One container's securityContext. `run_as_username` is for images whose user is a name; uid wins over it.

    `privileged` needs a privileged sandbox. `masked_paths`/`readonly_paths`: None is the runtime's safe default, ()
    unmasks (procMount: Unmasked).
    """

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privileges: bool = True
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: Seccomp = Seccomp()
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ContainerConfig:
    """All that a container is made from. `image` is a name or an image id that the node already has.

    `command` replaces the image's entrypoint, `args` its arguments; both empty: what the image says. `log_path` is
    relative to the sandbox's log_directory. `target_id` names a running container whose processes this one is to see.
    """

    name: str
    image: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: ContainerSecurity = ContainerSecurity()
    target_id: str = ""


@dataclass(frozen=True)
class Sandbox:
    """One line of a listing: identity and state."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: SandboxState
    created_at: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class SandboxStatus(Sandbox):
    """A sandbox with its addresses; `ip` is "" in the node's network, `ips` lists all of them, `ip` first."""

    ip: str = ""
    ips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Container:
    """One line of a listing: identity and state. `image` is the name it was made from."""

    id: str
    name: str
    attempt: int
    sandbox_id: str
    state: ContainerState
    created_at: float
    image: str
    image_id: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class ContainerStatus(Container):
    """A container in full. `reason` once exited: Completed, Error, OOMKilled or StartError. `log_path` is absolute."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    log_path: str = ""


@dataclass(frozen=True)
class ExecResult:
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class StreamOptions:
    """Which streams of an exec or attach are open. With a tty, stderr is part of stdout and must be False."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


@dataclass(frozen=True)
class ImageStatus:
    """An image on the node. `uid`/`username` say whom it runs as (both unset: root); `digests` are name@sha256:..."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    uid: int | None = None
    username: str = ""


@dataclass(frozen=True)
class ImageAuth:
    """Credentials for one registry, out of an imagePullSecret. `auth` is base64(user:password), if that is all."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identity_token: str = ""
    registry_token: str = ""


@dataclass(frozen=True)
class ImageFs:
    """Where images live and what they occupy."""

    mountpoint: str
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True)
class ContainerStats:
    """One container's use of the node at `at`. `cpu_seconds` only grows; the rest are gauges."""

    container_id: str
    name: str
    labels: Mapping[str, str]
    at: float
    cpu_seconds: float
    memory_working_set_bytes: int
    memory_rss_bytes: int
    memory_usage_bytes: int
    page_faults: int
    major_page_faults: int
    fs_used_bytes: int
    fs_inodes_used: int


@dataclass(frozen=True)
class RuntimeVersion:
    name: str
    version: str
    api_version: str


@dataclass(frozen=True)
class RuntimeHealth:
    """Whether sandboxes can be started now; `message` says why not, for the node's Ready condition."""

    ready: bool
    network_ready: bool
    message: str = ""


@dataclass(frozen=True)
class RuntimeEvent:
    """Something happened now. Which ids are set depends on the kind:

    started, exited, oom: both ids; for exited also exit_code and at. sandbox-exited: sandbox_id. resync: none; events
    may have been lost (the runtime restarted), list everything again. After an `exited` event was delivered,
    `container_status` and `list_containers` never again call that container running.
    """

    kind: EventKind
    container_id: str = ""
    sandbox_id: str = ""
    exit_code: int = 0
    at: float = 0.0


class Runtime(Protocol):
    """What the agent asks of a container runtime.

    Verbs that make something return once it exists; stop and remove are idempotent: done already, or never there, is
    success. No verb retries by itself. Everything made belongs to the runtime and outlives the agent; after a restart
    the agent finds it again by its labels.
    """

    async def version(self) -> RuntimeVersion: ...

    async def health(self) -> RuntimeHealth: ...

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Make and start a sandbox: network namespace, CNI, pause process. Returns its id (not idempotent).

        AlreadyExists when (name, namespace, uid, attempt) is taken. Failed for a CNI or runc error; nothing is left.
        """

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs in the sandbox and give its address and host ports back. Idempotent."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove the sandbox and all its containers, by force. Idempotent."""

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        """NotFound when there is none."""

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> list[Sandbox]:
        """All sandboxes, ready or not, that carry all the given labels."""

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig) -> str:
        """Prepare a container, do not start it; returns its id. `sandbox_config` is what the sandbox was made from.

        ImageMissing when the image is not here; NotFound for the sandbox; AlreadyExists when (name, attempt) is taken
        in this pod (uid), also by a container of an earlier sandbox; InvalidConfig or Failed otherwise
        (CreateContainerError to the user).
        """

    async def start_container(self, container_id: str) -> None:
        """Run what was created; returns when the process is started, not when it is done.

        Failed when the command cannot be run (no such file, not executable); the container is then exited with code
        128 and reason StartError.
        """

    async def stop_container(self, container_id: str, timeout_seconds: float) -> None:
        """Send the image's stop signal, wait that long, then SIGKILL; returns when the process is gone. Idempotent."""

    async def update_container(self, container_id: str, resources: Resources) -> None:
        """Change the limits of a running container; what is unset, and oom_score_adj, stays as it was.

        Failed when the kernel refuses, NotFound when there is no such container.
        """

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, killing it if it runs. Its log file stays. Idempotent."""

    async def container_status(self, container_id: str) -> ContainerStatus:
        """NotFound when there is none."""

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> list[Container]:
        """All containers in any state that carry all the given labels."""

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        """Run a command in a running container and wait. Timeout kills it; Failed when it cannot be started."""

    async def exec_url(self, container_id: str, command: Sequence[str], options: StreamOptions) -> str:
        """An http:// URL, good for one connection soon, that speaks Kubernetes' exec streaming."""

    async def attach_url(self, container_id: str, options: StreamOptions) -> str:
        """The same for the container's main process."""

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """The same for TCP ports inside the sandbox's network namespace."""

    async def reopen_log(self, container_id: str) -> None:
        """After its log file was renamed: write to a new file from now on."""

    async def image_status(self, image: str) -> ImageStatus | None:
        """The image named as in a pod spec (`busybox`, `localhost/x:1`, `name@sha256:...`) or by id, or None."""

    async def pull_image(self, image: str, auth: ImageAuth | None = None) -> str:
        """Fetch an image, also if it is here already; returns its id. ImagePullFailed with the registry's words."""

    async def remove_image(self, image: str) -> None:
        """Forget an image with all its names; running containers keep what they use. Idempotent."""

    async def list_images(self) -> list[ImageStatus]: ...

    async def load_image(self, archive: AsyncIterable[bytes]) -> list[str]:
        """Import an OCI or `docker save` tar while it arrives; returns the full names it brought.

        InvalidConfig: a bad archive. Failed: no room for it.
        """

    async def image_fs(self) -> ImageFs: ...

    async def container_stats(self) -> list[ContainerStats]:
        """Figures of all running containers."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """What happens from now on, at once (exits within milliseconds); begins with `resync` when it is connected.

        One consumer at a time. Never ends by itself: while the runtime is away it waits and then says `resync` again.
        """

    async def close(self) -> None:
        """Drop the connection; what runs keeps running."""
