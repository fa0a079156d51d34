"""Services, what stands behind them and what leads to them, judged in Kubernetes' words."""

# ruff: noqa: E501 -- the tables hold Kubernetes' sentences whole
from __future__ import annotations

from typing import Any

import pytest

from api import kinds
from api.objects import Object, clone
from api.schema import default
from controller.registry.validation import validate
from tests.unit.validation.test_later_kinds import ingress, judged, service

DISCOVERY, NETWORKING = "discovery.k8s.io/v1", "networking.k8s.io/v1"
BALANCED = {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}
TWO = {"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}


def endpoint(**fields: Any) -> Object:
    return {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"], **fields}], "ports": []}


def address(**fields: Any) -> Object:
    port = fields.pop("port", {"port": 80})
    return {"subsets": [{"addresses": [{"ip": "10.1.2.3", **fields}], "ports": [port]}]}


def ingress_class(controller: str = "a.b/c", **parameters: Any) -> Object:
    given = {"kind": "K", "name": "n", "scope": "Cluster", **parameters}
    return {"spec": {"controller": controller, **({"parameters": given} if parameters else {})}}


@pytest.mark.parametrize(
    ("api_version", "kind", "fields", "errors"),
    [
        ("v1", "Service", service(externalIPs=["::ffff:1.2.3.4"]), ["spec.externalIPs[0]: Invalid value: \"::ffff:1.2.3.4\": must not be an IPv4-mapped IPv6 address"]),
        ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["x", "010.1.0.0/16", "11.0.0.0/24"]}}]}], "policyTypes": ["Foo"]}}, ['spec.egress[0].to[0].ipBlock.cidr: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length', 'spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)', 'spec.egress[0].to[0].ipBlock.except[1]: Invalid value: "010.1.0.0/16": must not have leading 0s in IP or prefix length', 'spec.egress[0].to[0].ipBlock.except[2]: Invalid value: "11.0.0.0/24": must be a strict subset of `cidr`', 'spec.policyTypes[0]: Unsupported value: "Foo": supported values: "Ingress", "Egress"']),
        ("v1", "Service", service(type="NodePort", clusterIP="None", clusterIPs=["None"]), ['spec.clusterIPs[0]: Invalid value: "None": may not be set to \'None\' for NodePort services']),
        ("v1", "Service", service(clusterIP="", clusterIPs=["10.0.0.1"]), ['spec.clusterIPs: Invalid value: ["10.0.0.1"]: must be empty when `clusterIP` is not specified']),
        ("v1", "Service", service(clusterIP="10.0.0.1", clusterIPs=[]), ["spec.clusterIPs: Required value"]),
        ("v1", "Service", service(clusterIPs=["10.0.0.2"]), ['spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`']),
        ("v1", "Service", service(loadBalancerClass="a.b/c"), ["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"]),
        ("v1", "Service", service(type="ClusterIP", ports=[{"port": 80, "nodePort": 30000}]), ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
        ("v1", "Service", service(externalIPs=["127.0.0.1"]), ['spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)']),
        ("v1", "Service", {"metadata": {"name": "x", "namespace": "n", "uid": "u", "annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8,x"}}, **service(**BALANCED)}, ['metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)']),
        (DISCOVERY, "EndpointSlice", endpoint(hints={"forZones": [{"name": "a"}, {"name": "a"}]}), ['endpoints[0].hints.forZones[1].name: Duplicate value: "a"']),
        (DISCOVERY, "EndpointSlice", endpoint(hints={"forZones": [{"name": str(n)} for n in range(9)]}), ["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"]),
        (DISCOVERY, "EndpointSlice", endpoint(hints={"forNodes": [{"name": "n1"}]}), []),
        (DISCOVERY, "EndpointSlice", endpoint(deprecatedTopology={str(n): "v" for n in range(17)}), ["endpoints[0].deprecatedTopology: Too many: 17: must have at most 16 items"]),
        (DISCOVERY, "EndpointSlice", {**endpoint(addresses=["short"]), "addressType": "FQDN"}, ['endpoints[0].addresses[0]: Invalid value: "short": should be a domain with at least two segments separated by dots']),
        (DISCOVERY, "EndpointSlice", {**endpoint(addresses=["a.b."]), "addressType": "FQDN"}, []),
        (DISCOVERY, "EndpointSlice", {**endpoint(), "addressType": "IPv6"}, ['endpoints[0].addresses[0]: Invalid value: "10.1.2.3": must be an IPv6 address']),
        ("v1", "Endpoints", address(), []),
        ("v1", "Endpoints", address(ip="169.254.1.1"), ['subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)']),
        ("v1", "Endpoints", address(hostname="A"), ["subsets[0].addresses[0].hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]),
        ("v1", "Endpoints", {"subsets": [{"ports": [{"port": 80}]}]}, ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
        ("v1", "Endpoints", address(port={"port": 0}), ["subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        (NETWORKING, "IngressClass", ingress_class(), []),
        (NETWORKING, "IngressClass", ingress_class(apiGroup="g.h"), []),
        (NETWORKING, "IngressClass", ingress_class(namespace="n"), ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]),
        (NETWORKING, "IngressClass", ingress_class(scope="Namespace"), ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]),
        (NETWORKING, "IngressClass", ingress_class(scope="Foo"), ['spec.parameters.scope: Unsupported value: "Foo": supported values: "Cluster", "Namespace"']),
        (NETWORKING, "IngressClass", ingress_class(kind=""), ["spec.parameters.kind: Required value"]),
        (NETWORKING, "IngressClass", ingress_class("a.b/c d"), ["spec.controller: Invalid value: \"c d\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"]),
        (NETWORKING, "IngressClass", ingress_class("a.b/" + "c" * 250), ["spec.controller: Too long: may not be more than 250 bytes"]),
        (NETWORKING, "Ingress", ingress(backend={"resource": {"kind": "K", "name": "a/b"}}), ["spec.rules[0].http.paths[0].backend.resource.name: Invalid value: \"a/b\": may not contain '/'"]),
    ],
)  # fmt: skip
def test_creates(api_version: str, kind: str, fields: Object, errors: list[str]) -> None:
    assert judged(api_version, kind, fields) == errors


@pytest.mark.parametrize(
    ("old", "new", "errors"),
    [
        (service(**TWO), service(clusterIPs=["10.0.0.1"], ipFamilies=["IPv4"], ipFamilyPolicy="PreferDualStack"), [
            'spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to SingleStack when releasing the secondary clusterIP',
            'spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to SingleStack when releasing the secondary ipFamily',
        ]),
        (service(**TWO), service(ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack"), []),
        (service(ipFamilies=["IPv4"]), service(**TWO), []),
        (service(ipFamilies=["IPv4"]), service(ipFamilies=["IPv6"], clusterIP="fd00::1", clusterIPs=["fd00::1"]), [
            'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: may not change once set',
            'spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set',
        ]),
        (service(), service(clusterIP="", clusterIPs=[]), ["spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset"]),
        (service(**BALANCED), service(**BALANCED, loadBalancerClass="a.b/c"), ['spec.loadBalancerClass: Invalid value: "a.b/c": may not change once set']),
        (service(), service(**BALANCED, loadBalancerClass="a.b/c"), []),
    ],
)  # fmt: skip
def test_updates(old: Object, new: Object, errors: list[str]) -> None:
    assert judged("v1", "Service", new, old) == errors


@pytest.mark.parametrize(
    ("kind", "point", "error"),
    [
        ("LoadBalancer", {"ip": "192.0.2.1"}, ""),
        ("LoadBalancer", {"hostname": "a.b"}, ""),
        ("ClusterIP", {"ip": "192.0.2.1", "ipMode": "VIP"}, ": Forbidden: may only be used when `spec.type` is 'LoadBalancer'"),
        ("LoadBalancer", {"hostname": "a.b", "ipMode": "VIP"}, "[0].ipMode: Forbidden: may not be specified when `ip` is not set"),
        ("LoadBalancer", {"ip": "192.0.2.1", "ipMode": "X"}, '[0].ipMode: Unsupported value: "X": supported values: "Proxy", "VIP"'),
        ("LoadBalancer", {"hostname": "192.0.2.1"}, '[0].hostname: Invalid value: "192.0.2.1": must be a DNS name, not an IP address'),
    ],
)  # fmt: skip
def test_where_a_balancer_is_reached(kind: str, point: Object, error: str) -> None:
    found = kinds.by_resource("", "services")
    metadata = {"name": "x", "namespace": "n", "uid": "u"}
    old: Object = {"metadata": metadata, **service(type=kind)}
    new = {**clone(old), "status": {"loadBalancer": {"ingress": [point]}}}
    default(found, new)
    errors = [str(one) for one in validate(found, new, old, subresource="status")]
    assert errors == ([f"status.loadBalancer.ingress{error}"] if error else [])
    if point.get("ip") and kind == "LoadBalancer" and not error:
        assert new["status"]["loadBalancer"]["ingress"][0]["ipMode"] == "VIP"
