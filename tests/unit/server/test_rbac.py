"""Rules of roles: what they allow, and whom a binding means."""

from __future__ import annotations

from typing import Any

import pytest

from controller.admission.types import User
from controller.server.authorization import Attributes, forbidden_request
from controller.server.default_roles import cluster_role_bindings, cluster_roles
from controller.server.rbac import Rule, missing_in, subject_of

EVE = User("eve", groups=("devs", "system:authenticated"))
PODS_READER = {"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get", "list"]}
ONE_SECRET = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["tls"]}
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
HEALTH = {"nonResourceURLs": ["/healthz", "/healthz/*"], "verbs": ["get"]}


@pytest.mark.parametrize(
    ("rule", "wanted", "allowed"),
    [
        (PODS_READER, {"verb": "get", "resource": "pods"}, True),
        (PODS_READER, {"verb": "watch", "resource": "pods"}, False),
        (PODS_READER, {"verb": "get", "resource": "pods", "group": "metrics.k8s.io"}, False),
        (PODS_READER, {"verb": "get", "resource": "pods", "subresource": "log"}, False),
        (PODS_READER, {"verb": "get", "resource": "things", "subresource": "scale"}, True),
        (ONE_SECRET, {"verb": "get", "resource": "secrets", "name": "tls"}, True),
        (ONE_SECRET, {"verb": "get", "resource": "secrets", "name": "other"}, False),
        (ONE_SECRET, {"verb": "get", "resource": "secrets"}, False),
        (EVERYTHING, {"verb": "delete", "resource": "nodes", "subresource": "proxy"}, True),
        (EVERYTHING, {"verb": "get", "path": "/healthz"}, False),
        (HEALTH, {"verb": "get", "path": "/healthz/etcd"}, True),
        (HEALTH, {"verb": "post", "path": "/healthz"}, False),
        (HEALTH, {"verb": "get", "path": "/metrics"}, False),
        (HEALTH, {"verb": "get", "resource": "pods"}, False),
    ],
)
def test_a_rule_allows_exactly_what_it_says(rule: dict[str, Any], wanted: dict[str, str], allowed: bool) -> None:
    assert Rule.of(rule).allows(Attributes(EVE, **wanted)) is allowed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("held", "granted", "covered"),
    [
        (EVERYTHING, PODS_READER, True),
        (PODS_READER, {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}, True),
        (PODS_READER, {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}, False),
        (PODS_READER, EVERYTHING, False),
        (ONE_SECRET, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, False),
        (ONE_SECRET, ONE_SECRET, True),
        (HEALTH, {"nonResourceURLs": ["/healthz/ping"], "verbs": ["get"]}, True),
        (HEALTH, {"nonResourceURLs": ["*"], "verbs": ["get"]}, False),
    ],
)
def test_nobody_grants_more_than_he_holds(held: dict[str, Any], granted: dict[str, Any], covered: bool) -> None:
    assert (not missing_in([Rule.of(held)], [granted])) is covered


@pytest.mark.parametrize(
    ("subject", "applies"),
    [
        ({"kind": "User", "name": "eve"}, True),
        ({"kind": "User", "name": "adam"}, False),
        ({"kind": "Group", "name": "devs"}, True),
        ({"kind": "Group", "name": "eve"}, False),
        ({"kind": "ServiceAccount", "name": "eve"}, False),
    ],
)
def test_a_binding_means_the_named_subject_only(subject: dict[str, str], applies: bool) -> None:
    assert (subject_of([subject], EVE, "ns") is not None) is applies


def test_a_service_account_without_namespace_is_one_of_the_bindings_namespace() -> None:
    bot = User("system:serviceaccount:ns:bot")
    assert subject_of([{"kind": "ServiceAccount", "name": "bot"}], bot, "ns")
    assert not subject_of([{"kind": "ServiceAccount", "name": "bot"}], bot, "other")
    assert subject_of([{"kind": "ServiceAccount", "name": "bot", "namespace": "ns"}], bot, "other")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            Attributes(EVE, "list", resource="pods", namespace="default"),
            'pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "default"',
        ),
        (
            Attributes(EVE, "get", "apps", "deployments", "scale", "ns", "d"),
            'deployments.apps "d" is forbidden: User "eve" cannot get resource "deployments/scale" in API group "apps" '
            'in the namespace "ns"',
        ),
        (
            Attributes(EVE, "list", resource="nodes"),
            'nodes is forbidden: User "eve" cannot list resource "nodes" in API group "" at the cluster scope',
        ),
        (Attributes(EVE, "get", path="/metrics"), 'forbidden: User "eve" cannot get path "/metrics"'),
    ],
)
def test_a_refusal_says_who_may_not_do_what(attributes: Attributes, message: str) -> None:
    assert forbidden_request(attributes).message == message


def test_the_default_roles_are_well_formed_and_bound() -> None:
    roles = {role["metadata"]["name"]: role for role in cluster_roles()}
    assert {"cluster-admin", "admin", "edit", "view", "system:node", "system:discovery"} <= set(roles)
    assert all(binding["roleRef"]["name"] in roles for binding in cluster_role_bindings())
    for role in roles.values():
        for rule in role["rules"]:
            assert rule["verbs"] and (rule.get("resources") or rule.get("nonResourceURLs"))


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    [
        ("view", "get", "secrets", False),
        ("view", "list", "pods", True),
        ("view", "create", "pods", False),
        ("edit", "get", "secrets", True),
        ("edit", "delete", "configmaps", True),
        ("edit", "create", "namespaces", False),
        ("admin", "update", "configmaps", True),
        ("admin", "delete", "nodes", False),
    ],
)
def test_default_roles_grant_what_kubernetes_grants(role: str, verb: str, resource: str, allowed: bool) -> None:
    rules = next(entry["rules"] for entry in cluster_roles() if entry["metadata"]["name"] == role)
    assert any(Rule.of(rule).allows(Attributes(EVE, verb, resource=resource)) for rule in rules) is allowed
