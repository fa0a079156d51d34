"""The recorder: what becomes of facts that repeat, resemble each other, or come in floods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from api.errors import NotFound, ServiceUnavailable
from api.objects import Object
from controller.admission.types import Request, User
from controller.registry.recorder import Recorder
from controller.registry.registry import Registry
from tests.unit.reconcilers.facts import pod_object

pytestmark = pytest.mark.looptime
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Kept:
    """The part of the registry that the recorder writes to."""

    events: dict[str, Object] = field(default_factory=dict)
    broken: bool = False

    async def create(self, request: Any, kind: Any, namespace: str, obj: Object) -> None:
        if self.broken:
            raise ServiceUnavailable("down")
        self.events[obj["metadata"]["name"]] = obj

    async def modify(
        self, request: Any, kind: Any, namespace: str, name: str, change: Callable[[Object], Object]
    ) -> None:
        if name not in self.events:
            raise NotFound(name)
        self.events[name] = change(self.events[name])


def now() -> datetime:
    return START + timedelta(seconds=asyncio.get_running_loop().time())


@asynccontextmanager
async def recording(kept: Kept) -> AsyncIterator[Recorder]:
    recorder = Recorder(cast(Registry, kept), Request(User("test"), now=now), "tester")
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
        await asyncio.sleep(5)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_fact_becomes_an_event_about_its_object() -> None:
    kept = Kept()
    async with recording(kept) as recorder:
        recorder.event(pod_object("p"), "Normal", "Started", "it runs")
    (event,) = kept.events.values()
    about = {"kind": "Pod", "namespace": "w", "name": "p", "uid": "uid-p", "apiVersion": "v1", "resourceVersion": "3"}
    assert event["involvedObject"] == about
    assert (event["type"], event["reason"], event["message"], event["count"]) == ("Normal", "Started", "it runs", 1)
    assert event["source"] == {"component": "tester"}
    assert event["metadata"]["namespace"] == "w"
    assert event["metadata"]["name"].startswith("p.")


async def test_the_same_fact_again_is_counted_on_the_same_event() -> None:
    kept = Kept()
    async with recording(kept) as recorder:
        for _ in range(3):
            recorder.event(pod_object("p"), "Warning", "Failed", "no")
            await asyncio.sleep(2)
    (event,) = kept.events.values()
    assert event["count"] == 3
    assert event["firstTimestamp"] < event["lastTimestamp"]


async def test_an_event_that_expired_meanwhile_is_written_anew() -> None:
    kept = Kept()
    async with recording(kept) as recorder:
        recorder.event(pod_object("p"), "Warning", "Failed", "no")
        await asyncio.sleep(1)
        kept.events.clear()
        recorder.event(pod_object("p"), "Warning", "Failed", "no")
    (event,) = kept.events.values()
    assert event["count"] == 2


async def test_many_similar_facts_share_one_event() -> None:
    kept = Kept()
    async with recording(kept) as recorder:
        for number in range(1000):
            recorder.event(pod_object("p"), "Normal", "Created", f"pod {number}")
    assert len(kept.events) == 10
    (combined,) = [event for event in kept.events.values() if event["count"] > 1]
    assert combined["message"] == "(combined from similar events): pod 999"
    assert combined["count"] == 991


async def test_one_object_cannot_flood_the_store() -> None:
    kept = Kept()
    async with recording(kept) as recorder:
        for number in range(100):
            recorder.event(pod_object("p"), "Normal", f"Reason{number}", "x")
        recorder.event(pod_object("other"), "Normal", "Reason", "x")
    assert len(kept.events) == 26


async def test_a_store_that_is_down_loses_events_and_nothing_else() -> None:
    kept = Kept(broken=True)
    async with recording(kept) as recorder:
        recorder.event(pod_object("p"), "Normal", "Started", "it runs")
        await asyncio.sleep(1)
        kept.broken = False
        recorder.event(pod_object("p"), "Normal", "Started", "it runs")
    (event,) = kept.events.values()
    assert event["count"] == 2
