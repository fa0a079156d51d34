"""Records of the node's network, read off API objects."""

from __future__ import annotations

from typing import Any

from agent.network import model


def service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", "namespace": "n", "uid": "u"}, "spec": spec}


def test_a_headless_service_has_no_address() -> None:
    parsed = model.parse_service(service(clusterIP="None", clusterIPs=["None"], ports=[{"port": 80}]))
    assert parsed.headless
    assert parsed.cluster_ips == ()
    assert parsed.ports == (model.ServicePort("", "TCP", 80),)


def test_affinity_without_a_timeout_lasts_three_hours() -> None:
    assert model.parse_service(service(sessionAffinity="ClientIP")).affinity_seconds == 10_800
    assert model.parse_service(service(sessionAffinity="None")).affinity_seconds == 0
    given = {"clientIP": {"timeoutSeconds": 5}}
    assert model.parse_service(service(sessionAffinity="ClientIP", sessionAffinityConfig=given)).affinity_seconds == 5


def test_a_balancer_address_in_proxy_mode_is_not_the_kernels() -> None:
    obj = service(type="LoadBalancer")
    obj["status"] = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2", "ipMode": "Proxy"}]}}
    assert model.parse_service(obj).balancer_ips == ("10.0.0.1",)


def test_an_endpoint_without_conditions_is_ready_and_serving() -> None:
    obj = {
        "metadata": {"name": "x-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "x"}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.2"], "targetRef": {"kind": "Pod", "name": "x-0"}}],
    }
    parsed = model.parse_slice(obj)
    assert parsed.service == "x"
    assert parsed.endpoints == (model.Endpoint(("10.244.0.2",), True, True, False, pod="x-0"),)


def test_a_pods_named_ports_are_those_of_all_its_containers() -> None:
    obj = {
        "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
        "spec": {
            "nodeName": "n1",
            "containers": [{"ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]}],
            "initContainers": [{"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
        },
        "status": {"phase": "Running", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}]},
    }
    parsed = model.parse_pod_address(obj)
    assert parsed.ips == ("10.244.0.2",)
    assert parsed.ports == (("dns", "UDP", 53), ("web", "TCP", 80))
    assert not parsed.ended


def test_hints_and_who_serves_a_service_are_read() -> None:
    hints = {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}, {"name": "n2"}]}
    parsed = model.parse_slice({"metadata": {}, "endpoints": [{"addresses": ["10.244.0.2"], "hints": hints}]})
    assert (parsed.endpoints[0].for_zones, parsed.endpoints[0].for_nodes) == (("a",), ("n1", "n2"))
    plain = service()
    assert not model.parse_service(plain).served_elsewhere
    for label, value in (("wherry/served-by", "node"), ("service.kubernetes.io/service-proxy-name", "x")):
        plain["metadata"]["labels"] = {label: value}
        assert model.parse_service(plain).served_elsewhere
    plain["metadata"]["annotations"] = {"wherry/announcer": "n1"}
    assert model.parse_service(plain).announcer == "n1"
