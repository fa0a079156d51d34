"""Which rules hold for which kind."""

from __future__ import annotations

from api.errors import FieldError
from api.kinds import Kind
from api.objects import Object


def validate(kind: Kind, obj: Object, old: Object | None, *, subresource: str = "") -> list[FieldError]:
    """The field errors of `obj`; `old` is the stored state for an update, None for a create."""
    del kind, obj, old, subresource
    return []
