"""Events: what happened to an object, told to people through core/v1 Event objects.

Used by reconcilers and scheduler: `event()` only notes the fact and returns at once; `run()` writes in the background,
so that telling never slows or fails the work told about. Like the event correlator of client-go (tools/record), the
same fact again raises `count` of the one event, many similar facts become one combined event, and one object cannot
flood the store. Imports the registry only. Invariant: memory is bounded; what cannot be written is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter

from api import kinds
from api.errors import AlreadyExists, ApiError, NotFound
from api.objects import Object, format_time, metadata
from controller.admission.types import Request
from controller.registry.registry import Registry

log = structlog.get_logger()

EVENTS = kinds.by_resource("", "events")

_REMEMBERED = 4096
_BACKLOG = 10_000
_SIMILAR_LIMIT = 10
"""From the tenth different message about the same thing on, they share one combined event."""
_SIMILAR_SECONDS = 600.0
_BURST = 25
"""So many events at once about one object from one component; then one each `_REFILL_SECONDS`."""
_REFILL_SECONDS = 300.0
_BATCH = 16
_BATCH_SECONDS = 0.1
"""At most 160 events a second: telling gives way to doing."""
_WRITE_SECONDS = 10.0
_MESSAGE_BYTES = 1024
_FALLBACK_NAMESPACE = "default"

_DROPPED = Counter("wherry_events_dropped_total", "Events that were not written", ["reason"])
_DROPPED_SPAM = _DROPPED.labels("spam")
_DROPPED_BACKLOG = _DROPPED.labels("backlog")
_DROPPED_REFUSED = _DROPPED.labels("refused")


@dataclass(slots=True)
class _Similar:
    """How many different messages about one thing were seen since `since`."""

    since: datetime
    messages: set[str]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: datetime


@dataclass(slots=True)
class _Told:
    """One Event object: as it was or will be written, and how often its fact occurred."""

    obj: Object
    stored: bool = False
    pending: bool = False


class Recorder:
    """One for each component that tells; `run()` must run beside it."""

    def __init__(self, registry: Registry, request: Request, component: str) -> None:
        self._registry = registry
        self._request = replace(request, trusted=True)
        self._component = component
        self._told: OrderedDict[tuple[str, ...], _Told] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._pending: deque[_Told] = deque()
        self._wake = asyncio.Event()
        self._serial = 0

    def event(self, regarding: Mapping[str, Any], type: str, reason: str, message: str, *, component: str = "") -> None:
        """Notes that `reason` happened to `regarding` (an object with apiVersion, kind and metadata).

        `type` is Normal or Warning. Never blocks, never raises; equal and similar facts are counted together.
        """
        if len(self._pending) >= _BACKLOG:
            _DROPPED_BACKLOG.inc()
            return
        now = self._request.now()
        source = (component or self._component, _identity(regarding))
        text, key = self._combine((*source, type, reason), message, now)
        told = self._told.get(key)
        if told is None and not self._allowed(source, now):
            _DROPPED_SPAM.inc()
            return
        if told is None:
            told = _Told(self._new_event(now, regarding, (type, reason, text, source[0])))
        else:
            told.obj["count"] += 1
            told.obj["lastTimestamp"] = format_time(now)
            told.obj["message"] = _shortened(text)
        self._note(key, told)

    def _combine(self, thing: tuple[str, ...], message: str, now: datetime) -> tuple[str, tuple[str, ...]]:
        """(text, key): the message itself, or that of the combined event when too many differ."""
        similar = self._similar.pop(thing, None)
        if similar is None or (now - similar.since).total_seconds() > _SIMILAR_SECONDS:
            similar = _Similar(now, set())
        self._similar[thing] = similar
        _bound(self._similar)
        if message not in similar.messages and len(similar.messages) < _SIMILAR_LIMIT:
            similar.messages.add(message)
        if message in similar.messages and len(similar.messages) < _SIMILAR_LIMIT:
            return message, (*thing, message)
        return f"(combined from similar events): {message}", (*thing, "")

    def _allowed(self, source: tuple[str, ...], now: datetime) -> bool:
        bucket = self._buckets.pop(source, None) or _Bucket(_BURST, now)
        self._buckets[source] = bucket
        _bound(self._buckets)
        earned = (now - bucket.filled).total_seconds() / _REFILL_SECONDS
        bucket.tokens = min(float(_BURST), bucket.tokens + earned)
        bucket.filled = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _note(self, key: tuple[str, ...], told: _Told) -> None:
        self._told.pop(key, None)
        self._told[key] = told
        _bound(self._told)
        if not told.pending:
            told.pending = True
            self._pending.append(told)
            self._wake.set()

    def _new_event(self, now: datetime, regarding: Mapping[str, Any], fact: tuple[str, str, str, str]) -> Object:
        type, reason, message, component = fact
        about = _reference(regarding)
        moment = format_time(now)
        self._serial += 1
        stamp = int(now.timestamp() * 1_000_000) * 1_000 + self._serial % 1_000
        name, namespace = f"{about['name'][:230]}.{stamp:x}", about.get("namespace") or _FALLBACK_NAMESPACE
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "reason": reason,
            "message": _shortened(message),
            "source": {"component": component},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "type": type,
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": "",
        }

    async def run(self) -> None:
        """Writes what was told, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch = [self._pending.popleft() for _ in range(min(_BATCH, len(self._pending)))]
                await asyncio.gather(*(self._write(told) for told in batch))
                await asyncio.sleep(_BATCH_SECONDS)

    async def _write(self, told: _Told) -> None:
        told.pending = False
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._store(told)
        except (ApiError, TimeoutError) as error:
            _DROPPED_REFUSED.inc()
            log.debug("event_not_written", reason=told.obj["reason"], error=str(error))

    async def _store(self, told: _Told) -> None:
        namespace, name = told.obj["metadata"]["namespace"], told.obj["metadata"]["name"]
        if told.stored:
            seen = {field: told.obj[field] for field in ("count", "lastTimestamp", "message")}
            try:
                await self._registry.modify(self._request, EVENTS, namespace, name, lambda obj: {**obj, **seen})
                return
            except NotFound:
                told.stored = False
        try:
            await self._registry.create(self._request, EVENTS, namespace, _copy(told.obj))
        except AlreadyExists:
            log.debug("event_exists", name=name)
        told.stored = True


def _identity(obj: Mapping[str, Any]) -> str:
    """What makes two facts be about the same object: its uid, or what names it where it has none."""
    meta = metadata(obj)
    return meta.get("uid") or f"{obj.get('kind')}/{meta.get('namespace')}/{meta.get('name')}"


def _reference(obj: Mapping[str, Any]) -> Object:
    """The ObjectReference of an object; empty parts are left out."""
    meta = metadata(obj)
    parts = {
        "kind": obj.get("kind"),
        "namespace": meta.get("namespace"),
        "name": meta.get("name") or "",
        "uid": meta.get("uid"),
        "apiVersion": obj.get("apiVersion"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return {part: value for part, value in parts.items() if value or part == "name"}


def _copy(obj: Object) -> Object:
    """The registry owns what it is given; the parts that it may change are copied."""
    return {**obj, "metadata": dict(obj["metadata"]), "involvedObject": dict(obj["involvedObject"])}


def _shortened(message: str) -> str:
    if len(message) <= _MESSAGE_BYTES // 4 or len(message.encode()) <= _MESSAGE_BYTES:
        return message
    return message.encode()[: _MESSAGE_BYTES - 3].decode(errors="ignore") + "..."


def _bound(memory: OrderedDict[tuple[str, ...], Any]) -> None:
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
