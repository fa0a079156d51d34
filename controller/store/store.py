"""The store: every object of the cluster, kept in etcd, read from a cache that follows it.

Called by registry (writes), server and reconcilers (reads, watches). Imports the other modules of this room.
Invariants: an acknowledged write is in etcd and in this cache; versions only rise; what a watcher got is exactly what
happened, once each and in order. While etcd is away, calls wait up to a deadline and raise Unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from api.objects import Object
from controller.store.barrier import Barrier
from controller.store.border import EtcdError, HistoryCompacted
from controller.store.cache import Cache, Subscriber, deliver
from controller.store.cipher import Cipher
from controller.store.claims import ClaimBook
from controller.store.commit import Action, Committer, Write
from controller.store.etcd import Etcd, Tls
from controller.store.feed import Feed
from controller.store.history import History
from controller.store.keys import Keyspace
from controller.store.leadership import Candidacy, Leadership
from controller.store.maintenance import Limits, Maintenance
from controller.store.paging import FIRST_KEYS, keys_for_next
from controller.store.presence import Presence
from controller.store.query import Page, Query
from controller.store.reserve import Reserve
from controller.store.types import (
    Claims,
    Compacted,
    Event,
    EventType,
    Guard,
    Key,
    KeyMissing,
    Record,
    Unavailable,
    VersionMismatch,
)
from controller.store.values import Codec, Draft, NotOurs, list_version, revision_of, same_content
from controller.store.watchers import Watcher

EVERYTHING = Query()
_PODS = ("", "pods")
_SECRETS = ("", "secrets")
_NODE_NAME = "spec.nodeName"

Selection = tuple[list[Record], int]


@dataclass(frozen=True)
class StoreConfig:
    """Where etcd is and how to use it."""

    endpoints: tuple[str, ...]
    """`host:port`, `https://host:port` or `unix:/path`."""
    encryption_key: bytes = field(repr=False)
    """32 bytes; seals Secrets with AES-GCM."""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    """Paths of the client TLS files; with `ca`, connections use TLS."""
    prefix: str = "/wherry"
    request_timeout_seconds: float = 10.0
    former_encryption_key: bytes | None = field(default=None, repr=False)
    """What sealed Secrets before, while they are sealed anew."""
    quota_bytes: int = 8 * 1024**3
    keep_seconds: float = 300.0
    """History younger than this is not compacted unless etcd fills up."""
    reserve: Reserve | None = None
    """What is kept on the private etcd's disk; a given etcd's disk is not ours to know."""


class Store:
    """Made by `open`, alive while `run` runs."""

    def __init__(self, config: StoreConfig, history: History | None = None) -> None:
        tls = Tls(config.ca, config.cert, config.key) if config.ca else None
        self._config = config
        self._timeout_seconds = config.request_timeout_seconds
        self._keyspace = Keyspace(config.prefix)
        self._codec = Codec(self._keyspace, Cipher(config.encryption_key, config.former_encryption_key))
        self._etcd = Etcd(config.endpoints, tls, config.request_timeout_seconds)
        self._cache = Cache(self._codec, history)
        self.claims = ClaimBook(self._etcd, self._cache, self._keyspace)
        self.presence = Presence(self._etcd, self._cache, self._keyspace, "present")
        self.hearing = Presence(self._etcd, self._cache, self._keyspace, "hearing")
        self._feed = Feed(self._etcd, self._keyspace, self._cache)
        self._barrier = Barrier(self._etcd, self._keyspace, self._cache, self._feed)
        self._committer = Committer(self._etcd, self._codec, self._cache, config.request_timeout_seconds)
        limits = Limits(config.keep_seconds, config.quota_bytes, config.reserve)
        self._maintenance = Maintenance(self._etcd, self._cache, self._keyspace, self._committer, limits)

    @staticmethod
    async def open(config: StoreConfig, history: History | None = None) -> Store:
        """Connects, learns etcd's limits, fills the cache and replays kept history. Raises Unavailable when etcd does
        not answer in time."""
        store = Store(config, history)
        try:
            store._committer.limit_operations(await store._etcd.largest_commit())
            await store._feed.fill()
            await store._catch_up()
        except (EtcdError, Unavailable) as error:
            await store.close()
            raise Unavailable(f"etcd at {', '.join(config.endpoints)} does not answer: {error}") from error
        except BaseException:
            await store.close()
            raise
        return store

    async def run(self) -> None:
        """Follows etcd, commits, compacts; until cancelled. Writes and linearizable reads need it running."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed.run())
                group.create_task(self._barrier.run())
                group.create_task(self._committer.run())
                group.create_task(self._maintenance.run())
        finally:
            self._barrier.stop()
            self._committer.stop()

    async def close(self) -> None:
        """Closes the connections; after `run` was cancelled."""
        await self._etcd.close()

    @property
    def version(self) -> int:
        """The cache's version: every change up to it is in."""
        return self._cache.version

    @property
    def healthy(self) -> bool:
        """The cache follows etcd, and etcd takes writes."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in a few words each; for /readyz."""
        found = [] if self._feed.following and self._etcd.answering else ["etcd does not answer"]
        return (*found, *self._maintenance.problems)

    @property
    def shortage(self) -> str:
        """Why nothing should be added, a sentence; "" while the disk under etcd has room."""
        return self._config.reserve.shortage if self._config.reserve is not None else ""

    def get(self, key: Key) -> Record | None:
        """From the cache, as it is now."""
        return self._cache.get(key)

    def count(self, resource: tuple[str, str]) -> int:
        """How many objects of a resource there are, in all namespaces."""
        return len(self._cache.kind(resource).objects)

    async def current(self) -> int:
        """Returns once the cache holds everything acknowledged before this call (linearizable); the cache's version.
        Raises Unavailable."""
        await self._barrier.passed(self._timeout_seconds)
        return self._cache.version

    async def reached(self, version: int) -> None:
        """Returns once the cache is at least at `version`. Raises Unavailable when that takes too long."""
        try:
            await self._cache.reached(version, self._timeout_seconds)
        except TimeoutError:
            raise Unavailable(f"version {version} has not arrived") from None

    async def read(self, key: Key) -> Record | None:
        """The linearizable get. Raises Unavailable."""
        await self.current()
        return self._cache.get(key)

    def list(self, resource: tuple[str, str], query: Query = EVERYTHING) -> Page:
        """From the cache, as it is now."""
        return self._cache.list(resource, query)

    async def list_at(self, resource: tuple[str, str], version: int, query: Query = EVERYTHING) -> Page:
        """The list as it was at `version` (at the end of its revision). Raises Compacted, Unavailable."""
        revision = revision_of(version)
        if not revision:  # to etcd, 0 is the newest
            raise Compacted(f"version {version} was never kept")
        if revision > self._cache.revision:
            await self.current()
            await self.reached(version)
        if self._cache.kind(resource).changed_at <= list_version(revision):
            page = self._cache.list(resource, query)
            return Page(page.records, list_version(revision), page.remaining)
        try:
            records, remaining = await self._past(resource, revision, query)
        except HistoryCompacted as error:
            raise Compacted(f"version {version} is no longer kept") from error
        except EtcdError as error:
            raise Unavailable(str(error)) from error
        return Page(records, list_version(revision), remaining)

    def watch(self, resource: tuple[str, str], since: int, query: Query = EVERYTHING) -> Watcher:
        """Every change after `since`, selectors translated (enter is ADDED, leave is DELETED). Raises Compacted when
        `since` is no longer kept."""
        watcher = self._cache.watch(resource, since, query)
        if watcher is None:
            raise Compacted(f"version {since} is no longer kept")
        return watcher

    def subscribe(
        self, resource: tuple[str, str], callback: Subscriber, *, existing: bool = False
    ) -> Callable[[], None]:
        """Calls back for every event, in order, once the cache holds it; with `existing` first for all there is, as
        ADDED. An event on which `callback` raises is logged and left out. Returns what ends it."""
        kind = self._cache.kind(resource)
        kind.subscribers[callback] = None
        if existing:
            deliver(callback, [Event(EventType.ADDED, record, None) for record in kind.objects])
        return lambda: kind.subscribers.pop(callback, None)

    async def create(
        self, key: Key, obj: Object, guards: tuple[Guard, ...] = (), claims: Claims | None = None
    ) -> Record:
        """Writes a new object. Raises KeyExists, GuardFailed, TooLarge, Unavailable, UnknownOutcome."""
        write = self._write(Action.PUT, key, 0, guards, claims)
        write.draft = Draft(self._codec, key, write.name, obj)
        self._committer.submit(write)
        return await write.done

    async def update(
        self, key: Key, obj: Object, expected: int, guards: tuple[Guard, ...] = (), claims: Claims | None = None
    ) -> Record:
        """Replaces the object as it was at version `expected`. Identical content: confirmed by a compare, same version,
        no event. Raises VersionMismatch, KeyMissing, GuardFailed, TooLarge, Unavailable, UnknownOutcome."""
        previous = await self._expected(key, expected)
        draft = Draft(self._codec, key, self._keyspace.name(key), obj)
        if same_content(previous.raw, draft.plain):
            write = self._write(Action.CONFIRM, key, expected, guards)
            write.previous = previous
        else:
            write = self._write(Action.PUT, key, expected, guards, claims)
            write.draft = draft
        self._committer.submit(write)
        return await write.done

    async def delete(
        self, key: Key, expected: int, guards: tuple[Guard, ...] = (), claims: Claims | None = None
    ) -> Record:
        """Returns the last state carrying the deletion's version. Raises as `update`."""
        write = self._write(Action.DELETE, key, expected, guards, claims)
        write.previous = await self._expected(key, expected)
        self._committer.submit(write)
        return await write.done

    def use_encryption_key(self, key: bytes) -> None:
        """Seals with this key from now on; what the former one sealed can still be read."""
        self._codec.cipher.use(key)

    async def reseal(self) -> int:
        """Writes everything that is sealed anew, as it is; how many objects. One that somebody writes meanwhile is
        sealed by that. Raises Unavailable, UnknownOutcome."""
        count = 0
        for record in self.list(_SECRETS).records:
            write = self._write(Action.PUT, record.key, record.version, (), None)
            write.draft = Draft(self._codec, record.key, write.name, record.parse())
            self._committer.submit(write)
            try:
                await write.done
            except (VersionMismatch, KeyMissing):
                continue
            count += 1
        return count

    def by_node(self, node: str) -> Iterable[Record]:
        """The pods bound to a node."""
        return self.by_index(_PODS, _NODE_NAME, node)

    def by_owner(self, uid: str) -> Iterable[Record]:
        """Every object, of any kind, with an ownerReference to this uid."""
        return self._cache.by_owner(uid)

    def by_index(self, resource: tuple[str, str], index: str, value: str) -> Iterable[Record]:
        """Objects whose indexed field has this value: `label:KEY` for any kind; for pods `spec.nodeName` and
        `status.phase`, for events `involvedObject.uid` and `involvedObject.name`. KeyError for another index."""
        return self._cache.kind(resource).objects.lookup(index, value)

    def lead(self, name: str, identity: str, ttl_seconds: int = 5) -> Leadership:
        """`async with store.lead("controller", me) as leadership:` is entered once elected."""
        return Leadership(self._etcd, self._cache, self._keyspace, Candidacy(name, identity, ttl_seconds))

    def _write(
        self, action: Action, key: Key, expected: int, guards: tuple[Guard, ...], claims: Claims | None = None
    ) -> Write:
        done = asyncio.get_running_loop().create_future()
        write = Write(action, key, self._keyspace.name(key), revision_of(expected), done)
        write.guards = guards
        if claims is not None:
            self.claims.add_to(write, claims)
        return write

    async def _expected(self, key: Key, expected: int) -> Record:
        """The record at version `expected`. A cache past that version which holds another knows that the race is lost.
        Raises VersionMismatch, KeyMissing, Unavailable."""
        if expected > self._cache.version:
            await self.current()
        record = self._cache.get(key)
        if record is None:
            raise KeyMissing(f"{key} does not exist")
        if record.version != expected:
            raise VersionMismatch(record)
        return record

    async def _catch_up(self) -> None:
        """Replays history and returns when the cache is current; `run` goes on from there."""
        following = asyncio.ensure_future(self._feed.run())
        barrier = asyncio.ensure_future(self._barrier.run())
        try:
            await self._barrier.passed(max(self._timeout_seconds, 60.0))
        finally:
            following.cancel()
            barrier.cancel()
            await asyncio.gather(following, barrier, return_exceptions=True)

    async def _past(self, resource: tuple[str, str], revision: int, query: Query) -> Selection:
        """(records, remaining) as in Page, straight from etcd's history."""
        start, end = self._keyspace.bounds(resource, query.namespace)
        if query.after is not None:
            after = self._keyspace.name(Key(*resource, *query.after)) + b"\0"
            start = max(start, after)
        found: list[Record] = []
        remaining, keys = 1, FIRST_KEYS
        while remaining:
            stored, remaining = await self._etcd.page(start, end, revision, min(query.limit or keys, keys))
            keys = keys_for_next(stored)
            for place_in_page, entry in enumerate(stored, 1):
                key = self._keyspace.key(entry.name)
                record = self._readable(key, entry.name, entry.value, entry.mod_revision) if key else None
                if record is None or not query.matches(record):
                    continue
                found.append(record)
                if len(found) == query.limit:
                    return found, remaining + len(stored) - place_in_page
            if stored:
                start = stored[-1].name + b"\0"
        return found, 0

    def _readable(self, key: Key, name: bytes, value: bytes, revision: int) -> Record | None:
        try:
            return self._codec.record(key, name, value, revision)
        except NotOurs:
            return None
