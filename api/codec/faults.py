"""How a body that cannot be read is refused: the exact sentences of Kubernetes' decoders.

Called by `body`. Source: observed replies (kubectl prints them, and tests of client libraries compare them).
"""

from __future__ import annotations

from api.errors import BadRequest, UnsupportedMediaType
from api.kinds import Kind

_SUMMARY_BYTES = 30
_SCHEME = "pkg/api/legacyscheme/scheme.go:30"
_EXTENSIONS_SCHEME = "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55"

MEDIA_TYPES = "application/json, application/yaml, application/vnd.kubernetes.protobuf"


def unknown_format() -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {MEDIA_TYPES}"
    )


def unrecognized(kind: Kind | None, body: bytes, why: str) -> BadRequest:
    """The body is not even an object of any kind."""
    wanted = f" (must be of type {kind.kind})" if kind is not None else ""
    return BadRequest(f"the object provided is unrecognized{wanted}: {why} ({_summary(body)})")


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    head = body[:_SUMMARY_BYTES]
    shown = head.decode("utf-8", "replace") if body.startswith(b"{") else head.hex()
    return f"{shown} ..." if len(body) > _SUMMARY_BYTES else shown


def cannot_be_handled(kind: Kind, why: str, *, given_kind: str = "", given_version: str = "") -> BadRequest:
    """The body's kind is `given_kind` (that of the URL when empty), and something about it is wrong."""
    given = given_kind or kind.kind
    version = (given_version or kind.api_version).rpartition("/")[2]
    return BadRequest(f'{given} in version "{version}" cannot be handled as a {kind.kind}: {why}')


def not_registered(kind: Kind, api_version: str, given_kind: str) -> BadRequest:
    scheme = _EXTENSIONS_SCHEME if kind.group == "apiextensions.k8s.io" else _SCHEME
    why = f'no kind "{given_kind}" is registered for version "{api_version}" in scheme "{scheme}"'
    return cannot_be_handled(kind, why, given_kind=given_kind, given_version=api_version)
