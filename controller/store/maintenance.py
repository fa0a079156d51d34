"""Keeping etcd small: compaction by time or by quota, defragmentation when idle, alarms.

Started by store.py in every controller process; who wins the compare-and-set on one key does the work of that round.
The key holds [unix time, revision] pairs, so that any process knows, also after a restart, which revision is older
than what must be kept. Losing etcd only postpones a round.
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
from controller.store.commit import Committer
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace

ROUNDS_A_KEEP = 10
QUOTA_SHARE = 0.4
NO_SPACE = "NOSPACE"
_CLOCK = "clock"
_MOST_MARKS = 40
_WASTE_SHARE = 0.5
_WASTE_BYTES = 64 * 1024**2
_IDLE_COMMITS_A_SECOND = 2.0
_ROOM_SHARE = 0.9

_log = structlog.get_logger()

Mark = tuple[float, int]


@dataclass(frozen=True)
class Plan:
    """What a round decides: the marks to keep, and up to where to compact (0: not at all)."""

    marks: list[Mark]
    compact_to: int


def decide(marks: list[Mark], now: float, revision: int, keep_seconds: float, *, crowded: bool) -> Plan:
    """Compacts to the newest mark at least `keep_seconds` old; to `revision` when etcd fills up.

    A clock that was set back makes no mark younger than now.
    """
    aged = [(min(at, now), at_revision) for at, at_revision in marks]
    old = [at_revision for at, at_revision in aged if now - at >= keep_seconds]
    compact_to = revision if crowded else max(old, default=0)
    kept = [mark for mark in aged if mark[1] > compact_to]
    return Plan([*kept, (now, revision)][-_MOST_MARKS:], compact_to)


class Maintenance:
    def __init__(
        self, etcd: Etcd, cache: Cache, keyspace: Keyspace, committer: Committer, limits: tuple[float, int]
    ) -> None:
        self._etcd = etcd
        self._cache = cache
        self._key = keyspace.own(_CLOCK)
        self._committer = committer
        self._keep_seconds, self._quota_bytes = limits
        self._commits = 0
        self.alarms: frozenset[str] = frozenset()
        self.reachable = True

    @property
    def interval_seconds(self) -> float:
        return self._keep_seconds / ROUNDS_A_KEEP

    async def run(self) -> None:
        """A round an interval, until cancelled."""
        while True:
            await asyncio.sleep(self.interval_seconds)
            try:
                await self.round(time.time())
                self.reachable = True
            except EtcdError as error:
                self.reachable = False
                _log.warning("etcd maintenance was postponed", error=str(error))

    async def round(self, now: float) -> None:
        """Looks at etcd's health and does what is due. Raises EtcdError."""
        self._cache.measure()
        health = await self._etcd.health(0)
        metrics.database_bytes.set(health.size_bytes)
        metrics.used_bytes.set(health.used_bytes)
        await self._look_at_alarms()
        idle = self._is_idle()
        crowded = NO_SPACE in self.alarms or health.used_bytes > self._quota_bytes * QUOTA_SHARE
        if not await self._compact(now, crowded=crowded):
            return
        if NO_SPACE in self.alarms:
            await self._make_room()
        elif idle or self._etcd.members > 1:
            await self._defragment()

    async def _look_at_alarms(self) -> None:
        alarms = await self._etcd.alarms()
        if alarms - self.alarms:
            _log.error("etcd raises an alarm", alarms=sorted(alarms))
        self.alarms = alarms
        metrics.set_alarms(alarms)

    def _is_idle(self) -> bool:
        done, self._commits = self._committer.commits - self._commits, self._committer.commits
        return done < _IDLE_COMMITS_A_SECOND * self.interval_seconds

    async def _compact(self, now: float, *, crowded: bool) -> bool:
        """False: another process does this round."""
        held, modified = self._cache.own_keys.get(self._key, (b"[]", 0))
        marks = [(float(at), int(revision)) for at, revision in orjson.loads(held)]
        plan = decide(marks, now, self._cache.revision, self._keep_seconds, crowded=crowded)
        if NO_SPACE not in self.alarms:
            unchanged = Condition(self._key, "mod", "=", modified)
            if not await self._etcd.put(self._key, orjson.dumps(plan.marks), (unchanged,)):
                return False
        if plan.compact_to:
            await self._etcd.compact(plan.compact_to)
            _log.info("compacted etcd's history", revision=plan.compact_to, crowded=crowded)
        return True

    async def _make_room(self) -> None:
        """After the quota was reached: frees pages and, if that was enough, takes writes again."""
        used = 0
        for member in range(self._etcd.members):
            await self._etcd.defragment(member)
            used = max(used, (await self._etcd.health(member)).used_bytes)
        if used < self._quota_bytes * _ROOM_SHARE:
            await self._etcd.disarm_no_space()
            await self._look_at_alarms()

    async def _defragment(self) -> None:
        """One member at a time, and only those that waste much."""
        for member in range(self._etcd.members):
            if _wasteful(await self._etcd.health(member)):
                _log.info("defragmenting etcd", member=member)
                await self._etcd.defragment(member)


def _wasteful(health: Health) -> bool:
    waste = health.size_bytes - health.used_bytes
    return waste > _WASTE_BYTES and waste > health.size_bytes * _WASTE_SHARE
