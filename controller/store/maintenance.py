"""Keeping etcd small: compaction by time or by quota, defragmentation when idle, alarms.

Started by store.py in every controller process; who wins the compare-and-set on one key does the work of that round.
The key holds [unix time, revision] pairs, so that any process knows, also after a restart, which revision is older
than what must be kept. Losing etcd only postpones a round. The quota is enforced here: etcd itself does not count what
nested transactions put.
https://etcd.io/docs/v3.4/op-guide/maintenance/
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import orjson
import structlog

from controller.store import metrics
from controller.store.border import Condition, EtcdError, Health
from controller.store.cache import Cache
from controller.store.commit import FULL, Committer
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace
from controller.store.reserve import Reserve

LOOK_SECONDS = 10.0
ROUNDS_A_KEEP = 10
QUOTA_SHARE = 0.4
NO_SPACE = "NOSPACE"
_CLOCK = "clock"
_MOST_MARKS = 40
_WASTE_SHARE = 0.5
_WASTE_BYTES = 64 * 1024**2
_IDLE_COMMITS_A_SECOND = 2.0
_ROOM_SHARE = 0.9
_GROWTH = 1.1
_GROWTH_BYTES = 8 * 1024**2

_log = structlog.get_logger()

Mark = tuple[float, int]


@dataclass(frozen=True)
class Plan:
    """What a round decides: the marks to keep, and up to where to compact (0: not at all)."""

    marks: list[Mark]
    compact_to: int


@dataclass(frozen=True)
class Limits:
    """How long history is kept, how large etcd may get, and what is kept of its disk, where that is ours."""

    keep_seconds: float
    quota_bytes: int
    reserve: Reserve | None = None


def decide(marks: list[Mark], now: float, revision: int, keep_seconds: float) -> Plan:
    """Compacts to the newest mark at least `keep_seconds` old. A clock that was set back makes no mark younger."""
    aged = [(min(at, now), at_revision) for at, at_revision in marks]
    compact_to = max((at_revision for at, at_revision in aged if now - at >= keep_seconds), default=0)
    kept = [mark for mark in aged if mark[1] > compact_to]
    return Plan([*kept, (now, revision)][-_MOST_MARKS:], compact_to)


class Maintenance:
    def __init__(self, etcd: Etcd, cache: Cache, keyspace: Keyspace, committer: Committer, limits: Limits) -> None:
        self._etcd = etcd
        self._cache = cache
        self._key = keyspace.own(_CLOCK)
        self._committer = committer
        self._keep_seconds, self._quota_bytes = limits.keep_seconds, limits.quota_bytes
        self._reserve = limits.reserve
        self._interval_seconds = self._keep_seconds / ROUNDS_A_KEEP
        self._commits = 0
        self._seen_bytes = 0
        self._alarms: frozenset[str] = frozenset()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with etcd, in a few words each."""
        full = (FULL,) if self._committer.full or NO_SPACE in self._alarms else ()
        return full + tuple(f"etcd raises alarm {name}" for name in sorted(self._alarms - {NO_SPACE}))

    async def run(self) -> None:
        """Looks at etcd often and does a round an interval, until cancelled."""
        interval = self._interval_seconds
        next_round = time.monotonic() + interval
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, interval))
            try:
                health = await self.look()
                if time.monotonic() >= next_round or self._committer.full or self._is_short() or self._grew(health):
                    next_round = time.monotonic() + interval
                    await self.round(time.time())
            except EtcdError as error:
                _log.warning("etcd maintenance was postponed", error=str(error))

    async def look(self) -> Health:
        """Takes in etcd's size and alarms; a full etcd gets no more puts. Raises EtcdError."""
        self._cache.measure()
        health = await self._etcd.health(0)
        metrics.database_bytes.set(health.size_bytes)
        metrics.used_bytes.set(health.used_bytes)
        alarms = await self._etcd.alarms()
        if alarms - self._alarms:
            _log.error("etcd raises an alarm", alarms=sorted(alarms))
        if NO_SPACE in alarms and NO_SPACE not in self._alarms:
            self._quota_bytes = min(self._quota_bytes, health.size_bytes)  # a given etcd's own quota is about that
        self._alarms = alarms
        metrics.set_alarms(alarms)
        full = health.used_bytes >= self._quota_bytes or NO_SPACE in alarms
        if full and not self._committer.full:
            _log.error("etcd is full; only deletions are taken", used_bytes=health.used_bytes)
        self._committer.full = full
        return health

    async def round(self, now: float) -> None:
        """Compacts, gives pages back, ends alarms: what is due. Raises EtcdError."""
        health = await self.look()
        self._seen_bytes = health.used_bytes
        idle = self._is_idle()
        if self._committer.full or NO_SPACE in self._alarms:
            await self._make_room()
            return
        crowded = self._is_short() or health.used_bytes > self._quota_bytes * QUOTA_SHARE
        if await self._compact(now, 0 if crowded else self._keep_seconds) and (idle or self._etcd.members > 1):
            await self._defragment()

    def _is_short(self) -> bool:
        """Of disk: history goes at once, so that etcd writes where it was instead of where there is nothing left."""
        return self._reserve is not None and bool(self._reserve.shortage)

    def _grew(self, health: Health) -> bool:
        """Whether so much was written since the last round that a given etcd may be past its quota: it counts only the
        puts of a round against that."""
        return health.used_bytes > self._seen_bytes * _GROWTH + _GROWTH_BYTES

    def _is_idle(self) -> bool:
        """Whether hardly anything was written since the last round."""
        done, self._commits = self._committer.commits - self._commits, self._committer.commits
        return done < _IDLE_COMMITS_A_SECOND * self._interval_seconds

    async def _compact(self, now: float, keep_seconds: float) -> bool:
        """False: another process does this round."""
        held, modified = self._cache.own_keys.get(self._key, (b"[]", 0))
        marks = [(float(at), int(revision)) for at, revision in orjson.loads(held)]
        plan = decide(marks, now, self._cache.revision, keep_seconds)
        unchanged = Condition(self._key, "mod", "=", modified)
        if not await self._etcd.put(self._key, orjson.dumps(plan.marks), (unchanged,)):
            return False
        if plan.compact_to:
            await self._etcd.compact(plan.compact_to)
            _log.info("compacted etcd's history", revision=plan.compact_to)
        return True

    async def _make_room(self) -> None:
        """At the quota: forgets all history, gives pages back and, if that was enough, takes writes again."""
        await self._etcd.compact(self._cache.revision, wait=True)
        for member in range(self._etcd.members):
            if self._fits(await self._etcd.health(member)):
                await self._etcd.defragment(member)
        health = await self.look()
        if NO_SPACE in self._alarms and health.used_bytes < self._quota_bytes * _ROOM_SHARE:
            await self._etcd.disarm_no_space()
            await self.look()

    async def _defragment(self) -> None:
        """One member at a time, and only those that waste much."""
        for member in range(self._etcd.members):
            health = await self._etcd.health(member)
            if _wasteful(health) and self._fits(health):
                _log.info("defragmenting etcd", member=member)
                await self._etcd.defragment(member)

    def _fits(self, health: Health) -> bool:
        """Whether the disk, if it is ours to know, has room for the second database that defragmenting writes: on a
        full one etcd would not survive the attempt."""
        return self._reserve is None or self._reserve.has_room_for(health.used_bytes)


def _wasteful(health: Health) -> bool:
    waste = health.size_bytes - health.used_bytes
    return waste > _WASTE_BYTES and waste > health.size_bytes * _WASTE_SHARE
