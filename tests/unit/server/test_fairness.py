"""Fair shares: nobody waits while seats are free; lines take turns; long lines are refused."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from api.errors import TooManyRequests
from controller.admission.types import User
from controller.server import fairness
from controller.server.fairness import Fairness, Level, flow_of, width_of


async def started(*work: asyncio.Task[None]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def entering(level: Level, flow: str, order: list[str], width: int = 1) -> None:
    await level.enter(flow, width)
    order.append(flow)


async def test_a_free_seat_is_taken_at_once() -> None:
    level = Level("x", seats=2)
    await level.enter("a", 1)
    await level.enter("b", 1)
    assert (level.taken, level.waiting) == (2, 0)


async def test_some_seats_are_always_for_others() -> None:
    level, order = Level("x", seats=4), list[str]()
    tasks = [asyncio.create_task(entering(level, "endless", order)) for _ in range(6)]
    await started()
    assert (len(order), level.waiting) == (3, 3)
    await level.enter("other", 1)
    assert level.taken == 4
    level.leave("other", 1)
    await started()
    assert len(order) == 3, "the free seat is not for who has his share"
    for _ in range(3):
        level.leave("endless", 1)
    await asyncio.gather(*tasks)
    assert (level.taken, level.waiting) == (3, 0)


async def test_lines_take_turns_however_long_they_are() -> None:
    level, order = Level("x", seats=1), list[str]()
    await level.enter("greedy", 1)
    tasks = [asyncio.create_task(entering(level, "greedy", order)) for _ in range(5)]
    await started()
    tasks.append(asyncio.create_task(entering(level, "modest", order)))
    await started()
    for place in range(6):
        level.leave(["greedy", *order][place], 1)
        await started()
    assert order == ["greedy", "modest", "greedy", "greedy", "greedy", "greedy"]
    await asyncio.gather(*tasks)


async def test_a_wide_request_waits_for_room_and_runs_alone_if_it_must() -> None:
    level, order = Level("x", seats=4), list[str]()
    await level.enter("a", 3)
    wide = asyncio.create_task(entering(level, "b", order, width=10))
    await started()
    assert order == []
    level.leave("a", 3)
    await wide
    assert (order, level.taken) == (["b"], 10)


async def test_who_gives_up_leaves_no_seat_taken() -> None:
    level, order = Level("x", seats=1), list[str]()
    await level.enter("a", 1)
    gone = asyncio.create_task(entering(level, "b", order))
    stays = asyncio.create_task(entering(level, "c", order))
    await started()
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    level.leave("a", 1)
    await stays
    assert (order, level.taken, level.waiting) == (["c"], 1, 0)


async def test_a_line_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "LINE_LIMIT", 1)
    level = Level("x", seats=1)
    await level.enter("a", 1)
    waiting = asyncio.create_task(level.enter("a", 1))
    await started()
    with pytest.raises(TooManyRequests) as refused:
        await level.enter("a", 1)
    assert refused.value.details == {"retryAfterSeconds": 1}
    assert level.refused == 1
    waiting.cancel()


def test_levels_and_flows() -> None:
    shares = Fairness()

    def level(name: str, *groups: str) -> str:
        found = shares.level_of(User(name, groups=groups))
        return found.name if found else ""

    assert level("admin", "system:masters") == ""
    assert level("system:node:n1", "system:nodes") == "node"
    assert level("system:serviceaccount:kube-system:x") == "system"
    assert level("eve") == "workload"
    assert flow_of(User("system:serviceaccount:shop:a")) == flow_of(User("system:serviceaccount:shop:b"))
    assert (width_of(0), width_of(1200), width_of(10**6)) == (1, 3, 10)
