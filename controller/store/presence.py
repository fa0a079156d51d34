"""Presence: which processes of the control plane are alive, one key each that goes when its process does.

Each controller announces itself while it serves; all read who is there from the cache. Imports etcd and the cache.
Invariant: a key is there only while its lease is renewed; a process that was believed dead comes back by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from controller.store.border import EtcdError, LeaseLost
from controller.store.cache import Cache
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace

TTL_SECONDS = 5
_WORD = "present"
_PAUSE_SECONDS = TTL_SECONDS / 4
_REVOKE_SECONDS = 1.0
_log = structlog.get_logger()


class Presence:
    def __init__(self, etcd: Etcd, cache: Cache, keyspace: Keyspace) -> None:
        self._etcd = etcd
        self._cache = cache
        self._keyspace = keyspace

    def all(self) -> dict[str, str]:
        """What each live process says of itself, by its identity."""
        prefix = self._keyspace.own(_WORD)
        found = ((key, value) for key, (value, _) in tuple(self._cache.own_keys.items()) if key.startswith(prefix))
        return {key[len(prefix) :].decode(): value.decode() for key, value in sorted(found)}

    async def announce(self, identity: str, says: str) -> None:
        """Until cancelled, then takes the key away. etcd being away only delays it."""
        lease = 0
        try:
            while True:
                try:
                    lease = await self._renewed(lease, identity, says)
                except LeaseLost:
                    lease = 0
                    continue
                except EtcdError as error:
                    _log.warning("this controller cannot be announced now; trying again", error=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            with suppress(EtcdError, TimeoutError):
                async with asyncio.timeout(_REVOKE_SECONDS):
                    await self._etcd.revoke_lease(lease)

    async def _renewed(self, lease: int, identity: str, says: str) -> int:
        """The lease that holds the key, renewed or made anew. Raises LeaseLost, EtcdError."""
        if lease:
            await self._etcd.keep_alive(lease, _PAUSE_SECONDS)
            return lease
        lease = await self._etcd.grant_lease(TTL_SECONDS)
        await self._etcd.put(self._keyspace.own(_WORD, identity), says.encode(), (), lease)
        return lease
