"""Who owns which field: managedFields of everything that is written.

Called by create, update and patching; the sets themselves are computed in api.patch.apply. Pure. A field belongs to the
manager that last changed it (https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management).
"""

from __future__ import annotations

from functools import lru_cache

from api.kinds import Kind
from api.objects import Object
from api.patch import Writer, track_update
from api.schema import merge_schema
from controller.admission.types import Request
from controller.registry.system_fields import timestamp
from controller.registry.types import Target

_LONGEST_MANAGER = 128
_NOT_WRITTEN_BY = {"": ("status",), "status": ("spec",)}
"""What an endpoint ignores, it does not own: the object's own endpoint (when it has a status one), and `status`."""


def manager_of(request: Request) -> str:
    """The field manager: as asked for, else the program's name from its User-Agent."""
    if request.field_manager:
        return request.field_manager
    name = request.user_agent.partition("/")[0]
    return "".join(letter for letter in name if letter.isprintable())[:_LONGEST_MANAGER] or "unknown"


def writer_of(request: Request, kind: Kind, subresource: str = "") -> Writer:
    reset = _NOT_WRITTEN_BY.get(subresource, ()) if kind.has_status else ()
    return _writer(manager_of(request), kind.api_version, timestamp(request.now()), subresource, reset)


_writer = lru_cache(maxsize=512)(Writer)
"""Writers are compared by value and live a second: many writes share one."""


def own_new(request: Request, kind: Kind, obj: Object) -> None:
    """The creator owns all it wrote; what admission and strategy add later belongs to nobody."""
    track_update(None, obj, writer_of(request, kind), merge_schema(kind))


def own_update(request: Request, target: Target, new: Object, old: Object) -> None:
    """The writer takes over what it changed, and nothing else."""
    track_update(old, new, writer_of(request, target.kind, target.subresource), merge_schema(target.kind))
