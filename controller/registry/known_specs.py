"""Pod specs that were judged before: thousands of pods share few specs, and the same spec gets the same verdict.

Called by create. A spec is looked up by its bytes as they came in; what is kept is the spec as it left schema walk and
defaults, and whether validation found it good without a warning. Pure, bounded memory. Invariant: only what can be
judged from the spec alone is taken from here; metadata is judged for every pod, and a pod whose annotations mean
something to Kubernetes, or whose volumes are named after it, goes the long way.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from api.kinds import Kind
from api.objects import Object

_CAPACITY = 512
_LONGEST_BYTES = 16 * 1024
_FIELDS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_NAMED_AFTER_POD = b'"ephemeral"'
_MEANINGFUL = "kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Known:
    """`text` is the checked and defaulted spec; `valid`: validation passed it, and nothing in it draws a warning."""

    text: bytes
    valid: bool

    def spec(self) -> Object:
        """A fresh copy."""
        spec: Object = orjson.loads(self.text)
        return spec


class KnownSpecs:
    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}

    def key_of(self, kind: Kind, obj: Object) -> bytes | None:
        """Under what the object's spec is kept; None when it has to be judged in its own right."""
        if kind.plural != "pods" or kind.group or not obj.keys() <= _FIELDS or obj.get("status"):
            return None
        spec, metadata = obj.get("spec"), obj.get("metadata")
        if not isinstance(spec, dict) or not isinstance(metadata, dict):
            return None
        annotations = metadata.get("annotations") or {}
        if not isinstance(annotations, dict) or any(_MEANINGFUL in name for name in annotations):
            return None
        try:
            key = orjson.dumps(spec)
        except TypeError:  # a number beyond 64 bits: the schema walk will name it
            return None
        return None if len(key) > _LONGEST_BYTES or _NAMED_AFTER_POD in key else key

    def find(self, key: bytes | None, *, valid: bool) -> Known | None:
        """What is known of a spec; with `valid`, only what validation passed."""
        known = self._known.get(key) if key is not None else None
        return known if known is not None and (known.valid or not valid) else None

    def learn(self, key: bytes, known: Known) -> None:
        before = self._known.pop(key, None)
        if before is not None and before.valid:
            known = before
        elif len(self._known) >= _CAPACITY:
            del self._known[next(iter(self._known))]
        self._known[key] = known
