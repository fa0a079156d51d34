"""POST, PUT, PATCH and DELETE of objects and subresources: HTTP in, registry call, HTTP out.

Called by app.py. Decodes bodies, builds the registry's Request and turns its answer into a reply with the right code
and warnings. Invariant: no rule about objects lives here; the registry judges, this module translates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import orjson

from api.codec import Decoded
from api.errors import BadRequest, UnsupportedMediaType
from api.kinds import Kind, by_gvk
from api.objects import Object
from api.schema import check
from controller.registry import DeleteOptions, Deletion, Patch, PatchType, Request
from controller.registry.eviction import EVICTION
from controller.registry.intake import LARGE_BYTES, decode, take_in, undecodable
from controller.server import shapes
from controller.server.call import BODY, NAMED, NAMES, Call, Services, read_body
from controller.server.negotiation import PLAIN
from controller.server.options import delete_errors, flag, list_options, whole, write_options
from controller.server.reply import Answer, Reply, encode, reply_object, warning_headers
from controller.store import Query
from controller.store.types import Record

_PATCH_TYPES = {kind.value: kind for kind in PatchType} | {"application/apply-patch+cbor": None}
DELETE_OPTIONS = Kind("", "v1", "DeleteOptions", "deleteoptions", verbs=())
CREATED: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def request_of(call: Call, options_kind: str, *, apply: bool = False) -> Request:
    """The registry's view of this request."""
    options = write_options(call.params, options_kind, apply=apply)
    return Request(
        user=call.user,
        dry_run=options.dry_run,
        field_manager=options.field_manager,
        field_validation=options.field_validation,
        force=bool(options.force),
        warnings=call.warnings,
        user_agent=call.request.headers.get("User-Agent", ""),
    )


async def decoded(call: Call, kind: Kind, request: Request | None = None) -> Object:
    """The body as an object of `kind`; duplicate keys are noted in `request`."""
    body = await read_body(call.request)
    if request is not None:
        request.large = len(body) > LARGE_BYTES
    content_type = call.request.headers.get("Content-Type", "")
    result = await decode(body, content_type, kind)
    _note(call, result, request, packed="json" not in content_type)
    return result.obj


def _note(call: Call, found: Decoded, request: Request | None, *, packed: bool) -> None:
    """Keeps of a body what others ask for: its duplicate keys; for the audit log the object's name and, unless it was
    JSON, its JSON."""
    metadata = found.obj.get("metadata")
    call.request[NAMED] = {name: metadata.get(name) for name in NAMES} if isinstance(metadata, dict) else {}
    if packed:
        with contextlib.suppress(TypeError):  # a number that JSON does not have
            call.request[BODY] = orjson.dumps(found.obj)
    if request is not None and found.duplicates:
        request.duplicates, request.repeated = tuple(found.duplicates), tuple(found.repeated)


async def create_object(services: Services, call: Call) -> Answer:
    request = request_of(call, "CreateOptions")
    obj = await decoded(call, call.kind, request)
    record = await services.registry.create(request, call.kind, call.namespace, obj)
    return await shapes.answer_record(call, record, status=201, headers=warning_headers(request.warnings))


async def update_object(services: Services, call: Call) -> Answer:
    """PUT of an object or of its status, scale, finalize, ephemeralcontainers or resize."""
    request = request_of(call, "UpdateOptions")
    subresource = call.target.subresource
    obj = await decoded(call, shapes.SCALE if subresource == "scale" else call.kind, request)
    record, created = await services.registry.update(
        request, call.kind, call.namespace, call.target.name, obj, subresource=subresource
    )
    return await _written(call, record, created, request)


async def patch_object(services: Services, call: Call) -> Answer:
    """PATCH of an object or of a subresource, in four dialects."""
    media = call.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    patch_type = _PATCH_TYPES.get(media)
    if patch_type is None:
        raise UnsupportedMediaType("415: Unsupported Media Type", {})
    request = request_of(call, "PatchOptions", apply=patch_type is PatchType.APPLY)
    body = await read_body(call.request)
    request.large = len(body) > LARGE_BYTES
    if patch_type is PatchType.APPLY:
        _note(call, await decode(body, "application/yaml", None), None, packed=True)
    patch = Patch(patch_type, body)
    record, created = await services.registry.patch(
        request, call.kind, call.namespace, call.target.name, patch, subresource=call.target.subresource
    )
    return await _written(call, record, created, request)


async def _written(call: Call, record: Record, created: bool, request: Request) -> Reply:
    derived = call.target.subresource == "scale"
    headers = warning_headers(request.warnings)
    return await shapes.answer_record(call, record, status=201 if created else 200, headers=headers, derived=derived)


async def delete_object(services: Services, call: Call) -> Answer:
    request, options = await _delete_options(call)
    deletion = await services.registry.delete(request, call.kind, call.namespace, call.target.name, options)
    accepted = not deletion.gone and options.orphan_dependents is False
    return await _deleted(call, deletion, request, 202 if accepted else 200)


async def _deleted(call: Call, deletion: Deletion, request: Request, status: int) -> Answer:
    """202 only for those who asked in the oldest way to wait for dependents, as in Kubernetes."""
    headers = warning_headers(request.warnings)
    if deletion.status is not None:
        return Reply(status, encode(deletion.status, call.form), call.form.content_type, headers)
    return await shapes.answer_record(call, deletion.record, status=status, headers=headers)


async def delete_collection(services: Services, call: Call) -> Answer:
    options = list_options(call.params, call.kind)
    request, delete = await _delete_options(call)
    query = Query(call.namespace, options.labels, options.fields, limit=options.limit)
    records = await services.registry.delete_collection(request, call.kind, query, delete)
    meta = {"resourceVersion": str(services.store.version)}
    headers = warning_headers(request.warnings)
    return await shapes.reply_list(call, records, meta, form=PLAIN, headers=headers)


async def _delete_options(call: Call) -> tuple[Request, DeleteOptions]:
    """Options from the body, else from the query, as Kubernetes reads them."""
    body = await read_body(call.request)
    wire: Object = {}
    if body:
        found = await decode(body, call.request.headers.get("Content-Type", ""), None)
        _note(call, found, None, packed=True)
        wire = found.obj
        if wire.get("kind") not in (None, "", "DeleteOptions"):
            raise BadRequest(f"decoded object cannot be converted to DeleteOptions: {wire.get('kind')}")
        if problems := check(DELETE_OPTIONS, wire).type_errors:
            raise undecodable(DELETE_OPTIONS, problems[0])
    else:
        wire = _delete_options_of_query(call)
    dry_run = wire.get("dryRun") or ([call.params["dryRun"]] if "dryRun" in call.params else [])
    error = delete_errors(wire.get("propagationPolicy"), wire.get("orphanDependents"), dry_run)
    if error is not None:
        raise error
    agent = call.request.headers.get("User-Agent", "")
    request = Request(user=call.user, dry_run=bool(dry_run), user_agent=agent, warnings=call.warnings)
    return request, DeleteOptions.from_object(wire)


def _delete_options_of_query(call: Call) -> Object:
    wire: Object = {}
    if (grace := whole(call.params, "gracePeriodSeconds")) is not None:
        wire["gracePeriodSeconds"] = grace
    if "propagationPolicy" in call.params:
        wire["propagationPolicy"] = call.params["propagationPolicy"]
    if "orphanDependents" in call.params:
        wire["orphanDependents"] = flag(call.params, "orphanDependents")
    return wire


async def create_binding(services: Services, call: Call) -> Answer:
    """POST pods/NAME/binding, or of a Binding."""
    request = request_of(call, "CreateOptions")
    kind = _kind("", "v1", "Binding")
    obj = take_in(request, kind, await decoded(call, kind, request))
    name = call.target.name if call.target.subresource else (obj.get("metadata") or {}).get("name") or ""
    await services.registry.bind_as(request, call.namespace, name, obj)
    return reply_object(CREATED, status=201, headers=warning_headers(request.warnings))


async def create_eviction(services: Services, call: Call) -> Answer:
    """POST pods/NAME/eviction."""
    request = request_of(call, "CreateOptions")
    obj = take_in(request, EVICTION, await decoded(call, EVICTION, request))
    if (obj.get("deleteOptions") or {}).get("dryRun"):
        request.dry_run = True
    await services.registry.evict_as(request, call.namespace, call.target.name, obj)
    return reply_object(CREATED, status=201, headers=warning_headers(request.warnings))


def _kind(group: str, version: str, name: str) -> Kind:
    kind = by_gvk(group, version, name)
    assert kind is not None, f"{name} is not in the table of kinds"
    return kind


Handler = Callable[[Services, Call], Awaitable[Answer]]
