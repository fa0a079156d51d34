"""What the DNS process is told: the feeds' records, packed small, as lines of JSON.

Called by `part`. Pure. Formats: `records`, `control`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.network.dns.records import KnownEndpoint, KnownService, KnownSlice, Ports
from agent.network.feed import Feeds
from agent.network.model import Key, Service, ServicePort, Slice, SlicePort

PIECE = 200
"""Records in one line: reading it holds up no query for more than some milliseconds."""
KINDS = ("namespaces", "services", "slices")
Changes = Mapping[str, Iterable[Key]]
"""Keys by kind."""


def pack_service(service: Service) -> KnownService:
    external = service.external_name.lower() if service.type == "ExternalName" else ""
    headless = service.headless and not external
    ips = () if external else service.cluster_ips
    return KnownService(ips, headless, external, _named(service.ports), service.publish_not_ready)


def pack_slice(piece: Slice) -> KnownSlice | None:
    """None for a slice that gives nobody a name: without service, or of host names."""
    if not piece.service or piece.address_type == "FQDN":
        return None
    endpoints = (KnownEndpoint(each.addresses, each.hostname.lower(), each.ready) for each in piece.endpoints)
    return KnownSlice(piece.service, _named(piece.ports), tuple(endpoints))


def _named(ports: Iterable[ServicePort | SlicePort]) -> Ports:
    return tuple((each.name.lower(), each.protocol.lower(), each.port) for each in ports if each.name and each.port)


def whole_state(feeds: Feeds) -> Iterator[bytes]:
    """All that the feeds know, as lines that replace what the process knew."""
    yield b'{"begin": 1}\n'
    everything = {kind: list(getattr(feeds, kind).records) for kind in KINDS}
    yield from change_lines(feeds, everything)
    yield b'{"end": 1}\n'


def change_lines(feeds: Feeds, changes: Changes) -> Iterator[bytes]:
    """What has become of some keys."""
    for kind in KINDS:
        keys = list(changes.get(kind, ()))
        for at in range(0, len(keys), PIECE):
            values = [_value(feeds, kind, key) for key in keys[at : at + PIECE]]
            yield json.dumps({"put": {kind: values}}).encode() + b"\n"


def _value(feeds: Feeds, kind: str, key: Key) -> list[Any]:
    if kind == "namespaces":
        return [key[1], key in feeds.namespaces.records]
    if kind == "services":
        service = feeds.services.records.get(key)
        return [*key, pack_service(service) if service is not None else None]
    piece = feeds.slices.records.get(key)
    return [*key, pack_slice(piece) if piece is not None else None]
