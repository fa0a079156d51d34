"""Claims: which object holds which address or port, one key of the store's own for each.

Used by store.py; the registry and the reconciler that repairs claims ask `Store.claims`. A claim is taken and freed by
the very transaction that writes its holder, so that none is held twice and none is left behind by a write that failed.
The cache holds all claims: what is free is known without asking etcd, and etcd settles who was first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from controller.store.border import Condition, EtcdError
from controller.store.cache import Cache
from controller.store.commit import Write
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace
from controller.store.types import Claims, Guard, Record, Unavailable
from controller.store.values import revision_of

_WORD = "claim"


class Claim(NamedTuple):
    """`holder` is what the writer called itself; `revision` that of the key."""

    name: str
    holder: str
    revision: int


class ClaimBook:
    def __init__(self, etcd: Etcd, cache: Cache, keyspace: Keyspace) -> None:
        self._etcd = etcd
        self._cache = cache
        self._keyspace = keyspace
        self._prefix = keyspace.own(_WORD)

    def holder(self, name: str) -> str | None:
        """Who holds this claim; None: nobody, as far as the cache knows."""
        found = self._cache.own_keys.get(self._key(name))
        return found[0].decode() if found is not None else None

    def __iter__(self) -> Iterator[Claim]:
        """Every claim, as of one state of the cache."""
        skipped = len(self._prefix)
        for key, (value, revision) in tuple(self._cache.own_keys.items()):
            if key.startswith(self._prefix):
                yield Claim(key[skipped:].decode(), value.decode(), revision)

    def names(self, guard: Guard) -> str | None:
        """The claim that a failed guard stood for; None: it guarded something else."""
        raw = guard.key.encode() if isinstance(guard.key, str) else b""
        return raw[len(self._prefix) :].decode() if raw.startswith(self._prefix) else None

    def add_to(self, write: Write, claims: Claims) -> None:
        """Makes a write take and free claims."""
        write.claimed = tuple(self._key(name) for name in claims.take)
        write.freed = tuple(self._key(name) for name in claims.free)
        write.holder = claims.holder.encode()
        write.guards += tuple(Guard(key.decode(), version=0) for key in write.claimed)

    async def take(self, name: str, holder: str, record: Record) -> bool:
        """Takes a claim for an object that lacks it, while both are as seen. False: something changed. Raises
        Unavailable."""
        own = self._keyspace.name(record.key)
        free = Condition(self._key(name), "mod", "=", 0)
        unchanged = Condition(own, "mod", "=", revision_of(record.version))
        try:
            return bool(await self._etcd.put(self._key(name), holder.encode(), (free, unchanged)))
        except EtcdError as error:
            raise Unavailable(str(error)) from error

    async def drop(self, claim: Claim) -> None:
        """Frees a claim nobody needs, if it is still the one that was seen. Raises Unavailable."""
        try:
            await self._etcd.remove(self._key(claim.name), claim.revision)
        except EtcdError as error:
            raise Unavailable(str(error)) from error

    def _key(self, name: str) -> bytes:
        return self._keyspace.own(_WORD, name)
