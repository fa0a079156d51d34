"""What every verb of the registry stands on, and the two questions each asks first: what is there, and may I.

Called by the verb modules. Invariant: an answer "not there" or "not that version" is never given from the cache alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

from api.errors import not_found
from api.kinds import Kind
from api.objects import Object
from controller.admission.attributes import Attributes, Operation
from controller.admission.chain import Chain
from controller.admission.types import Request
from controller.registry.allocation import Allocator
from controller.registry.conversion import Converter
from controller.registry.faults import api_error, translated
from controller.registry.known_specs import KnownSpecs
from controller.registry.ledger import Ledger
from controller.registry.types import Target
from controller.store import Store
from controller.store.types import Guard, Record, StoreError

RACES = 512
"""How often a write that lost a race starts again; more means somebody writes the object without pause."""


@dataclass(frozen=True, slots=True)
class Ground:
    store: Store
    chain: Chain
    known: KnownSpecs
    ledger: Ledger
    allocator: Allocator
    converter: Converter

    async def find(self, target: Target) -> Record | None:
        """The object as it is now, or None when it surely does not exist."""
        record = self.store.get(target.key)
        if record is None:
            with translated(target):
                record = await self.store.read(target.key)
        return record

    async def get(self, target: Target) -> Record:
        """As `find`. Raises NotFound."""
        record = await self.find(target)
        if record is None:
            raise not_found(target.kind.group, target.kind.plural, target.name)
        return record

    async def newest(self, target: Target) -> Record:
        """As `get`, never older than this call. Raises NotFound."""
        with translated(target):
            record = await self.store.read(target.key)
        if record is None:
            raise not_found(target.kind.group, target.kind.plural, target.name)
        return record

    async def admit(self, attributes: Attributes) -> tuple[Guard, ...]:
        """The admission chain; the result includes the request's own guards."""
        try:
            guards = await self.chain.admit(attributes)
        except StoreError as error:
            raise api_error(error, Target(attributes.kind, attributes.namespace, attributes.name)) from error
        return attributes.request.guards + guards

    async def approve(self, attributes: Attributes) -> None:
        """The chain's second step. Raises ApiError."""
        await self.chain.approve(attributes)

    async def guards(self, attributes: Attributes) -> tuple[Guard, ...]:
        """The guards that `admit` would give now."""
        return attributes.request.guards + await self.chain.guards(attributes)


def attributes_of(
    request: Request, operation: Operation, target: Target, obj: Object | None, old: Object | None = None
) -> Attributes:
    return Attributes(
        request=request,
        operation=operation,
        kind=target.kind,
        namespace=target.namespace,
        name=target.name,
        obj=obj,
        old=old,
        subresource=target.subresource,
    )


def part_of(
    request: Request, target: Target, form: Kind, obj: Object, *, whole: Object | None = None, connects: bool = False
) -> Attributes:
    """What is posted to a subresource (or opens it) as an object of a kind of its own; `whole`: what it is part of."""
    operation = Operation.CONNECT if connects else Operation.CREATE
    return replace(attributes_of(request, operation, target, obj), form=form, whole=whole)


def unstored(target: Target, obj: Object, version: int = 0) -> Record:
    """A record that is answered but not kept: a dry run's, a removed object's, a subresource's."""
    labels = obj.get("metadata", {}).get("labels") or {}
    return Record(target.key, version, orjson.dumps(obj), labels, {})
