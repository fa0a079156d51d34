"""The remote calls of CRI v1 and of containerd's event service, each with its deadline, on one grpc.aio channel.

Called by `cri` only. Keeps two invariants: no call goes out without a deadline, and no gRPC error leaves: `_FAULTS`
maps every status code to one of `errors`. Method paths and messages are those of the protos in `pb`.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import grpc
import grpc.aio

from agent import counters
from agent.runtime.errors import (
    AlreadyExists,
    Failed,
    ImagePullFailed,
    InvalidConfig,
    NotFound,
    RuntimeFault,
    Timeout,
    Unavailable,
)
from agent.runtime.pb import cri_pb2, events_pb2

_RUNTIME = "/runtime.v1.RuntimeService/"
_IMAGE = "/runtime.v1.ImageService/"
_EVENTS = "/containerd.services.events.v1.Events/"
_MESSAGE_LIMIT_BYTES = 32 << 20
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")

LOOK_SECONDS = 20.0
HEALTH_SECONDS = 5.0
MAKE_SECONDS = 120.0
SANDBOX_SECONDS = 240.0
STOP_MARGIN_SECONDS = 120.0
EXEC_MARGIN_SECONDS = 10.0
EXEC_LIMIT_SECONDS = 3600.0
PULL_SECONDS = 3600.0

_FAULTS: dict[grpc.StatusCode, type[RuntimeFault]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidConfig,
    grpc.StatusCode.UNIMPLEMENTED: InvalidConfig,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Timeout,
}


@dataclass(frozen=True)
class Call:
    """One remote procedure: where it is, what it answers, how long it may take."""

    path: str
    reply: str
    seconds: float = LOOK_SECONDS
    events: bool = False

    @cached_property
    def operation(self) -> str:
        """Its name in metrics, as the kubelet's: `run_podsandbox`, `create_container`."""
        verb = self.path.rpartition("/")[2].replace("PodSandbox", "Podsandbox")
        return _WORD_START.sub("_", verb).lower()


def _call(service: str, verb: str, seconds: float = LOOK_SECONDS) -> Call:
    return Call(f"{service}{verb}", f"{verb}Response", seconds)


VERSION = _call(_RUNTIME, "Version")
STATUS = _call(_RUNTIME, "Status")
RUN_SANDBOX = _call(_RUNTIME, "RunPodSandbox", SANDBOX_SECONDS)
STOP_SANDBOX = _call(_RUNTIME, "StopPodSandbox", STOP_MARGIN_SECONDS)
REMOVE_SANDBOX = _call(_RUNTIME, "RemovePodSandbox", STOP_MARGIN_SECONDS)
SANDBOX_STATUS = _call(_RUNTIME, "PodSandboxStatus")
LIST_SANDBOXES = _call(_RUNTIME, "ListPodSandbox")
CREATE_CONTAINER = _call(_RUNTIME, "CreateContainer", MAKE_SECONDS)
START_CONTAINER = _call(_RUNTIME, "StartContainer", MAKE_SECONDS)
STOP_CONTAINER = _call(_RUNTIME, "StopContainer", STOP_MARGIN_SECONDS)
REMOVE_CONTAINER = _call(_RUNTIME, "RemoveContainer", STOP_MARGIN_SECONDS)
LIST_CONTAINERS = _call(_RUNTIME, "ListContainers")
CONTAINER_STATUS = _call(_RUNTIME, "ContainerStatus")
UPDATE_RESOURCES = _call(_RUNTIME, "UpdateContainerResources", MAKE_SECONDS)
REOPEN_LOG = _call(_RUNTIME, "ReopenContainerLog")
EXEC_SYNC = _call(_RUNTIME, "ExecSync", EXEC_LIMIT_SECONDS)
EXEC = _call(_RUNTIME, "Exec")
ATTACH = _call(_RUNTIME, "Attach")
PORT_FORWARD = _call(_RUNTIME, "PortForward")
CONTAINER_STATS = _call(_RUNTIME, "ListContainerStats")
LIST_IMAGES = _call(_IMAGE, "ListImages")
IMAGE_STATUS = _call(_IMAGE, "ImageStatus")
PULL_IMAGE = _call(_IMAGE, "PullImage", PULL_SECONDS)
REMOVE_IMAGE = _call(_IMAGE, "RemoveImage", MAKE_SECONDS)
IMAGE_FS = _call(_IMAGE, "ImageFsInfo")
_MAY_TAKE_LONG = frozenset({PULL_IMAGE.operation, EXEC_SYNC.operation})
_PUBLISH = Call(f"{_EVENTS}Publish", "PublishResponse", events=True)
_SUBSCRIBE = f"{_EVENTS}Subscribe"


class CriChannel:
    """One connection to the runtime. It reconnects by itself; calls made while it is away fail as Unavailable."""

    def __init__(self, endpoint: str) -> None:
        target = endpoint.replace("unix:///", "unix:/", 1)
        self._channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
                ("grpc.max_send_message_length", _MESSAGE_LIMIT_BYTES),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.default_authority", "localhost"),  # the socket's path is none, containerd's Go refuses it
            ],
        )
        self._stubs: dict[str, Any] = {}
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[str, float]] = {}
        """The calls that are not answered yet, oldest first, and since when."""

    async def ask(self, call: Call, request: Any, seconds: float | None = None) -> Any:
        """Send a request, return the reply; a RuntimeFault for every gRPC error."""
        stub = self._stubs.get(call.path)
        if stub is None:
            reply = getattr(events_pb2 if call.events else cri_pb2, call.reply)
            stub = self._channel.unary_unary(
                call.path, request_serializer=_serialize, response_deserializer=reply.FromString
            )
            self._stubs[call.path] = stub
        metadata = (("containerd-namespace", "k8s.io"),) if call.events else None
        started = time.perf_counter()
        number = next(self._numbers)
        self._waiting[number] = (call.operation, started)
        try:
            return await stub(request, timeout=seconds or call.seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            counters.runtime_failed(call.operation)
            fault = fault_of(error, pull=call is PULL_IMAGE)
            if isinstance(fault, Timeout):
                fault = Timeout(self._silence(call, time.perf_counter() - started))
            if isinstance(fault, (Failed, ImagePullFailed)) and call is not STATUS and not await self.ready():
                fault = Unavailable(fault.message)
            raise fault from error
        finally:
            del self._waiting[number]
            counters.runtime_called(call.operation, time.perf_counter() - started)

    def _silence(self, call: Call, seconds: float) -> str:
        """A call's deadline passed: how long it waited, and what else hangs for longer."""
        text = f"{call.operation} was not answered in {seconds:.0f} s"
        oldest, since = next(iter(self._waiting.values()))
        waited = time.perf_counter() - since
        patient = oldest in _MAY_TAKE_LONG or waited < seconds + 1
        return text if patient else f"{text}, {oldest} not in {waited:.0f} s"

    async def ready(self) -> bool:
        """Whether CRI serves: for a while after its start containerd refuses every call as if the call were wrong."""
        try:
            await self.ask(STATUS, cri_pb2.StatusRequest())
        except RuntimeFault:
            return False
        return True

    async def publish(self, topic: str, event: Any) -> None:
        request = events_pb2.PublishRequest(topic=topic)
        request.event.Pack(event, type_url_prefix="")
        await self.ask(_PUBLISH, request)

    async def subscribe(self, filters: list[str]) -> AsyncGenerator[Any, None]:
        """containerd's events as they happen. Has no deadline: it ends when the connection does, with a fault."""
        stub = self._channel.unary_stream(
            _SUBSCRIBE, request_serializer=_serialize, response_deserializer=events_pb2.Envelope.FromString
        )
        stream = stub(events_pb2.SubscribeRequest(filters=filters))
        try:
            async for envelope in stream:
                yield envelope
        except grpc.aio.AioRpcError as error:
            raise fault_of(error) from error
        finally:
            stream.cancel()
        raise Unavailable("the runtime ended the event stream")

    async def close(self) -> None:
        await self._channel.close()


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def fault_of(error: grpc.aio.AioRpcError, *, pull: bool = False) -> RuntimeFault:
    """The one table between gRPC's codes and our family; the runtime's words are kept, without gRPC's wrapping."""
    family = _FAULTS.get(error.code(), Failed)
    if pull and not family.retryable:
        family = ImagePullFailed
    words = (error.details() or error.code().name).removeprefix("rpc error: code = ")
    head, separator, tail = words.partition(" desc = ")
    return family(tail if separator and " " not in head else words)
