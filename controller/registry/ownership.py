"""Who owns which field: managedFields of everything that is written.

Called by create, update and patching; the sets themselves are computed in api.patch.apply. A field belongs to the
manager that last changed it (https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management). What
is owned in another version of a custom kind is compared in that version; what has to be converted for it is found out
by trying (`settled`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import orjson

from api.kinds import Kind
from api.objects import Object, clone
from api.patch import Writer, are_readable, track_update
from api.schema import merge_schema
from api.schema.custom.type import Family, custom_of
from api.schema.nodes import Node
from controller.admission.types import Request
from controller.registry.conversion import Converter, in_version
from controller.registry.intake import aside
from controller.registry.system_fields import timestamp
from controller.registry.types import Target

Result = TypeVar("Result")
_LONGEST_MANAGER = 128
_NOT_WRITTEN_BY = {"": ("status",), "status": ("spec",)}
"""What an endpoint ignores, it does not own: the object's own endpoint (when it has a status one), and `status`."""


def manager_of(request: Request) -> str:
    """The field manager: as asked for, else the program's name from its User-Agent."""
    if request.field_manager:
        return request.field_manager
    return _program(request.user_agent)


@lru_cache(maxsize=512)
def _program(user_agent: str) -> str:
    name = user_agent.partition("/")[0]
    return "".join(letter for letter in name if letter.isprintable())[:_LONGEST_MANAGER] or "unknown"


def writer_of(request: Request, kind: Kind, subresource: str = "") -> Writer:
    reset = _NOT_WRITTEN_BY.get(subresource, ()) if kind.has_status else ()
    return _writer(manager_of(request), kind.api_version, timestamp(request.now()), subresource, reset)


_writer = lru_cache(maxsize=512)(Writer)
"""Writers are compared by value and live a second: many writes share one."""


class Unconverted(Exception):
    """An object is needed in another version; `settled` gets it and starts again."""

    def __init__(self, versions: FieldVersions, obj: Object, api_version: str) -> None:
        super().__init__(api_version)
        self.versions = versions
        self.obj = obj
        self.api_version = api_version


@dataclass(frozen=True)
class FieldVersions:
    """The versions of a custom kind as api.patch asks for them; remembers what was converted."""

    kind: Kind
    family: Family
    known: dict[tuple[bytes, str], Object] = field(default_factory=dict)

    def shown(self, obj: Object, api_version: str) -> Object | None:
        """`obj` in that version, None if there is none. Raises Unconverted."""
        if api_version == obj.get("apiVersion"):
            return obj
        if api_version not in self.family.types:
            return None
        if self.family.webhook is None:
            return {**obj, "apiVersion": api_version}
        found = self.known.get((_identity(obj), api_version))
        if found is None:
            raise Unconverted(self, obj, api_version)
        return found

    def schema(self, api_version: str) -> Node | None:
        return merge_schema(in_version(self.kind, api_version)) if api_version in self.family.types else None

    async def learn(self, converter: Converter, missing: Unconverted) -> None:
        """Converts what was missing. Raises ApiError."""
        (found,) = await converter.convert(in_version(self.kind, missing.api_version), [clone(missing.obj)])
        self.known[_identity(missing.obj), missing.api_version] = found


def _identity(obj: Object) -> bytes:
    return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)


def versions_of(kind: Kind) -> FieldVersions | None:
    """None for a kind whose objects have one version."""
    schema = custom_of(kind)
    return FieldVersions(kind, schema.family) if schema is not None and kind.is_view else None


async def settled(converter: Converter, make: Callable[[], Result], *, large: bool = False) -> Result:
    """What a function makes that may raise Unconverted; of a `large` object beside the loop. Raises ApiError."""
    while True:
        try:
            return await aside(large, make)
        except Unconverted as missing:
            await missing.versions.learn(converter, missing)


def own_new(request: Request, kind: Kind, obj: Object) -> None:
    """The creator owns all it wrote; what admission and strategy add later belongs to nobody."""
    track_update(None, obj, writer_of(request, kind), merge_schema(kind))


def keep_ownership(request: Request, obj: Object, before: Any) -> None:
    """Takes back what webhooks made of managedFields (`before` them) if it cannot be read."""
    metadata = obj["metadata"]
    found = metadata.get("managedFields")
    if found is None or found == before or are_readable(found):
        return
    request.warnings.append(_UNREADABLE)
    if before is None:
        del metadata["managedFields"]
    else:
        metadata["managedFields"] = before


_UNREADABLE = (
    ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating "
    "admission controller; please fix your requests: the entries cannot be decoded"
)


async def own_update(
    converter: Converter, request: Request, target: Target, new: Object, old: Object, *, large: bool = False
) -> None:
    """The writer takes over what it changed, and nothing else. Raises ApiError."""
    writer, schema = writer_of(request, target.kind, target.subresource), merge_schema(target.kind)
    versions = versions_of(target.kind)
    await settled(converter, lambda: track_update(old, new, writer, schema, versions), large=large)
