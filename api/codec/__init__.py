"""Request bodies and manifests become dicts here: JSON, YAML, Kubernetes protobuf.

Called by server and registry (`decode_body`) and by the CLI (`load_manifests`). Pure. Invariant: whatever the bytes
are, the only errors are `api.errors.BadRequest` and `UnsupportedMediaType`, worded as Kubernetes words them.
"""

from __future__ import annotations

from api.codec.body import Decoded, decode_body
from api.codec.manifests import Manifest, ManifestError, load_manifests

__all__ = ["Decoded", "Manifest", "ManifestError", "decode_body", "load_manifests"]
