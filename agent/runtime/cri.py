"""containerd over CRI v1: `protocol.Runtime` for real.

Made by the agent's main, called by the pod workers and the agent's server. Imports the stubs' neighbours `cri_calls`
and `cri_messages`; nobody else does. CRI itself learns of an exit only after containerd has cleaned the task up (tens
of milliseconds), but containerd's event stream says it at once, with code and time. So `events` keeps what it heard,
and status and listings say "exited" from that moment: the invariant of `protocol.RuntimeEvent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.runtime import cri_calls as calls
from agent.runtime import cri_messages as messages
from agent.runtime.cgroups import make_pod_cgroup, oom_killed, remove_cgroup
from agent.runtime.cri_events import ContainerdEvents, Exit
from agent.runtime.errors import AlreadyExists, Failed, ImageMissing, NotFound, Unavailable
from agent.runtime.images import load_archive
from agent.runtime.pb import cri_pb2 as pb
from agent.runtime.protocol import (
    Container,
    ContainerConfig,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    ImageAuth,
    ImageFs,
    ImageStatus,
    Resources,
    RuntimeEvent,
    RuntimeHealth,
    RuntimeVersion,
    Sandbox,
    SandboxConfig,
    SandboxStatus,
    StreamOptions,
)

_PIDS_LIMIT = 4096
_REMOVAL_TRIES, _REMOVAL_PAUSE_SECONDS = 5, 0.1
_LISTED_TRIES, _LISTED_PAUSE_SECONDS = 500, 0.01


class CriRuntime:
    """One connection to a CRI runtime.

    `endpoint` is unix:///path. Each pod's containers are below a cgroup of the pod's own, `cgroup_root`/pod<uid>,
    with a limit of processes.
    """

    def __init__(self, endpoint: str, cgroup_root: str = "/wherry", pids_limit: int = _PIDS_LIMIT) -> None:
        self._endpoint = endpoint
        self._cgroup_root = cgroup_root
        self._pids_limit = pids_limit
        self._channel = calls.CriChannel(endpoint)
        self._events = ContainerdEvents(self._channel, self._oom_killed)
        self._uid_of: dict[str, str] = {}

    async def version(self) -> RuntimeVersion:
        reply = await self._channel.ask(calls.VERSION, pb.VersionRequest())
        return RuntimeVersion(reply.runtime_name, reply.runtime_version, reply.runtime_api_version)

    async def health(self) -> RuntimeHealth:
        reply = await self._channel.ask(calls.STATUS, pb.StatusRequest(), calls.HEALTH_SECONDS)
        conditions = {condition.type: condition for condition in reply.status.conditions}
        words = [f"{c.reason}: {c.message}" for c in reply.status.conditions if not c.status]
        ready, network = conditions.get("RuntimeReady"), conditions.get("NetworkReady")
        return RuntimeHealth(bool(ready and ready.status), bool(network and network.status), "; ".join(words))

    # Sandboxes.

    def _cgroup(self, uid: str) -> str:
        return f"{self._cgroup_root}/pod{uid}"

    def _oom_killed(self, sandbox_id: str, container_id: str) -> bool:
        uid = self._uid_of.get(sandbox_id)
        return uid is not None and oom_killed(f"{self._cgroup(uid)}/{container_id}")

    async def run_sandbox(self, config: SandboxConfig) -> str:
        parent = self._cgroup(config.uid)
        try:
            await asyncio.to_thread(make_pod_cgroup, parent, self._pids_limit)
            if config.log_directory:
                await asyncio.to_thread(_make_directory, config.log_directory)
        except OSError as error:
            raise Failed(f"the pod's cgroup or log directory was not made: {error}") from error
        request = pb.RunPodSandboxRequest(config=messages.sandbox_message(config, parent))
        try:
            reply = await self._channel.ask(calls.RUN_SANDBOX, request)
        except Failed as fault:
            same = (config.name, config.namespace, config.uid, config.attempt)
            for sandbox in await self.list_sandboxes():
                if (sandbox.name, sandbox.namespace, sandbox.uid, sandbox.attempt) == same:
                    raise AlreadyExists(fault.message) from fault
            raise
        self._events.sandboxes.add(reply.pod_sandbox_id)
        self._uid_of[reply.pod_sandbox_id] = config.uid
        return str(reply.pod_sandbox_id)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._channel.ask(calls.STOP_SANDBOX, pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        try:
            status = await self.sandbox_status(sandbox_id)
        except NotFound:
            self._events.forget_sandbox(sandbox_id)
            return
        for tries_left in reversed(range(_REMOVAL_TRIES)):
            try:
                await self.stop_sandbox(sandbox_id)
                await self._channel.ask(calls.REMOVE_SANDBOX, pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
                break
            except Failed:  # containerd may not have noted yet that a container or its shim ended, though it told so
                if not tries_left:
                    raise
                await asyncio.sleep(_REMOVAL_PAUSE_SECONDS)
        self._events.forget_sandbox(sandbox_id)
        self._uid_of.pop(sandbox_id, None)
        await asyncio.to_thread(remove_cgroup, self._cgroup(status.uid))

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        reply = await self._channel.ask(calls.SANDBOX_STATUS, request)
        return messages.read_sandbox_status(reply.status)

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> list[Sandbox]:
        chosen = pb.PodSandboxFilter(label_selector=labels or {})
        reply = await self._channel.ask(calls.LIST_SANDBOXES, pb.ListPodSandboxRequest(filter=chosen))
        self._events.sandboxes.update(item.id for item in reply.items)
        self._uid_of.update((item.id, item.metadata.uid) for item in reply.items)
        return [messages.read_sandbox(item) for item in reply.items]

    # Containers.

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig) -> str:
        parent = self._cgroup(sandbox_config.uid)
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=messages.container_message(config, sandbox_config.namespaces),
            sandbox_config=messages.sandbox_message(sandbox_config, parent),
        )
        if config.log_path and sandbox_config.log_directory:
            directory = Path(sandbox_config.log_directory, config.log_path).parent
            try:
                await asyncio.to_thread(_make_directory, str(directory))
            except OSError as error:
                raise Failed(f"the log directory was not made: {error}") from error
        try:
            reply = await self._channel.ask(calls.CREATE_CONTAINER, request)
        except (Failed, NotFound) as fault:
            raise await self._why_not_created(fault, sandbox_config.uid, config) from fault
        self._events.sandbox_of[reply.container_id] = sandbox_id
        return str(reply.container_id)

    async def _why_not_created(
        self, fault: Failed | NotFound, uid: str, config: ContainerConfig
    ) -> Failed | NotFound | ImageMissing | AlreadyExists:
        """containerd has one code for several reasons; look which one holds."""
        if isinstance(fault, NotFound):
            missing = await self.image_status(config.image) is None
            return ImageMissing(fault.message) if missing else fault
        pod = {sandbox.id for sandbox in await self.list_sandboxes() if sandbox.uid == uid}
        for container in await self.list_containers():
            if container.sandbox_id in pod and (container.name, container.attempt) == (config.name, config.attempt):
                return AlreadyExists(fault.message)
        return fault

    async def start_container(self, container_id: str) -> None:
        await self._channel.ask(calls.START_CONTAINER, pb.StartContainerRequest(container_id=container_id))

    async def stop_container(self, container_id: str, timeout_seconds: float) -> None:
        request = pb.StopContainerRequest(container_id=container_id, timeout=math.ceil(timeout_seconds))
        with contextlib.suppress(NotFound):
            await self._channel.ask(calls.STOP_CONTAINER, request, timeout_seconds + calls.STOP_MARGIN_SECONDS)

    async def update_container(self, container_id: str, resources: Resources) -> None:
        request = pb.UpdateContainerResourcesRequest(
            container_id=container_id, linux=messages.resources_message(resources)
        )
        await self._channel.ask(calls.UPDATE_RESOURCES, request)

    async def remove_container(self, container_id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._channel.ask(calls.REMOVE_CONTAINER, pb.RemoveContainerRequest(container_id=container_id))
        self._events.forget_container(container_id)

    async def container_status(self, container_id: str) -> ContainerStatus:
        sandbox_id = self._events.sandbox_of.get(container_id) or await self._events.locate(container_id)
        request = pb.ContainerStatusRequest(container_id=container_id)
        reply = await self._channel.ask(calls.CONTAINER_STATUS, request)
        status = messages.read_container_status(reply.status, sandbox_id)
        ended = self._events.exits.get(container_id)
        return status if ended is None else _with_exit(status, ended)

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> list[Container]:
        chosen = pb.ContainerFilter(label_selector=labels or {})
        reply = await self._channel.ask(calls.LIST_CONTAINERS, pb.ListContainersRequest(filter=chosen))
        containers = [messages.read_container(item) for item in reply.containers]
        self._events.sandbox_of.update((container.id, container.sandbox_id) for container in containers)
        ended = self._events.exits
        return [
            replace(container, state="exited") if container.state == "running" and container.id in ended else container
            for container in containers
        ]

    # Streams.

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=math.ceil(timeout_seconds))
        deadline = timeout_seconds + calls.EXEC_MARGIN_SECONDS if timeout_seconds else calls.EXEC_LIMIT_SECONDS
        reply = await self._channel.ask(calls.EXEC_SYNC, request, deadline)
        return ExecResult(reply.exit_code, reply.stdout, reply.stderr)

    async def exec_url(self, container_id: str, command: Sequence[str], options: StreamOptions) -> str:
        request = pb.ExecRequest(
            container_id=container_id,
            cmd=command,
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr and not options.tty,
            tty=options.tty,
        )
        return str((await self._channel.ask(calls.EXEC, request)).url)

    async def attach_url(self, container_id: str, options: StreamOptions) -> str:
        request = pb.AttachRequest(
            container_id=container_id,
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr and not options.tty,
            tty=options.tty,
        )
        return str((await self._channel.ask(calls.ATTACH, request)).url)

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        request = pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        return str((await self._channel.ask(calls.PORT_FORWARD, request)).url)

    async def reopen_log(self, container_id: str) -> None:
        await self._channel.ask(calls.REOPEN_LOG, pb.ReopenContainerLogRequest(container_id=container_id))

    # Images.

    async def image_status(self, image: str) -> ImageStatus | None:
        reply = await self._channel.ask(calls.IMAGE_STATUS, pb.ImageStatusRequest(image=pb.ImageSpec(image=image)))
        return messages.read_image(reply.image) if reply.HasField("image") else None

    async def pull_image(self, image: str, auth: ImageAuth | None = None) -> str:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=image), auth=messages.auth_message(auth))
        return str((await self._channel.ask(calls.PULL_IMAGE, request)).image_ref)

    async def remove_image(self, image: str) -> None:
        await self._channel.ask(calls.REMOVE_IMAGE, pb.RemoveImageRequest(image=pb.ImageSpec(image=image)))

    async def list_images(self) -> list[ImageStatus]:
        reply = await self._channel.ask(calls.LIST_IMAGES, pb.ListImagesRequest())
        return [messages.read_image(image) for image in reply.images]

    async def load_image(self, archive: AsyncIterable[bytes]) -> list[str]:
        names = await load_archive(Path(self._endpoint.removeprefix("unix://")), archive)
        for name in names:
            await self._wait_for_image(name)
        return names

    async def _wait_for_image(self, name: str) -> None:
        """CRI learns of an image that others import through an event of its own: milliseconds later."""
        for _ in range(_LISTED_TRIES):
            if await self.image_status(name) is not None:
                return
            await asyncio.sleep(_LISTED_PAUSE_SECONDS)
        raise Failed(f"{name} was imported but the runtime does not list it")

    async def image_fs(self) -> ImageFs:
        reply = await self._channel.ask(calls.IMAGE_FS, pb.ImageFsInfoRequest())
        if not reply.image_filesystems:
            raise Unavailable("the runtime has not measured its image file system yet")
        usage = reply.image_filesystems[0]
        return ImageFs(usage.fs_id.mountpoint, usage.used_bytes.value, usage.inodes_used.value)

    async def container_stats(self) -> list[ContainerStats]:
        reply = await self._channel.ask(calls.CONTAINER_STATS, pb.ListContainerStatsRequest())
        running = (one for one in reply.stats if one.cpu.timestamp and one.attributes.id not in self._events.exits)
        return [messages.read_stats(one) for one in running]

    # Events.

    def events(self) -> AsyncIterator[RuntimeEvent]:
        return self._events.stream()

    async def close(self) -> None:
        await self._channel.close()


def _make_directory(path: str) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)


def _with_exit(status: ContainerStatus, ended: Exit) -> ContainerStatus:
    """CRI's word where it has one; before that, the event's. For want of memory: whoever noticed."""
    if status.state != "running":
        return replace(status, reason="OOMKilled") if ended.oom else status
    reason = "OOMKilled" if ended.oom else "Error" if ended.exit_code else "Completed"
    return replace(status, state="exited", exit_code=ended.exit_code, reason=reason, finished_at=ended.at)
