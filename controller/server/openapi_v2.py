"""OpenAPI v2 at /openapi/v2, for what still asks for it: older clients, and kubectl given a `kind: List`.

Called by app.py. Invariant: as JSON it holds every definition of the v3 documents; as protobuf (the only form that
kubectl asks for, and only to validate a List before sending its items) none, so that kubectl leaves the validation to
the server, which does it item by item.
Rules: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v2; gnostic's OpenAPIv2.proto.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import orjson

from api.kinds import cached_by_table
from api.objects import Object
from api.schema import openapi_v3
from api.schema.custom.structural import PRESERVE
from controller.server.discovery import served
from controller.server.reply import Reply
from controller.server.version import WHERRY_VERSION

PATH = "/openapi/v2"
# Clients ask for it with an @ before v1.0, which no media type may have.
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_TITLE = "Kubernetes"
_GVK = "x-kubernetes-group-version-kind"
_JUNCTORS = frozenset(("allOf", "anyOf", "oneOf", "not"))
"""v2 has no logic, and kubectl knows only one type a field."""


def answer_openapi_v2(accept: str) -> Reply:
    if "proto-openapi.spec.v2" in accept:
        return Reply(200, _protobuf(), _PROTOBUF)
    return Reply(200, _json())


@cached_by_table
def _json() -> bytes:
    definitions: Object = {}
    for where, kinds in served().items():
        found: Object = openapi_v3(where.group, where.version, kinds)["components"]["schemas"]
        custom = {kind.kind for kind in kinds if kind.custom is not None}
        definitions |= {name: _in_v2(schema, custom) for name, schema in found.items()}
    document = {
        "swagger": "2.0",
        "info": {"title": _TITLE, "version": WHERRY_VERSION},
        "paths": {},
        "definitions": dict(sorted(definitions.items())),
    }
    return orjson.dumps(document).replace(b'"#/components/schemas/', b'"#/definitions/')


def _in_v2(schema: Object, custom: Container[str]) -> Object:
    """A custom kind's schema as kubectl understands it in v2: what may hold anything says no more."""
    if not any(each["kind"] in custom for each in schema.get(_GVK) or ()):
        return schema
    if schema.get(PRESERVE):
        return {"type": "object", **{name: schema[name] for name in ("description", _GVK) if name in schema}}
    plain: Object = _plain(schema)
    plain["properties"]["metadata"] = schema["properties"]["metadata"]
    return plain


def _plain(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    dropped = set(_JUNCTORS)
    if schema.get("nullable"):
        dropped |= {"nullable", "type", "items", "properties", "additionalProperties"}
    if schema.get(PRESERVE):
        dropped |= {"items", "properties"}
    plain = {name: value for name, value in schema.items() if name not in dropped}
    for name in ("items", "additionalProperties"):
        if name in plain:
            plain[name] = _plain(plain[name])
    if "properties" in plain:
        plain["properties"] = {name: _plain(value) for name, value in plain["properties"].items()}
    return plain


def _protobuf() -> bytes:
    """Document{1: swagger, 2: info{1: title, 2: version}, 8: paths{}, 9: definitions{}}."""
    info = _field(1, _TITLE.encode()) + _field(2, WHERRY_VERSION.encode())
    return _field(1, b"2.0") + _field(2, info) + _field(8, b"") + _field(9, b"")


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of less than 128 bytes."""
    assert len(content) < 0x80
    return bytes([number << 3 | 2, len(content)]) + content
