"""The queue and the loop, on fake time: what runs when, and what happens after an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from api.errors import ApiError, Conflict, Timeout
from controller.reconcilers.actions import Action, Executor, Note
from controller.reconcilers.loop import Decision, Failure, Once, Source, backoff_seconds, run_loop
from controller.reconcilers.queue import WorkQueue
from controller.store import Store

pytestmark = pytest.mark.looptime


async def test_a_key_waits_at_most_once_and_runs_again_if_it_changed_meanwhile() -> None:
    queue = WorkQueue("test")
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1


async def test_of_several_delays_the_earliest_wins() -> None:
    queue = WorkQueue("test")
    start = asyncio.get_running_loop().time()
    for seconds in (30, 10, 20):
        queue.add_after("a", seconds)
    assert await queue.get() == "a"
    assert asyncio.get_running_loop().time() - start == 10


async def test_a_key_that_rests_does_not_run_before_its_rest_ends() -> None:
    queue = WorkQueue("test")
    queue.add("a")
    await queue.get()
    start = asyncio.get_running_loop().time()
    queue.done("a", 3)
    queue.add("a")
    assert await queue.get() == "a"
    assert asyncio.get_running_loop().time() - start == 3


def test_the_back_off_doubles_up_to_half_a_minute() -> None:
    assert [backoff_seconds(attempt) for attempt in (1, 2, 3, 99)] == [0.005, 0.01, 0.02, 30.0]


@dataclass
class Scripted:
    """A reconciler whose decisions are written down; it notes when each was asked for."""

    decisions: list[Decision]
    name: str = "scripted"
    concurrency: int = 2
    asked: list[tuple[float, Failure | None]] = field(default_factory=list)

    def sources(self) -> Sequence[Source]:
        return (Once("key"),)

    def observe(self, key: Hashable, failure: Failure | None) -> Decision | None:
        self.asked.append((asyncio.get_running_loop().time(), failure))
        return self.decisions.pop(0) if self.decisions else None

    def decide(self, observed: Decision) -> Decision:
        return observed


@dataclass
class Hands:
    """An executor that fails as written down."""

    errors: list[ApiError | None]
    done: list[Action] = field(default_factory=list)

    async def perform(self, action: Action) -> int:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.done.append(action)
        return 17


@dataclass
class Cache:
    """The part of the store that the loop waits for."""

    waits: list[str] = field(default_factory=list)

    async def current(self) -> int:
        self.waits.append("barrier")
        return 1

    async def reached(self, version: int) -> None:
        self.waits.append(f"version {version}")


@asynccontextmanager
async def looping(reconciler: Scripted, hands: Hands, cache: Cache) -> AsyncIterator[None]:
    loop: Any = run_loop(reconciler, cast(Store, cache), cast(Executor, hands))
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def note(text: str) -> Note:
    return Note({}, "Normal", text, text)


async def test_actions_run_in_order_and_the_next_look_waits_for_the_own_write() -> None:
    reconciler, hands, cache = Scripted([Decision((note("a"), note("b")), note("status"))]), Hands([]), Cache()
    async with looping(reconciler, hands, cache):
        await asyncio.sleep(1)
    assert hands.done == [note("a"), note("b"), note("status")]
    assert cache.waits == ["version 17"]
    assert len(reconciler.asked) == 2


async def test_the_first_error_stops_the_actions_and_the_next_decision_knows_it() -> None:
    error = Conflict("changed")
    decision = Decision((note("a"), note("b"), note("c")))
    reconciler, hands, cache = Scripted([decision, decision]), Hands([None, error]), Cache()
    async with looping(reconciler, hands, cache):
        await asyncio.sleep(1)
    assert hands.done == [note("a"), note("a"), note("b"), note("c")]
    (first, _), (second, failure), (_, cleared) = reconciler.asked
    assert second - first == pytest.approx(0.005)
    assert failure == Failure(error, 1)
    assert cleared is None


async def test_after_an_unknown_outcome_the_cache_is_brought_up_to_date_first() -> None:
    reconciler, hands, cache = Scripted([Decision((note("a"),)), Decision()]), Hands([Timeout("?")]), Cache()
    async with looping(reconciler, hands, cache):
        await asyncio.sleep(1)
    assert cache.waits == ["barrier"]


async def test_a_decision_may_ask_to_be_looked_at_again() -> None:
    reconciler = Scripted([Decision(requeue_after_seconds=7), Decision()])
    async with looping(reconciler, Hands([]), Cache()):
        await asyncio.sleep(20)
    (first, _), (second, _) = reconciler.asked
    assert second - first == 7
