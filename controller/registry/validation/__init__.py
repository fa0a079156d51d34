"""What a valid object is, per kind: the rules beyond types, in Kubernetes' order, paths and words.

Called by the registry after decoding, pruning and defaulting, before validating admission; pure, imports only `api`.
`validate(kind, obj, old, subresource=...)` returns every field error found; the registry turns them into one 422.
"""

from __future__ import annotations

from controller.registry.validation.dispatch import validate

__all__ = ["validate"]
