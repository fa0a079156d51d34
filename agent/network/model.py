"""What a node knows of the cluster's network: services, slices, nodes, namespaces, pod addresses, as small records.

Made by `feed` out of API objects, read by every part of the node's network (routes, services, policy, DNS, ingress).
Pure. A record keeps what acts on packets and names and nothing else, so that ten thousand of them are some megabytes.
Addresses stay text in the API's canonical form; a `family` is 4 or 6. Fields: kubernetes.io/docs/reference/networking.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from api.objects import Object, annotations_of, labels_of, name_of, namespace_of, uid_of

Key = tuple[str, str]
"""(namespace, name); namespace "" for what lies in none."""

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
SERVED_BY_LABEL = "wherry/served-by"
ANNOUNCER_ANNOTATION = "wherry/announcer"
DEFAULT_AFFINITY_SECONDS = 10_800


def key_of(obj: Mapping[str, Any]) -> Key:
    return namespace_of(obj), name_of(obj)


def plain_address(text: str) -> str:
    """An address in the one way to write it; "" for what is none."""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def _plain(texts: Iterable[str]) -> tuple[str, ...]:
    """To the kernel, two spellings of an address are the same element, and it refuses the second."""
    return tuple(filter(None, dict.fromkeys(map(plain_address, texts))))


def family_of(address: str) -> int:
    """4 or 6, by the address's or CIDR's own look."""
    return 6 if ":" in address else 4


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; `node_port` 0 when it has none. Endpoints' ports are found by `name`."""

    name: str
    protocol: str
    port: int
    node_port: int = 0
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    key: Key
    uid: str
    type: str
    cluster_ips: tuple[str, ...]
    """Without "None": a headless service has no address here."""
    headless: bool
    external_name: str
    ports: tuple[ServicePort, ...]
    external_ips: tuple[str, ...] = ()
    created: str = ""
    """Its creationTimestamp: of several that name one external address, the oldest keeps it."""
    balancer_ips: tuple[str, ...] = ()
    """status.loadBalancer.ingress addresses that the kernel shall answer for (ipMode VIP)."""
    source_ranges: tuple[str, ...] = ()
    affinity_seconds: int = 0
    """0: no session affinity."""
    internal_local: bool = False
    external_local: bool = False
    publish_not_ready: bool = False
    health_check_node_port: int = 0
    traffic_distribution: str = ""
    announcer: str = ""
    """The node that answers ARP for `balancer_ips`, when they are no node's own."""
    served_elsewhere: bool = False
    """Another proxy answers for it: the node's DNS, or the one its label service-proxy-name names."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`ready` already means what publishNotReadyAddresses makes of it; None on the wire counts as true."""

    addresses: tuple[str, ...]
    ready: bool
    serving: bool
    terminating: bool
    hostname: str = ""
    node: str = ""
    zone: str = ""
    pod: str = ""
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlicePort:
    """`port` 0: none given (all ports, which no Service asks for)."""

    name: str
    protocol: str
    port: int
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice; `service` "" when it belongs to none. `address_type`: IPv4, IPv6 or FQDN."""

    key: Key
    service: str
    address_type: str
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node as its peers see it: where packets for its pods go."""

    name: str
    ips: tuple[str, ...]
    """InternalIP addresses, in the node's order."""
    pod_cidrs: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    agent_port: int = 10250
    """Of its agent's own server."""
    outside_ips: tuple[str, ...] = ()
    """ExternalIP addresses."""
    created: str = ""
    """Its creationTimestamp: of several whose podCIDRs overlap, the oldest keeps them."""


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PodAddress:
    """A pod as others' policies see it. `ports`: (name, protocol, number) of its named container ports."""

    key: Key
    uid: str
    labels: Mapping[str, str]
    node: str
    ips: tuple[str, ...]
    ports: tuple[tuple[str, str, int], ...]
    host_network: bool
    ended: bool
    """Succeeded or Failed: its addresses may belong to somebody else by now."""


def parse_service(obj: Object) -> Service:
    spec = obj.get("spec") or {}
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    affinity = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    return Service(
        key=key_of(obj),
        uid=uid_of(obj),
        type=spec.get("type") or "ClusterIP",
        cluster_ips=_plain(ip for ip in ips if ip and ip != "None"),
        headless="None" in ips,
        external_name=spec.get("externalName") or "",
        ports=tuple(_service_port(port) for port in spec.get("ports") or ()),
        external_ips=_plain(spec.get("externalIPs") or ()),
        created=(obj.get("metadata") or {}).get("creationTimestamp") or "",
        balancer_ips=_plain(each["ip"] for each in ingress if each.get("ip") and each.get("ipMode") != "Proxy"),
        source_ranges=tuple(spec.get("loadBalancerSourceRanges") or ()),
        affinity_seconds=(affinity or DEFAULT_AFFINITY_SECONDS) if spec.get("sessionAffinity") == "ClientIP" else 0,
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=spec.get("externalTrafficPolicy") == "Local",
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        health_check_node_port=spec.get("healthCheckNodePort") or 0,
        traffic_distribution=spec.get("trafficDistribution") or "",
        announcer=annotations_of(obj).get(ANNOUNCER_ANNOTATION) or "",
        served_elsewhere=bool(labels_of(obj).get(PROXY_NAME_LABEL)) or labels_of(obj).get(SERVED_BY_LABEL) == "node",
    )


def _service_port(port: Object) -> ServicePort:
    return ServicePort(
        port.get("name") or "",
        port.get("protocol") or "TCP",
        port["port"],
        port.get("nodePort") or 0,
        port.get("appProtocol") or "",
    )


def parse_slice(obj: Object) -> Slice:
    return Slice(
        key=key_of(obj),
        service=labels_of(obj).get(SERVICE_NAME_LABEL) or "",
        address_type=obj.get("addressType") or "IPv4",
        ports=tuple(_slice_port(port) for port in obj.get("ports") or ()),
        endpoints=tuple(_endpoint(endpoint) for endpoint in obj.get("endpoints") or ()),
    )


def _slice_port(port: Object) -> SlicePort:
    return SlicePort(
        port.get("name") or "", port.get("protocol") or "TCP", port.get("port") or 0, port.get("appProtocol") or ""
    )


def _endpoint(endpoint: Object) -> Endpoint:
    conditions = endpoint.get("conditions") or {}
    ready = conditions.get("ready") is not False
    target = endpoint.get("targetRef") or {}
    hints = endpoint.get("hints") or {}
    return Endpoint(
        addresses=tuple(endpoint.get("addresses") or ()),
        ready=ready,
        serving=ready if conditions.get("serving") is None else bool(conditions["serving"]),
        terminating=bool(conditions.get("terminating")),
        hostname=endpoint.get("hostname") or "",
        node=endpoint.get("nodeName") or "",
        zone=endpoint.get("zone") or "",
        pod=target.get("name") or "" if target.get("kind") == "Pod" else "",
        for_zones=tuple(each["name"] for each in hints.get("forZones") or ()),
        for_nodes=tuple(each["name"] for each in hints.get("forNodes") or ()),
    )


def parse_node(obj: Object) -> NodeAddress:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    addresses = status.get("addresses") or ()
    ips, outside = (
        tuple(each["address"] for each in addresses if each.get("type") == wanted)
        for wanted in ("InternalIP", "ExternalIP")
    )
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
    marks = dict(labels_of(obj)), dict(annotations_of(obj))
    created = (obj.get("metadata") or {}).get("creationTimestamp") or ""
    return NodeAddress(name_of(obj), ips, tuple(cidrs), *marks, agent_port=port, outside_ips=outside, created=created)


def parse_namespace(obj: Object) -> Namespace:
    return Namespace(name_of(obj), dict(labels_of(obj)))


def parse_pod_address(obj: Object) -> PodAddress:
    """Out of a whole pod, or of its PodAddress shape, which has the same fields and no others."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    sections = (spec.get("initContainers") or (), spec.get("containers") or ())
    named = [port for section in sections for container in section for port in container.get("ports") or ()]
    ips = tuple(each["ip"] for each in status.get("podIPs") or () if each.get("ip"))
    return PodAddress(
        key=key_of(obj),
        uid=uid_of(obj),
        labels=dict(labels_of(obj)),
        node=spec.get("nodeName") or "",
        ips=ips or ((status["podIP"],) if status.get("podIP") else ()),
        ports=tuple(
            (port["name"], port.get("protocol") or "TCP", port["containerPort"]) for port in named if port.get("name")
        ),
        host_network=bool(spec.get("hostNetwork")),
        ended=status.get("phase") in ("Succeeded", "Failed"),
    )
