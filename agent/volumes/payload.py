"""The files of ConfigMap, Secret, downwardAPI and projected volumes: path -> content and mode. Pure.

What must be fetched first is said by `needs`. Called by `volumes`. Rules and wording: the kubelet's volume plugins
(kubernetes.io/docs/concepts/storage/volumes, .../projected-volumes).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.pods.env import Source, SourceKind, Sources
from agent.pods.fields import Facts, UnknownField, field_value, resource_value
from api.objects import Object

PAYLOAD_KINDS = ("configMap", "secret", "downwardAPI", "projected")
DEFAULT_MODE = 0o644
DEFAULT_TOKEN_SECONDS = 3600
_NO_KEY = {
    "configmap": "configmap references non-existent config key",
    "secret": "references non-existent secret key",
}


class VolumeFault(Exception):
    """A volume cannot be made now; `message` goes into its FailedMount event."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class File:
    data: bytes
    mode: int = DEFAULT_MODE


Payload = dict[str, File]


@dataclass(frozen=True)
class TokenAsk:
    """One service account token: for whom it is, and how long it lives. An empty audience is the API server's."""

    audience: str = ""
    seconds: int = DEFAULT_TOKEN_SECONDS


@dataclass(frozen=True)
class Ingredients:
    """What was fetched for a pod's volumes."""

    facts: Facts
    sources: Sources = field(default_factory=dict)
    tokens: Mapping[TokenAsk, str] = field(default_factory=dict)


def sources_of(volume: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The (kind, definition) pairs that make up the volume's files; nothing for a volume of another sort."""
    for kind in ("configMap", "secret", "downwardAPI"):
        if kind in volume:
            yield kind, volume[kind] or {}
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from source.items()


def needs(volume: Mapping[str, Any]) -> tuple[set[Source], set[TokenAsk]]:
    """The objects and tokens that a volume's files are made from."""
    objects: set[Source] = set()
    tokens: set[TokenAsk] = set()
    for kind, given in sources_of(volume):
        if kind == "configMap":
            objects.add(("configmap", given["name"]))
        elif kind == "secret":
            objects.add(("secret", given.get("secretName") or given["name"]))
        elif kind == "serviceAccountToken":
            tokens.add(_token(given))
    return objects, tokens


def payload_of(pod: Object, volume: Mapping[str, Any], have: Ingredients) -> Payload:
    """All files of one volume. Raises VolumeFault for what is missing and not optional."""
    files: Payload = {}
    mode = default_mode(volume)
    for kind, given in sources_of(volume):
        if kind == "configMap":
            files |= _keys("configmap", given["name"], given, have, mode)
        elif kind == "secret":
            files |= _keys("secret", given.get("secretName") or given["name"], given, have, mode)
        elif kind == "downwardAPI":
            files |= _downward(pod, given, have.facts, mode)
        elif kind == "serviceAccountToken":
            private = (pod["spec"].get("securityContext") or {}).get("fsGroup") is not None
            files[given["path"]] = File(have.tokens[_token(given)].encode(), 0o600 if private else mode)
        else:
            raise VolumeFault(f"this node does not know projected volume source {kind}")
    return files


def default_mode(volume: Mapping[str, Any]) -> int:
    for kind in PAYLOAD_KINDS:
        given = (volume.get(kind) or {}).get("defaultMode")
        if given is not None:
            return int(given)
    return DEFAULT_MODE


def _token(given: Mapping[str, Any]) -> TokenAsk:
    return TokenAsk(given.get("audience") or "", int(given.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS))


def _keys(kind: SourceKind, name: str, given: Mapping[str, Any], have: Ingredients, mode: int) -> Payload:
    found = have.sources.get((kind, name))
    optional = bool(given.get("optional"))
    if found is None:
        if optional:
            return {}
        raise VolumeFault(f'{kind} "{name}" not found')
    contents = contents_of(kind, found)
    items = given.get("items")
    if not items:
        return {key: File(data, mode) for key, data in contents.items()}
    files: Payload = {}
    for item in items:
        if item["key"] not in contents:
            if optional:
                continue
            raise VolumeFault(f"{_NO_KEY[kind]}: {item['key']}")
        own = item.get("mode")
        files[item["path"]] = File(contents[item["key"]], mode if own is None else int(own))
    return files


def contents_of(kind: SourceKind, found: Object) -> dict[str, bytes]:
    """The data of a ConfigMap (binaryData too) or Secret as bytes."""
    if kind == "secret":
        return {key: base64.b64decode(value or "") for key, value in (found.get("data") or {}).items()}
    contents = {key: str(value).encode() for key, value in (found.get("data") or {}).items()}
    return contents | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


def _downward(pod: Object, given: Mapping[str, Any], facts: Facts, mode: int) -> Payload:
    files: Payload = {}
    for item in given.get("items") or ():
        try:
            if reference := item.get("fieldRef"):
                text = field_value(pod, reference.get("fieldPath") or "", facts)
            else:
                text = resource_value(pod, item.get("resourceFieldRef") or {}, facts)
        except UnknownField as fault:
            raise VolumeFault(str(fault)) from fault
        own = item.get("mode")
        files[item["path"]] = File(text.encode(), mode if own is None else int(own))
    return files
