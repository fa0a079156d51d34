"""Pod specs that were seen before: thousands of pods share few specs, and the same spec gets the same verdict.

Called by create. Two memories of their own. What a spec looks like after schema walk and defaults is looked up by its
bytes as they came in. Whether validation found a spec good, without a warning, is looked up by its bytes as they would
be stored: after admission, because limit ranges and service accounts of a namespace change it. Pure, bounded memory.
Invariant: only what can be judged from the spec alone is taken from here; metadata is judged for every pod, and a pod
whose annotations mean something to Kubernetes, or whose volumes are named after it, goes the long way.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from api.kinds import Kind
from api.objects import Object
from controller.admission.service_accounts import VOLUME_PREFIX

_CAPACITY = 512
_LONGEST_BYTES = 16 * 1024
_FIELDS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_NAMED_AFTER_POD = b'"ephemeral"'
_MEANINGFUL, _OF_CLIENTS = "kubernetes.io/", "kubectl.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Known:
    """`text` is the defaulted spec; `walked`: it passed the schema walk, and nothing in it drew a warning."""

    text: bytes
    walked: bool

    def spec(self) -> Object:
        """A fresh copy."""
        spec: Object = orjson.loads(self.text)
        return spec


class KnownSpecs:
    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self._good: dict[bytes, None] = {}

    def key_of(self, kind: Kind, obj: Object) -> bytes | None:
        """Under what the object's spec is kept; None when it has to be judged in its own right."""
        if kind.plural != "pods" or kind.group or not obj.keys() <= _FIELDS or obj.get("status"):
            return None
        spec, metadata = obj.get("spec"), obj.get("metadata")
        if not isinstance(spec, dict) or not isinstance(metadata, dict):
            return None
        annotations = metadata.get("annotations") or {}
        if not isinstance(annotations, dict) or any(map(_means_something, annotations)):
            return None
        try:
            key = orjson.dumps(spec)
        except TypeError:  # a number beyond 64 bits: the schema walk will name it
            return None
        return None if len(key) > _LONGEST_BYTES or _NAMED_AFTER_POD in key else key

    def find(self, key: bytes | None, *, walked: bool) -> Known | None:
        """What is known of a spec; with `walked`, only what passed the schema walk."""
        known = self._known.get(key) if key is not None else None
        return known if known is not None and (known.walked or not walked) else None

    def learn(self, key: bytes, known: Known) -> None:
        before = self._known.pop(key, None)
        if before is not None and before.walked:
            known = before
        elif len(self._known) >= _CAPACITY:
            del self._known[next(iter(self._known))]
        self._known[key] = known

    def is_good(self, fingerprint: bytes) -> bool:
        return fingerprint in self._good

    def remember_good(self, fingerprint: bytes) -> None:
        """Validation passed the spec with this fingerprint, without a warning."""
        if len(self._good) >= _CAPACITY:
            del self._good[next(iter(self._good))]
        self._good[fingerprint] = None


def fingerprint_of(spec: Object) -> bytes:
    """Equal for specs as they are stored that get the same verdict: the token volume's random name does not count."""
    text = orjson.dumps(spec)
    volumes = spec.get("volumes")
    name: str = volumes[-1]["name"] if volumes else ""
    return text.replace(name.encode(), b"*") if name.startswith(VOLUME_PREFIX) else text


def _means_something(annotation: object) -> bool:
    return _MEANINGFUL in str(annotation) and not str(annotation).startswith(_OF_CLIENTS)
