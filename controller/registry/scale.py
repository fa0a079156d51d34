"""The scale subresource: the replicas of a workload, seen as autoscaling/v1 Scale.

Called by the Registry for GET, PUT and PATCH of .../scale. Invariant: a write through it changes spec.replicas of the
object behind it and nothing else. https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from api import selectors
from api.errors import conflict, invalid, invalid_object
from api.kinds import Kind
from api.objects import Object
from api.schema.custom.jsonpath import parse_path
from api.schema.custom.type import ScalePaths, custom_of, value_at
from controller.admission.types import Request
from controller.registry.ground import Ground
from controller.registry.intake import check_name, take_in
from controller.registry.patching import apply_to, configuration, patcher
from controller.registry.types import Patch, PatchType, Target
from controller.registry.update import Make, Part, change
from controller.store.types import Record

SCALE = Kind("autoscaling", "v1", "Scale", "scales")
_BUILT_IN = ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector")
_SHOWN = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_object(kind: Kind, obj: Object) -> Object:
    """The Scale of a workload; its selector is the text form that autoscalers list pods with."""
    metadata = obj["metadata"]
    paths = _paths_of(kind)
    replicas = value_at(obj, paths.replicas)
    status: Object = {"replicas": value_at(obj, paths.status_replicas) or 0}
    selector = _selector_of(obj, paths)
    if selector:
        status["selector"] = selector
    return {
        "kind": SCALE.kind,
        "apiVersion": SCALE.api_version,
        "metadata": {field: metadata[field] for field in _SHOWN if field in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _paths_of(kind: Kind) -> ScalePaths:
    schema = custom_of(kind)
    return schema.scale if schema is not None and schema.scale is not None else _BUILT_IN


def _selector_of(obj: Object, paths: ScalePaths) -> str:
    given = value_at(obj, paths.selector) or {}
    if isinstance(given, str):
        return given
    if obj.get("kind") == "ReplicationController":  # older than label selectors: a plain map of labels
        given = {"matchLabels": given}
    return str(selectors.from_object(given))


def scale_record(kind: Kind, record: Record) -> Record:
    return replace(record, raw=orjson.dumps(scale_object(kind, record.parse())), fields={})


async def replace_scale(ground: Ground, request: Request, target: Target, scale: Object) -> Record:
    """PUT .../scale. Raises BadRequest, NotFound, Conflict, Invalid."""
    scale = take_in(request, SCALE, scale)
    check_name(target, scale)
    return await _change(ground, request, target, lambda current: scale)


async def patch_scale(ground: Ground, request: Request, target: Target, patch: Patch) -> Record:
    """PATCH .../scale. Raises as `replace_scale`."""
    if patch.type is PatchType.APPLY:
        return await _apply(ground, request, target, patch.body)
    return await _change(ground, request, target, patcher(request, SCALE, patch))


async def _apply(ground: Ground, request: Request, target: Target, body: bytes) -> Record:
    """Server-side apply of a Scale: its replicas are owned in the workload, where the workload has them."""
    scale = await configuration(request, replace(target, kind=SCALE, subresource=""), body)
    kind, metadata = target.kind, scale["metadata"]
    applied: Object = {"apiVersion": kind.api_version, "kind": kind.kind}
    applied["metadata"] = {name: metadata[name] for name in ("name", "uid", "resourceVersion") if name in metadata}
    if "replicas" in (scale.get("spec") or {}):
        _put(applied, _paths_of(kind).replicas, _replicas(target, scale))
    return scale_record(kind, await apply_to(ground, request, target, applied, _part_of(target)))


def _part_of(target: Target) -> Part:
    def take(workload: Object, wanted: Object) -> None:
        _put(workload, _paths_of(target.kind).replicas, _replicas(target, wanted))

    return Part(SCALE, lambda workload: scale_object(target.kind, workload), take)


async def _change(ground: Ground, request: Request, target: Target, make: Make) -> Record:
    part = _part_of(target)

    def scaled(workload: Object) -> Object:
        wanted = make(scale_object(target.kind, workload))
        assert wanted is not None
        version = wanted["metadata"].get("resourceVersion")
        if version and version != workload["metadata"]["resourceVersion"]:
            raise conflict(target.kind.group, target.kind.plural, target.name)
        part.take(workload, wanted)
        return workload

    record = await change(ground, request, target, scaled, part=part)
    assert record is not None
    return scale_record(target.kind, record)


def _put(obj: Object, path: str, value: int) -> None:
    """Sets what a path of field names leads to."""
    *above, last = (step.what for step in parse_path(path))
    for name in above:
        obj = obj.setdefault(name, {})
    obj[last] = value


def _replicas(target: Target, scale: Object) -> int:
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        error = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid_object(SCALE.group, SCALE.kind, target.name, [error])
    return int(replicas)
