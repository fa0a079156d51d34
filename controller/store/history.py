"""Past events, kept in memory so that watches can resume: one ring a kind, one budget for all.

Used by cache.py and watchers.py. What an event costs is what it alone keeps alive: the state before it, and a deleted
object's last state (the newest state is in the cache anyway); what is encoded for watchers has a bound of its own
(`types.ENCODED`). The oldest events of the whole store go first.
Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter

from controller.store.types import Event, EventType

KEPT_BYTES = 64 * 1024**2
KEPT_EVENTS = 100_000
_EVENT_BYTES = 800
"""The event, its record and their dictionaries, measured."""
_TRIM_AT = 1024

_version = attrgetter("record.version")


class Ring:
    """The kept events of one kind, oldest first. Everything after `floor` is there."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._events: list[Event] = []
        self._gone = 0

    def since(self, version: int) -> list[Event]:
        """The events after `version`, which must not be below `floor`."""
        return self._events[bisect_right(self._events, version, lo=self._gone, key=_version) :]

    def extend(self, events: list[Event]) -> None:
        self._events.extend(events)

    def drop_oldest(self) -> Event:
        event = self._events[self._gone]
        self._gone += 1
        self.floor = event.record.version
        if self._gone > _TRIM_AT and self._gone * 2 > len(self._events):
            del self._events[: self._gone]
            self._gone = 0
        return event

    def __len__(self) -> int:
        return len(self._events) - self._gone


class History:
    """Keeps all rings together within the budget."""

    def __init__(self, kept_bytes: int = KEPT_BYTES, kept_events: int = KEPT_EVENTS) -> None:
        self._limit_bytes = kept_bytes
        self._limit_events = kept_events
        self._order: deque[Ring] = deque()
        self.bytes = 0

    def add(self, ring: Ring, events: list[Event]) -> None:
        """Keeps new events of a ring; drops the oldest ones of any."""
        ring.extend(events)
        for event in events:
            self._order.append(ring)
            self.bytes += weight(event)
        while self.bytes > self._limit_bytes or len(self._order) > self._limit_events:
            self.bytes -= weight(self._order.popleft().drop_oldest())

    def clear(self) -> None:
        self._order.clear()
        self.bytes = 0


def weight(event: Event) -> int:
    """Bytes that are in memory only because the event is kept."""
    total = _EVENT_BYTES
    if event.previous is not None:
        total += len(event.previous.raw)
    if event.type is EventType.DELETED:
        total += len(event.record.raw)
    return total
