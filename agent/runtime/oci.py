"""Writes container images as OCI archives: one layer, no registry, no builder.

Called by `pause` (the sandbox image) and by tests that need a small image. Imports only the standard library. The
bytes are a function of the arguments alone (no clock, no owner), so an image has the same id on every machine.
Format: github.com/opencontainers/image-spec (image-layout, manifest, config).
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Entry:
    """A file, a directory (`path` ends with /) or, with `link`, a symbolic link of the image."""

    path: str
    content: bytes = b""
    mode: int = 0o755
    link: str = ""


def machine_architecture() -> str:
    """This machine, in OCI's words: amd64, arm64."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def write_archive(path: Path, name: str, entries: Sequence[Entry], config: Mapping[str, Any]) -> None:
    """Write an image with one layer as an OCI archive.

    `name` is the full reference (registry/path:tag), `config` the image's run configuration in OCI's own keys
    (Entrypoint, Cmd, Env, User, StopSignal, ExposedPorts ...).
    """
    layer = _layer(entries)
    image = _json(
        {
            "architecture": machine_architecture(),
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created_by": "wherry"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, image),
            "layers": [_descriptor(_LAYER, layer)],
        }
    )
    named = _descriptor(_MANIFEST, manifest) | {"annotations": {"org.opencontainers.image.ref.name": name}}
    with tarfile.open(path, "w") as archive:
        _add(archive, Entry("oci-layout", _json({"imageLayoutVersion": "1.0.0"}), 0o644))
        for blob in (layer, image, manifest):
            _add(archive, Entry(f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob, 0o644))
        _add(archive, Entry("index.json", _json({"schemaVersion": 2, "manifests": [named]}), 0o644))


def _layer(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for entry in entries:
            _add(layer, entry)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path.rstrip("/"))
    info.mode = entry.mode
    if entry.link:
        info.type, info.linkname = tarfile.SYMTYPE, entry.link
    elif entry.path.endswith("/"):
        info.type = tarfile.DIRTYPE
    info.size = len(entry.content)
    archive.addfile(info, io.BytesIO(entry.content))


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
