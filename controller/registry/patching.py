"""PATCH: from a patch document to the object it wants, then the way of every update.

Called by the Registry; the patch algebra is in api.patch. JSON, merge and strategic merge patches are applied to what
is stored and judged like a PUT; server-side apply merges by field ownership and creates what is missing.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from api.codec.json_text import Unparsable, parse_json
from api.errors import BadRequest, Invalid, conflict, invalid, invalid_object, not_found, required
from api.kinds import Kind
from api.objects import Object
from api.patch import apply, json_patch, merge_patch, strategic_merge, untyped
from api.patch.json import unknown_operation_fields
from api.schema import check, default, defaults_whole, merge_schema
from controller.admission.types import Request
from controller.registry.create import Taken, create_taken
from controller.registry.ground import Ground
from controller.registry.intake import aside, check_name, decode, strict_findings, warn
from controller.registry.ownership import versions_of, writer_of
from controller.registry.types import Patch, PatchType, Target
from controller.registry.update import Make, Part, change
from controller.store.types import Record

_YAML = "application/yaml"
_ALWAYS_JUDGED = frozenset({"apiVersion", "kind", "metadata"})


async def patch_object(ground: Ground, request: Request, target: Target, patch: Patch) -> tuple[Record, bool]:
    """(record, created). Raises BadRequest, Invalid, Conflict, NotFound, Forbidden, UnsupportedMediaType, ..."""
    if patch.type is PatchType.APPLY:
        return await _apply(ground, request, target, patch.body)
    patched = patcher(request, target.kind, patch)

    def wanted(current: Object) -> Object | None:
        obj = patched(current)
        if obj is not None:
            check_name(target, obj)
        return obj

    record = await change(ground, request, target, wanted)
    assert record is not None
    return record, False


def patcher(request: Request, kind: Kind, patch: Patch) -> Make:
    """The function that applies `patch`; the document is parsed once for each attempt because applying consumes it.

    Raises BadRequest for a body that is no JSON.
    """
    merge = _merger(kind, patch.type)
    document, duplicates = parse_patch(patch.body)
    found = strict_findings(duplicates, ())
    if patch.type is PatchType.JSON:
        found = [f"json patch {each}" for each in strict_findings(duplicates, unknown_operation_fields(document))]
    touched = touched_fields(patch.type, document)

    def patched(current: Object) -> Object:
        wanted = _of_kind(kind, patch.type, merge(current, orjson.loads(patch.body)))
        return wanted if request.trusted else _decoded(request, kind, wanted, (touched, found))

    return patched


def parse_patch(body: bytes) -> tuple[Any, list[str]]:
    """(document, paths of duplicate keys). Raises BadRequest."""
    try:
        return parse_json(body)
    except Unparsable as error:
        raise BadRequest(f"error decoding patch: {error}") from error


def touched_fields(type: PatchType, document: Any) -> frozenset[str] | None:
    """The top-level fields a patch may change; None: any. What it leaves alone was judged when it was stored."""
    if type is PatchType.JSON:
        if not isinstance(document, list) or not all(isinstance(operation, dict) for operation in document):
            return None
        paths = [operation.get(end) for operation in document for end in ("path", "from") if end in operation]
        names = [path.split("/")[1] if isinstance(path, str) and path.startswith("/") else None for path in paths]
    else:
        names = list(document) if isinstance(document, dict) else [None]
    if any(name in (None, "stringData") or name.startswith("$") or "~" in name for name in names):
        return None
    return frozenset(name for name in names if name is not None)


def _merger(kind: Kind, type: PatchType) -> Callable[[Object, Any], Object]:
    if type is PatchType.JSON:
        return json_patch
    if type is PatchType.MERGE:
        return merge_patch
    schema = merge_schema(kind)
    return lambda obj, patch: strategic_merge(obj, patch, schema)


def _of_kind(kind: Kind, type: PatchType, wanted: Object) -> Object:
    """A patch cannot make another kind of an object. Raises Invalid; a strategic merge just does not touch the kind."""
    if type is not PatchType.STRATEGIC:
        given = wanted.get("apiVersion") or kind.api_version, wanted.get("kind") or kind.kind
        if given != (kind.api_version, kind.kind):
            raise _bad_patch(wanted, f"unable to decode {given[0]}, Kind={given[1]} into a {kind.kind}")
    wanted["apiVersion"], wanted["kind"] = kind.api_version, kind.kind
    return wanted


def _decoded(request: Request, kind: Kind, wanted: Object, seen: tuple[frozenset[str] | None, list[str]]) -> Object:
    """A patched object through the schema. Findings are those of a PUT, except that they blame the patch (422).

    `seen`: the fields it may change, and what is odd about the patch itself.
    """
    touched, odd = seen
    judged = touched | _ALWAYS_JUDGED if touched is not None else wanted.keys()
    checked = check(kind, {field: value for field, value in wanted.items() if field in judged})
    if checked.type_errors:
        raise _bad_patch(wanted, checked.type_errors[0])
    found = [*odd, *strict_findings((), checked.unknown)]
    if found and request.field_validation == "Strict":
        raise _bad_patch(wanted, "strict decoding error: " + ", ".join(found))
    warn(request, found)
    taken: Object = checked.obj
    taken.setdefault("metadata", {})
    rest = {field: value for field, value in wanted.items() if field not in judged}
    if defaults_whole(kind):
        taken |= rest
        default(kind, taken)
        return taken
    default(kind, taken)
    return {field: value for field, value in taken.items() if field in judged} | rest if rest else taken


def _bad_patch(wanted: Object, why: str) -> Invalid:
    return invalid_object("", "", "", [invalid("patch", orjson.dumps(wanted).decode(), why)])


async def _apply(ground: Ground, request: Request, target: Target, body: bytes) -> tuple[Record, bool]:
    if not request.field_manager:
        error = required("fieldManager", "is required for apply patch")
        raise invalid_object("meta.k8s.io", "PatchOptions", "", [error])
    applied = await configuration(request, target, body)
    record = await ground.find(target)
    if record is None:
        return await _apply_new(ground, request, target, applied), True
    return await apply_to(ground, request, target, applied), False


async def apply_to(
    ground: Ground, request: Request, target: Target, applied: Object, part: Part | None = None
) -> Record:
    """Server-side apply onto what is there; `part`: see `change`. Raises NotFound, Conflict, and as `change`."""
    writer = writer_of(request, target.kind, target.subresource)
    schema, versions = merge_schema(target.kind), versions_of(target.kind)

    def merged(current: Object) -> Object:
        wanted = apply(current, applied, writer, schema, force=request.force, versions=versions)
        default(target.kind, wanted)
        return wanted

    changed = await change(ground, request, target, merged, tracked=True, part=part)
    assert changed is not None
    return changed


async def configuration(request: Request, target: Target, body: bytes) -> Object:
    """The applied configuration: checked like a PUT's body, but never defaulted; what it leaves out it does not own."""
    decoded = await decode(body, _YAML, None)
    given = decoded.obj.get("apiVersion") or ""
    if given != target.kind.api_version:
        expected = f"Specified patch version: {given}, expected: {target.kind.api_version}"
        raise BadRequest(f"Incorrect version specified in apply patch. {expected}")
    decoded = await decode(body, _YAML, target.kind)
    checked = await aside(request.large, lambda: check(target.kind, decoded.obj, prune=True))
    if faults := checked.type_errors[:1] or [f".{path}: field not declared in schema" for path in checked.unknown]:
        raise untyped(decoded.obj, f"{target.kind.group}/{target.kind.version}, Kind={target.kind.kind}", faults)
    found = strict_findings((), (), repeated=decoded.repeated)
    if found and request.field_validation == "Strict":
        raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: {found[0]}")
    warn(request, found)
    applied: Object = checked.obj
    metadata = applied.setdefault("metadata", {})
    metadata.setdefault("name", target.name)
    check_name(target, applied)
    return applied


async def _apply_new(ground: Ground, request: Request, target: Target, applied: Object) -> Record:
    if target.subresource:
        raise not_found(target.kind.group, target.kind.plural, target.name)
    if uid := applied["metadata"].get("uid"):
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise conflict(target.kind.group, target.kind.plural, target.name, why)
    writer = writer_of(request, target.kind)
    schema = merge_schema(target.kind)
    created = await aside(request.large, lambda: apply(None, applied, writer, schema, force=request.force))
    default(target.kind, created)
    return await create_taken(ground, request, target, Taken(created, owned=True))
