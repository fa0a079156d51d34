"""OpenAPI v2 at /openapi/v2, for what still asks for it: older clients, and kubectl given a `kind: List`.

Called by app.py. Invariant: as JSON it holds every definition of the v3 documents; as protobuf (the only form that
kubectl asks for, and only to validate a List before sending its items) none, so that kubectl leaves the validation to
the server, which does it item by item.
Rules: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v2; gnostic's OpenAPIv2.proto.
"""

from __future__ import annotations

import orjson

from api.kinds import cached_by_table
from api.objects import Object
from api.schema import openapi_v3
from controller.server.discovery import served
from controller.server.reply import Reply
from controller.server.version import WHERRY_VERSION

PATH = "/openapi/v2"
# Clients ask for it with an @ before v1.0, which no media type may have.
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_TITLE = "Kubernetes"


def answer_openapi_v2(accept: str) -> Reply:
    if "proto-openapi.spec.v2" in accept:
        return Reply(200, _protobuf(), _PROTOBUF)
    return Reply(200, _json())


@cached_by_table
def _json() -> bytes:
    definitions: Object = {}
    for where, kinds in served().items():
        definitions |= openapi_v3(where.group, where.version, kinds)["components"]["schemas"]
    document = {
        "swagger": "2.0",
        "info": {"title": _TITLE, "version": WHERRY_VERSION},
        "paths": {},
        "definitions": dict(sorted(definitions.items())),
    }
    return orjson.dumps(document).replace(b'"#/components/schemas/', b'"#/definitions/')


def _protobuf() -> bytes:
    """Document{1: swagger, 2: info{1: title, 2: version}, 8: paths{}, 9: definitions{}}."""
    info = _field(1, _TITLE.encode()) + _field(2, WHERRY_VERSION.encode())
    return _field(1, b"2.0") + _field(2, info) + _field(8, b"") + _field(9, b"")


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of less than 128 bytes."""
    assert len(content) < 0x80
    return bytes([number << 3 | 2, len(content)]) + content
