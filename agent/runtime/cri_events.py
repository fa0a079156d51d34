"""containerd's event stream as `RuntimeEvent`s, and what it taught us about containers that CRI does not know yet.

Called by `cri` only. One consumer iterates `stream`; the tables are read by every status call. containerd's event
service has no acknowledgement of a subscription, so a marker event of our own is published until the stream brings it
back: what happens after `resync` is delivered is certainly seen. A runtime without that service is listed anew each
second.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from agent.runtime import cri_calls as calls
from agent.runtime.errors import InvalidConfig, NotFound, RuntimeFault, Unavailable
from agent.runtime.pb import cri_pb2 as pb
from agent.runtime.pb import events_pb2
from agent.runtime.protocol import RuntimeEvent

_log = structlog.get_logger()
_TOPICS = ("/tasks/start", "/tasks/exit", "/tasks/oom")
_MARKER_SECONDS = 0.1
_RECONNECT_SECONDS = 0.1
_LISTING_SECONDS = 1.0
_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Exit:
    """How a container's main process ended."""

    exit_code: int
    at: float
    oom: bool = False


class ContainerdEvents:
    """The tables and the stream that fills them.

    `oom_killed(sandbox_id, container_id)` asks the kernel: containerd's own word on it may come after the exit.
    """

    def __init__(self, channel: calls.CriChannel, oom_killed: Callable[[str, str], bool]) -> None:
        self._channel = channel
        self._oom_killed = oom_killed
        self._markers = itertools.count()
        self._oom: set[str] = set()
        self.exits: dict[str, Exit] = {}
        self.sandbox_of: dict[str, str] = {}
        self.sandboxes: set[str] = set()

    def forget_container(self, container_id: str) -> None:
        self.sandbox_of.pop(container_id, None)
        self.exits.pop(container_id, None)
        self._oom.discard(container_id)

    def forget_sandbox(self, sandbox_id: str) -> None:
        self.sandboxes.discard(sandbox_id)
        for container_id in [key for key, value in self.sandbox_of.items() if value == sandbox_id]:
            self.forget_container(container_id)

    async def locate(self, container_id: str) -> str:
        """The sandbox of a container; NotFound when there is no such container."""
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(id=container_id))
        reply = await self._channel.ask(calls.LIST_CONTAINERS, request)
        for container in reply.containers:
            self.sandbox_of[container.id] = container.pod_sandbox_id
            return str(container.pod_sandbox_id)
        raise NotFound(f'container "{container_id}" not found')

    async def stream(self) -> AsyncIterator[RuntimeEvent]:
        """Events for ever: `resync` whenever the subscription stands anew, then what happens, in order."""
        while True:
            try:
                async for event in self._subscription():
                    yield event
            except InvalidConfig:
                _log.warning("the runtime has no event service; listing each second instead")
                while True:
                    yield RuntimeEvent("resync")
                    await asyncio.sleep(_LISTING_SECONDS)
            except RuntimeFault as fault:
                _log.warning("lost the runtime's events", error=fault.message)
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _subscription(self) -> AsyncIterator[RuntimeEvent]:
        marker = f"/wherry/marker/{os.getpid()}/{next(self._markers)}"
        filters = [f'topic=="{topic}"' for topic in (*_TOPICS, marker)]
        envelopes = self._channel.subscribe(filters)
        try:
            early = await self._stand(envelopes, marker)
            if not await self._channel.ready():
                raise Unavailable("the runtime is still starting")
            yield RuntimeEvent("resync")
            for envelope in early:
                if (event := await self._read(envelope, marker)) is not None:
                    yield event
            async for envelope in envelopes:
                if (event := await self._read(envelope, marker)) is not None:
                    yield event
        finally:
            await envelopes.aclose()

    async def _stand(self, envelopes: AsyncGenerator[Any, None], marker: str) -> list[Any]:
        """Publish the marker until the stream brings it; returns what came before it."""
        early: list[Any] = []
        reading = asyncio.ensure_future(anext(envelopes))
        try:
            while True:
                await self._channel.publish(marker, events_pb2.TaskStart())
                while (await asyncio.wait({reading}, timeout=_MARKER_SECONDS))[0]:
                    envelope = reading.result()
                    if envelope.topic == marker:
                        return early
                    early.append(envelope)
                    reading = asyncio.ensure_future(anext(envelopes))
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})

    async def _read(self, envelope: Any, marker: str) -> RuntimeEvent | None:
        if envelope.topic == marker or envelope.namespace != "k8s.io":
            return None
        content = envelope.event.value
        match envelope.topic:
            case "/tasks/exit":
                ended = events_pb2.TaskExit.FromString(content)
                if ended.id != ended.container_id:
                    return None  # an exec in the container, not the container
                at = ended.exited_at.seconds + ended.exited_at.nanos / 1e9
                return await self._exited(ended.container_id, Exit(ended.exit_status, at))
            case "/tasks/start":
                started = events_pb2.TaskStart.FromString(content)
                return self._known("started", started.container_id)
            case _:
                container_id = events_pb2.TaskOOM.FromString(content).container_id
                self._oom.add(container_id)
                return self._known("oom", container_id)

    def _known(self, kind: Any, container_id: str) -> RuntimeEvent | None:
        sandbox_id = self.sandbox_of.get(container_id)
        return RuntimeEvent(kind, container_id, sandbox_id) if sandbox_id else None

    async def _exited(self, container_id: str, ended: Exit) -> RuntimeEvent | None:
        if container_id in self.sandboxes:
            return RuntimeEvent("sandbox-exited", "", container_id, ended.exit_code, ended.at)
        try:
            sandbox_id = self.sandbox_of.get(container_id) or await self.locate(container_id)
        except NotFound:
            return await self._sandbox_exited(container_id, ended)
        oom = container_id in self._oom or (ended.exit_code == _KILLED and self._oom_killed(sandbox_id, container_id))
        self.exits[container_id] = replace(ended, oom=oom)
        return RuntimeEvent("exited", container_id, sandbox_id, ended.exit_code, ended.at)

    async def _sandbox_exited(self, sandbox_id: str, ended: Exit) -> RuntimeEvent | None:
        """For an id that is no container's: a sandbox we have not met, or something that is gone already."""
        try:
            await self._channel.ask(calls.SANDBOX_STATUS, pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id))
        except NotFound:
            return None
        return RuntimeEvent("sandbox-exited", "", sandbox_id, ended.exit_code, ended.at)
