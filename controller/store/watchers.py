"""Watchers: who follows a kind, and how each event finds those it concerns without asking the others.

Used by cache.py (dispatch) and store.py; readers iterate a Watcher. A watcher that narrows by a field with `=` (name,
node, ...) or by namespace is found through that value, so that a thousand agents cost each event two lookups.
Invariants: a watcher sees every event that concerns it once, in order; what waits for a reader is never older than what
the ring keeps, so slow readers cost no memory: they are dropped and told so (Compacted, HTTP 410).
Selector transitions follow https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable

from controller.store import metrics
from controller.store.history import Ring
from controller.store.query import Query
from controller.store.types import Compacted, Event, EventType

_NAMESPACE = "metadata.namespace"
_MISSED_AT_ONCE = 500
"""Of the events a watch resumes with; so that none holds the loop."""
Route = tuple[str, str]


class Watcher:
    """An async iterator of batches of events, never empty ones. Raises Compacted when its reader is too slow."""

    def __init__(self, audience: Audience, since: int, query: Query, newest: Callable[[], int]) -> None:
        self._audience = audience
        self._query = query
        self._plain = not query.selects
        self._newest = newest
        self._handed_out = since
        self._missed: deque[Event] = deque()
        self._pending: list[Event] = []
        self._waiting: asyncio.Future[None] | None = None
        self._dropped = False
        self._closed = False

    @property
    def version(self) -> int:
        """Everything up to this version was handed out; for bookmarks."""
        if self._missed or self._pending or self._dropped or self._closed:
            return self._handed_out
        return max(self._handed_out, self._newest())

    @property
    def query(self) -> Query:
        return self._query

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
        while not (batch := self.take()):
            if batch is None:
                raise StopAsyncIteration
            await self.wait()
        return batch

    async def wait(self) -> None:
        """Returns when `take` has something to say, or at a `nudge`. Cancelling it loses nothing."""
        if self._missed:
            await asyncio.sleep(0)
        elif not (self._pending or self._dropped or self._closed):
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def take(self) -> list[Event] | None:
        """What has come, which is the reader's from now on; None when the watcher has ended. Raises Compacted."""
        if self._missed and not self._dropped:
            return self._take_missed()
        if self._pending:
            batch, self._pending = self._pending, []
            self._handed_out = batch[-1].record.version
            return batch
        if self._dropped:
            raise Compacted("the watcher was too slow; list again")
        return None if self._closed else []

    def nudge(self) -> None:
        """Ends a `wait`, so that its reader looks at the clock."""
        self._wake()

    def close(self) -> None:
        """Ends the iteration; what is pending can still be read. Safe to call twice."""
        self._closed = True
        self._audience.remove(self)
        self._wake()

    def catch_up(self, missed: list[Event]) -> None:
        """Before anything is offered: what the ring kept since the version to watch from, picked over while it is
        read, for that may be 100,000 events."""
        self._missed.extend(missed)

    def offer(self, events: list[Event], floor: int) -> None:
        """Takes what concerns it of new events. `floor`: the version up to which the ring forgot events."""
        events = self._concerning(events)
        if not events:
            return
        self._pending.extend(events)
        if self._pending[0].record.version <= floor:
            self.drop()
        else:
            self._wake()

    def drop(self) -> None:
        """The reader is told to list again."""
        self._pending.clear()
        self._missed.clear()
        self._dropped = True
        self._audience.remove(self)
        metrics.dropped_watchers.inc()
        self._wake()

    def _concerning(self, events: list[Event]) -> list[Event]:
        if events[0].record.version <= self._handed_out:
            events = [event for event in events if event.record.version > self._handed_out]
        if self._query.namespace:
            events = [event for event in events if event.record.key.namespace == self._query.namespace]
        if not self._plain:
            events = [seen for event in events if (seen := translated(self._query, event)) is not None]
        return events

    def _take_missed(self) -> list[Event] | None:
        """The next events of those missed that concern it; maybe none of these."""
        if self._missed[0].record.version <= self._audience.floor:
            self.drop()
            return self.take()
        taken = [self._missed.popleft() for _ in range(min(_MISSED_AT_ONCE, len(self._missed)))]
        batch = self._concerning(taken)
        self._handed_out = taken[-1].record.version
        return batch

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def translated(query: Query, event: Event) -> Event | None:
    """The event as a watcher with this query sees it: entering is ADDED, leaving DELETED; None if it never sees it."""
    before = event.previous is not None and query.matches(event.previous)
    now = event.type is not EventType.DELETED and query.matches(event.record)
    if now:
        return event if before or event.type is EventType.ADDED else event.entered
    if before:
        return event if event.type is EventType.DELETED else event.left
    return None


def route_of(query: Query) -> Route | None:
    """The one value every event of interest has, before or after: (field, value). None: there is no such value."""
    equalities = query.fields.equalities if query.fields is not None else {}
    for field, value in equalities.items():
        return field, value
    return (_NAMESPACE, query.namespace) if query.namespace else None


class Audience:
    """The watchers of one kind."""

    def __init__(self, resource: tuple[str, str], ring: Ring) -> None:
        self._resource = resource
        self._ring = ring
        self._everyone: dict[Watcher, None] = {}
        self._routed: dict[Route, dict[Watcher, None]] = {}
        self._routed_fields: Counter[str] = Counter()
        self._size = 0

    @property
    def floor(self) -> int:
        """The version up to which events are forgotten."""
        return self._ring.floor

    def add(self, watcher: Watcher) -> None:
        route = route_of(watcher.query)
        if route is None:
            self._everyone[watcher] = None
        else:
            self._routed.setdefault(route, {})[watcher] = None
            self._routed_fields[route[0]] += 1
        self._count(1)

    def remove(self, watcher: Watcher) -> None:
        route = route_of(watcher.query)
        members = self._everyone if route is None else self._routed.get(route, {})
        if watcher not in members:
            return
        del members[watcher]
        if route is not None:
            self._forget(route, members)
        self._count(-1)

    def dispatch(self, events: list[Event]) -> None:
        """Hands new events, one revision's, to those they concern."""
        floor = self._ring.floor
        for watcher in tuple(self._everyone):
            watcher.offer(events, floor)
        if not self._routed:
            return
        chosen: dict[Watcher, list[Event]] = {}
        for event in events:
            for watcher in self._concerned(event):
                chosen.setdefault(watcher, []).append(event)
        for watcher, picked in chosen.items():
            watcher.offer(picked, floor)

    def drop_all(self) -> None:
        for watcher in (*self._everyone, *(member for members in self._routed.values() for member in members)):
            watcher.drop()

    def _concerned(self, event: Event) -> dict[Watcher, None]:
        found: dict[Watcher, None] = {}
        for field in self._routed_fields:
            value = event.record.fields.get(field, "")
            found.update(self._routed.get((field, value), {}))
            if event.previous is not None and (before := event.previous.fields.get(field, "")) != value:
                found.update(self._routed.get((field, before), {}))
        return found

    def _forget(self, route: Route, members: dict[Watcher, None]) -> None:
        if not members:
            del self._routed[route]
        self._routed_fields[route[0]] -= 1
        if not self._routed_fields[route[0]]:
            del self._routed_fields[route[0]]

    def _count(self, change: int) -> None:
        self._size += change
        metrics.set_watchers(self._resource, self._size)
