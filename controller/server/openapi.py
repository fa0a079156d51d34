"""OpenAPI v3: the index and a document a group version, for kubectl apply, explain and diff.

Called by app.py. Documents come from `api.schema` and are made when first asked for. Invariant: the hash in an index
URL changes when the document may; a URL with its hash may be kept for ever.
Rules: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import orjson

from api.kinds import cached_by_table
from api.objects import Object
from api.schema import openapi_v3
from api.schema.custom.type import custom_of
from controller.server.discovery import GroupVersion, served
from controller.server.reply import Reply
from controller.server.version import WHERRY_VERSION

PREFIX = "/openapi/v3"


def answer_openapi(path: str, params: dict[str, str], if_none_match: str) -> Reply | None:
    """The index or a document, None for a path that is neither."""
    below = path.removeprefix(PREFIX).strip("/")
    if not below:
        index = orjson.dumps(_index())
        tag = f'"{hashlib.sha256(index).hexdigest().upper()}"'
        return _answer(index, tag, if_none_match)
    where = next((where for where in served() if _path(where) == below), None)
    if where is None:
        return None
    current, asked = _hash(where), params.get("hash")
    if asked and asked != current:
        return Reply(301, b"", headers=[("Location", f"{path}?hash={current}")])
    reply = _answer(_document(where), f'"{current}"', if_none_match)
    if asked:
        reply.cache_control = "public, immutable"
        reply.headers = (*reply.headers, ("Expires", "Thu, 31 Dec 2099 23:59:59 GMT"))
    return reply


def _answer(document: bytes, tag: str, if_none_match: str) -> Reply:
    headers = [("ETag", tag), ("Vary", "Accept")]
    return Reply(304, b"", headers=headers) if tag in if_none_match else Reply(200, document, headers=headers)


def _path(where: GroupVersion) -> str:
    return f"apis/{where.text}" if where.group else f"api/{where.version}"


def _index() -> Object:
    return {
        "paths": {
            _path(where): {"serverRelativeURL": f"{PREFIX}/{_path(where)}?hash={_hash(where)}"} for where in served()
        }
    }


@cached_by_table
def _hash(where: GroupVersion) -> str:
    content = f"{WHERRY_VERSION} {where} {served()[where]} {_stamps(where)}"
    return hashlib.sha256(content.encode()).hexdigest().upper()


def _stamps(where: GroupVersion) -> tuple[str, ...]:
    """Which versions of which definitions a document is made from."""
    return tuple(schema.stamp for kind in served()[where] if (schema := custom_of(kind)) is not None)


def _document(where: GroupVersion) -> bytes:
    return _rendered(where, _stamps(where))


@lru_cache(maxsize=64)
def _rendered(where: GroupVersion, stamps: tuple[str, ...]) -> bytes:
    del stamps  # only to tell one state of the group from another
    return orjson.dumps(openapi_v3(where.group, where.version, served()[where]))
