"""The shapes an object can be sent in: whole, metadata only, a pod's address, or a row of a table.

Called by read.py, write.py and watch.py. Pure but for making replies. Invariant: items of a list carry no apiVersion
and kind of their own, everything else does; a table's cells are what `api.columns` says.
Rules: https://kubernetes.io/docs/reference/using-api/api-concepts/ (receiving resources as Tables).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from functools import partial as partial_function
from typing import Any

import orjson

from api.columns import cells, columns_of
from api.errors import BadRequest, NotAcceptable
from api.kinds import Kind
from api.objects import Object
from controller.registry.intake import ASIDE_BYTES
from controller.registry.strategies.workloads import TEMPLATE_GENERATION
from controller.server.call import Call
from controller.server.negotiation import Form, Shape
from controller.server.pod_address import pod_address
from controller.server.reply import Answer, Headers, Reply, encode, encode_list
from controller.store.types import Record

_ENDED = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
SCALE = Kind("autoscaling", "v1", "Scale", "scales", verbs=())


@lru_cache(maxsize=256)
def _prefixes(kind: Kind) -> tuple[bytes, bytes]:
    version, name = orjson.dumps(kind.api_version), orjson.dumps(kind.kind)
    return (
        b'{"apiVersion":' + version + b',"kind":' + name + b",",
        b'{"kind":' + name + b',"apiVersion":' + version + b",",
    )


def items_of(kind: Kind, records: Iterable[Record]) -> Iterator[bytes]:
    """Each record as an item of its kind's list: without apiVersion and kind."""
    prefixes = _prefixes(kind)
    length = len(prefixes[0])
    for record in records:
        raw = record.raw
        if raw.startswith(prefixes):
            yield b"{" + raw[length:]
        else:
            yield orjson.dumps(_bare(record.parse()))


def _bare(obj: Object) -> Object:
    obj.pop("apiVersion", None)
    obj.pop("kind", None)
    return obj


def partial(obj: Object, version: str) -> Object:
    """PartialObjectMetadata, without the DaemonSet's template generation, which Kubernetes keeps elsewhere inside."""
    metadata = obj.get("metadata") or {}
    if obj.get("kind") == "DaemonSet" and TEMPLATE_GENERATION in (metadata.get("annotations") or ()):
        del metadata["annotations"][TEMPLATE_GENERATION]
        if not metadata["annotations"]:
            del metadata["annotations"]
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}


async def reply_list(
    call: Call, records: list[Record], meta: Object, *, form: Form | None = None, headers: Headers = ()
) -> Answer:
    """A list of whole objects or of partial ones, where stored bytes will not do. Raises NotAcceptable."""
    kind, form = call.kind, form or call.form
    head: Object = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta}
    if form.shape is Shape.OBJECT:
        make: Callable[[Record], Object] = _whole
    elif form.shape is Shape.POD_ADDRESS:
        head |= {"kind": "PodAddressList", "apiVersion": "wherry/v1"}
        make = _address
    elif form.shape is Shape.PARTIAL:
        raise _ill_shaped(kind, form.shape, "a list", "List")
    else:
        version = form.version
        head |= {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{version}"}
        make = lambda record: partial(record.parse(), version)  # noqa: E731
    body = await encode_list(head, "items", map(make, records), form, pretty=_pretty(call))
    return Reply(200, body, form.content_type, headers)


def _whole(record: Record) -> Object:
    return _bare(record.parse())


def _address(record: Record) -> Object:
    return _bare(pod_address(record.parse()))


def _ill_shaped(kind: Kind, shape: Shape, found: str, suffix: str) -> NotAcceptable:
    package = kind.group.partition(".")[0] or "core"
    told = f"the requested object is {found} (*{package}.{kind.kind}{suffix})"
    return NotAcceptable(f"you requested {shape.value}, but {told}")


def include_object(call: Call) -> str:
    """What rows carry: None, Metadata or Object."""
    wanted = call.params.get("includeObject", "") or "Metadata"
    if wanted not in ("None", "Metadata", "Object"):
        why = f"Invalid value: \"{wanted}\": must be 'Metadata', 'Object', 'None', or empty"
        raise BadRequest(f"Unable to convert to Table as requested: includeObject: {why}")
    return wanted


def table_row(call: Call, record: Record, include: str, now: datetime) -> Object:
    obj = record.parse()
    row: Object = {"cells": cells(call.kind, obj, now)}
    if include == "Object":
        row["object"] = obj
    elif include == "Metadata":
        row["object"] = partial(obj, call.form.version)
    phase = (obj.get("status") or {}).get("phase") if call.kind.kind == "Pod" and not call.kind.group else None
    if phase in _ENDED:
        row["conditions"] = [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDED[phase]}]
    return row


def table(call: Call, rows: list[Object], meta: Object, *, headings: bool = True) -> Object:
    """A Table object; watches leave the headings out after the first event."""
    definitions: Any = [column.wire() for column in columns_of(call.kind)] if headings else None
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{call.form.version}",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": rows,
    }


async def reply_table(call: Call, records: list[Record], meta: Object) -> Answer:
    """A list as a table; other requests get their turn between rows."""
    include = include_object(call)
    now = datetime.now(UTC)
    head = table(call, [], meta)
    del head["rows"]
    rows = (table_row(call, record, include, now) for record in records)
    return Reply(200, await encode_list(head, "rows", rows, call.form), call.form.content_type)


async def answer_record(
    call: Call, record: Record, *, status: int = 200, headers: Headers = (), derived: bool = False
) -> Reply:
    """`reply_record`; the YAML of a large object is made beside the event loop, for it takes half a second."""
    make = partial_function(reply_record, call, record, status=status, headers=headers, derived=derived)
    if call.form.yaml and len(record.raw) > ASIDE_BYTES:
        return await asyncio.to_thread(make)
    return make()


def reply_record(
    call: Call, record: Record, *, status: int = 200, headers: Headers = (), derived: bool = False
) -> Reply:
    """One object in the shape the client wants. `derived`: not of the path's kind but a Scale."""
    form = call.form
    if derived:
        call = replace(call, kind=SCALE)
    if form.shape is Shape.OBJECT:
        if form.yaml or "pretty" in call.params:
            body = encode(record.parse(), form, pretty=_pretty(call))
        else:
            body = record.raw
        return Reply(status, body, form.content_type, headers)
    return Reply(status, encode(_shaped(call, record), form), form.content_type, headers)


def _pretty(call: Call) -> bool:
    return call.params.get("pretty", "") not in ("", "0", "false")


def _shaped(call: Call, record: Record) -> Object:
    form = call.form
    if form.shape is Shape.TABLE:
        meta = {"resourceVersion": str(record.version)}
        return table(call, [table_row(call, record, include_object(call), datetime.now(UTC))], meta)
    if form.shape is Shape.PARTIAL:
        return partial(record.parse(), form.version)
    if form.shape is Shape.POD_ADDRESS:
        return pod_address(record.parse())
    raise _ill_shaped(call.kind, form.shape, "not a list", "")


def event_object(call: Call, record: Record, *, headings: bool) -> bytes:
    """The `object` of a watch event, for shapes other than the object's bytes."""
    form = call.form
    if form.shape is Shape.TABLE:
        row = table_row(call, record, include_object(call), datetime.now(UTC))
        return orjson.dumps(table(call, [row], {"resourceVersion": str(record.version)}, headings=headings))
    if form.shape is Shape.PARTIAL:
        return orjson.dumps(partial(record.parse(), form.version))
    return record.raw


def plain(call: Call) -> bool:
    """Whether an object's bytes are exactly what the client wants."""
    form: Form = call.form
    return form.shape is Shape.OBJECT and not form.yaml
