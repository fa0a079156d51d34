"""The read barrier: "the cache now holds everything acknowledged before I asked".

Used by store.py. One linearizable revision read of etcd serves all who wait; who comes while it is under way waits for
the next one, because only a read that began later than the question can answer it. Then the cache has to get there.
On an etcd of our own every revision has an event below our prefix. On a shared one it may not: then a key is written
for the purpose, and for a while the write takes the place of the read.
"""

from __future__ import annotations

import asyncio

from controller.store.border import EtcdError
from controller.store.cache import Cache
from controller.store.etcd import Etcd
from controller.store.feed import Feed
from controller.store.keys import Keyspace
from controller.store.types import Unavailable
from controller.store.values import list_version

_READ_SECONDS = 2.0
_STANDSTILL_SECONDS = 0.05
_STANDSTILLS = 2
_SHARED_FOR_SECONDS = 2.0
_STALLED_SECONDS = 3.0
_RETRY_SECONDS = 0.1
_SYNC = "sync"
_STOPPED = "the store was stopped"


class Barrier:
    def __init__(self, etcd: Etcd, keyspace: Keyspace, cache: Cache, feed: Feed) -> None:
        self._etcd = etcd
        self._name = keyspace.own(_SYNC)
        self._cache = cache
        self._feed = feed
        self._waiting: list[tuple[float, asyncio.Future[int]]] = []
        self._wanted = asyncio.Event()
        self._shared_until = 0.0
        self._stopped = False

    async def passed(self, timeout_seconds: float) -> int:
        """Returns the revision the cache is past now. Raises Unavailable after the timeout."""
        if self._stopped:
            raise Unavailable(_STOPPED)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        deadline = loop.time() + timeout_seconds
        self._waiting.append((deadline, future))
        self._wanted.set()
        revision = await future
        if self._cache.revision < revision:
            try:
                await self._cache.reached(list_version(revision), max(0.0, deadline - loop.time()))
            except TimeoutError:
                raise Unavailable("the cache does not follow etcd") from None
        return revision

    async def run(self) -> None:
        """Reads revisions for those who wait, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                revision = await self._revision()
            except asyncio.CancelledError:
                self._waiting += waiting
                raise
            except EtcdError as error:
                self._put_back(waiting, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for _, future in waiting:
                if not future.done():
                    future.set_result(revision)

    def stop(self) -> None:
        """Nobody waits for a barrier any more, now or later."""
        self._stopped = True
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(Unavailable(_STOPPED))

    async def _revision(self) -> int:
        """A revision past everything acknowledged before the call, and one the cache will get to."""
        now = asyncio.get_running_loop().time()
        if now < self._shared_until:
            return await self._etcd.put(self._name, b"", ())
        known = self._cache.revision
        revision = await self._etcd.revision(_READ_SECONDS)
        if revision < known:  # not the cache's present one: that may have overtaken the answer
            self._feed.interrupt(lost_history=True)
            raise EtcdError("etcd's history went back: it was restored or emptied")
        if await self._arrives(revision) or not self._feed.following:
            return revision
        self._shared_until = now + _SHARED_FOR_SECONDS
        revision = await self._etcd.put(self._name, b"", ())
        if not await self._within(revision, _STALLED_SECONDS):
            self._feed.interrupt()
        return revision

    async def _arrives(self, revision: int) -> bool:
        """Waits as long as the cache gets nearer; False when it stands still before `revision`."""
        still = 0
        while still < _STANDSTILLS:
            before = self._cache.revision
            if await self._within(revision, _STANDSTILL_SECONDS):
                return True
            still = still + 1 if self._cache.revision == before else 0
        return False

    async def _within(self, revision: int, timeout_seconds: float) -> bool:
        try:
            await self._cache.reached(list_version(revision), timeout_seconds)
        except TimeoutError:
            return False
        return True

    def _put_back(self, waiting: list[tuple[float, asyncio.Future[int]]], error: EtcdError) -> None:
        """They wait on, until their deadline."""
        now = asyncio.get_running_loop().time()
        for deadline, future in waiting:
            if future.done():
                continue
            if deadline <= now:
                future.set_exception(Unavailable(f"etcd does not answer: {error}"))
            else:
                self._waiting.append((deadline, future))
                self._wanted.set()
