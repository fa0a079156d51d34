"""Requests end in time, and the frame can tell why."""

from __future__ import annotations

import asyncio

import pytest

from controller.server.deadlines import Deadlines

pytestmark = pytest.mark.looptime


async def test_what_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines(60)
    with deadlines.watch():
        await asyncio.sleep(59)
    await asyncio.sleep(120)


async def test_what_is_overdue_ends_with_a_timeout_within_a_second() -> None:
    deadlines = Deadlines(60)
    started = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), deadlines.watch():
        await asyncio.sleep(1000)
    assert 60 <= asyncio.get_running_loop().time() - started <= 61
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_client_that_goes_away_is_no_timeout() -> None:
    deadlines = Deadlines(60)

    async def request() -> None:
        with deadlines.watch():
            await asyncio.sleep(1000)

    task = asyncio.create_task(request())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_timer_watches_many() -> None:
    deadlines = Deadlines(10)

    async def request(seconds: float) -> str:
        try:
            with deadlines.watch():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "late"
        return "fine"

    async with asyncio.TaskGroup() as tasks:
        done = [tasks.create_task(request(seconds)) for seconds in (1, 5, 20, 9, 30)]
    assert [task.result() for task in done] == ["fine", "fine", "late", "fine", "late"]
