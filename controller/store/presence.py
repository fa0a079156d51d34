"""Presence: what each process of the control plane says while it is alive, one key each that goes when it does.

Each controller announces itself while it serves, and which nodes it hears (controller.reconcilers.hearing); all read it
from the cache. Imports etcd and the cache. Invariant: a key is there only while its lease is renewed; a process that
was believed dead comes back by itself; nothing is written while nothing new is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from controller.store.border import EtcdError, LeaseLost
from controller.store.cache import Cache
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace

TTL_SECONDS = 5
_PAUSE_SECONDS = TTL_SECONDS / 4
_REVOKE_SECONDS = 1.0
_log = structlog.get_logger()


class Presence:
    """`word` is what is spoken of: each has keys of its own."""

    def __init__(self, etcd: Etcd, cache: Cache, keyspace: Keyspace, word: str) -> None:
        self._word = word
        self._etcd = etcd
        self._cache = cache
        self._keyspace = keyspace

    def all(self) -> dict[str, str]:
        """What each live process says of itself, by its identity."""
        prefix = self._keyspace.own(self._word)
        found = ((key, value) for key, (value, _) in tuple(self._cache.own_keys.items()) if key.startswith(prefix))
        return {key[len(prefix) :].decode(): value.decode() for key, value in sorted(found)}

    def follow(self, hear: Callable[[str, str | None], None]) -> Callable[[], None]:
        """Calls back with (identity, what it says, None once it is gone), at once for all there are, then whenever one
        says something else or is gone. Returns what ends it."""
        prefix = self._keyspace.own(self._word)

        def on_change(name: bytes, value: bytes | None) -> None:
            hear(name[len(prefix) :].decode(), None if value is None else value.decode())

        return self._cache.follow_own(prefix, on_change)

    async def announce(self, identity: str, says: Callable[[], str], changed: asyncio.Event | None = None) -> None:
        """Until cancelled, then takes the key away. etcd being away only delays it. `changed` (cleared here): it says
        something else now."""
        changed = changed or asyncio.Event()
        lease, said = 0, ""
        try:
            while True:
                changed.clear()
                try:
                    if not lease:
                        lease, said = await self._etcd.grant_lease(TTL_SECONDS), ""
                    else:
                        await self._etcd.keep_alive(lease, _PAUSE_SECONDS)
                    if (text := says()) != said or not said:
                        await self._etcd.put(self._keyspace.own(self._word, identity), text.encode(), (), lease)
                        said = text
                except LeaseLost:
                    lease = 0
                    continue
                except EtcdError as error:
                    _log.warning("this controller cannot be announced now; trying again", error=str(error))
                    changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_SECONDS):
                        await changed.wait()
        finally:
            with suppress(EtcdError, TimeoutError):
                async with asyncio.timeout(_REVOKE_SECONDS):
                    await self._etcd.revoke_lease(lease)
