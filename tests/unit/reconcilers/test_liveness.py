"""Heartbeats and brakes, on fake time with exact delays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from controller.reconcilers.liveness import Liveness, Report, vanished_together

pytestmark = pytest.mark.looptime(start=1000)


@asynccontextmanager
async def leading(liveness: Liveness) -> AsyncIterator[Liveness]:
    task = asyncio.create_task(liveness.run())
    await asyncio.sleep(0)
    try:
        yield liveness
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def now() -> float:
    return asyncio.get_running_loop().time()


async def beating(liveness: Liveness, *nodes: str) -> None:
    while True:
        for node in nodes:
            liveness.beat(node)
        await asyncio.sleep(1)


def told(liveness: Liveness) -> list[tuple[str, float]]:
    """(node, when) of every change told from now on."""
    changes: list[tuple[str, float]] = []
    liveness.attach(lambda node: changes.append((node, now())))
    return changes


async def test_silence_is_told_exactly_when_the_ttl_ends() -> None:
    async with leading(Liveness(4)) as liveness:
        liveness.beat("n")
        await asyncio.sleep(1)
        liveness.beat("n")
        changes, start = told(liveness), now()
        await asyncio.sleep(10)
        assert changes == [("n", start + 4)]
        assert liveness.judge("n").silent


async def test_a_node_that_beats_is_never_told_and_one_that_returns_is_told_at_once() -> None:
    async with leading(Liveness(4)) as liveness:
        liveness.beat("n")
        changes = told(liveness)
        for _ in range(20):
            await asyncio.sleep(1)
            liveness.beat("n")
        assert changes == []
        await asyncio.sleep(6)
        liveness.beat("n")
        assert changes[-1] == ("n", now())
        assert liveness.judge("n").wait_seconds == 4


async def test_only_a_leader_grants_heartbeats() -> None:
    liveness = Liveness(4)
    assert liveness.beat("n") is False
    async with leading(liveness):
        assert liveness.beat("n") is True


async def test_nobody_is_judged_within_one_ttl_of_the_leaders_start_and_the_unheard_within_two() -> None:
    liveness = Liveness(4)
    liveness.beat("before")
    await asyncio.sleep(60)
    async with leading(liveness):
        changes, start = told(liveness), now()
        liveness.beat("heard")
        assert changes.pop() == ("heard", start)
        assert not liveness.judge("before").silent
        assert not liveness.judge("unheard").silent
        await asyncio.sleep(10)
        assert sorted(changes) == [("before", start + 8), ("heard", start + 4), ("unheard", start + 8)]


async def test_nobody_is_judged_within_one_ttl_of_a_stall() -> None:
    skew = [0.0]
    async with leading(Liveness(4, lambda: now() + skew[0])) as liveness:
        liveness.beat("n")
        await asyncio.sleep(1)
        skew[0] = 30.0  # the loop stood still for half a minute
        assert liveness.judge("n").wait_seconds == 4
        await asyncio.sleep(3.9)
        assert not liveness.judge("n").silent
        await asyncio.sleep(0.1)
        assert liveness.judge("n").silent


async def test_a_minority_that_vanishes_does_not_hold_the_brake() -> None:
    async with leading(Liveness(4)) as liveness:
        nodes = ("a", "b", "c")
        for node in nodes:
            liveness.beat(node)
        rest = asyncio.create_task(beating(liveness, "b", "c"))
        await asyncio.sleep(4)
        assert liveness.judge("a").silent
        assert not liveness.braked(nodes)
        rest.cancel()


async def test_the_brake_holds_while_most_vanish_together_and_a_ttl_longer_for_the_last_to_return() -> None:
    async with leading(Liveness(4)) as liveness:
        nodes = ("a", "b", "c")
        for node in nodes:
            liveness.beat(node)
        await asyncio.sleep(0.9)
        liveness.beat("b")
        rest = asyncio.create_task(beating(liveness, "c"))
        await asyncio.sleep(3.1)
        assert liveness.judge("a").silent
        assert not liveness.judge("b").silent
        assert liveness.braked(nodes)  # b has been silent for more than half a TTL: it is going the same way
        await asyncio.sleep(60)
        assert liveness.braked(nodes)
        liveness.beat("b")
        back = asyncio.create_task(beating(liveness, "b"))
        await asyncio.sleep(3.9)
        assert liveness.braked(nodes)  # a may come back as b did
        await asyncio.sleep(0.2)
        assert not liveness.braked(nodes)
        assert liveness.judge("a").silent
        rest.cancel()
        back.cancel()


@pytest.mark.parametrize(
    ("last_seen", "expected"),
    [
        ([100, 100, 100], True),
        ([100, 100, 109], True),
        ([100, 109, 109], False),
        ([100, 109], False),
        ([90, 100, 109], False),
        ([96, 100, 109], True),
        ([], False),
    ],
)
def test_vanishing_together_means_within_one_window(last_seen: list[float], expected: bool) -> None:
    check: Callable[..., bool] = vanished_together
    assert check(last_seen, 110.0, 4.0) is expected


async def test_a_node_that_beats_at_another_controller_is_alive_for_as_long_as_that_one_vouches() -> None:
    async with leading(Liveness(4)) as liveness:
        liveness.hear_of("other", Report(frozenset({"n"})))
        await asyncio.sleep(100)
        changes, start = told(liveness), now()
        assert not liveness.judge("n").silent and liveness.ever_beat("n")
        liveness.hear_of("other", Report(frozenset(), {"n": 2.5}))
        await asyncio.sleep(10)
        assert changes == [("n", start + 1.5)], "it gets what is left of its TTL"
        liveness.hear_of("other", Report(frozenset({"n"})))
        assert changes[1:] == [("n", start + 10), ("n", start + 10)]
        assert not liveness.judge("n").silent


async def test_nodes_of_a_controller_that_is_gone_get_a_whole_ttl_to_be_heard_elsewhere() -> None:
    async with leading(Liveness(4)) as liveness:
        for reporter in ("two", "three"):
            liveness.hear_of(reporter, Report(frozenset({"n"})))
        await asyncio.sleep(20)
        changes, start = told(liveness), now()
        liveness.hear_of("two", None)
        await asyncio.sleep(20)
        assert not changes, "another one still hears it"
        liveness.hear_of("three", None)
        await asyncio.sleep(20)
        assert changes == [("n", start + 24)]


async def test_nodes_cut_off_together_at_another_controller_are_braked_before_the_first_is_judged() -> None:
    async with leading(Liveness(4)) as liveness:
        liveness.hear_of("other", Report(frozenset({"a", "b"})))
        await asyncio.sleep(20)
        liveness.hear_of("other", Report(frozenset({"b"}), {"a": 2.4}))
        await asyncio.sleep(0.9)
        liveness.hear_of("other", Report(frozenset(), {"a": 2.4, "b": 2.4}))
        await asyncio.sleep(0.7)
        assert liveness.judge("a").silent and liveness.braked(["a", "b"])
