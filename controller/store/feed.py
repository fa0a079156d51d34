"""The feed: fills the cache from etcd and keeps it in step through ONE watch on the whole prefix.

Started by store.py. At the start it lists at the oldest retained revision and replays what happened since, so that
watchers of the time before can resume. When the stream breaks it goes on behind the last whole revision; when history
was compacted under it, it lists anew and all watchers must, too.
Invariants: a revision enters the cache whole, however etcd cut the messages; a broken stream is a state, not an error.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog

from controller.store import metrics
from controller.store.border import Change, EtcdError, HistoryCompacted, WatchBatch
from controller.store.cache import Cache
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace
from controller.store.paging import FIRST_KEYS, keys_for_next

REPLAYED_REVISIONS = 15_000
_BACKOFF_FIRST_SECONDS = 0.05
_BACKOFF_LAST_SECONDS = 1.0
_APPLY_SLICE = 2_000

_log = structlog.get_logger()

Entries = list[tuple[bytes, bytes, int]]


class Feed:
    def __init__(self, etcd: Etcd, keyspace: Keyspace, cache: Cache) -> None:
        self._etcd = etcd
        self._keyspace = keyspace
        self._cache = cache
        self._unfinished: list[Change] = []
        self._broken = asyncio.Event()
        self._lost_history = False
        self.following = False
        """Whether the stream is up."""

    async def fill(self) -> None:
        """The first listing. Raises Unreachable."""
        while True:
            newest = await self._etcd.revision()
            start = max(await self._etcd.oldest_revision(), newest - REPLAYED_REVISIONS)
            try:
                self._cache.load(await self._listing(start), start)
            except HistoryCompacted:
                continue
            return

    async def run(self) -> None:
        """Follows etcd until cancelled."""
        delay = _BACKOFF_FIRST_SECONDS
        while True:
            before = self._cache.revision
            try:
                await self._follow()
            except HistoryCompacted:
                self._lost_history = True
            except EtcdError as error:
                if self.following:
                    _log.warning("the watch on etcd broke; resuming", revision=self._cache.revision, error=str(error))
            finally:
                self._set_following(False)
            if self._lost_history and await self._start_over():
                delay = _BACKOFF_FIRST_SECONDS
                continue
            if self._cache.revision != before:
                delay = _BACKOFF_FIRST_SECONDS
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_LAST_SECONDS)

    def interrupt(self, *, lost_history: bool = False) -> None:
        """Drops the stream and makes a new one; with `lost_history` after a new listing."""
        self._lost_history |= lost_history
        self._broken.set()

    async def _follow(self) -> None:
        self._broken.clear()
        self._unfinished = []
        reading = asyncio.ensure_future(self._read())
        interrupted = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait((reading, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            interrupted.cancel()
            await asyncio.gather(reading, interrupted, return_exceptions=True)

    async def _read(self) -> None:
        watch = self._etcd.watch(self._keyspace.start, self._keyspace.end, self._cache.revision + 1)
        async with aclosing(watch) as batches:
            async for batch in batches:
                self._set_following(True)
                await self._take(batch)

    async def _take(self, batch: WatchBatch) -> None:
        """Applies the whole revisions of a message; keeps an unfinished one for the next."""
        changes = self._unfinished + batch.changes if self._unfinished else batch.changes
        self._unfinished = []
        start = 0
        applied = 0
        while start < len(changes):
            revision = changes[start].revision
            end = start + 1
            while end < len(changes) and changes[end].revision == revision:
                end += 1
            if end == len(changes) and not batch.complete:
                self._unfinished = changes[start:]
                return
            self._cache.apply(revision, changes[start:end] if end - start < len(changes) else changes)
            applied += end - start
            start = end
            if applied >= _APPLY_SLICE:
                applied = 0
                await asyncio.sleep(0)

    async def _start_over(self) -> bool:
        """Lists anew at the newest revision. False: etcd does not let us yet."""
        try:
            revision = await self._etcd.revision()
            entries = await self._listing(revision)
        except EtcdError:
            return False
        _log.warning("history was lost; the cache was read anew", revision=revision)
        metrics.relists.inc()
        await self._cache.replace(entries, revision)
        self._lost_history = False
        return True

    async def _listing(self, revision: int) -> Entries:
        entries: Entries = []
        start = self._keyspace.start
        remaining, keys = 1, FIRST_KEYS
        while remaining:
            page, remaining = await self._etcd.page(start, self._keyspace.end, revision, keys)
            keys = keys_for_next(page)
            entries += ((stored.name, stored.value, stored.mod_revision) for stored in page)
            if page:
                start = page[-1].name + b"\0"
        return entries

    def _set_following(self, following: bool) -> None:
        self.following = following
        metrics.following.set(following)
