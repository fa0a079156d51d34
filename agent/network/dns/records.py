"""What the DNS process knows of services and endpoint slices; travels to it as plain JSON lists.

Made by `feeding` in the agent, read back by `control` in the process. Imports the standard library only, so that the
process stays small. Every name here is in lower case: DNS knows no other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Key = tuple[str, str]
"""(namespace, name)."""
Ports = tuple[tuple[str, str, int], ...]
"""(name, protocol, number) of named ports."""


class KnownService(NamedTuple):
    ips: tuple[str, ...]
    headless: bool
    external_name: str
    ports: Ports
    all_endpoints: bool
    """publishNotReadyAddresses: endpoints that are not ready have names, too."""


class KnownEndpoint(NamedTuple):
    addresses: tuple[str, ...]
    hostname: str
    ready: bool


class KnownSlice(NamedTuple):
    service: str
    ports: Ports
    endpoints: tuple[KnownEndpoint, ...]


def service_of(value: Any) -> KnownService:
    ips, headless, external_name, ports, all_endpoints = value
    return KnownService(tuple(ips), headless, external_name, _tuples(ports), all_endpoints)


def slice_of(value: Any) -> KnownSlice:
    service, ports, endpoints = value
    known = (KnownEndpoint(tuple(addresses), name, ready) for addresses, name, ready in endpoints)
    return KnownSlice(service, _tuples(ports), tuple(known))


def _tuples(ports: Any) -> Ports:
    return tuple((name, protocol, number) for name, protocol, number in ports)
