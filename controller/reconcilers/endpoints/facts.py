"""Pods as endpoints, and what of a Service says which of them and by which ports.

Shared by the three reconcilers of this package. Pure; imports `api`. Rules: k8s.io/endpointslice (utils.go,
util/controller_utils.go) and k8s.io/kubernetes/pkg/controller/endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from api import kinds
from api.objects import Object, condition_of, is_deleting, labels_of, metadata

SERVICES = kinds.by_resource("", "services")
ENDPOINTS = kinds.by_resource("", "endpoints")
SLICES = kinds.by_resource("discovery.k8s.io", "endpointslices")
PODS = kinds.by_resource("", "pods")
NODES = kinds.by_resource("", "nodes")

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
ZONE = "topology.kubernetes.io/zone"
NO_ADDRESS = "None"
IPV4, IPV6 = "IPv4", "IPv6"
_FINISHED = ("Succeeded", "Failed")

ContainerPort = tuple[str, str, int]
"""(name, protocol, number)"""


@dataclass(frozen=True, slots=True)
class EndpointPod:
    """A pod as Services see it. `ports`: the named ones of its containers and sidecars. `ready_since` (wire time of the
    last change of readiness) does not make two of them differ."""

    namespace: str
    name: str
    uid: str
    addresses: tuple[str, ...] = ()
    serving: bool = False
    terminating: bool = False
    finished: bool = False
    node: str = ""
    hostname: str = ""
    subdomain: str = ""
    ports: tuple[ContainerPort, ...] = ()
    ready_since: str = field(default="", compare=False)

    @property
    def reachable(self) -> bool:
        """Has an address and has not come to its end."""
        return bool(self.addresses) and not self.finished

    def address(self, family: str) -> str:
        """Its first address of a family, "" if it has none."""
        return next((address for address in self.addresses if family_of(address) == family), "")


def endpoint_pod(pod: Mapping[str, Any]) -> EndpointPod:
    """Reads what `EndpointPod` holds from a pod object."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    ready = condition_of(status, "Ready") or {}
    return EndpointPod(
        namespace=meta.get("namespace") or "",
        name=meta["name"],
        uid=meta.get("uid") or "",
        addresses=tuple(_addresses(status)),
        serving=ready.get("status") == "True",
        terminating=is_deleting(pod),
        finished=status.get("phase") in _FINISHED,
        node=spec.get("nodeName") or "",
        hostname=spec.get("hostname") or "",
        subdomain=spec.get("subdomain") or "",
        ports=tuple(_named_ports(spec)),
        ready_since=ready.get("lastTransitionTime") or "",
    )


def _addresses(status: Mapping[str, Any]) -> Iterator[str]:
    given = [one.get("ip") for one in status.get("podIPs") or ()] or [status.get("podIP")]
    return (canonical(address) for address in given if address)


def canonical(address: str) -> str:
    """IPv6 addresses have many spellings; endpoints carry the short one."""
    return str(ip_address(address)) if ":" in address else address


def family_of(address: str) -> str:
    return IPV6 if ":" in address else IPV4


def _named_ports(spec: Mapping[str, Any]) -> Iterator[ContainerPort]:
    """Containers first, then init containers that stay (restartPolicy Always)."""
    sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name"):
                yield port["name"], port.get("protocol") or "TCP", port["containerPort"]


def selector_of(service: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels that make a pod an endpoint; empty: this Service has none made for it."""
    spec = service.get("spec") or {}
    return {} if spec.get("type") == "ExternalName" else spec.get("selector") or {}


def families(service: Mapping[str, Any]) -> tuple[str, ...]:
    """The address families of a Service, its first one first."""
    spec = service.get("spec") or {}
    address = spec.get("clusterIP") or NO_ADDRESS
    return tuple(spec.get("ipFamilies") or ()) or (IPV4 if address == NO_ADDRESS else family_of(address),)


def has_address(service: Mapping[str, Any]) -> bool:
    return (service["spec"].get("clusterIP") or NO_ADDRESS) != NO_ADDRESS


def publishes_unready(service: Mapping[str, Any]) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses"))


def resolved_ports(service: Mapping[str, Any], named: Sequence[ContainerPort]) -> Iterator[Object]:
    """The ports of a Service on a pod whose named ports are `named`; those it has no number for are left out."""
    for port in service["spec"].get("ports") or ():
        number = _target(port, named)
        if number is not None:
            resolved = {"name": port.get("name") or "", "port": number, "protocol": port.get("protocol") or "TCP"}
            yield resolved | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})


def _target(port: Mapping[str, Any], named: Sequence[ContainerPort]) -> int | None:
    target = port.get("targetPort") or port["port"]
    if not isinstance(target, str):
        return int(target)
    wanted = (target, port.get("protocol") or "TCP")
    return next((number for name, protocol, number in named if (name, protocol) == wanted), None)


def target_reference(pod: EndpointPod) -> Object:
    return {"kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.uid}


def hostname_for(pod: EndpointPod, service_name: str) -> str:
    """The name by which DNS knows this one pod below the Service, "" for none."""
    return pod.hostname if pod.subdomain == service_name else ""


def shared_labels(service: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """A Service's labels as its endpoints carry them; `own` are the reserved ones, which the Service cannot set."""
    reserved = (SERVICE_NAME, MANAGED_BY, HEADLESS)
    labels = {name: value for name, value in labels_of(service).items() if name not in reserved}
    return labels | ({} if has_address(service) else {HEADLESS: ""}) | dict(own)


def trigger_time(service: Mapping[str, Any], *, first: bool, changed: Iterable[EndpointPod]) -> str:
    """When what is written now came about (TRIGGER_TIME): the oldest change of readiness in it, at first the Service's
    own creation; "" when it was something else, a pod's end or an edit."""
    if first:
        return metadata(service).get("creationTimestamp") or ""
    return min((pod.ready_since for pod in changed if pod.ready_since), default="")
