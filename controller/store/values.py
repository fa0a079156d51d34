"""Values in etcd and records in the cache: one encoding, written once and spliced ever after.

Used by commit.py (writes), feed.py (reads) and watchers.py. A value is a header (format, sub-index, write id) and the
object's JSON without resourceVersion, sealed for Secrets. A record's `raw` is the same JSON with
`"resourceVersion":"N",` in front of the other metadata; kind, apiVersion and metadata always come first, so that the
place is found without parsing. Pure but for nonces.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from struct import Struct
from typing import Any

import orjson

from api.objects import Object
from controller.store.cipher import Cipher, Unsealable, is_sealed
from controller.store.keys import Keyspace
from controller.store.selectable import fields_of, labels_of, owners_of
from controller.store.types import SUB_INDEXES, VERSION_MARK, Key, Record

_HEADER = Struct(">BHQ")
HEADER_BYTES = _HEADER.size
_PLAIN, _SEALED = 1, 2
_METADATA = b'"metadata":{'
_VERSION = VERSION_MARK[len(_METADATA) :]
_FIRST = ("kind", "apiVersion", "metadata")


class NotOurs(Exception):
    """A value that is not in our format, or sealed with another key."""


def version_of(revision: int, sub_index: int) -> int:
    return revision * SUB_INDEXES + sub_index


def list_version(revision: int) -> int:
    """The version of lists and bookmarks: after everything in that revision."""
    return revision * SUB_INDEXES + SUB_INDEXES - 1


def revision_of(version: int) -> int:
    return version // SUB_INDEXES


def sub_index_of(version: int) -> int:
    return version % SUB_INDEXES


def serialized(obj: Mapping[str, Any]) -> bytes:
    """The object's JSON without resourceVersion, metadata where `spliced` looks for it."""
    metadata = obj.get("metadata") or {}
    if "resourceVersion" not in metadata and tuple(islice(obj, 3)) == _FIRST:
        return orjson.dumps(obj)
    if "resourceVersion" in metadata:
        metadata = {name: value for name, value in metadata.items() if name != "resourceVersion"}
    ordered: Object = {name: obj[name] for name in ("kind", "apiVersion") if name in obj}
    ordered["metadata"] = metadata
    for name, value in obj.items():
        if name not in _FIRST:
            ordered[name] = value
    return orjson.dumps(ordered)


def spliced(plain: bytes, version: int) -> bytes:
    """`serialized` JSON with the resourceVersion in place."""
    at = plain.index(_METADATA) + len(_METADATA)
    comma = b"" if plain[at : at + 1] == b"}" else b","
    return b'%b%b%d"%b%b' % (plain[:at], _VERSION, version, comma, plain[at:])


def unspliced(raw: bytes) -> bytes:
    """A record's JSON without its resourceVersion: what was given to `spliced`."""
    start = raw.index(_METADATA) + len(_METADATA)
    end = raw.index(b'"', start + len(_VERSION)) + 1
    return raw[:start] + raw[end + (raw[end : end + 1] == b",") :]


def same_content(raw: bytes, plain: bytes) -> bool:
    """Whether a record holds exactly the object that `plain` is the JSON of; the order of fields does not count."""
    held = unspliced(raw)
    if held == plain:
        return True
    if len(held) != len(plain):
        return False
    return _canonical(held) == _canonical(plain)


def _canonical(plain: bytes) -> bytes:
    return orjson.dumps(orjson.loads(plain), option=orjson.OPT_SORT_KEYS)


def header(value: bytes) -> tuple[int, int]:
    """(sub-index, write id) of a value of at least HEADER_BYTES."""
    _, sub_index, write_id = _HEADER.unpack_from(value)
    return sub_index, write_id


class Draft:
    """An object on its way into etcd: serialized and looked at once, before its version is known."""

    __slots__ = ("_form", "fields", "key", "labels", "made", "name", "owners", "payload", "plain", "uid")

    def __init__(self, codec: Codec, key: Key, name: bytes, obj: Object) -> None:
        metadata = obj.get("metadata") or {}
        self.key = key
        self.name = name
        self.made: Record | None = None
        """The record it became, once its version was known."""
        self.plain = serialized(obj)
        self.labels = labels_of(metadata)
        self.fields = fields_of(key.resource, key.namespace, key.name, obj)
        self.uid = str(metadata.get("uid") or "")
        self.owners = owners_of(metadata)
        sealed = is_sealed(key.resource)
        self._form = _SEALED if sealed else _PLAIN
        self.payload = codec.cipher.seal(name, self.plain) if sealed else self.plain

    def value(self, sub_index: int, write_id: int) -> bytes:
        return _HEADER.pack(self._form, sub_index, write_id) + self.payload

    def record(self, version: int) -> Record:
        if self.made is None or self.made.version != version:
            raw = spliced(self.plain, version)
            self.made = Record(self.key, version, raw, self.labels, self.fields, self.uid, self.owners)
        return self.made


class Codec:
    """Reads values written by whomever; needs the prefix and the encryption key."""

    def __init__(self, keyspace: Keyspace, cipher: Cipher) -> None:
        self.keyspace = keyspace
        self.cipher = cipher

    def record(self, key: Key, name: bytes, value: bytes, revision: int) -> Record:
        """The record a value of etcd stands for. Raises NotOurs."""
        if len(value) < HEADER_BYTES or value[0] not in (_PLAIN, _SEALED):
            raise NotOurs("not in our format")
        sub_index, _ = header(value)
        plain = value[HEADER_BYTES:]
        try:
            if value[0] == _SEALED:
                plain = self.cipher.unseal(name, plain)
            obj = orjson.loads(plain)
            metadata = obj["metadata"]
            version = version_of(revision, sub_index)
            return Record(
                key,
                version,
                spliced(plain, version),
                labels_of(metadata),
                fields_of(key.resource, key.namespace, key.name, obj),
                str(metadata.get("uid") or ""),
                owners_of(metadata),
            )
        except (Unsealable, ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotOurs(f"{type(error).__name__}: {error}") from error
