"""What containers are told of services by environment variables: `NAME_SERVICE_HOST` and Docker's link variables. Pure.

Called when a container is made, with the services that the node knows at that moment: as with the kubelet, a service
that comes later is told to later containers only, and the hash of a container does not cover these variables, so a
change of services restarts nothing. Rules:
kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from agent.network.model import Key, Service, ServicePort

API_SERVICE: Key = ("default", "kubernetes")
"""The service that every pod hears of: it is how clients in pods find the API server."""


class KnownServices(Protocol):
    async def services(self) -> Mapping[Key, Service] | None:
        """All services of the cluster. Waits a moment until they were heard once; None: they were not."""


class NoServices:
    """For nodes without a network of ours, and for tests: there are no services."""

    async def services(self) -> Mapping[Key, Service] | None:
        return {}


def service_environment(namespace: str, links: bool, services: Mapping[Key, Service]) -> dict[str, str]:
    """The variables of a pod. Without `links` (spec.enableServiceLinks) it hears of the API's service only."""
    chosen: dict[str, Service] = {}
    if API_SERVICE in services:
        chosen[API_SERVICE[1]] = services[API_SERVICE]
    if links:
        chosen.update({name: services[home, name] for home, name in services if home == namespace})
    made: dict[str, str] = {}
    for name in sorted(chosen):
        made.update(_variables(chosen[name]))
    return made


def _variables(service: Service) -> Iterable[tuple[str, str]]:
    if not service.cluster_ips or not service.ports:
        return  # headless, or a name for something elsewhere: there is no address to tell
    prefix, address = _variable_name(service.key[1]), service.cluster_ips[0]
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(service.ports[0].port)
    for port in service.ports:
        if port.name:
            yield f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}", str(port.port)
    yield f"{prefix}_PORT", _url(address, service.ports[0])
    for port in service.ports:
        link = f"{prefix}_PORT_{port.port}_{port.protocol}"
        yield link, _url(address, port)
        yield f"{link}_PROTO", port.protocol.lower()
        yield f"{link}_PORT", str(port.port)
        yield f"{link}_ADDR", address


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")


def _url(address: str, port: ServicePort) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{port.protocol.lower()}://{host}:{port.port}"
