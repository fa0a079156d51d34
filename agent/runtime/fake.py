"""A container runtime in memory: the same verbs, errors and orderings as containerd, no processes.

For tests of the agent and for `bench/` (thousands of nodes in one process). It passes the contract suite that
containerd passes. A program is a few words of shell (`fake_program`); tests make other things happen with
`exit_container`, `refuse` and `break_connection`. Time is the event loop's, so looptime works; the wall clock is passed
in. Keeps the invariant of the protocol: an exit is visible in status before its event is delivered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from agent.runtime.errors import (
    AlreadyExists,
    Failed,
    ImageMissing,
    ImagePullFailed,
    InvalidConfig,
    NotFound,
    RuntimeFault,
    Timeout,
)
from agent.runtime.fake_program import Program, read_program
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
from agent.runtime.reference import normalize

_TEST_IMAGE = "localhost/busybox:1"


P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class _FakeSandbox:
    status: SandboxStatus
    config: SandboxConfig


@dataclass
class _FakeContainer:
    status: ContainerStatus
    config: ContainerConfig
    program: Program = field(default_factory=Program)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None


_POD_NAME = "io.kubernetes.pod.name"
_LAYER_BYTES = 4096


def _answering(
    verb: Callable[Concatenate[FakeRuntime, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[FakeRuntime, P], Coroutine[Any, Any, R]]:
    """A verb whose answer may get lost (`lose_answers`)."""

    @wraps(verb)
    async def answered(runtime: FakeRuntime, /, *args: P.args, **kwargs: P.kwargs) -> R:
        made = await verb(runtime, *args, **kwargs)
        runtime.answer(verb.__name__)
        return made

    return answered


class FakeRuntime:
    """`protocol.Runtime` in memory. One per test; not shared between event loops."""

    def __init__(self, clock: Callable[[], float] = time.time, images: Sequence[str] = (_TEST_IMAGE,)) -> None:
        self._clock = clock
        self._sandboxes: dict[str, _FakeSandbox] = {}
        self._containers: dict[str, _FakeContainer] = {}
        self._images: dict[str, ImageStatus] = {}
        self._pullable: dict[str, str] = {}
        self._written: dict[str, int] = {}
        self._refusals: dict[str, RuntimeFault] = {}
        self._lost_answers: dict[str, RuntimeFault] = {}
        self._events: asyncio.Queue[RuntimeEvent] | None = None
        self._made = 0
        self.calls: list[tuple[str, str]] = []
        for image in images:
            self.add_image(image)

    # What a test may make happen.

    def add_image(self, image: str, *, uid: int | None = None, username: str = "") -> str:
        """Put an image on the node; returns its id."""
        name = normalize(image)
        image_id = f"sha256:{self._next_id('image')}"
        self._images[name] = ImageStatus(image_id, (name,), (), 1_000_000, uid, username)
        return image_id

    def allow_pull(self, image: str, refusal: str = "") -> None:
        """Let the registry have an image, or name the words with which it refuses it."""
        self._pullable[normalize(image)] = refusal

    def refuse(self, verb: str, fault: RuntimeFault | None) -> None:
        """Make a verb (`run_sandbox`, ...) raise from now on; None ends that."""
        if fault is None:
            self._refusals.pop(verb, None)
        else:
            self._refusals[verb] = fault

    def wrote(self, pod: str, size: int) -> None:
        """Each container of a pod of this name has so many bytes in its writable layer."""
        self._written[pod] = size

    def lose_answers(self, verb: str, fault: RuntimeFault | None) -> None:
        """From now on a verb that makes or ends something does it and raises nevertheless; None ends that."""
        if fault is None:
            self._lost_answers.pop(verb, None)
        else:
            self._lost_answers[verb] = fault

    def answer(self, verb: str) -> None:
        """A verb has taken effect. Raises what keeps its answer from arriving."""
        if verb in self._lost_answers:
            raise self._lost_answers[verb]

    def exit_container(self, container_id: str, exit_code: int, *, oom: bool = False) -> None:
        """The container's process ends, by itself or killed from outside."""
        if oom:
            self._tell(RuntimeEvent("oom", container_id, self._containers[container_id].status.sandbox_id))
        self._exit(self._containers[container_id], exit_code, oom=oom)

    def exit_sandbox(self, sandbox_id: str) -> None:
        """The pause process dies."""
        entry = self._sandboxes[sandbox_id]
        entry.status = replace(entry.status, state="notready")
        self._tell(RuntimeEvent("sandbox-exited", sandbox_id=sandbox_id, exit_code=137, at=self._clock()))

    def break_connection(self) -> None:
        """The runtime restarted: events may have been lost."""
        self._tell(RuntimeEvent("resync"))

    def configs(self) -> list[ContainerConfig]:
        """What the containers that are there were made of, oldest first."""
        return [entry.config for entry in self._containers.values()]

    # The protocol.

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion("fake", "1", "v1")

    async def health(self) -> RuntimeHealth:
        self._called("health")
        return RuntimeHealth(True, True)

    @_answering
    async def run_sandbox(self, config: SandboxConfig) -> str:
        self._called("run_sandbox", config.name)
        taken = (config.name, config.namespace, config.uid, config.attempt)
        for entry in self._sandboxes.values():
            status = entry.status
            if (status.name, status.namespace, status.uid, status.attempt) == taken:
                raise AlreadyExists(f"the name {'_'.join(map(str, taken))} is reserved for {status.id}")
        sandbox_id = self._next_id("sandbox")
        ip = "" if config.namespaces.host_network else f"10.244.{self._made // 250 % 250}.{self._made % 250 + 2}"
        self._sandboxes[sandbox_id] = _FakeSandbox(_new_sandbox(sandbox_id, config, self._clock(), ip), config)
        return sandbox_id

    @_answering
    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._called("stop_sandbox", sandbox_id)
        for entry in self._inside(sandbox_id):
            if entry.status.state == "running":
                self._exit(entry, 137)
        if (found := self._sandboxes.get(sandbox_id)) and found.status.state == "ready":
            self.exit_sandbox(sandbox_id)

    @_answering
    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._called("remove_sandbox", sandbox_id)
        await self.stop_sandbox(sandbox_id)
        for entry in self._inside(sandbox_id):
            del self._containers[entry.status.id]
        self._sandboxes.pop(sandbox_id, None)

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        self._called("sandbox_status", sandbox_id)
        if sandbox_id not in self._sandboxes:
            raise NotFound(f'sandbox "{sandbox_id}" not found')
        return self._sandboxes[sandbox_id].status

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> list[Sandbox]:
        self._called("list_sandboxes")
        return [entry.status for entry in self._sandboxes.values() if _carries(entry.status.labels, labels)]

    @_answering
    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig) -> str:
        self._called("create_container", config.name)
        if sandbox_id not in self._sandboxes:
            raise NotFound(f'sandbox "{sandbox_id}" not found')
        for entry in self._containers.values():
            uid = self._sandboxes[entry.status.sandbox_id].status.uid
            if (uid, entry.status.name, entry.status.attempt) == (sandbox_config.uid, config.name, config.attempt):
                raise AlreadyExists(f"the name {config.name}_{config.attempt} is reserved for {entry.status.id}")
        image = self._find_image(config.image)
        if image is None:
            raise ImageMissing(f'image "{config.image}" not found')
        container_id = self._next_id("container")
        status = _new_container(container_id, sandbox_id, config, image.id, self._clock())
        self._containers[container_id] = _FakeContainer(status, config)
        return container_id

    @_answering
    async def start_container(self, container_id: str) -> None:
        self._called("start_container", container_id)
        entry = self._container(container_id)
        if entry.status.state != "created":
            raise Failed(f'container "{container_id}" is {entry.status.state}, not created')
        now = self._clock()
        try:
            entry.program = read_program([*entry.config.command, *entry.config.args] or ["sh"])
        except Failed as fault:
            entry.status = replace(
                entry.status, state="exited", exit_code=128, reason="StartError", message=fault.message, finished_at=now
            )
            entry.stopped.set()
            raise
        entry.status = replace(entry.status, state="running", started_at=now)
        self._tell(RuntimeEvent("started", container_id, entry.status.sandbox_id, at=now))
        if entry.program.seconds is not None:
            entry.timer = asyncio.get_running_loop().call_later(
                entry.program.seconds, self._exit, entry, entry.program.exit_code
            )

    @_answering
    async def stop_container(self, container_id: str, timeout_seconds: float) -> None:
        self._called("stop_container", container_id)
        entry = self._containers.get(container_id)
        if entry is None or entry.status.state != "running":
            return
        if entry.program.term_code is not None and timeout_seconds > 0:
            self._exit(entry, entry.program.term_code)
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await entry.stopped.wait()
        except TimeoutError:
            self._exit(entry, 137)

    async def update_container(self, container_id: str, resources: Resources) -> None:
        self._called("update_container", container_id)
        self._running(container_id)

    @_answering
    async def remove_container(self, container_id: str) -> None:
        self._called("remove_container", container_id)
        entry = self._containers.get(container_id)
        if entry is not None and entry.status.state == "running":
            self._exit(entry, 137)
        self._containers.pop(container_id, None)

    async def container_status(self, container_id: str) -> ContainerStatus:
        self._called("container_status", container_id)
        return self._container(container_id).status

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> list[Container]:
        self._called("list_containers")
        return [entry.status for entry in self._containers.values() if _carries(entry.status.labels, labels)]

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        self._called("exec_sync", container_id)
        self._running(container_id)
        program = read_program(command)
        if program.seconds is None or (timeout_seconds and program.seconds > timeout_seconds):
            await asyncio.sleep(timeout_seconds)
            raise Timeout(f"command {list(command)} timed out after {timeout_seconds:g}s")
        await asyncio.sleep(program.seconds)
        return ExecResult(program.exit_code, program.stdout, b"")

    async def exec_url(self, container_id: str, command: Sequence[str], options: StreamOptions) -> str:
        self._called("exec_url", container_id)
        self._running(container_id)
        if not command:
            raise InvalidConfig("a command is needed")
        return f"http://127.0.0.1:1/exec/{container_id}"

    async def attach_url(self, container_id: str, options: StreamOptions) -> str:
        self._called("attach_url", container_id)
        self._running(container_id)
        return f"http://127.0.0.1:1/attach/{container_id}"

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        self._called("port_forward_url", sandbox_id)
        await self.sandbox_status(sandbox_id)
        return f"http://127.0.0.1:1/portforward/{sandbox_id}"

    async def reopen_log(self, container_id: str) -> None:
        self._called("reopen_log", container_id)
        self._running(container_id)

    async def image_status(self, image: str) -> ImageStatus | None:
        self._called("image_status", image)
        return self._find_image(image)

    async def pull_image(self, image: str, auth: ImageAuth | None = None) -> str:
        self._called("pull_image", image)
        name = normalize(image)
        if name not in self._pullable:
            raise ImagePullFailed(f'failed to resolve reference "{name}": {name}: not found')
        if self._pullable[name]:
            raise ImagePullFailed(self._pullable[name])
        return self._images[name].id if name in self._images else self.add_image(image)

    async def remove_image(self, image: str) -> None:
        self._called("remove_image", image)
        found = self._find_image(image)
        self._images = {name: status for name, status in self._images.items() if status != found}

    async def list_images(self) -> list[ImageStatus]:
        self._called("list_images")
        return list(self._images.values())

    async def load_image(self, archive: AsyncIterable[bytes]) -> list[str]:
        del archive
        self._called("load_image")
        raise InvalidConfig("the fake runtime loads no archives")

    async def image_fs(self) -> ImageFs:
        return ImageFs("/", sum(image.size_bytes for image in self._images.values()), len(self._images))

    async def container_stats(self) -> list[ContainerStats]:
        self._called("container_stats")
        now = self._clock()
        running = [entry.status for entry in self._containers.values() if entry.status.state == "running"]
        return [replace(_stats(status, now), fs_used_bytes=self._layer(status)) for status in running]

    def _layer(self, status: ContainerStatus) -> int:
        return self._written.get(status.labels.get(_POD_NAME, ""), _LAYER_BYTES)

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._events = queue
        yield RuntimeEvent("resync")
        while True:
            yield await queue.get()

    async def close(self) -> None:
        for entry in self._containers.values():
            if entry.timer is not None:
                entry.timer.cancel()

    # Inside.

    def _called(self, verb: str, subject: str = "") -> None:
        self.calls.append((verb, subject))
        if verb in self._refusals:
            raise self._refusals[verb]

    def _next_id(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._made:08d}".ljust(64, "0")

    def _inside(self, sandbox_id: str) -> list[_FakeContainer]:
        return [entry for entry in self._containers.values() if entry.status.sandbox_id == sandbox_id]

    def _container(self, container_id: str) -> _FakeContainer:
        if container_id not in self._containers:
            raise NotFound(f'container "{container_id}" not found')
        return self._containers[container_id]

    def _running(self, container_id: str) -> _FakeContainer:
        entry = self._container(container_id)
        if entry.status.state != "running":
            raise Failed(f'container "{container_id}" is not running')
        return entry

    def _find_image(self, image: str) -> ImageStatus | None:
        by_id = next((status for status in self._images.values() if status.id == image), None)
        return by_id or self._images.get(normalize(image))

    def _exit(self, entry: _FakeContainer, exit_code: int, *, oom: bool = False) -> None:
        if entry.status.state != "running":
            return
        if entry.timer is not None:
            entry.timer.cancel()
        reason = "OOMKilled" if oom else "Error" if exit_code else "Completed"
        now = self._clock()
        entry.status = replace(entry.status, state="exited", exit_code=exit_code, reason=reason, finished_at=now)
        entry.stopped.set()
        self._tell(RuntimeEvent("exited", entry.status.id, entry.status.sandbox_id, exit_code, now))

    def _tell(self, event: RuntimeEvent) -> None:
        if self._events is not None:
            self._events.put_nowait(event)


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(labels.get(key) == value for key, value in (wanted or {}).items())


def _new_sandbox(sandbox_id: str, config: SandboxConfig, now: float, ip: str) -> SandboxStatus:
    return SandboxStatus(
        id=sandbox_id,
        name=config.name,
        namespace=config.namespace,
        uid=config.uid,
        attempt=config.attempt,
        state="ready",
        created_at=now,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        ip=ip,
        ips=(ip,) if ip else (),
    )


def _new_container(
    container_id: str, sandbox_id: str, config: ContainerConfig, image_id: str, now: float
) -> ContainerStatus:
    return ContainerStatus(
        id=container_id,
        name=config.name,
        attempt=config.attempt,
        sandbox_id=sandbox_id,
        state="created",
        created_at=now,
        image=normalize(config.image),
        image_id=image_id,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_path=config.log_path,
    )


def _stats(status: ContainerStatus, now: float) -> ContainerStats:
    return ContainerStats(
        container_id=status.id,
        name=status.name,
        labels=status.labels,
        at=now,
        cpu_seconds=now - status.started_at,
        memory_working_set_bytes=1 << 20,
        memory_rss_bytes=1 << 19,
        memory_usage_bytes=1 << 20,
        page_faults=0,
        major_page_faults=0,
        fs_used_bytes=_LAYER_BYTES,
        fs_inodes_used=1,
    )
