"""The group commit: writes that wait together go to etcd as one transaction of nested transactions.

Used by store.py. One commit is in flight; what arrives meanwhile is the next one, so an idle store commits at once.
Invariants, each seen to matter on a real etcd:
- a key is written at most once in a commit, and no operation compares a key that the same commit writes, because
  nested transactions see the state before it: such an operation waits for the next commit;
- a write's claims are keys it writes, too, and such that it compares: taken and freed with the object or not at all;
- a commit refused as a whole is split until only the guilty write is refused;
- an unknown outcome is looked up by key and write id: success or UnknownOutcome, never a false conflict.
A put's sub-index is its place in the commit; a deletion's is one more than that of the event before it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

import structlog

from controller.store import metrics
from controller.store.border import (
    CommitReply,
    Condition,
    EtcdError,
    Failure,
    Overloaded,
    Refused,
    RequestTooLarge,
    Stored,
    Unreachable,
)
from controller.store.cache import Cache
from controller.store.etcd import Commit, Etcd
from controller.store.keys import Keyspace
from controller.store.types import (
    Guard,
    GuardFailed,
    Key,
    KeyExists,
    KeyMissing,
    Record,
    StoreError,
    TooLarge,
    Unavailable,
    UnknownOutcome,
    VersionMismatch,
)
from controller.store.values import HEADER_BYTES, Codec, Draft, NotOurs, header, revision_of, version_of

COMMIT_BYTES = 1024 * 1024
COMMIT_OPERATIONS = 512
_OPERATION_BYTES = 400
_NESTED_ROOM = 16
_PING_SECONDS = 1.0
_RETRY_SECONDS = 0.1
_LEAST_SECONDS = 1.0
_SENDING_SHARE = 0.7
_EXPIRE_INTERVAL_SECONDS = 0.5
_NO_NAMES: frozenset[bytes] = frozenset()
FULL = "etcd is full"
STOPPED = "the store was stopped"

_log = structlog.get_logger()

Left = Record | Stored | None
"""What a commit left at a key: as we wrote it, or as etcd showed it."""


class Action(Enum):
    PUT = "put"
    DELETE = "delete"
    CONFIRM = "confirm"


class Write:
    """One write on its way. `done` gets the record it resulted in, or a StoreError."""

    __slots__ = (
        *("action", "claimed", "conditions", "deadline", "done", "draft", "expected", "freed", "guards", "holder"),
        *("key", "name", "previous", "revision", "sub_index", "write_id"),
    )

    def __init__(self, action: Action, key: Key, name: bytes, expected: int, done: asyncio.Future[Record]) -> None:
        self.action = action
        self.key = key
        self.name = name
        self.expected = expected
        """mod_revision the key must have; 0: absent."""
        self.done = done
        self.guards: tuple[Guard, ...] = ()
        self.conditions: tuple[Condition, ...] = ()
        self.claimed: tuple[bytes, ...] = ()
        """Names of the claims it takes; that they are free is among its guards."""
        self.freed: tuple[bytes, ...] = ()
        self.holder = b""
        self.draft: Draft | None = None
        """What a PUT writes."""
        self.previous: Record | None = None
        """What a DELETE or a CONFIRM found in the cache at `expected`."""
        self.deadline = 0.0
        self.write_id = 0
        self.revision = 0
        self.sub_index = 0

    @property
    def size(self) -> int:
        return _OPERATION_BYTES + (len(self.draft.payload) if self.draft else 0)

    def record(self) -> Record:
        """The outcome, once revision and sub-index are known."""
        version = version_of(self.revision, self.sub_index)
        if self.draft is not None:
            return self.draft.record(version)
        assert self.previous is not None
        return self.previous if self.action is Action.CONFIRM else self.previous.at_version(version)

    def fail(self, error: StoreError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            metrics.count_outcome(type(error).__name__)


class Committer:
    """Owns the queue of writes. `run()` must be running."""

    def __init__(self, etcd: Etcd, codec: Codec, cache: Cache, timeout_seconds: float) -> None:
        self._etcd = etcd
        self._codec = codec
        self._keyspace: Keyspace = codec.keyspace
        self._cache = cache
        self._timeout_seconds = timeout_seconds
        self._queue: deque[Write] = deque()
        self._arrived = asyncio.Event()
        self._write_ids = random.SystemRandom().getrandbits(64)
        self._most_operations = COMMIT_OPERATIONS
        self._rivals: list[Write] = []
        self._unconfirmed: set[Write] = set()
        self._stopped = False
        self.commits = 0
        self.full = False
        """Set by maintenance. etcd does not count nested transactions against its quota, so we must."""

    def limit_operations(self, largest: int) -> None:
        """Stays below what etcd takes in one transaction (its max-txn-ops counts nested operations, too)."""
        self._most_operations = max(1, min(COMMIT_OPERATIONS, largest - _NESTED_ROOM))

    def submit(self, write: Write) -> None:
        """Takes a write into the queue; while etcd is full only deletions and confirmations."""
        if self._stopped or (self.full and write.action is Action.PUT):
            write.fail(Unavailable(STOPPED if self._stopped else FULL))
            return
        write.deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        if write.guards:
            write.conditions = tuple(self._condition(guard) for guard in write.guards)
        self._queue.append(write)
        self._arrived.set()

    async def run(self) -> None:
        """Commits until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._expire())
            while True:
                await self._arrived.wait()
                await self._until_connected()
                batch = self._take()
                if batch:
                    await self._commit(batch)

    def stop(self) -> None:
        """Takes no writes any more; answers those that wait."""
        self._stopped = True
        _fail_all(self._queue, Unavailable(STOPPED))
        self._confirm(tuple(self._unconfirmed))

    def _take(self) -> list[Write]:
        """As many waiting writes as go together; the others stay in front of the queue."""
        batch: list[Write] = []
        written: set[bytes] = set()
        compared: set[bytes] = set()
        left: list[Write] = []
        self._rivals = []
        total = 0
        while self._queue and len(batch) < self._most_operations:
            write = self._queue.popleft()
            if write.done.done():
                continue
            names = [condition.name for condition in write.conditions]
            clashes = write.name in written or write.name in compared or any(name in written for name in names)
            own = {*write.claimed, *write.freed} if write.claimed or write.freed else _NO_NAMES
            if own:
                clashes = clashes or not (own.isdisjoint(written) and own.isdisjoint(compared))
            if clashes or (batch and total + write.size > COMMIT_BYTES):
                left.append(write)
                if not clashes:
                    break
                if write.name in written or write.name in compared:
                    self._rivals.append(write)
                continue
            batch.append(write)
            if write.action is not Action.CONFIRM:
                written.add(write.name)
            else:
                compared.add(write.name)
            written |= own
            compared.update(names)
            total += write.size
        self._queue.extendleft(reversed(left))
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _commit(self, batch: list[Write]) -> None:
        """Sends one commit and sees to the outcome of each of its writes."""
        now = asyncio.get_running_loop().time()
        first_deadline = min(write.deadline for write in batch)
        timeout_seconds = max(_LEAST_SECONDS, (first_deadline - now) * _SENDING_SHARE)
        metrics.commit_operations.observe(len(batch))
        self.commits += 1
        try:
            reply = await self._etcd.commit(self._request(batch), timeout_seconds)
        except Refused as error:
            await self._split(batch, error)
        except EtcdError as error:
            _log.warning("the outcome of a commit is unknown; looking it up", writes=len(batch), error=str(error))
            await self._settle(batch)
        except asyncio.CancelledError:
            _fail_all(batch, UnknownOutcome(STOPPED))
            raise
        else:
            self._resolve(batch, reply)

    def _request(self, batch: list[Write]) -> Commit:
        commit = Commit()
        for place, write in enumerate(batch):
            if write.draft is not None:
                self._write_ids = (self._write_ids + 1) & (2**64 - 1)
                write.write_id, write.sub_index = self._write_ids, place
                self._cache.expect(write.write_id, write.draft)
                value = write.draft.value(place, write.write_id)
                commit.put(write.name, value, write.expected, write.conditions)
                if write.holder:
                    commit.claim(write.claimed, write.freed, write.holder)
            elif write.action is Action.DELETE:
                commit.delete(write.name, write.expected, write.conditions)
                if write.holder:
                    commit.claim(write.claimed, write.freed, write.holder)
            else:
                commit.confirm(write.name, write.expected, write.conditions)
        return commit

    def _resolve(self, batch: list[Write], reply: CommitReply) -> None:
        """Successes are answered once the cache is there, so that their writers read what they wrote."""
        succeeded: list[Write] = []
        left: dict[bytes, Left] = {}
        sub_index = -1
        for place, (write, failure) in enumerate(zip(batch, reply.failures, strict=True)):
            if failure is not None:
                self._fail(write, failure)
                left[write.name] = failure.own
                continue
            if write.action is Action.PUT:
                sub_index = place
            elif write.action is Action.DELETE:
                sub_index += 1
                write.sub_index = sub_index
            else:
                left[write.name] = write.previous
                self._confirm((write,))
                continue
            write.revision = reply.revision
            left[write.name] = write.record() if write.action is Action.PUT else None
            succeeded.append(write)
        self._tell_rivals(left)
        if succeeded:
            self._unconfirmed.update(succeeded)
            self._cache.when(reply.revision, lambda: self._confirm(succeeded))

    def _tell_rivals(self, left: Mapping[bytes, Left]) -> None:
        """Writes that waited for a key while this commit was under way, and whose compare cannot hold over what it left
        there, have lost now; each would else cost a commit of its own, and many writers of one key stand still."""
        for rival in self._rivals:
            if rival.name not in left or rival.done.done():
                continue
            found = left[rival.name]
            if rival.expected != _revision(found):
                rival.fail(self._mismatch(rival, found))
        self._rivals = []

    def _confirm(self, writes: Iterable[Write]) -> None:
        answered: Counter[Action] = Counter()
        for write in writes:
            self._unconfirmed.discard(write)
            answered[write.action] += self._answer(write)
        for action, amount in answered.items():  # once a commit: counting takes a lock
            metrics.count_outcome(action.value, amount)

    def _answer(self, write: Write) -> bool:
        """False when somebody else has answered already."""
        self._cache.forget(write.write_id)
        if write.done.done():
            return False
        write.done.set_result(write.record())
        return True

    def _fail(self, write: Write, failure: Failure) -> None:
        """Says which compare did not hold: its own key's first, then the guards' in order."""
        self._cache.forget(write.write_id)
        if (failure.own.mod_revision if failure.own else 0) != write.expected:
            write.fail(self._mismatch(write, failure.own))
            return
        for guard, condition, found in zip(write.guards, write.conditions, failure.conditions, strict=True):
            if not _holds(condition, found):
                write.fail(GuardFailed(guard))
                return
        write.fail(Unavailable("etcd refused a write whose compares hold now; try again"))

    def _mismatch(self, write: Write, own: Left) -> StoreError:
        if write.expected == 0:
            return KeyExists(f"{write.key} exists")
        if own is None:
            return KeyMissing(f"{write.key} does not exist")
        if isinstance(own, Record):
            return VersionMismatch(own)
        try:
            return VersionMismatch(self._codec.record(write.key, own.name, own.value, own.mod_revision))
        except NotOurs:
            return VersionMismatch(None)

    async def _split(self, batch: list[Write], error: Refused) -> None:
        """Etcd refused the whole commit: nothing was written. Finds out whom it meant."""
        for write in batch:
            self._cache.forget(write.write_id)
        if isinstance(error, Overloaded):
            await asyncio.sleep(_RETRY_SECONDS)
            self._queue.extendleft(reversed(batch))
            self._arrived.set()
        elif len(batch) == 1:
            too_large = isinstance(error, RequestTooLarge)
            batch[0].fail(TooLarge(str(error)) if too_large else Unavailable(f"etcd refused the write: {error}"))
        else:
            half = len(batch) // 2
            await self._commit(batch[:half])
            await self._commit(batch[half:])

    async def _settle(self, batch: Sequence[Write]) -> None:
        """Looks up what became of the writes: success, or UnknownOutcome."""
        loop = asyncio.get_running_loop()
        metrics.settled.inc(len(batch))
        deadline = max(max(write.deadline for write in batch), loop.time() + _LEAST_SECONDS)
        found: list[Stored | None] | None = None
        while found is None and loop.time() < deadline:
            try:
                found = await self._read(batch)
            except EtcdError:
                await asyncio.sleep(_RETRY_SECONDS)
        for write, stored in zip(batch, found or [None] * len(batch), strict=True):
            if stored is not None and self._is_mine(write, stored):
                write.revision = stored.mod_revision
                self._unconfirmed.add(write)
                self._cache.when(write.revision, lambda write=write: self._confirm((write,)))  # type: ignore[misc]
            else:
                self._cache.forget(write.write_id)
                write.fail(UnknownOutcome(f"etcd did not say whether {write.key} was written"))

    async def _read(self, batch: Sequence[Write]) -> list[Stored | None]:
        found: list[Stored | None] = []
        for start in range(0, len(batch), self._most_operations):
            part = batch[start : start + self._most_operations]
            found += await self._etcd.read([write.name for write in part], _PING_SECONDS)
        return found

    def _is_mine(self, write: Write, stored: Stored) -> bool:
        if write.action is Action.DELETE:
            return False
        if write.action is Action.CONFIRM:
            return not write.guards and stored.mod_revision == write.expected
        return len(stored.value) >= HEADER_BYTES and header(stored.value)[1] == write.write_id

    async def _until_connected(self) -> None:
        """Holds commits back while there is no connection: what was not sent has a known outcome."""
        while not self._etcd.connected:
            try:
                await self._etcd.revision(_PING_SECONDS)
            except Unreachable:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _expire(self) -> None:
        """Answers those whose time is up: waiting in the queue, or written but not yet seen in the cache."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_EXPIRE_INTERVAL_SECONDS)
            now = loop.time()
            for write in tuple(self._queue):
                if write.deadline <= now:
                    write.fail(Unavailable("etcd does not answer"))
            self._confirm([write for write in self._unconfirmed if write.deadline <= now])

    def _condition(self, guard: Guard) -> Condition:
        name = guard.key.encode() if isinstance(guard.key, str) else self._keyspace.name(guard.key)
        if guard.create_revision is not None:
            return Condition(name, "create", "=", guard.create_revision)
        if guard.version is None:
            return Condition(name, "create", ">", 0)
        return Condition(name, "mod", "=", revision_of(guard.version))


def _revision(found: Left) -> int:
    if isinstance(found, Record):
        return revision_of(found.version)
    return found.mod_revision if found else 0


def _holds(condition: Condition, found: Stored | None) -> bool:
    actual = 0
    if found is not None:
        actual = found.mod_revision if condition.target == "mod" else found.create_revision
    return actual == condition.revision if condition.result == "=" else actual > condition.revision


def _fail_all(writes: Iterable[Write], error: StoreError) -> None:
    for write in writes:
        write.fail(error)
