"""Image references: the full name behind a short one, as Docker, containerd and Kubernetes read them.

Called by the runtimes, by the pull policy and by credential lookup. Pure; imports only the standard library.
Rules: github.com/distribution/reference (`busybox` is docker.io/library/busybox:latest; a first component with a dot, a
colon or the name localhost is a registry).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DEFAULT_REGISTRY = "docker.io"
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}\Z")


@dataclass(frozen=True)
class Reference:
    """A full image name. With a digest the tag is dropped, as containerd does: the digest says it all."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """Read a reference; ValueError, worded for `InvalidImageName` events, when it is none."""
    name, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.match(digest):
        raise ValueError(f'couldn\'t parse image name "{text}": invalid reference format')
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, colon, tag = name, "", ""
    registry, slash, path = head.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost" or registry.lower() != registry):
        registry, path = _DEFAULT_REGISTRY, head
    if registry == "index.docker.io":
        registry = _DEFAULT_REGISTRY
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if path.lower() != path and _PATH.match(path.lower()):
        raise ValueError(f'couldn\'t parse image name "{text}": repository name must be lowercase')
    if not _PATH.match(path) or not _REGISTRY.match(registry) or (colon and not _TAG.match(tag)):
        raise ValueError(f'couldn\'t parse image name "{text}": invalid reference format')
    return Reference(registry, path, "" if digest else tag or "latest", digest)


def normalize(text: str) -> str:
    """The full name of an image; a text that is no reference (an image id, say) is returned as it is."""
    try:
        return str(parse_reference(text))
    except ValueError:
        return text
