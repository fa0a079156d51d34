"""The read barrier's verdicts, with an etcd that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from controller.store.barrier import Barrier


class PlayedCache(SimpleNamespace):
    """At `revision`; whatever is waited for has come."""

    async def reached(self, version: int, timeout_seconds: float) -> None:
        del version, timeout_seconds


class PlayedFeed(SimpleNamespace):
    def interrupt(self, *, lost_history: bool = False) -> None:
        self.lost = lost_history


async def pass_barrier(cache: PlayedCache, answer: Callable[[], int]) -> tuple[int, PlayedFeed]:
    async def revision(_timeout_seconds: float) -> int:
        return answer()

    feed = PlayedFeed(following=True, lost=False)
    keyspace: Any = SimpleNamespace(own=lambda name: name.encode())
    etcd: Any = SimpleNamespace(revision=revision)
    barrier = Barrier(etcd, keyspace, cast(Any, cache), cast(Any, feed))
    running = asyncio.create_task(barrier.run())
    try:
        return await barrier.passed(5.0), feed
    finally:
        running.cancel()


async def test_a_cache_that_overtakes_the_answer_has_lost_no_history() -> None:
    cache = PlayedCache(revision=5)

    def answer() -> int:
        cache.revision = 7  # two writes arrive by watch before the read's answer does
        return 5

    passed, feed = await pass_barrier(cache, answer)
    assert passed == 5
    assert not feed.lost


async def test_an_etcd_that_is_behind_what_the_cache_knew_was_restored_or_emptied() -> None:
    cache = PlayedCache(revision=5)
    answers = iter([3, 6])
    passed, feed = await pass_barrier(cache, lambda: next(answers))
    assert passed == 6
    assert feed.lost
