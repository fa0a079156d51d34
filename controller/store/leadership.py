"""Leadership: one holder of a name at a time, by an etcd lease, and a guard that stops ghosts.

Called by main.py around reconcilers and scheduler: `async with store.lead(...) as leadership`. A key below `~leader`
lives as long as its lease; who creates it leads. Every write of a leader carries `guard`, a compare on that key's
create_revision: when the lease is gone, so is the key, and a leader that has not noticed yet cannot write.
An identity is carried by one living process at a time (controller.instance).
`lost` is set when the lease may have run out, counted from when its last confirmed renewal was SENT.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import structlog

from controller.store import metrics
from controller.store.border import Condition, EtcdError, LeaseLost
from controller.store.cache import Cache
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace
from controller.store.types import Guard

_LEADER = "leader"
_RENEWALS_A_TTL = 4
_CANDIDATE_INTERVAL_SECONDS = 0.1
_RETRY_SECONDS = 0.5
_REVOKE_SECONDS = 2.0

_log = structlog.get_logger()


@dataclass(frozen=True)
class Candidacy:
    """Who stands for what, and how long a dead leader is waited for."""

    name: str
    identity: str
    ttl_seconds: int


class Leadership:
    """Held between entering and leaving the context; to be made by `Store.lead`."""

    def __init__(self, etcd: Etcd, cache: Cache, keyspace: Keyspace, candidacy: Candidacy) -> None:
        self.name = candidacy.name
        self.identity = candidacy.identity
        self.lost = asyncio.Event()
        self.guard = Guard("", create_revision=-1)
        self._etcd = etcd
        self._cache = cache
        self._key = keyspace.own(_LEADER, candidacy.name)
        self._ttl_seconds = candidacy.ttl_seconds
        self._lease = 0
        self._renewed_at = 0.0
        self._renewing: asyncio.Task[None] | None = None

    @property
    def valid_until(self) -> float:
        """On CLOCK_BOOTTIME: until then nobody else can have been elected."""
        return self._renewed_at + self._ttl_seconds

    async def __aenter__(self) -> Leadership:
        """Returns once elected, however long that takes; etcd being away only delays it."""
        while True:
            await self._until_vacant()
            try:
                if await self._campaign():
                    break
            except EtcdError as error:
                _log.warning("standing for leadership failed; trying again", name=self.name, error=str(error))
            await self._give_up()
            await asyncio.sleep(_RETRY_SECONDS)
        self._renewing = asyncio.create_task(self._renew())
        metrics.leading.labels(self.name).set(1)
        _log.info("leading", name=self.name, identity=self.identity)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lost.set()
        metrics.leading.labels(self.name).set(0)
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing
        await self._give_up()
        _log.info("no longer leading", name=self.name, identity=self.identity)

    async def _until_vacant(self) -> None:
        """A key under our own identity was left by a process that ended, or by our own lost term: it is put away, and
        so are the guards of that term."""
        while (held := self._cache.own_keys.get(self._key)) is not None:
            if held[0] == self.identity.encode():
                with suppress(EtcdError):
                    await self._etcd.remove(self._key, held[1])
            await asyncio.sleep(_CANDIDATE_INTERVAL_SECONDS)

    async def _campaign(self) -> bool:
        """Raises EtcdError; whether we were elected may then be unknown, so the lease must be given up."""
        sent_at = _now()
        self._lease = await self._etcd.grant_lease(self._ttl_seconds)
        vacant = Condition(self._key, "create", "=", 0)
        revision = await self._etcd.put(self._key, self.identity.encode(), (vacant,), self._lease)
        if not revision:
            return False
        self._renewed_at = sent_at
        self.guard = Guard(self._key.decode(), create_revision=revision)
        return True

    async def _renew(self) -> None:
        pause = self._ttl_seconds / _RENEWALS_A_TTL
        while True:
            await asyncio.sleep(pause)
            sent_at = _now()
            left = self.valid_until - sent_at
            try:
                if left <= 0:
                    raise LeaseLost("no renewal succeeded in time")
                await self._etcd.keep_alive(self._lease, min(left, pause))
            except LeaseLost as error:
                _log.warning("leadership lost", name=self.name, error=str(error))
                self.lost.set()
                return
            except EtcdError:
                continue
            self._renewed_at = sent_at

    async def _give_up(self) -> None:
        """Lets others be elected at once; if etcd is away, they are when the lease runs out."""
        lease, self._lease = self._lease, 0
        if lease:
            with suppress(EtcdError, TimeoutError):
                async with asyncio.timeout(_REVOKE_SECONDS):
                    await self._etcd.revoke_lease(lease)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
