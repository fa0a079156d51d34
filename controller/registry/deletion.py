"""Delete: one object or a selection, in steps that finalizers and grace periods ask for.

Called by the Registry. What happens to an object is planned in deletion_plan (pure); here the plan is carried out by
compare-and-set and made again when the object changed in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from api.errors import Conflict, NotFound, conflict
from api.kinds import Kind
from api.objects import Object
from controller.admission.attributes import Operation
from controller.admission.types import Request
from controller.registry.allocation import claims_between
from controller.registry.deletion_plan import (
    Plan,
    Step,
    check_options,
    check_preconditions,
    plan_definition,
    plan_deletion,
    plan_namespace,
)
from controller.registry.faults import api_error, translated
from controller.registry.ground import RACES, Ground, attributes_of, unstored
from controller.registry.intake import warn
from controller.registry.strategies import strategy_of
from controller.registry.types import DeleteOptions, Deletion, Target
from controller.registry.views import (
    judged_kind,
    judged_object,
    outward,
    outward_all,
    outward_judged,
    selected,
    stored_object,
    stored_query,
)
from controller.store import Query
from controller.store.types import Guard, Record, StoreError, VersionMismatch

AT_ONCE = 64
"""Deletions of a collection under way together: enough to fill a group commit."""


async def delete(
    ground: Ground, request: Request, target: Target, options: DeleteOptions, *, admitted: bool = False
) -> Deletion:
    """Deletes an object or starts its deletion. `admitted`: what asks for it was (an eviction).

    Raises NotFound, Conflict (preconditions), Forbidden, Invalid, ..."""
    check_options(options)
    view = target.kind
    target = replace(target, kind=judged_kind(view))
    warning = strategy_of(target.kind).delete_warning
    if warning and not options.propagation and options.orphan_dependents is None:
        warn(request, (warning,))
    record = await ground.get(target)
    for _ in range(RACES):
        obj = await judged_object(ground.converter, view, record)
        try:
            check_preconditions(target, options, obj)
        except Conflict:
            newest = await ground.newest(target)
            if newest.version == record.version:
                raise
            record = newest
            continue
        guards = request.guards
        if not admitted:
            attributes = attributes_of(request, Operation.DELETE, target, None, obj)
            guards = await ground.admit(attributes)
            await ground.approve(attributes)
        plan = _plan(request, target, obj, options)
        try:
            return await _carry_out(ground, request, replace(target, kind=view), plan, (record, guards))
        except VersionMismatch as error:
            record = error.current or await ground.newest(target)
        except StoreError as error:
            raise api_error(error, target) from error
    raise conflict(target.kind.group, target.kind.plural, target.name)


def _plan(request: Request, target: Target, obj: Object, options: DeleteOptions) -> Plan:
    if target.kind.resource == ("", "namespaces"):
        return plan_namespace(obj, options, request.now())
    if target.kind.resource == ("apiextensions.k8s.io", "customresourcedefinitions"):
        return plan_definition(obj, options, request.now())
    return plan_deletion(strategy_of(target.kind), obj, options, request.now())


async def _carry_out(
    ground: Ground, request: Request, target: Target, plan: Plan, seen: tuple[Record, tuple[Guard, ...]]
) -> Deletion:
    """Writes what the plan says over the record it was made from. Raises StoreError."""
    record, guards = seen
    obj = plan.obj
    if plan.step is Step.NOTHING:
        return Deletion(await outward(ground.converter, target.kind, record), None, gone=False)
    if plan.step is Step.MARK:
        if request.dry_run:
            return Deletion(outward_judged(target.kind, unstored(target, obj, record.version)), None, gone=False)
        obj["metadata"].pop("resourceVersion", None)
        marked = await stored_object(ground.converter, target.kind, obj)
        written = await ground.store.update(target.key, marked, record.version, guards)
        return Deletion(await outward(ground.converter, target.kind, written), None, gone=False)
    version = record.version
    if not request.dry_run:
        claims = claims_between(target, obj, None)
        version = (await ground.store.delete(target.key, record.version, guards, claims)).version
        obj["metadata"]["resourceVersion"] = str(version)
    last = outward_judged(target.kind, unstored(target, obj, version))
    status = None if strategy_of(target.kind).returns_deleted else _success(target, obj)
    return Deletion(last, status, gone=True)


def _success(target: Target, obj: Object) -> Object:
    """The Status most kinds answer a deletion with; its details name the object that is gone."""
    details: Object = {"name": target.name}
    if target.kind.group:
        details["group"] = target.kind.group
    details |= {"kind": target.kind.plural, "uid": obj["metadata"]["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def delete_collection(
    ground: Ground, request: Request, kind: Kind, query: Query, options: DeleteOptions
) -> list[Record]:
    """Deletes what the query selects; the objects as they were. One that is gone already is no error."""
    check_options(options)
    with translated(Target(kind, query.namespace)):
        await ground.store.current()
    before, after = stored_query(kind, query)
    records = await outward_all(ground.converter, kind, ground.store.list(kind.resource, before).records)
    records = selected(kind, records, after)
    left = iter(records)

    async def work() -> None:
        for record in left:
            try:
                await delete(ground, request, Target(kind, record.key.namespace, record.key.name), options)
            except NotFound:
                continue

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(records))):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return records
