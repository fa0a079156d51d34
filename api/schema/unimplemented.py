"""Which fields of Kubernetes wherry keeps but does not act on yet, and which it refuses."""

from __future__ import annotations

from api.errors import FieldError
from api.kinds import Kind
from api.objects import Object


def unimplemented(kind: Kind, obj: Object) -> tuple[list[str], list[FieldError]]:
    """(warnings, refusals) for the fields of `obj` that nothing acts on; a refusal is a 422."""
    del kind, obj
    return [], []
