"""Create: the path of every new object.

Called by the Registry (and by update and patching, where they may create). Order: intake, namespace, system fields,
ownership, admission, strategy, validation, compare-and-set under the guards that admission asked for.
"""

from __future__ import annotations

from dataclasses import replace

from api.errors import BadRequest
from api.objects import Object
from controller.admission.attributes import Operation
from controller.admission.types import Request
from controller.registry.event_views import inward, outward, stored_kind
from controller.registry.faults import api_error, translated
from controller.registry.ground import Ground, attributes_of, unstored
from controller.registry.intake import refuse, refuse_unimplemented, settle_namespace, take_in
from controller.registry.ownership import own_new
from controller.registry.strategies import strategy_of
from controller.registry.system_fields import name_it, stamp_new
from controller.registry.types import Target
from controller.registry.validation import validate
from controller.store.types import GuardFailed, Key, KeyExists, Record, StoreError

NAME_ATTEMPTS = 8
"""How many generated names are tried before AlreadyExists, as in Kubernetes."""
ATTEMPTS = 16
"""How often a create starts again because its namespace changed between judgement and commit."""


async def create(ground: Ground, request: Request, target: Target, obj: Object) -> Record:
    """Creates `obj`, which becomes the registry's. `target.name` is set when the URL names the object.

    Raises BadRequest, Forbidden, NotFound (namespace), Invalid, AlreadyExists, TooLarge, ServiceUnavailable, Timeout.
    """
    obj = take_in(request, target.kind, obj)
    settle_namespace(target, obj)
    return await create_taken(ground, request, target, obj)


async def create_taken(
    ground: Ground, request: Request, target: Target, obj: Object, *, tracked: bool = False
) -> Record:
    """`create` for an object that passed intake; `tracked`: its managedFields are final (server-side apply)."""
    metadata = obj["metadata"]
    if metadata.get("resourceVersion", "0") not in ("", "0") and not request.dry_run:
        raise BadRequest("resourceVersion should not be set on objects to be created")
    generated = name_it(metadata)
    stamp_new(metadata, request.now())
    view = target.kind
    if not tracked:
        own_new(request, view, obj)
    obj = inward(view, obj)
    target = Target(stored_kind(view), target.namespace, metadata.get("name") or "")
    attributes = attributes_of(request, Operation.CREATE, target, obj)
    guards = await ground.admit(attributes)
    _finish(request, target, obj)
    if request.dry_run:
        return outward(view, await _rehearse(ground, target, obj))
    metadata.pop("resourceVersion", None)
    for attempt in range(ATTEMPTS):
        try:
            return outward(view, await ground.store.create(target.key, obj, guards))
        except KeyExists as error:
            if not generated or attempt >= NAME_ATTEMPTS - 1:
                raise api_error(error, target) from error
            target = _rename(target, obj)
        except GuardFailed as error:
            if not isinstance(error.guard.key, Key):
                raise api_error(error, target) from error
            with translated(target):
                await ground.store.current()
            guards = await ground.admit(attributes)
        except StoreError as error:
            raise api_error(error, target) from error
    raise api_error(GuardFailed(guards[-1]), target)


def _finish(request: Request, target: Target, obj: Object) -> None:
    """What is decided after admission: the kind's own start state, and whether the whole is valid."""
    kind = target.kind
    strategy_of(kind).prepare_create(obj)
    if not request.trusted:
        errors = validate(kind, obj, None) + refuse_unimplemented(request, kind, obj, None)
        refuse(kind, target.name, errors)


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
