"""OpenAPI v3 documents, one a group version."""

from __future__ import annotations

from collections.abc import Iterable

from api.kinds import Kind
from api.objects import Object


def definition(kind: Kind) -> Object:
    """The JSON schema of `kind` as OpenAPI shows it, its references unresolved."""
    del kind
    return {}


def openapi_v3(group: str, version: str, kinds: Iterable[Kind]) -> Object:
    """The document served at /openapi/v3/apis/GROUP/VERSION (or /openapi/v3/api/v1)."""
    del group, version, kinds
    return {"openapi": "3.0.0", "paths": {}, "components": {"schemas": {}}}
