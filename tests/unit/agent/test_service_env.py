"""The variables by which containers find services: those of the kubelet, name by name."""

from __future__ import annotations

from typing import Any

from agent.network.model import parse_service
from agent.pods.service_env import service_environment


def services(*made: dict[str, Any]) -> Any:
    return {service.key: service for service in map(parse_service, made)}


def a_service(name: str, namespace: str = "ns", **spec: Any) -> dict[str, Any]:
    given = {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": namespace, "uid": name}, "spec": {**given, **spec}}


API = a_service("kubernetes", "default", clusterIPs=["10.96.0.1"], ports=[{"name": "https", "port": 443}])


def test_a_pod_finds_the_api_server_and_the_services_of_its_namespace() -> None:
    ports = [{"name": "dns-udp", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 80}]
    known = services(API, a_service("my-db", ports=ports), a_service("other", "elsewhere"))
    assert service_environment("ns", True, known) == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
        "MY_DB_SERVICE_HOST": "10.96.0.7",
        "MY_DB_SERVICE_PORT": "53",
        "MY_DB_SERVICE_PORT_DNS_UDP": "53",
        "MY_DB_SERVICE_PORT_WEB": "80",
        "MY_DB_PORT": "udp://10.96.0.7:53",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.7:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.7",
        "MY_DB_PORT_80_TCP": "tcp://10.96.0.7:80",
        "MY_DB_PORT_80_TCP_PROTO": "tcp",
        "MY_DB_PORT_80_TCP_PORT": "80",
        "MY_DB_PORT_80_TCP_ADDR": "10.96.0.7",
    }


def test_without_service_links_only_the_api_server_is_told() -> None:
    made = service_environment("ns", False, services(API, a_service("db")))
    assert made["KUBERNETES_SERVICE_HOST"] == "10.96.0.1" and not any(name.startswith("DB") for name in made)


def test_a_namespaces_own_service_of_the_name_kubernetes_wins_if_links_are_wanted() -> None:
    known = services(API, a_service("kubernetes"))
    assert service_environment("ns", True, known)["KUBERNETES_SERVICE_HOST"] == "10.96.0.7"
    assert service_environment("ns", False, known)["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


def test_services_without_an_address_have_no_variables_and_addresses_of_ipv6_stand_in_brackets() -> None:
    headless = a_service("headless", clusterIP="None", clusterIPs=["None"])
    alias = a_service("alias", type="ExternalName", clusterIP="", clusterIPs=[], ports=[])
    six = a_service("six", clusterIPs=["fd00::7"])
    made = service_environment("ns", True, services(headless, alias, six))
    assert {name.split("_")[0] for name in made} == {"SIX"}
    assert made["SIX_PORT"] == "tcp://[fd00::7]:80" and made["SIX_SERVICE_HOST"] == "fd00::7"
