"""Environment variables, the downward API, QoS, DNS and hosts files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from agent.pods.dns import Resolver, dns_config, hosts_file, parse_resolv_conf
from agent.pods.env import ConfigFault, Sources, Surroundings, environment, expand, references
from agent.pods.fields import Facts, UnknownField, field_value, resource_value
from agent.pods.spec import qos_class
from agent.runtime.protocol import DnsConfig
from tests.unit.agent.builders import a_container, a_pod

FACTS = Facts("n1", ("192.0.2.1",), ("10.0.0.2", "fd00::2"), {"cpu": "4", "memory": "8Gi"})
SOURCES: Sources = {
    ("configmap", "cm"): {"data": {"k": "v", "bad-key": "w"}},
    ("secret", "s"): {"data": {"p": base64.b64encode(b"pw").decode()}},
    ("configmap", "gone"): None,
}
NO_SERVICES: Mapping[str, str] = {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(NOPE)", "$(NOPE)"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("$x $(A)$(A)", "$x 11"),
        ("$$$(A)", "$1"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def variables(
    *env: dict[str, Any], env_from: tuple[dict[str, Any], ...] = (), services: Mapping[str, str] = NO_SERVICES
) -> dict[str, str]:
    container = a_container(env=list(env), envFrom=list(env_from))
    return environment(a_pod(container), container, Surroundings(SOURCES, FACTS, services))


def test_services_come_last_are_seen_by_references_and_give_way_to_the_pods_own() -> None:
    services = {"DB_SERVICE_HOST": "10.96.0.5", "DB_SERVICE_PORT": "5432"}
    url = {"name": "URL", "value": "$(DB_SERVICE_HOST):$(DB_SERVICE_PORT)"}
    made = variables({"name": "DB_SERVICE_PORT", "value": "1"}, url, services=services)
    assert list(made.items()) == [("DB_SERVICE_PORT", "1"), ("URL", "10.96.0.5:1"), ("DB_SERVICE_HOST", "10.96.0.5")]


def test_later_variables_see_earlier_ones_and_env_wins_over_env_from() -> None:
    made = variables(
        {"name": "A", "value": "$(P_k)-x"}, {"name": "B", "value": "$(A)"}, {"name": "P_k", "value": "mine"},
        env_from=({"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}),
    )  # fmt: skip
    assert made == {"P_k": "mine", "P_bad-key": "w", "p": "pw", "A": "v-x", "B": "v-x"}


def test_references_resolve_or_say_what_is_missing() -> None:
    key = {"name": "cm", "key": "k"}
    assert variables({"name": "K", "valueFrom": {"configMapKeyRef": key}}) == {"K": "v"}
    with pytest.raises(ConfigFault, match='configmap "gone" not found'):
        variables({"name": "K", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k"}}})
    with pytest.raises(ConfigFault, match="couldn't find key x in Secret ns/s"):
        variables({"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}})
    optional = {"name": "gone", "key": "k", "optional": True}
    assert variables({"name": "K", "valueFrom": {"configMapKeyRef": optional}}) == {}
    assert variables(env_from=({"configMapRef": {"name": "gone", "optional": True}},)) == {}


def test_what_must_be_fetched_is_known_beforehand() -> None:
    container = a_container(
        env=[{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}],
        envFrom=[{"configMapRef": {"name": "cm"}}],
    )
    assert references(container) == {("secret", "s"), ("configmap", "cm")}


def test_fields_of_the_downward_api() -> None:
    pod = a_pod()
    pod["metadata"] |= {"labels": {"b": "two", "a": "1"}, "annotations": {"x": 'say "hi"'}}
    assert field_value(pod, "metadata.labels['a']", FACTS) == "1"
    assert field_value(pod, "metadata.labels", FACTS) == 'a="1"\nb="two"'
    assert field_value(pod, "metadata.annotations", FACTS) == 'x="say \\"hi\\""'
    assert field_value(pod, "status.podIPs", FACTS) == "10.0.0.2,fd00::2"
    with pytest.raises(UnknownField):
        field_value(pod, "spec.containers", FACTS)


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", "1", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.memory", "1Mi", "64"),
        ("limits.memory", "1Gi", "8"),
        ("requests.cpu", "1", "0"),
    ],
)
def test_resources_are_divided_and_rounded_up_and_absent_limits_are_the_node(
    resource: str, divisor: str, expected: str
) -> None:
    pod = a_pod(a_container(resources={"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}))
    assert resource_value(pod, {"resource": resource, "divisor": divisor}, FACTS, "c") == expected


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}, "Guaranteed"),
        ({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
    ],
)
def test_qos(resources: dict[str, Any], expected: str) -> None:
    assert qos_class(a_pod(a_container(resources=resources))) == expected


def test_names_are_resolved_by_the_policy() -> None:
    node = parse_resolv_conf("# x\nnameserver 192.0.2.53\nsearch corp.example\noptions ndots:2 timeout:1\n")
    assert node == DnsConfig(("192.0.2.53",), ("corp.example",), ("ndots:2", "timeout:1"))
    resolver = Resolver(("10.96.0.10",), "cluster.local", lambda: node)
    first = dns_config(a_pod(dnsPolicy="ClusterFirst"), resolver)
    assert first.servers == ("10.96.0.10",)
    assert first.searches == ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")
    assert first.options == ("ndots:5",)
    assert dns_config(a_pod(dnsPolicy="ClusterFirst", hostNetwork=True), resolver) == node
    own = {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}
    assert dns_config(a_pod(dnsPolicy="None", dnsConfig=own), resolver) == DnsConfig(
        ("1.1.1.1",), (), ("ndots:1", "edns0")
    )


def test_the_hosts_file_names_the_pod_and_its_aliases() -> None:
    pod = a_pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}], subdomain="sub")
    lines = hosts_file(pod, ("10.0.0.2",), "cluster.local").splitlines()
    assert lines[0] == "# Kubernetes-managed hosts file."
    assert "10.0.0.2\tp.sub.ns.svc.cluster.local\tp" in lines
    assert lines[-1] == "1.2.3.4\tfoo\tbar"


def test_variables_that_double_each_other_end_at_what_linux_passes_to_a_program() -> None:
    values = {"A0": "x" * 16}
    with pytest.raises(ConfigFault, match="longer than 131072 characters"):
        for level in range(30):
            values[f"A{level + 1}"] = expand(f"$(A{level})$(A{level})", values)
    assert len(values) < 16
    assert len(expand("y" * 200_000, {})) == 200_000, "what is as long as it was written is not ours to judge"
