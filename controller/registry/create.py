"""Create: the path of every new object.

Called by the Registry (and by update and patching, where they may create). Order: intake, namespace, system fields,
ownership, admission, strategy, validation, quota, compare-and-set under the guards that admission and quota asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import orjson

from api.errors import BadRequest, FieldError
from api.objects import Object
from api.quick import quick_dataclass
from controller.admission.attributes import Attributes, Operation
from controller.admission.types import Request
from controller.registry.allocation import Booking, claims_between
from controller.registry.faults import api_error, translated
from controller.registry.ground import Ground, attributes_of, unstored
from controller.registry.intake import aside, judge, refuse, settle_namespace, take_in, take_in_known, tell_idle
from controller.registry.known_specs import Known, fingerprint_of
from controller.registry.ownership import keep_ownership, own_new
from controller.registry.strategies import strategy_of
from controller.registry.system_fields import merge_owners, name_it, stamp_new
from controller.registry.types import Target
from controller.registry.validation.pods import check_pod_metadata
from controller.registry.views import inward, judged_kind, outward, outward_judged, stored_object
from controller.store.types import Guard, GuardFailed, Key, KeyExists, Record, StoreError

PODS = ("", "pods")
NAME_ATTEMPTS = 8
"""How many generated names are tried before AlreadyExists, as in Kubernetes."""
ATTEMPTS = 16
"""How often a create starts again because its namespace changed between judgement and commit."""


@quick_dataclass(frozen=True, slots=True)
class Taken:
    """An object that passed intake. `owned`: its managedFields are final (server-side apply); `shared`: a pod whose
    spec is judged once for all that have the same (known_specs)."""

    obj: Object
    owned: bool = False
    shared: bool = False


async def create(ground: Ground, request: Request, target: Target, obj: Object) -> Record:
    """Creates `obj`, which becomes the registry's. `target.name` is set when the URL names the object.

    Raises BadRequest, Forbidden, NotFound (namespace), Invalid, AlreadyExists, TooLarge, ServiceUnavailable, Timeout.
    """
    kind = target.kind
    key = ground.known.key_of(kind, obj)
    known = ground.known.find(key, walked=not request.trusted)
    if known is not None:
        taken = Taken(take_in_known(request, kind, obj, known.spec()), shared=True)
    else:
        taken = Taken(await aside(request.large, partial(take_in, request, kind, obj)), shared=key is not None)
    settle_namespace(target, taken.obj)
    if known is not None or key is None:
        return await create_taken(ground, request, target, taken)
    text, warnings = orjson.dumps(taken.obj["spec"]), len(request.warnings)
    record = await create_taken(ground, request, target, taken)
    silent = len(request.warnings) == warnings and request.field_validation != "Ignore"
    ground.known.learn(key, Known(text, walked=silent and not request.trusted))
    return record


def _names_version(text: str) -> bool:
    """Whether Kubernetes sees a version there; what is no number it drops."""
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 64


async def create_taken(ground: Ground, request: Request, target: Target, taken: Taken) -> Record:
    """`create` for an object that passed intake."""
    obj = taken.obj
    metadata = obj["metadata"]
    if _names_version(metadata.get("resourceVersion") or "") and not request.dry_run:
        raise BadRequest("resourceVersion should not be set on objects to be created")
    generated = name_it(metadata)
    stamp_new(metadata, request.now())
    view = target.kind
    if not taken.owned:
        merge_owners(request, obj)
        await aside(request.large, partial(own_new, request, view, obj))
    obj = inward(view, obj)
    taken = replace(taken, obj=obj)
    target = Target(judged_kind(view), target.namespace, metadata.get("name") or "")
    attributes = attributes_of(request, Operation.CREATE, target, obj)
    owned = obj["metadata"].get("managedFields")
    guards = await ground.admit(attributes)
    keep_ownership(request, obj, owned)
    merge_owners(request, obj, admitted=True)
    with ground.allocator.booking(target, None, dry_run=request.dry_run) as booking:
        if booking is not None:
            await booking.fill(obj)
        await aside(request.large, partial(_finish, ground, request, target, taken))
        await ground.approve(attributes)
        if request.dry_run:
            ground.ledger.check(attributes)
            rehearsed = await _rehearse(ground, target, obj)
            tell_idle(request, target.kind)
            return outward_judged(view, rehearsed)
        obj["metadata"].pop("resourceVersion", None)
        record = await _write(ground, attributes, _Draft(target, obj, guards, booking, generated))
        tell_idle(request, target.kind)
        return await outward(ground.converter, view, record)


@dataclass(slots=True)
class _Draft:
    """A new object that may be written. `generated`: its name may be another one."""

    target: Target
    obj: Object
    guards: tuple[Guard, ...]
    booking: Booking | None
    generated: bool


async def _write(ground: Ground, attributes: Attributes, draft: _Draft) -> Record:
    """Writes it; again with another name, address or verdict of admission when those were outrun."""
    obj = draft.obj
    for attempt in range(ATTEMPTS):
        target = draft.target
        try:
            return await _charged_write(ground, attributes, draft)
        except KeyExists as error:
            if not draft.generated or attempt >= NAME_ATTEMPTS - 1:
                raise api_error(error, target) from error
            draft.target = _rename(target, obj)
        except GuardFailed as error:
            if draft.booking is not None and await draft.booking.refill(obj, error):
                continue
            if not isinstance(error.guard.key, Key):
                raise api_error(error, target) from error
            with translated(target):
                await ground.store.current()
            draft.guards = await ground.guards(attributes)
        except StoreError as error:
            raise api_error(error, target) from error
    raise api_error(GuardFailed(draft.guards[-1]), draft.target)


async def _charged_write(ground: Ground, attributes: Attributes, draft: _Draft) -> Record:
    target, obj, guards = draft.target, draft.obj, draft.guards
    claims = claims_between(target, None, obj)
    obj = await stored_object(ground.converter, target.kind, obj)
    if not ground.ledger.covers(target.namespace):
        return await ground.store.create(target.key, obj, guards, claims)
    async with ground.ledger.charged(attributes) as charges:
        return await ground.store.create(target.key, obj, guards + charges, claims)


def _finish(ground: Ground, request: Request, target: Target, taken: Taken) -> None:
    """What is decided after admission: the kind's own start state, and whether the whole is valid as it will be stored.

    What admission may have changed (a pod, and anything where somebody's webhook is) is judged whoever wrote it.
    """
    kind, obj, fresh = target.kind, taken.obj, ground.chain.mutates
    strategy_of(kind).prepare_create(obj)
    if taken.shared and not fresh:
        _judge_shared(ground, request, target, obj)
    elif fresh or not request.trusted or kind.resource == PODS:
        judge(request, target, obj, None)


def _judge_shared(ground: Ground, request: Request, target: Target, obj: Object) -> None:
    fingerprint = fingerprint_of(obj["spec"])
    if not ground.known.is_good(fingerprint):
        warnings = len(request.warnings)
        judge(request, target, obj, None)
        if len(request.warnings) == warnings and request.field_validation != "Ignore":
            ground.known.remember_good(fingerprint)
    elif not request.trusted:
        errors: list[FieldError] = []
        check_pod_metadata(errors, obj)
        refuse(target.kind, target.name, errors)


def _rename(target: Target, obj: Object) -> Target:
    """Another generated name; the strategy runs again because it may have used the first."""
    metadata = obj["metadata"]
    del metadata["name"]
    name_it(metadata)
    strategy_of(target.kind).prepare_create(obj)
    return replace(target, name=metadata["name"])


async def _rehearse(ground: Ground, target: Target, obj: Object) -> Record:
    """A dry run still says AlreadyExists."""
    if await ground.find(target) is not None:
        raise api_error(KeyExists(), target)
    return unstored(target, obj)
