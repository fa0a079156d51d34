"""All Kubernetes defaults, set in place."""

from __future__ import annotations

from api.kinds import Kind
from api.objects import Object


def default(kind: Kind, obj: Object) -> None:
    """Sets every default of `kind` that `obj` lacks, also inside pod templates; `obj` must have passed `check`."""
    del kind, obj
