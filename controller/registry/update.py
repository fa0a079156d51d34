"""Update: the compare-and-set loop under every change of an existing object.

    replace   PUT: the whole object (or subresource), creating it where Kubernetes allows that
    change    what PUT, PATCH, scale and modify have in common: read, make the new object, judge it, write it
              if nobody wrote in between, else start again

Called by Registry, patching and scale. Invariants: every attempt is judged against the version it replaces; a write
that changes nothing keeps its version; the update that takes the last finalizer of a deleted object removes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from api.errors import conflict, invalid, invalid_object, not_found
from api.kinds import Kind
from api.objects import Object, clone
from controller.admission.attributes import Attributes, Operation
from controller.admission.quota import QUOTAS
from controller.admission.types import Request
from controller.registry.allocation import claims_between
from controller.registry.create import Taken, create_taken
from controller.registry.deletion_plan import is_released
from controller.registry.faults import api_error
from controller.registry.ground import RACES, Ground, attributes_of, unstored
from controller.registry.intake import LARGE_BYTES, aside, check_name, judge, take_in
from controller.registry.ownership import keep_ownership, own_update, settled
from controller.registry.strategies import prepare_update_of, strategy_of
from controller.registry.system_fields import carry_over, merge_owners
from controller.registry.types import Target
from controller.registry.views import (
    inward,
    judged_kind,
    judged_object,
    outward,
    outward_judged,
    outward_object,
    stored_object,
)
from controller.store.types import Claims, Guard, GuardFailed, Key, Record, StoreError, VersionMismatch

Make = Callable[[Object], Object | None]
"""From the current object (a fresh dict, its own to change) to the wanted one; None: nothing to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """A subresource whose objects are of a kind of their own: how admission sees a write of it."""

    kind: Kind
    show: Callable[[Object], Object]
    take: Callable[[Object, Object], None]
    """Puts what admission made of the part (second) into the whole (first). Raises ApiError."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One object over another. `owned`: its managedFields are final (server-side apply)."""

    new: Object
    old: Object
    owned: bool
    part: Part | None = None
    large: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A new object that passed every rule, and what must hold when it is written."""

    obj: Object
    guards: tuple[Guard, ...]
    removes: bool
    claims: Claims | None = None


async def replace_object(ground: Ground, request: Request, target: Target, obj: Object) -> tuple[Record, bool]:
    """PUT; (record, created). Raises BadRequest, NotFound, Conflict, Invalid, Forbidden, and what the store adds."""
    obj = await aside(request.large, partial(take_in, request, target.kind, obj))
    check_name(target, obj)
    merge_owners(request, obj)
    if await ground.find(target) is None:
        return await _create_instead(ground, request, target, obj), True
    uid = obj["metadata"].get("uid") or ""

    def wanted(current: Object) -> Object:
        if uid and uid != current["metadata"]["uid"]:
            raise _other_uid(target, uid, current["metadata"]["uid"])
        return clone(obj)

    record = await change(ground, request, target, wanted)
    assert record is not None
    return record, False


async def _create_instead(ground: Ground, request: Request, target: Target, obj: Object) -> Record:
    allowed = strategy_of(target.kind).create_on_update and not target.subresource
    if not allowed:
        raise not_found(target.kind.group, target.kind.plural, target.name)
    uid = obj["metadata"].get("uid")
    if uid:
        raise _other_uid(target, uid, "")
    return await create_taken(ground, request, target, Taken(obj))


def _other_uid(target: Target, asked: str, found: str) -> Exception:
    why = f"Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
    return conflict(target.kind.group, target.kind.plural, target.name, why)


async def change(
    ground: Ground, request: Request, target: Target, make: Make, *, tracked: bool = False, part: Part | None = None
) -> Record | None:
    """Runs the loop; None when `make` found nothing to do. `tracked`: `make` sets managedFields itself; `part`: what
    is written is shown to admission as this.

    Raises NotFound, Conflict, Invalid, Forbidden, and what `make` and the store add.
    """
    view = target.kind
    target = replace(target, kind=judged_kind(view))
    record = await ground.get(target)
    for _ in range(RACES):
        large = len(record.raw) > LARGE_BYTES or request.large
        old = await judged_object(ground.converter, view, record)
        fresh = partial(clone, old) if view.custom is not None else record.parse
        new = await settled(ground.converter, partial(_made, make, view, fresh), large=large)
        if new is None:
            return None
        new = inward(view, new)
        if not _is_current(target, new, record):
            newest = await ground.newest(target)
            if newest.version == record.version:
                raise conflict(target.kind.group, target.kind.plural, target.name)
            record = newest
            continue
        judged = await _judge(ground, request, target, Attempt(new, old, tracked, part, large))
        changed = attributes_of(request, Operation.UPDATE, target, judged.obj, old)
        if request.dry_run:
            if ground.ledger.covers_change(changed):
                ground.ledger.check(changed)
            judged.obj["metadata"]["resourceVersion"] = str(record.version)
            return outward_judged(view, unstored(target, judged.obj, record.version))
        try:
            written = await _charged_write(ground, changed, judged, record)
            return await outward(ground.converter, view, written)
        except VersionMismatch as error:
            record = error.current or await ground.newest(target)
        except StoreError as error:
            if not _is_outrun(ground, error):
                raise api_error(error, target) from error
            record = await ground.newest(target)
    raise conflict(target.kind.group, target.kind.plural, target.name)


def _made(make: Make, view: Kind, fresh: Callable[[], Object]) -> Object | None:
    return make(outward_object(view, fresh()))


def _is_outrun(ground: Ground, error: StoreError) -> bool:
    """Somebody was faster with an address, a port or the room in a quota: there may be others."""
    if not isinstance(error, GuardFailed):
        return False
    key = error.guard.key
    return ground.store.claims.names(error.guard) is not None or (
        isinstance(key, Key) and key.resource == QUOTAS.resource
    )


async def _charged_write(ground: Ground, attributes: Attributes, judged: Judged, record: Record) -> Record:
    target = Target(attributes.kind, attributes.namespace, attributes.name, attributes.subresource)
    if judged.removes or not ground.ledger.covers_change(attributes):
        return await _write(ground, target, judged, record)
    async with ground.ledger.charged(attributes) as charges:
        return await _write(ground, target, replace(judged, guards=judged.guards + charges), record)


def _is_current(target: Target, new: Object, record: Record) -> bool:
    """Whether the new object was made from this version, or asks for none. Raises Invalid where it has to."""
    version = new["metadata"].get("resourceVersion") or ""
    if version in ("", "0"):
        if strategy_of(target.kind).unconditional_update:
            return True
        error = invalid("metadata.resourceVersion", 0, "must be specified for an update")
        raise invalid_object(target.kind.group, target.kind.plural, target.name, [error])
    return bool(version == str(record.version))


async def _judge(ground: Ground, request: Request, target: Target, attempt: Attempt) -> Judged:
    """Admission, strategy, ownership, validation: `new` as it may be written over `old`."""
    kind, subresource = target.kind, target.subresource
    new, old, part = attempt.new, attempt.old, attempt.part
    carry_over(new, old)
    attributes = attributes_of(request, Operation.UPDATE, target, new, old)
    if part is not None:
        attributes = replace(attributes, form=part.kind, obj=part.show(new), old=part.show(old))
    owned = new["metadata"].get("managedFields")
    guards = await ground.admit(attributes)
    keep_ownership(request, new, owned)
    if part is not None and attributes.obj is not None:
        part.take(new, attributes.obj)
    merge_owners(request, new, admitted=True)
    with ground.allocator.booking(target, old, dry_run=request.dry_run) as booking:
        if booking is not None:
            await booking.fill(new)
    prepare_update_of(kind, subresource)(new, old)
    if not attempt.owned:
        await own_update(ground.converter, request, target, new, old, large=attempt.large)
    if not request.trusted or ground.chain.mutates:
        await aside(attempt.large, partial(judge, request, target, new, old))
    await ground.approve(attributes)
    removes = is_released(target, new)
    return Judged(new, guards, removes, claims_between(target, old, None if removes else new))


async def _write(ground: Ground, target: Target, judged: Judged, record: Record) -> Record:
    """The compare-and-set itself; the version of a removed object is that of its deletion."""
    obj = judged.obj
    if judged.removes:
        gone = await ground.store.delete(target.key, record.version, judged.guards, judged.claims)
        obj["metadata"]["resourceVersion"] = str(gone.version)
        return unstored(target, obj, gone.version)
    obj["metadata"].pop("resourceVersion", None)
    obj = await stored_object(ground.converter, target.kind, obj)
    return await ground.store.update(target.key, obj, record.version, judged.guards, judged.claims)
