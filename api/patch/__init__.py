"""The four ways to change part of an object: JSON patch, merge patch, strategic merge patch, server-side apply.

Called by the registry (and the CLI's diff) on plain dicts; pure. Schema questions (merge keys, list types) go to
`api.schema.Node`. Every function may reuse its `patch` argument but works on the given object only where it says so;
refusals are api.errors in the words of the Kubernetes API server.
"""

from __future__ import annotations

from api.patch.apply import Versions, Writer, apply, are_readable, track_update, untyped
from api.patch.json import json_patch
from api.patch.merge import merge_patch
from api.patch.strategic import strategic_merge

__all__ = [
    "Versions",
    "Writer",
    "apply",
    "are_readable",
    "json_patch",
    "merge_patch",
    "strategic_merge",
    "track_update",
    "untyped",
]
