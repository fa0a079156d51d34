"""What an update takes back: of Services that change their type, signing requests, definitions and their objects."""

from __future__ import annotations

from typing import Any

import pytest

from api import kinds
from api.objects import Object, clone
from controller.registry.strategies import prepare_update_of, strategy_of
from controller.registry.strategies.custom import custom_strategy

SERVICES = kinds.by_resource("", "services")
REQUESTS = kinds.by_resource("certificates.k8s.io", "certificatesigningrequests")
DEFINITIONS = kinds.by_resource("apiextensions.k8s.io", "customresourcedefinitions")
ADDRESSED = {
    "clusterIP": "10.0.0.1",
    "clusterIPs": ["10.0.0.1"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
}
BALANCED = {
    "type": "LoadBalancer",
    "allocateLoadBalancerNodePorts": True,
    "loadBalancerClass": "a.b/c",
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": 32000,
    "ports": [{"port": 80, "nodePort": 30080}],
    **ADDRESSED,
}
SHOWN = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}


def changed(old: Object, **spec: Any) -> Object:
    """A Service after an update that changes these fields of the spec."""
    before = {"metadata": {"name": "x"}, "spec": old, "status": clone(SHOWN)}
    after = {"metadata": {"name": "x"}, "spec": clone({**old, **spec}), "status": {"loadBalancer": {}}}
    prepare_update_of(SERVICES, "")(after, before)
    return after


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({}, set()),
        (
            {"type": "NodePort"},
            {"allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"},
        ),
        (
            {"type": "NodePort", "loadBalancerClass": "other", "allocateLoadBalancerNodePorts": False},
            {"healthCheckNodePort"},
        ),
        (
            {"type": "ClusterIP"},
            {"allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort", "externalTrafficPolicy"},
        ),
        (
            {"type": "ClusterIP", "externalIPs": ["192.0.2.9"]},
            {"allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"},
        ),
        ({"externalTrafficPolicy": "Cluster"}, {"healthCheckNodePort"}),
        ({"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 32001}, set()),
        (
            {"type": "ExternalName"},
            {
                *("allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort", "externalTrafficPolicy"),
                *ADDRESSED,
            },
        ),
    ],
)
def test_a_service_drops_what_its_new_type_has_no_use_for(change: Object, gone: set[str]) -> None:
    assert {**BALANCED, **change}.keys() - changed(BALANCED, **change)["spec"].keys() == gone


def test_only_a_load_balancer_shows_where_it_is_reached() -> None:
    assert changed(BALANCED)["status"] == SHOWN
    assert changed(BALANCED, type="NodePort")["status"] == {"loadBalancer": {}}


def test_addresses_that_an_update_changes_are_left_to_validation() -> None:
    other = {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"], "ipFamilyPolicy": "PreferDualStack"}
    kept = changed(BALANCED, type="ExternalName", **other)["spec"]
    assert {field: kept[field] for field in other} == other and "ipFamilies" not in kept
    plain = {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}
    assert changed(plain)["spec"] == plain


def test_node_ports_go_with_the_type_unless_a_new_one_is_asked_for() -> None:
    ports = [{"port": 80, "nodePort": 30080}, {"port": 81}]
    assert changed(BALANCED, type="ClusterIP", ports=ports)["spec"]["ports"] == [{"port": 80}, {"port": 81}]
    asked = [{"port": 80, "nodePort": 30081}]
    assert changed(BALANCED, type="ClusterIP", ports=asked)["spec"]["ports"] == asked
    assert changed(BALANCED, type="NodePort")["spec"]["ports"] == BALANCED["ports"]
    plain = {"type": "ClusterIP", "ports": asked}
    assert changed(plain)["spec"]["ports"] == asked


def condition(kind: str, status: str = "True", **times: str) -> Object:
    return {"type": kind, "status": status, **times}


def request(*conditions: Object, **status: Any) -> Object:
    return {
        "metadata": {"name": "x"},
        "spec": {"usages": ["client auth"]},
        "status": {"conditions": list(conditions), **status},
    }


def test_a_signing_request_is_written_once_and_starts_without_a_status() -> None:
    fresh = request(condition("Approved"), certificate="c")
    strategy_of(REQUESTS).prepare_create(fresh)
    assert fresh["status"] == {}
    old, new = request(condition("Denied")), {**request(), "spec": {"usages": []}}
    prepare_update_of(REQUESTS, "")(new, old)
    assert (new["spec"], new["status"]) == (old["spec"], old["status"])


def test_who_signs_says_nothing_about_approval_and_who_approves_nothing_else() -> None:
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"}
    old = request(condition("Approved", **since), condition("Seen", **since), certificate="old")
    new = {**request(condition("Denied"), condition("Failed", **since), certificate="new"), "spec": {}}
    prepare_update_of(REQUESTS, "status")(new, old)
    assert new["spec"] == old["spec"]
    assert new["status"] == {
        "certificate": "new",
        "conditions": [condition("Approved", **since), condition("Failed", **since)],
    }
    new = {**request(condition("Denied", **since), certificate="mine"), "spec": {}}
    new["metadata"]["labels"] = {"l": "1"}
    prepare_update_of(REQUESTS, "approval")(new, old)
    assert new["spec"] == old["spec"] and new["metadata"]["labels"] == {"l": "1"}
    assert new["status"] == {"certificate": "old", "conditions": [condition("Denied", **since)]}


def test_conditions_without_times_get_those_they_had_or_now() -> None:
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-02T00:00:00Z"}
    old = request(condition("Approved", **since), condition("Seen", **since))
    new = request(condition("Approved"), condition("Seen", "False"), condition("New"))
    prepare_update_of(REQUESTS, "approval")(new, old)
    same, other, fresh = new["status"]["conditions"]
    assert same["lastTransitionTime"] == since["lastTransitionTime"] < same["lastUpdateTime"]
    assert other["lastTransitionTime"] == other["lastUpdateTime"] == fresh["lastTransitionTime"]
    assert other["lastTransitionTime"] > since["lastTransitionTime"]


def a_definition(*versions: tuple[str, bool], **status: Any) -> Object:
    listed = [{"name": name, "storage": storage} for name, storage in versions]
    return {"metadata": {"name": "x", "generation": 1}, "spec": {"versions": listed}, "status": status}


def test_a_definition_remembers_every_version_that_objects_may_be_stored_in() -> None:
    fresh = a_definition(("v1", True), ("v2", False), conditions=[condition("Established")])
    strategy_of(DEFINITIONS).prepare_create(fresh)
    assert fresh["status"] == {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": ["v1"],
    }
    old = a_definition(("v1", True), storedVersions=["v1"], acceptedNames={"kind": "X"})
    new = a_definition(("v1", False), ("v2", True), storedVersions=[])
    prepare_update_of(DEFINITIONS, "")(new, old)
    assert new["status"] == {"storedVersions": ["v1", "v2"], "acceptedNames": {"kind": "X"}}
    assert new["metadata"]["generation"] == 2
    same = clone(new)
    prepare_update_of(DEFINITIONS, "")(same, new)
    assert same == new


@pytest.mark.parametrize("has_status", [True, False])
def test_a_custom_object_counts_all_but_its_metadata_and_status(has_status: bool) -> None:
    strategy = custom_strategy(has_status)
    fresh: Object = {"metadata": {"name": "x"}, "spec": {"a": 1}, "status": {"b": 1}}
    strategy.prepare_create(fresh)
    assert fresh["metadata"]["generation"] == 1 and ("status" in fresh) is not has_status
    old = {"metadata": {"name": "x", "generation": 1}, "spec": {"a": 1}, "status": {"b": 1}}
    new: Object = {"metadata": {"name": "x", "labels": {"l": "1"}}, "spec": {"a": 1}, "status": {"b": 2}}
    strategy.prepare_update(new, old)
    assert new["metadata"]["generation"] == (1 if has_status else 2)
    assert new["status"] == {"b": 1 if has_status else 2}
    more: Object = {"metadata": {"name": "x"}, "spec": {"a": 1}, "status": {"b": 1}, "extra": 1}
    strategy.prepare_update(more, old)
    assert more["metadata"]["generation"] == 2


def test_a_status_write_of_a_custom_object_changes_nothing_but_the_status() -> None:
    metadata = {"name": "x", "generation": 1, "labels": {"l": "1"}}
    old = {"metadata": metadata, "spec": {"a": 1}, "status": {"b": 1}}
    new: Object = {"metadata": {"name": "x", "labels": {}, "managedFields": [{}]}, "spec": {"a": 2}, "more": 1}
    new["status"] = {"b": 2}
    custom_strategy(True).prepare_status(new, old)
    assert new == {**old, "metadata": {**metadata, "managedFields": [{}]}, "status": {"b": 2}}
    without: Object = {"metadata": {"name": "x"}, "spec": {"a": 2}}
    custom_strategy(True).prepare_status(without, old)
    assert without == {"metadata": metadata, "spec": {"a": 1}}
