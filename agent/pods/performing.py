"""Performing the steps of a pod's life: each method does one step and writes what came of it into the memory.

Called by the worker only, one step at a time. A step that fails leaves a waiting reason and a time for the next try;
only a runtime that does not answer (`RuntimeFault.retryable`) is raised. Events and messages are the kubelet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from agent import counters
from agent.events import NORMAL, WARNING
from agent.pods import backoff, lifecycle, spec
from agent.pods.checkpoints import load_service_environment, save_service_environment
from agent.pods.configs import Attempt, container_config, runtime_resources, sandbox_config
from agent.pods.dns import hosts_file
from agent.pods.env import ConfigFault, Surroundings, environment, references
from agent.pods.fields import Facts
from agent.pods.hooks import PostStartHooks
from agent.pods.images import ImageFault, pull_secret_names
from agent.pods.memory import PodMemory
from agent.pods.observed import EVICTED, FAILED_HOOK, Waiting, is_resizing
from agent.pods.observing import PodObserver
from agent.pods.resizing import shown_sizes
from agent.pods.service_env import service_environment
from agent.pods.termination import Stopper
from agent.pods.words import started_words, write_termination_file
from agent.pods.workshop import Workshop
from agent.probing import Target
from agent.runtime.errors import AlreadyExists, Failed, NotFound, RuntimeFault
from agent.runtime.protocol import ImageStatus, Mount
from agent.volumes.places import make_private
from api import errors
from api.objects import Object, namespace_of, uid_of

CONFIG_RETRY_SECONDS = 2.0
RUNTIME_RETRY_SECONDS = 2.0
VOLUME_RETRY_SECONDS = 2.0
SANDBOX_RETRY_SECONDS = 2.0
IMAGE_RETRY_SECONDS = 15.0
RESIZE_RETRY_SECONDS = 5.0
GATE_SECONDS = 2.0
TERMINATION_PATH = "/dev/termination-log"


class Performer:
    """`owns` is told the id of everything made, before it can end."""

    def __init__(self, shop: Workshop, memory: PodMemory, observer: PodObserver, owns: Callable[[str], None]) -> None:
        self._shop = shop
        self._memory = memory
        self._observer = observer
        self._owns = owns
        self._starting: dict[str, str] = {}
        """Containers (by name) whose start was asked for and not yet answered."""
        self._images: dict[str, ImageStatus] = {}
        self._told: Mapping[str, str] | None = None
        self.stopper = Stopper(shop.runtime, shop.prober, self.tell)
        self.hooks = PostStartHooks(shop.prober)

    def tell(self, type_: str, reason: str, message: str, container: str = "") -> None:
        self._shop.events.pod_event(self._memory.pod, type_, reason, message, container)

    def facts(self) -> Facts:
        sandbox = self._memory.sandbox
        host = self._shop.host.addresses
        ips = host if self._memory.pod["spec"].get("hostNetwork") else (sandbox.ips if sandbox is not None else ())
        return Facts(self._shop.node.name, host, tuple(ips), self._shop.allocatable)

    def address(self) -> str:
        """Where the pod's ports are."""
        return next(iter(self.facts().pod_ips), "127.0.0.1")

    async def mount_volumes(self) -> None:
        memory = self._memory
        faults = await self._shop.volumes.mount(memory.pod, self.facts())
        for fault in faults:
            text = f'MountVolume.SetUp failed for volume "{fault.volume}" : {fault.message}'
            self.tell(WARNING, "FailedMount", text)
        if faults:
            memory.volumes_not_before = self._shop.clock() + VOLUME_RETRY_SECONDS
        else:
            memory.volumes = "ready"

    async def run_sandbox(self, attempt: int) -> None:
        memory, runtime = self._memory, self._shop.runtime
        config = sandbox_config(memory.pod, attempt, self._shop.node)
        try:
            sandbox_id = await runtime.run_sandbox(config)
        except RuntimeFault as fault:
            if fault.retryable or isinstance(fault, AlreadyExists):
                raise
            self.tell(WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {fault.message}")
            memory.sandbox_not_before = self._shop.clock() + SANDBOX_RETRY_SECONDS
            return
        counters.pods_started.inc()
        self._owns(sandbox_id)
        memory.take_sandbox(await runtime.sandbox_status(sandbox_id))
        self._observer.announce_sandbox()
        if attempt:
            self.tell(NORMAL, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")

    async def pull_image(self, name: str) -> None:
        memory = self._memory
        container = self._container(name)
        now = self._shop.clock()

        def tell(type_: str, reason: str, message: str) -> None:
            self.tell(type_, reason, message, name)

        try:
            image = await self._shop.images.ensure(container, await self._pull_secrets(), tell)
        except ImageFault as fault:
            view = memory.view(name)
            later = now + IMAGE_RETRY_SECONDS
            if fault.pull:
                entry = backoff.following(view.pull_back_off, now, self._shop.clock())
                later = self._shop.clock() + entry.delay_seconds
                memory.change(name, pull_back_off=entry)
            memory.change(name, waiting=Waiting(fault.reason, fault.message), not_before=later)
            return
        self._images[name] = image
        memory.change(name, image=image.id, pull_back_off=None)

    async def _pull_secrets(self) -> list[Object]:
        pod = self._memory.pod
        names = pull_secret_names(pod)
        if not names:
            return []
        try:
            found = await self._shop.sources.fetch(namespace_of(pod), [("secret", name) for name in names])
        except errors.ApiError:
            return []
        return [secret for secret in found.values() if secret is not None]

    async def start_container(self, step: lifecycle.StartContainer) -> None:
        memory = self._memory
        view = memory.view(step.name)
        now = self._shop.clock()
        if step.restart and (failed_at := lifecycle.crash_time(view)) is not None:
            memory.change(step.name, back_off=backoff.following(view.back_off, failed_at, now))
        container_id = await self._create(step)
        if container_id and await self._is_admitted(step.name):
            await self._start(step.name, container_id)
        elif container_id:
            await self._shop.runtime.remove_container(container_id)

    async def _is_admitted(self, name: str) -> bool:
        """Whether the network is ready for the pod's packets. In a sandbox where something ran already it was."""
        memory, sandbox = self._memory, self._memory.sandbox
        made = [status for view in memory.views.values() for status in (view.current, view.previous) if status]
        if sandbox is None or memory.pod["spec"].get("hostNetwork"):
            return True
        if any(status.sandbox_id == sandbox.id and status.started_at for status in made):
            return True
        try:
            async with asyncio.timeout(GATE_SECONDS):
                await self._shop.gate.admitted(memory.pod)
        except TimeoutError:
            message = "the node's network policies are not in force yet"
            self._failed(name, "NetworkNotReady", message, RUNTIME_RETRY_SECONDS)
            return False
        return True

    async def _create(self, step: lifecycle.StartContainer) -> str:
        memory, runtime, sandbox = self._memory, self._shop.runtime, self._memory.sandbox
        if sandbox is None:
            return ""
        container, image = self._container(step.name), self._images.get(step.name)
        if image is None:
            memory.change(step.name, image="")
            return ""
        try:
            attempt = await self._attempt(container, step.attempt, image)
            config = container_config(memory.granted_pod(), attempt, self._shop.node)
            box = sandbox_config(memory.pod, sandbox.attempt, self._shop.node)
            container_id = await runtime.create_container(sandbox.id, config, box)
        except ConfigFault as fault:
            self._failed(step.name, "CreateContainerConfigError", fault.message, CONFIG_RETRY_SECONDS)
            return ""
        except RuntimeFault as fault:
            if fault.retryable or isinstance(fault, AlreadyExists | NotFound):
                raise  # a container of an earlier call, or no such sandbox any more
            self._failed(step.name, "CreateContainerError", fault.message, RUNTIME_RETRY_SECONDS)
            return ""
        self._owns(container_id)
        memory.change(step.name, resources=memory.granted.get(step.name))
        self.tell(NORMAL, "Created", "Container created", step.name)
        return container_id

    def _failed(self, name: str, reason: str, message: str, retry_seconds: float) -> None:
        """An attempt that did not even get to a container; the image is asked for again, as the kubelet does."""
        self.tell(WARNING, "Failed", f"Error: {message}", name)
        later = self._shop.clock() + retry_seconds
        self._memory.change(name, waiting=Waiting(reason, message), not_before=later, image="")

    async def _start(self, name: str, container_id: str) -> None:
        memory, runtime = self._memory, self._shop.runtime
        fault: RuntimeFault | None = None
        self._starting[name] = container_id
        try:
            await runtime.start_container(container_id)
        except RuntimeFault as error:
            if error.retryable:
                raise
            fault = error
        else:
            await self.hooks.begin(self._target_of(name, container_id))
        memory.take_container(await runtime.container_status(container_id))
        if fault is None:
            self._started(name)
            return
        del self._starting[name]
        counters.container_start_failures.inc()
        self.tell(WARNING, "Failed", f"Error: {fault.message}", name)
        later = self._shop.clock() + RUNTIME_RETRY_SECONDS if self._is_created(name) else 0.0
        memory.change(name, waiting=Waiting("RunContainerError", fault.message), not_before=later)

    def _is_created(self, name: str) -> bool:
        current = self._memory.view(name).current
        return current is not None and current.state == "created"

    async def observe(self) -> None:
        """Looks at all that the runtime has of the pod; what was being started may run. Raises RuntimeFault."""
        await self._observer.observe()
        for name, container_id in list(self._starting.items()):
            current = self._memory.view(name).current
            if current is not None and current.id == container_id and current.started_at:
                self._started(name)
        self._starting.clear()
        self._memory.doubtful = False

    def _started(self, name: str) -> None:
        memory = self._memory
        del self._starting[name]
        counters.containers_started.inc()
        self.tell(NORMAL, "Started", started_words(memory.view(name).previous), name)
        current = memory.view(name).current
        if current is None or current.state != "running":
            self.hooks.give_up(name)
        elif spec.has_post_start(self._container(name)):
            memory.change(name, hook_pending=True)

    async def _attempt(self, container: Object, number: int, image: ImageStatus) -> Attempt:
        """Everything that is looked up for an attempt. Raises ConfigFault."""
        pod = self._memory.pod
        try:
            wanted = references(container)
            found = await self._shop.sources.fetch(namespace_of(pod), wanted) if wanted else {}
        except errors.ApiError as error:
            raise ConfigFault(error.message) from error
        values = environment(pod, container, Surroundings(found, self.facts(), await self._service_variables()))
        mounts = await self._shop.volumes.container_mounts(pod, container, values)
        own = await asyncio.to_thread(self._own_files, container, number, [mount.container_path for mount in mounts])
        return Attempt(container, number, image, values, (*mounts, *own), self._target(container))

    async def _service_variables(self) -> Mapping[str, str]:
        """What the pod's containers are told of services. Raises ConfigFault while nothing is known of them.

        What they were told last is kept with the pod, so that a container restarts while the control plane is away,
        also after a restart of the agent.
        """
        pod, paths, uid = self._memory.pod, self._shop.paths, uid_of(self._memory.pod)
        known = await self._shop.services.services()
        if known is None:
            kept = await asyncio.to_thread(load_service_environment, paths, uid)
            if kept is None:
                raise ConfigFault("services have not yet been read at least once, cannot construct envvars")
            return kept
        links = pod["spec"].get("enableServiceLinks") is not False
        variables = service_environment(namespace_of(pod), links, known)
        if variables != self._told:
            await asyncio.to_thread(save_service_environment, paths, uid, variables)
            self._told = variables
        return variables

    def _target(self, container: Object) -> str:
        """The container that a debug container is to look at. Raises ConfigFault when it does not run."""
        name = container.get("targetContainerName")
        if not name:
            return ""
        current = self._memory.view(name).current
        if current is None or current.state != "running":
            raise ConfigFault(f'unable to find target container "{name}"')
        return current.id

    def _own_files(self, container: Object, number: int, taken: list[str]) -> list[Mount]:
        """The hosts file and the termination message file, unless the pod mounts something else there."""
        pod, paths, mounts = self._memory.pod, self._shop.paths, []
        if "/etc/hosts" not in taken:
            text = hosts_file(pod, self.facts().pod_ips, self._shop.node.resolver.domain)
            make_private(paths.etc_hosts(uid_of(pod)).parent)
            paths.etc_hosts(uid_of(pod)).write_text(text)
            mounts.append(Mount("/etc/hosts", str(paths.etc_hosts(uid_of(pod)))))
        target = container.get("terminationMessagePath") or TERMINATION_PATH
        if target not in taken:
            file = paths.termination_log(uid_of(pod), container["name"], number)
            write_termination_file(file)
            mounts.append(Mount(target, str(file)))
        paths.container_log(pod, container["name"], number).parent.mkdir(parents=True, exist_ok=True)
        return mounts

    async def run_hook(self, name: str) -> None:
        """Waits for the postStart hook; a container whose hook failed is killed."""
        memory = self._memory
        current = memory.view(name).current
        if current is None:
            return
        outcome = await self.hooks.outcome(self._target_of(name, current.id))
        if outcome.result != "success":
            self.tell(WARNING, "FailedPostStartHook", "PostStartHook failed", name)
            memory.change(name, must_restart=FAILED_HOOK, hook_pending=False)
        else:
            memory.change(name, hook_pending=False)

    def announce(self, step: lifecycle.Announce) -> None:
        """A container waits for its back-off: say so."""
        self._memory.change(step.name, waiting=step.waiting)
        if step.waiting.reason == "ImagePullBackOff":
            image = self._container(step.name).get("image", "")
            self.tell(NORMAL, "BackOff", f'Back-off pulling image "{image}"', step.name)
            self.tell(WARNING, "Failed", "Error: ImagePullBackOff", step.name)
        else:
            text = f"Back-off restarting failed container {step.name} in pod {spec.shown(self._memory.pod)}"
            self.tell(WARNING, "BackOff", text, step.name)

    async def kill_container(self, step: lifecycle.KillContainer) -> None:
        memory = self._memory
        view = memory.view(step.name)
        grace = self._restart_grace(step.name, step.message)
        self.hooks.give_up(step.name)
        memory.change(step.name, killed_for_restart=step.message != FAILED_HOOK)
        await self.stopper.stop_one(memory.pod, view, step.message, grace, self.address())
        await self._observer.look_at(step.container_id)
        current = memory.view(step.name).current
        if current is None or current.id != step.container_id or current.state == "exited":
            memory.change(step.name, must_restart="")

    async def resize_container(self, name: str) -> None:
        """Puts in force what was granted; what cannot be is told, and tried again later."""
        memory = self._memory
        current, granted = memory.view(name).current, memory.granted[name]
        if current is None:
            return
        resources = runtime_resources(memory.granted_pod(), self._container(name), self._shop.node)
        try:
            await self._check_usage(name, current.id, resources.memory_limit_bytes)
            await self._shop.runtime.update_container(current.id, resources)
        except RuntimeFault as fault:
            if fault.retryable:
                raise
            memory.resize_not_before = self._shop.clock() + RESIZE_RETRY_SECONDS
            if fault.message != memory.resize_fault:
                memory.resize_fault = fault.message
                self.tell(WARNING, "ResizeError", f"Pod resize error: {fault.message}", name)
            return
        memory.change(name, resources=granted)
        memory.resize_fault = ""
        observed = memory.observed()
        if not any(is_resizing(observed, each) for each in observed.granted):
            self.tell(NORMAL, "ResizeCompleted", f"Pod resize completed: {shown_sizes(memory.pod)}")

    async def _check_usage(self, name: str, container_id: str, limit_bytes: int) -> None:
        """The kernel would kill processes to get below a lower limit: such a limit waits. Raises Failed."""
        if not limit_bytes:
            return
        for one in await self._shop.runtime.container_stats():
            if one.container_id == container_id and one.memory_usage_bytes > limit_bytes:
                usage = f"memory limit ({limit_bytes}) below current usage ({one.memory_usage_bytes})"
                raise Failed(f'attempting to set container "{name}" {usage}')

    def _restart_grace(self, name: str, message: str) -> float:
        """A probe's own terminationGracePeriodSeconds counts when that probe condemned the container."""
        container = self._container(name)
        for kind in ("liveness", "startup"):
            own = (container.get(f"{kind}Probe") or {}).get("terminationGracePeriodSeconds")
            if own is not None and f"failed {kind} probe" in message:
                return float(own)
        return float(spec.grace_seconds(self._memory.pod))

    async def remove_container(self, container_id: str) -> None:
        await self._shop.runtime.remove_container(container_id)
        self._memory.forget_container(container_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._shop.runtime.stop_sandbox(sandbox_id)
        await self._shop.runtime.remove_sandbox(sandbox_id)
        if self._memory.sandbox is None or self._memory.sandbox.id == sandbox_id:
            self._shop.gate.withdraw(self._memory.pod)
        self._memory.forget_sandbox(sandbox_id)

    async def release_volumes(self) -> None:
        """What an evicted pod's containers wrote into their own layers goes, too; how they ended is remembered."""
        memory = self._memory
        if not await self._are_gone(self._shop.volumes.release(memory.pod)):
            return
        memory.volumes = "released"
        if memory.ending is not None and memory.ending.reason == EVICTED:
            for view in memory.views.values():
                for status in (view.current, view.previous):
                    if status is not None and status.state == "exited":
                        await self._shop.runtime.remove_container(status.id)

    async def unmount_volumes(self) -> None:
        if await self._are_gone(self._shop.volumes.unmount(self._memory.pod)):
            self._memory.volumes = "removed"

    async def _are_gone(self, removal: Awaitable[None]) -> bool:
        try:
            await removal
        except OSError as error:
            self.tell(WARNING, "FailedUnMount", f"UnmountVolume.TearDown failed: {error}")
            await asyncio.sleep(VOLUME_RETRY_SECONDS)
            return False
        return True

    def _target_of(self, name: str, container_id: str) -> Target:
        return Target(container_id, self._container(name), self.address())

    def _container(self, name: str) -> Object:
        return spec.find_container(self._memory.granted_pod(), name) or {"name": name}
