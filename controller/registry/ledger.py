"""Pays for new objects, and for what changed ones cost more, out of the namespace's ResourceQuotas, before the write.

Called by create and update. A charge raises `status.used` by compare-and-set, and the object commits only while the
quota is as the charge left it. So no two writes are paid for by the same room, whoever makes them: what used says is
never less than what there is and what is on its way. A charge whose object was not written stays until the quota
reconciler counts again. Imports admission and the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from api.objects import Object, name_of
from controller.admission.attributes import Attributes
from controller.admission.quota import (
    QUOTAS,
    count,
    is_counted,
    missing_in,
    more_of,
    paid,
    refusal,
)
from controller.store import Query, Store
from controller.store.types import Guard, Key, KeyExists, KeyMissing, Record, VersionMismatch

_RACES = 64
MEASURED = (("", "services", ""), ("", "persistentvolumeclaims", ""), ("", "pods", "resize"))
"""Changes that can make an object cost more: group, plural, subresource."""


class Ledger:
    """`charged` is entered by one create a namespace at a time: others would only make its charge void."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def covers(self, namespace: str) -> bool:
        """Whether there is anything to pay: asked for every create, so it costs next to nothing."""
        if not namespace or not self._store.count(QUOTAS.resource):
            return False
        return bool(self._store.list(QUOTAS.resource, Query(namespace=namespace)).records)

    def covers_change(self, attributes: Attributes) -> bool:
        """Whether a change may have to be paid for: few kinds can come to cost more."""
        measured = (*attributes.kind.resource, attributes.subresource) in MEASURED
        return measured and self.covers(attributes.namespace)

    @asynccontextmanager
    async def charged(self, attributes: Attributes) -> AsyncIterator[tuple[Guard, ...]]:
        """Within, the object (or what it costs more than before) is paid for while the guards hold. Raises Forbidden
        (a quota is used up), StoreError."""
        turn = self._turns.setdefault(attributes.namespace, asyncio.Lock())
        async with turn:
            yield await self._charge(attributes)

    def check(self, attributes: Attributes) -> None:
        """What a dry run is told: whether the quotas could pay. Raises Forbidden."""
        for record in self._quotas(attributes) if attributes.namespace else ():
            quota = record.parse()
            _judge(attributes, quota, _used(self._store, quota))

    def _quotas(self, attributes: Attributes) -> list[Record]:
        return self._store.list(QUOTAS.resource, Query(namespace=attributes.namespace)).records

    async def _charge(self, attributes: Attributes) -> tuple[Guard, ...]:
        group, plural = attributes.kind.resource
        assert attributes.obj is not None
        present = self._store.get(Key(group, plural, attributes.namespace, name_of(attributes.obj)))
        if present is not None and attributes.old is None:
            raise KeyExists  # before anything is charged
        self.check(attributes)  # before any is charged
        guards = [await self._charge_one(attributes, record.key) for record in self._quotas(attributes)]
        return tuple(guard for guard in guards if guard is not None)

    async def _charge_one(self, attributes: Attributes, key: Key) -> Guard | None:
        """None: this quota has nothing to do with the object, or is gone."""
        assert attributes.obj is not None
        for _ in range(_RACES):
            record = self._store.get(key)
            if record is None:
                return None
            quota = record.parse()
            demand = more_of(quota, attributes.kind, attributes.obj, attributes.old)
            if not demand:
                return None
            used = _used(self._store, quota)
            _judge(attributes, quota, used)
            quota["metadata"].pop("resourceVersion", None)
            quota["status"] = {"hard": quota["spec"]["hard"], "used": paid(quota, used, demand)}
            try:
                written = await self._store.update(key, quota, record.version, attributes.request.guards)
            except (VersionMismatch, KeyMissing):
                await self._store.current()
                continue
            return Guard.unchanged(key, written.version)
        raise attributes.forbidden(f"quota {key.name} changes too fast to be charged; try again")


def _used(store: Store, quota: Object) -> Object:
    """What status.used says; where it says nothing, what there is. Creates under way are in neither: they were charged
    to an earlier version of the quota, so they are in the cache already or will not commit."""
    if is_counted(quota) and quota.get("status"):
        used: Object = quota["status"].get("used") or {}
        return used
    return dict(count(store, quota))


def _judge(attributes: Attributes, quota: Object, used: Object) -> None:
    assert attributes.obj is not None
    missing = missing_in(quota, attributes.kind, attributes.obj)
    if missing:
        raise attributes.forbidden(f"failed quota: {quota['metadata']['name']}: must specify {missing}")
    why = refusal(quota, more_of(quota, attributes.kind, attributes.obj, attributes.old), used)
    if why:
        raise attributes.forbidden(why)
