"""What goes in and out of the store: keys, records, events, guards, errors.

    StoreError
    ├── KeyExists          create found the key
    ├── KeyMissing         update or delete found none
    ├── VersionMismatch    the key changed since `expected` was read (carries the current record, or None)
    ├── GuardFailed        a compare on another key, or on leadership, did not hold (carries the guard)
    ├── Compacted          the asked-for version is no longer kept
    ├── TooLarge           the value does not fit into one commit
    ├── Unavailable        etcd does not answer; nothing was written; retry later
    └── UnknownOutcome     etcd did not say in time, and settling it failed: the write may have taken effect

Versions are Kubernetes resourceVersions: mod_revision * 4096 + place in the commit. Imports only `api`.
"""

from __future__ import annotations

from asyncio import Future
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from api.objects import Object
from api.quick import quick_dataclass

SUB_INDEXES = 4096
ENCODED_BYTES = 8 * 1024**2
_ENCODED_OVERHEAD_BYTES = 200
VERSION_MARK = b'"metadata":{"resourceVersion":"'
"""How the version stands in `Record.raw`; the first place where it does is the object's own."""


class Key(NamedTuple):
    """Names one object. `namespace` is empty for cluster-scoped kinds."""

    group: str
    plural: str
    namespace: str
    name: str

    @property
    def resource(self) -> tuple[str, str]:
        return (self.group, self.plural)


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@quick_dataclass(frozen=True, slots=True)
class Record:
    """One version of one object. `raw` is its JSON with metadata.resourceVersion in place, ready to send.

    `labels` and `fields` (selectable field -> value, "" when absent) are what selectors and indexes look at; `uid` and
    `owners` (the uids in ownerReferences) are what the garbage collector looks at.
    """

    key: Key
    version: int
    raw: bytes
    labels: dict[str, str]
    fields: dict[str, str]
    uid: str = ""
    owners: tuple[str, ...] = ()

    def parse(self) -> Object:
        """A fresh dict; the caller may change it."""
        parsed: Object = orjson.loads(self.raw)
        return parsed

    def at_version(self, version: int) -> Record:
        """The same state under another version: what a deletion, or leaving a selector, shows."""
        start = self.raw.index(VERSION_MARK) + len(VERSION_MARK)
        raw = b"%b%d%b" % (self.raw[:start], version, self.raw[self.raw.index(b'"', start) :])
        return replace(self, version=version, raw=raw)


@quick_dataclass(frozen=True)
class Event:
    """One change. A DELETED event's record is the last state carrying the deletion's version."""

    type: EventType
    record: Record
    previous: Record | None

    @cached_property
    def line(self) -> bytes:
        """The watch line, encoded once for all watchers who read at about the same time."""
        line = b'{"type":"' + self.type.encode() + b'","object":' + self.record.raw + b"}\n"
        ENCODED.keep(self, len(line))
        return line

    @cached_property
    def forms(self) -> dict[str, Any]:
        """What else is shown of this change than what is stored, by the shape's name, put here by who makes it; who
        keeps bytes says so (`ENCODED.keep`)."""
        return {}

    @cached_property
    def entered(self) -> Event:
        """This change for a watcher whose selector did not match before."""
        return Event(EventType.ADDED, self.record, self.previous)

    @cached_property
    def left(self) -> Event:
        """This change for a watcher whose selector matches no more: the last matching state, at this version."""
        last = self.previous or self.record
        ENCODED.keep(self, len(last.raw))
        return Event(EventType.DELETED, last.at_version(self.record.version), last)

    def forget_encoded(self) -> None:
        """Drops what can be made again; what is being made stays."""
        kept = self.__dict__
        for name in ("line", "entered", "left"):
            kept.pop(name, None)
        forms: dict[str, Any] = kept.get("forms", {})
        for name, form in tuple(forms.items()):
            if not isinstance(form, Future) or form.done():
                del forms[name]


class Encoded:
    """What events keep so that many watchers share one encoding, the newest of the whole process: a watch that follows
    reads it within moments, and one that resumes makes its own."""

    def __init__(self, limit_bytes: int = ENCODED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[tuple[Event, int]] = deque()
        self.bytes = 0

    def keep(self, event: Event, size: int) -> None:
        """`event` holds `size` more bytes from now on. The oldest are forgotten when it is too much."""
        size += _ENCODED_OVERHEAD_BYTES
        self._kept.append((event, size))
        self.bytes += size
        while self.bytes > self._limit_bytes and len(self._kept) > 1:
            oldest, freed = self._kept.popleft()
            self.bytes -= freed
            oldest.forget_encoded()


ENCODED = Encoded()


@quick_dataclass(frozen=True, slots=True)
class Guard:
    """A compare on another key that must hold in the same transaction; build with the constructors."""

    key: Key | str
    version: int | None = None
    """0: absent; n: unchanged since version n; None: exists."""
    create_revision: int | None = None
    """For raw (leadership) keys: the revision the key was created at."""

    @staticmethod
    def exists(key: Key) -> Guard:
        return Guard(key)

    @staticmethod
    def absent(key: Key) -> Guard:
        return Guard(key, version=0)

    @staticmethod
    def unchanged(key: Key, version: int) -> Guard:
        return Guard(key, version=version)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a write takes and gives back beside its object, in the same transaction: addresses and ports.

    A claim is a key of the store's own with the name of its holder in it. `take` fails (GuardFailed on the claim's raw
    key) when somebody holds it; `free` is of no effect on what nobody holds.
    """

    holder: str
    take: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


class StoreError(Exception):
    pass


class KeyExists(StoreError):
    pass


class KeyMissing(StoreError):
    pass


class VersionMismatch(StoreError):
    def __init__(self, current: Record | None) -> None:
        super().__init__("the object changed since it was read")
        self.current = current


class GuardFailed(StoreError):
    def __init__(self, guard: Guard) -> None:
        super().__init__(f"guard on {guard.key} does not hold")
        self.guard = guard


class Compacted(StoreError):
    pass


class TooLarge(StoreError):
    pass


class Unavailable(StoreError):
    pass


class UnknownOutcome(StoreError):
    pass
