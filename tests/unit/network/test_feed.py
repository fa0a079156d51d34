"""A feed turns a watch into records, and tells of a list once, when it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

from agent.network.feed import Feed
from agent.network.model import Key, Namespace, parse_namespace
from api.client import Client, WatchEvent
from api.kinds import by_resource


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


class PlayedClient:
    """A watch that plays these events and then waits for ever."""

    def __init__(self, *events: WatchEvent) -> None:
        self._events = events

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[WatchEvent]:
        for event in self._events:
            yield event
        await asyncio.Event().wait()


async def played(*events: WatchEvent) -> tuple[Feed[Namespace], list[frozenset[Key]]]:
    feed = Feed(cast(Client, PlayedClient(*events)), by_resource("", "namespaces"), parse_namespace)
    told: list[frozenset[Key]] = []
    feed.subscribe(told.append)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await feed.run()
    return feed, told


async def test_a_list_is_told_once_and_later_changes_one_by_one() -> None:
    feed, told = await played(
        WatchEvent("ADDED", namespace("a")),
        WatchEvent("ADDED", namespace("b")),
        WatchEvent("SYNCED"),
        WatchEvent("MODIFIED", namespace("a", x="1")),
        WatchEvent("DELETED", namespace("b")),
    )
    assert told == [frozenset({("", "a"), ("", "b")}), frozenset({("", "a")}), frozenset({("", "b")})]
    assert feed.records == {("", "a"): Namespace("a", {"x": "1"})}


async def test_an_unfinished_list_is_not_told() -> None:
    feed, told = await played(WatchEvent("ADDED", namespace("a")))
    assert told == []
    assert not feed.synced.is_set()


async def test_a_late_subscriber_hears_of_what_is_known() -> None:
    feed, _ = await played(WatchEvent("ADDED", namespace("a")), WatchEvent("SYNCED"))
    told: list[frozenset[Key]] = []
    feed.subscribe(told.append)
    assert told == [frozenset({("", "a")})]
