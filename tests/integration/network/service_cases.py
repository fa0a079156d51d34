"""The table of service cases: one row a rule, with its source and what a client must see. Data only.

A row's service is made of `spec` over DEFAULT_SPEC, its slice of `backends`. Pods a1 and a2 are on the node that the
client's packets meet first, b1 and b2 on another one; "node" and "far" are the nodes themselves (host network). A
client is a pod, "node" (a process on that node) or "out" (a machine outside the cluster). An answer is NAME:PORT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SERVICE = "kubernetes.io/docs/concepts/services-networking/service"
VIPS = "kubernetes.io/docs/reference/networking/virtual-ips"
POLICY = "kubernetes.io/docs/concepts/services-networking/service-traffic-policy"
SOURCE_IP = "kubernetes.io/docs/tutorials/services/source-ip"
TOPOLOGY = "kubernetes.io/docs/concepts/services-networking/topology-aware-routing"
SLICES = "kubernetes.io/docs/concepts/services-networking/endpoint-slices"
LOCAL_LB = "kubernetes.io/docs/tasks/access-application-cluster/create-external-load-balancer"
KEP_1669 = "KEP-1669 proxy terminating endpoints"
KEP_2086 = "KEP-2086 internalTrafficPolicy"
KEP_2433 = "KEP-2433 topology aware hints"
KEP_3015 = "KEP-3015 PreferSameZone and PreferSameNode"
KEP_3866 = "KEP-3866 nftables kube-proxy"
KEP_1860 = "KEP-1860 ipMode of load balancers"

REFUSED, DROPPED = "refused", "dropped"
KEPT = "kept"
"""The server sees the client's own address."""
MASKED = "masked"
"""The server sees an address of the node."""
HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
DEFAULT_SPEC: dict[str, Any] = {"type": "ClusterIP", "ports": [HTTP]}


@dataclass(frozen=True)
class Backend:
    """An endpoint. `at`: where it is; conditions as in an EndpointSlice; `port` of the pod that answers."""

    at: str
    ready: bool | None = True
    serving: bool | None = None
    terminating: bool | None = None
    port: int = 8080
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    nameless: bool = False
    """Without nodeName and targetRef, as in a slice that a person wrote."""


@dataclass(frozen=True)
class Case:
    """`to`: cluster, node-port, far-node-port, balancer, external; with `port` other than the service's own. `expect`:
    REFUSED, DROPPED, or all backends that answer, and no others."""

    what: str
    source: str
    client: str
    expect: str | tuple[str, ...]
    backends: tuple[Backend, ...] = (Backend("a1"), Backend("b1"))
    spec: dict[str, Any] = field(default_factory=dict)
    to: str = "cluster"
    port: int = 80
    protocol: str = "tcp"
    seen: str = ""


def node_port(**spec: Any) -> dict[str, Any]:
    return {"type": "NodePort", **spec}


def balanced(**spec: Any) -> dict[str, Any]:
    return {"type": "LoadBalancer", **spec}


def ending(at: str) -> Backend:
    return Backend(at, ready=False, serving=True, terminating=True)


A1, A2, B1, B2 = Backend("a1"), Backend("a2"), Backend("b1"), Backend("b2")
BOTH = ("a1:8080", "b1:8080")
LOCAL = {"externalTrafficPolicy": "Local"}
INTERNAL = {"internalTrafficPolicy": "Local"}
UDP = {"ports": [{"name": "http", "port": 80, "protocol": "UDP"}]}
TWO_PORTS = {"ports": [HTTP, {"name": "admin", "port": 81, "protocol": "TCP"}]}
BOTH_PROTOCOLS = {"ports": [HTTP, {"name": "http-udp", "port": 80, "protocol": "UDP"}]}

CASES: tuple[Case, ...] = (
    # A cluster IP, from everywhere
    Case("a pod reaches endpoints on both nodes", SERVICE, "a2", BOTH, seen=KEPT),
    Case("a process of the node reaches them too", VIPS, "node", BOTH),
    Case("from outside the cluster, a cluster IP answers by the node's address", VIPS, "out", BOTH, seen=MASKED),
    Case("one endpoint only", SERVICE, "a2", ("b1:8080",), (B1,), seen=KEPT),
    Case("many endpoints with different ports: all are used", SERVICE, "a2",
         ("a1:8080", "a1:9090", "a2:8080", "a2:9090", "b1:8080", "b1:9090", "b2:8080"),
         (A1, A2, B1, B2, *(Backend(at, port=9090) for at in ("a1", "a2", "b1")))),
    Case("UDP", SERVICE, "a2", BOTH, spec=UDP, protocol="udp", seen=KEPT),
    Case("UDP from a process of the node", SERVICE, "node", BOTH, spec=UDP, protocol="udp"),
    Case("TCP and UDP on one port number: TCP", SERVICE, "a2", ("a1:8080",), (A1,), BOTH_PROTOCOLS),
    Case("TCP and UDP on one port number: UDP", SERVICE, "a2", ("a1:8080",), (A1,), BOTH_PROTOCOLS, protocol="udp"),
    Case("the second port of two", SERVICE, "a2", ("a1:8080",), (A1,), TWO_PORTS, port=81),
    Case("a pod reaches itself through its service", VIPS, "a1", ("a1:8080",), (A1,), seen=MASKED),
    Case("a pod reaches itself and others", VIPS, "a1", BOTH),
    Case("a host-network endpoint on this node, from a pod", SERVICE, "a1", ("node:8080",), (Backend("node"),)),
    Case("a host-network endpoint on this node, from the node", SERVICE, "node", ("node:8080",), (Backend("node"),)),
    Case("a host-network endpoint on another node", SERVICE, "a1", ("far:8080",), (Backend("far"),)),
    Case("endpoints written by hand, without nodeName", SERVICE, "a2", ("b1:8080",), (Backend("b1", nameless=True),)),
    # No endpoints, wrong ports
    Case("no endpoints: refused at once", VIPS, "a2", REFUSED, ()),
    Case("no endpoints: refused for a process of the node", VIPS, "node", REFUSED, ()),
    Case("no endpoints, UDP: refused at once", VIPS, "a2", REFUSED, (), UDP, protocol="udp"),
    Case("no endpoints, UDP, from the node", VIPS, "node", REFUSED, (), UDP, protocol="udp"),
    Case("no endpoints, from outside", VIPS, "out", REFUSED, ()),
    Case("only endpoints that are not ready: refused", SERVICE, "a2", REFUSED, (Backend("a1", ready=False),)),
    Case("a port the service does not have: refused", KEP_3866, "a2", REFUSED, port=99),
    Case("a port the service does not have, from the node", KEP_3866, "node", REFUSED, port=99),
    Case("a protocol the service does not have: refused", KEP_3866, "a2", REFUSED, protocol="udp"),
    Case("no endpoints at a node port: refused", VIPS, "out", REFUSED, (), node_port(), "node-port"),
    Case("no endpoints at a balanced address: refused", VIPS, "out", REFUSED, (), balanced(), "balancer"),
    Case("no endpoints at an external IP: refused", VIPS, "out", REFUSED, (), {"externalIPs": True}, "external"),
    # Readiness and ending
    Case("an endpoint that is not ready gets nothing", SLICES, "a2", ("a1:8080",), (A1, Backend("b1", ready=False))),
    Case("no conditions count as ready", SLICES, "a2", ("a1:8080",), (Backend("a1", ready=None),)),
    Case("an ending endpoint gets nothing while others are ready", KEP_1669, "a2", ("b1:8080",),
         (ending("a1"), B1)),
    Case("only ending endpoints that serve: these are used", KEP_1669, "a2", BOTH,
         (ending("a1"), ending("b1"))),
    Case("ending and no longer serving: refused", KEP_1669, "a2", REFUSED,
         (Backend("a1", ready=False, serving=False, terminating=True),)),
    Case("serving but neither ready nor ending: refused", KEP_1669, "a2", REFUSED,
         (Backend("a1", ready=False, serving=True, terminating=False),)),
    Case("publishNotReadyAddresses: an endpoint that ends is told as ready and used", SERVICE, "a2", BOTH,
         (Backend("a1", ready=True, serving=False, terminating=True), B1)),
    Case("Local: an ending local endpoint is used when no local one is ready", KEP_1669, "out", ("a1:8080",),
         (ending("a1"), B1), node_port(**LOCAL), "node-port", seen=KEPT),
    Case("Local: an ending local endpoint gets nothing beside a ready local one", KEP_1669, "out", ("a2:8080",),
         (ending("a1"), A2, B1), node_port(**LOCAL), "node-port"),
    # Node ports
    Case("a node port from outside, by the node's address", SOURCE_IP, "out", BOTH, spec=node_port(),
         to="node-port", seen=MASKED),
    Case("a node port, UDP", SERVICE, "out", BOTH, spec=node_port(**UDP), to="node-port", protocol="udp", seen=MASKED),
    Case("a node port from a pod", SERVICE, "a2", BOTH, spec=node_port(), to="node-port"),
    Case("a node port from a process of the node", SERVICE, "node", BOTH, spec=node_port(), to="node-port"),
    Case("a node port from a pod of another node", SERVICE, "b2", BOTH, spec=node_port(), to="node-port"),
    Case("a pod reaches itself through a node port", SERVICE, "a1", ("a1:8080",), (A1,), node_port(), "node-port"),
    Case("a node port of a host-network endpoint", SERVICE, "out", ("node:8080",), (Backend("node"),), node_port(),
         "node-port"),
    Case("the cluster IP of a node port service", SERVICE, "a2", BOTH, spec=node_port()),
    Case("a node port is none on the cluster IP", KEP_3866, "a2", REFUSED, spec=node_port(), port=-1),
    # External traffic policy
    Case("Local keeps the client's address at a node port", SOURCE_IP, "out", ("a1:8080",), spec=node_port(**LOCAL),
         to="node-port", seen=KEPT),
    Case("Local without local endpoints: dropped", SOURCE_IP, "out", DROPPED, (B1,), node_port(**LOCAL), "node-port"),
    Case("Local, no endpoints anywhere: refused", VIPS, "out", REFUSED, (), node_port(**LOCAL), "node-port"),
    Case("Local at a node port, from a pod: as inside", POLICY, "a2", BOTH, spec=node_port(**LOCAL), to="node-port"),
    Case("Local at a node port, from the node: as inside", POLICY, "node", BOTH, spec=node_port(**LOCAL),
         to="node-port"),
    Case("Local does not narrow the cluster IP", POLICY, "a2", BOTH, spec=node_port(**LOCAL)),
    Case("Local at a balanced address keeps the client's address", LOCAL_LB, "out", ("a1:8080",),
         spec=balanced(**LOCAL), to="balancer", seen=KEPT),
    Case("Local at a balanced address without local endpoints: dropped", LOCAL_LB, "out", DROPPED, (B1,),
         balanced(**LOCAL), "balancer"),
    Case("Local at a balanced address, from a pod: as inside", POLICY, "a2", BOTH, spec=balanced(**LOCAL),
         to="balancer"),
    Case("Local at a balanced address, from the node: as inside", POLICY, "node", BOTH, spec=balanced(**LOCAL),
         to="balancer"),
    Case("Local at an external IP", POLICY, "out", ("a1:8080",), spec={"externalIPs": True, **LOCAL}, to="external",
         seen=KEPT),
    # Balanced addresses and external IPs
    Case("a balanced address from outside", SERVICE, "out", BOTH, spec=balanced(), to="balancer", seen=MASKED),
    Case("a balanced address from a pod stays inside", SERVICE, "a2", BOTH, spec=balanced(), to="balancer"),
    Case("a balanced address from the node", SERVICE, "node", BOTH, spec=balanced(), to="balancer"),
    Case("a balanced address, UDP", SERVICE, "out", BOTH, spec=balanced(**UDP), to="balancer", protocol="udp"),
    Case("a balanced service has a node port too", SERVICE, "out", BOTH, spec=balanced(), to="node-port"),
    Case("allocateLoadBalancerNodePorts false: the balanced address works", SERVICE, "out", BOTH,
         spec=balanced(allocateLoadBalancerNodePorts=False), to="balancer"),
    Case("an external IP from outside", SERVICE, "out", BOTH, spec={"externalIPs": True}, to="external", seen=MASKED),
    Case("an external IP from a pod", SERVICE, "a2", BOTH, spec={"externalIPs": True}, to="external"),
    Case("an address in ipMode Proxy is left to the balancer", KEP_1860, "a2", DROPPED, spec=balanced(ipMode="Proxy"),
         to="balancer"),
    # Source ranges
    Case("a source range with the client", SERVICE, "out", BOTH,
         spec=balanced(loadBalancerSourceRanges=["192.0.2.64/26"]), to="balancer"),
    Case("a source range without the client: dropped", SERVICE, "out", DROPPED,
         spec=balanced(loadBalancerSourceRanges=["198.51.100.0/24"]), to="balancer"),
    Case("one of several source ranges, written loosely", SERVICE, "out", BOTH,
         spec=balanced(loadBalancerSourceRanges=["198.51.100.0/24", " 192.0.2.100/32 "]), to="balancer"),
    Case("source ranges do not guard the node port", SERVICE, "out", BOTH,
         spec=balanced(loadBalancerSourceRanges=["198.51.100.0/24"]), to="node-port"),
    Case("source ranges do not guard the cluster IP", SERVICE, "a2", BOTH,
         spec=balanced(loadBalancerSourceRanges=["198.51.100.0/24"])),
    Case("source ranges hold for pods, too", SERVICE, "a2", DROPPED,
         spec=balanced(loadBalancerSourceRanges=["198.51.100.0/24"]), to="balancer"),
    Case("source ranges and Local", SERVICE, "out", ("a1:8080",),
         spec=balanced(loadBalancerSourceRanges=["192.0.2.0/24"], **LOCAL), to="balancer", seen=KEPT),
    # Internal traffic policy
    Case("internal Local: this node's endpoints only", KEP_2086, "a2", ("a1:8080",), spec=INTERNAL, seen=KEPT),
    Case("internal Local from a process of the node", KEP_2086, "node", ("a1:8080",), spec=INTERNAL),
    Case("internal Local without local endpoints: dropped", KEP_2086, "a2", DROPPED, (B1,), INTERNAL),
    Case("internal Local, no endpoints anywhere: refused", KEP_2086, "a2", REFUSED, (), INTERNAL),
    Case("internal Local does not narrow the node port", KEP_2086, "out", BOTH, spec=node_port(**INTERNAL),
         to="node-port"),
    Case("internal Local, ending local endpoints as a last resort", KEP_1669, "a2", ("a1:8080",),
         (ending("a1"), B1), INTERNAL),
    Case("both policies Local", POLICY, "out", ("a1:8080",), spec=node_port(**INTERNAL, **LOCAL), to="node-port"),
    # Hints
    Case("hints: the endpoints of this zone", KEP_2433, "a2", ("b1:8080",),
         (Backend("a1", zones=("z2",)), Backend("b1", zones=("z1",)))),
    Case("hints: one without a hint, all are used", KEP_2433, "a2", BOTH, (A1, Backend("b1", zones=("z1",)))),
    Case("hints: none for this zone, all are used", KEP_2433, "a2", BOTH,
         (Backend("a1", zones=("z2",)), Backend("b1", zones=("z3",)))),
    Case("hints: several zones for one endpoint", KEP_2433, "a2", ("a1:8080",),
         (Backend("a1", zones=("z2", "z1")), Backend("b1", zones=("z3",)))),
    Case("hints: only ready endpoints count", KEP_2433, "a2", ("b1:8080",),
         (Backend("a1", zones=("z1",), ready=False), Backend("b1", zones=("z2",)))),
    Case("hints for nodes: this node's endpoints", KEP_3015, "a2", ("a1:8080",),
         (Backend("a1", nodes=("node",), zones=("z1",)), Backend("b1", nodes=("far",), zones=("z1",)))),
    Case("hints for nodes: none for this node, then zones", KEP_3015, "a2", ("b1:8080",),
         (Backend("b1", nodes=("far",), zones=("z1",)), Backend("b2", nodes=("far",), zones=("z2",)))),
    Case("hints do not narrow Local", TOPOLOGY, "out", ("a1:8080",),
         (Backend("a1", zones=("z2",)), Backend("b1", zones=("z1",))), node_port(**LOCAL), "node-port"),
    # Not the kernel's business
    Case("a service that another proxy serves: not ours", SERVICE, "a2", DROPPED,
         spec={"labels": {"service.kubernetes.io/service-proxy-name": "other"}}),
)  # fmt: skip
