"""Keys of objects in etcd: PREFIX/group/plural/namespace/name, empty parts for the core group and cluster scope.

Used by the whole room. The store's own keys (leadership, synchronisation, compaction) are PREFIX/~WORD/..., below the
same prefix, so that every revision of an etcd of our own has an event the cache sees. Pure.
"""

from __future__ import annotations

from sys import intern

from controller.store.types import Key

_OWN_MARK = "~"


class Keyspace:
    """Translates keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._text = prefix.rstrip("/") + "/"
        self.start = self._text.encode()
        self.end = self.start[:-1] + b"0"
        self._skipped = len(self.start)

    def name(self, key: Key) -> bytes:
        return f"{self._text}{key.group}/{key.plural}/{key.namespace}/{key.name}".encode()

    def own(self, word: str, name: str = "") -> bytes:
        """A key of the store's own business."""
        return f"{self._text}{_OWN_MARK}{word}/{name}".encode()

    def key(self, name: bytes) -> Key | None:
        """The object a key stands for; None for the store's own keys and for what others put below our prefix."""
        try:
            parts = name[self._skipped :].decode().split("/")
        except UnicodeDecodeError:
            return None
        if len(parts) != 4 or parts[0].startswith(_OWN_MARK):
            return None
        return Key(intern(parts[0]), intern(parts[1]), intern(parts[2]), parts[3])

    def bounds(self, resource: tuple[str, str], namespace: str) -> tuple[bytes, bytes]:
        """The range of keys of a resource, in one namespace or (empty) all."""
        group, plural = resource
        start = f"{self._text}{group}/{plural}/{namespace}/" if namespace else f"{self._text}{group}/{plural}/"
        return start.encode(), start[:-1].encode() + b"0"


def place(namespace: str, name: str) -> str:
    """Where an object sorts within its kind: etcd's order, which is Kubernetes' order."""
    return f"{namespace}/{name}"
