"""Events about pods and about the node, written to the API behind the work they tell of.

Called by workers, probes and node; `record` never blocks. Repeated events raise the count of the first one; one object
gets 25 events in a burst and then one every 5 minutes, as with client-go. While the API is away events wait, the oldest
are dropped. Imports api only. Reasons and messages are the kubelet's.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from agent.pods.spec import field_path
from api import errors
from api.client import STRATEGIC_PATCH, Client
from api.kinds import by_resource
from api.objects import Object, format_time, name_of, namespace_of, uid_of

NORMAL, WARNING = "Normal", "Warning"
COMPONENT = "kubelet"
GATHER_SECONDS = 0.15
RETRY_SECONDS = 1.0
MOST_WAITING = 2000
MOST_REMEMBERED = 1000
MOST_CHARACTERS = 1024
BURST = 25.0
REFILL_SECONDS = 300.0
_EVENTS = by_resource("", "events")
_log = structlog.get_logger()


@dataclass(frozen=True)
class Happening:
    """One event as it was recorded; what makes two of them the same is everything but the time."""

    reference: tuple[tuple[str, str], ...]
    type: str
    reason: str
    message: str


@dataclass
class _Told:
    name: str
    namespace: str
    count: int


@dataclass
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """`run` sends. `node` and `component` are the events' source."""

    def __init__(self, client: Client, node: str, component: str = COMPONENT) -> None:
        self._client = client
        self._node = node
        self._component = component
        self._waiting: deque[tuple[Happening, datetime]] = deque(maxlen=MOST_WAITING)
        self._filled = asyncio.Event()
        self._told: OrderedDict[Happening, _Told] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def pod_event(self, pod: Object, type_: str, reason: str, message: str, container: str = "") -> None:
        """Tells something about a pod, or about one of its containers."""
        reference = {"kind": "Pod", "apiVersion": "v1", "namespace": namespace_of(pod), "name": name_of(pod)}
        reference["uid"] = uid_of(pod)
        if container:
            reference["fieldPath"] = field_path(pod, container)
        self.record(Happening(tuple(reference.items()), type_, reason, message[:MOST_CHARACTERS]))

    def node_event(self, type_: str, reason: str, message: str) -> None:
        reference = {"kind": "Node", "name": self._node, "uid": self._node}
        self.record(Happening(tuple(reference.items()), type_, reason, message[:MOST_CHARACTERS]))

    def record(self, happening: Happening) -> None:
        if self._within_limits(dict(happening.reference)["uid"]):
            self._waiting.append((happening, datetime.now(UTC)))
            self._filled.set()

    async def run(self) -> None:
        """Sends events until cancelled, a moment after they happened: starting containers comes first."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._filled.clear()
            while self._waiting:
                happening, at = self._waiting[0]
                try:
                    await self._send(happening, at)
                except errors.ApiError as error:
                    if error.retryable:
                        await asyncio.sleep(RETRY_SECONDS)
                        continue
                    _log.info("event refused", reason=happening.reason, error=error.message)
                if self._waiting and self._waiting[0] == (happening, at):
                    self._waiting.popleft()

    async def _send(self, happening: Happening, at: datetime) -> None:
        told = self._told.get(happening)
        if told is not None:
            self._told.move_to_end(happening)
            change = {"count": told.count + 1, "lastTimestamp": format_time(at)}
            try:
                await self._client.patch(_EVENTS, (told.namespace, told.name, ""), change, STRATEGIC_PATCH)
                told.count += 1
                return
            except errors.NotFound:
                del self._told[happening]
        event = self._event(happening, at)
        await self._client.create(_EVENTS, event)
        self._told[happening] = _Told(name_of(event), namespace_of(event), 1)
        if len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)

    def _event(self, happening: Happening, at: datetime) -> Object:
        reference = dict(happening.reference)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{reference['name']}.{time.time_ns():x}",
                "namespace": reference.get("namespace") or "default",
            },
            "involvedObject": reference,
            "reason": happening.reason,
            "message": happening.message,
            "type": happening.type,
            "source": {"component": self._component, "host": self._node},
            "reportingComponent": self._component,
            "reportingInstance": self._node,
            "firstTimestamp": format_time(at),
            "lastTimestamp": format_time(at),
            "count": 1,
        }

    def _within_limits(self, subject: str) -> bool:
        now = time.monotonic()
        bucket = self._buckets.setdefault(subject, _Bucket(BURST, now))
        self._buckets.move_to_end(subject)
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
