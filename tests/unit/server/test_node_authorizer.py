"""The node authorizer's table: a stolen agent certificate opens nothing but its own node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import orjson
import pytest

from api.selectors import parse_field_selector
from controller.admission.types import User
from controller.server.authorization import Attributes
from controller.server.node import NodeAuthorizer, references_of
from controller.store import Page, Query, Store
from controller.store.types import Key, Record

N1 = User("system:node:n1", groups=("system:nodes", "system:authenticated"))


def pod(name: str, node: str, **spec: Any) -> Record:
    obj = {"metadata": {"name": name, "namespace": "ns"}, "spec": {"nodeName": node, **spec}}
    return Record(Key("", "pods", "ns", name), 1, orjson.dumps(obj), {}, {"spec.nodeName": node})


class Pods:
    """As much of a store as the node authorizer asks."""

    def __init__(self, *records: Record) -> None:
        self._records = {record.key: record for record in records}

    def list(self, resource: tuple[str, str], query: Query) -> Page:
        keys = [key for key in self._records if key.resource == resource and key.namespace == query.namespace]
        return Page([self._records[key] for key in keys], 1, 0)

    def get(self, key: Key) -> Record | None:
        return self._records.get(key)

    def by_node(self, node: str) -> Iterable[Record]:
        return [record for record in self._records.values() if record.fields.get("spec.nodeName") == node]


MINE = pod(
    "mine",
    "n1",
    serviceAccountName="bot",
    imagePullSecrets=[{"name": "pull"}],
    containers=[
        {
            "name": "c",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "env-map"}}],
        }
    ],
    volumes=[
        {"name": "v", "secret": {"secretName": "volume-secret"}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "projected-map"}}]}},
    ],
)
OTHER = pod("other", "n2", containers=[{"name": "c"}], volumes=[{"name": "v", "secret": {"secretName": "theirs"}}])
AUTHORIZER = NodeAuthorizer(cast(Store, Pods(MINE, OTHER)))


def allowed(verb: str, resource: str, name: str = "", **more: Any) -> bool:
    wanted = Attributes(N1, verb, resource=resource, name=name, **{"namespace": "ns", **more})
    return AUTHORIZER.authorize(wanted).allowed


@pytest.mark.parametrize("name", ["env-secret", "volume-secret", "pull"])
def test_secrets_of_its_own_pods_are_readable(name: str) -> None:
    assert all(allowed(verb, "secrets", name) for verb in ("get", "list", "watch"))


@pytest.mark.parametrize(
    ("verb", "resource", "name", "more"),
    [
        ("get", "secrets", "theirs", {}),
        ("get", "secrets", "env-secret", {"namespace": "elsewhere"}),
        ("list", "secrets", "", {}),
        ("list", "secrets", "", {"namespace": ""}),
        ("watch", "configmaps", "", {}),
        ("update", "secrets", "env-secret", {}),
        ("delete", "configmaps", "env-map", {}),
        ("create", "secrets", "", {}),
        ("get", "serviceaccounts", "theirs", {}),
        ("create", "serviceaccounts", "other", {"subresource": "token"}),
        ("get", "pods", "other", {}),
        ("delete", "pods", "other", {}),
        ("patch", "pods", "other", {"subresource": "status"}),
        ("create", "pods", "", {}),
        ("update", "pods", "mine", {}),
        ("create", "pods", "mine", {"subresource": "exec"}),
        ("list", "pods", "", {"namespace": ""}),
        ("list", "pods", "", {"namespace": "", "fields": parse_field_selector("spec.nodeName=n2")}),
        ("list", "pods", "", {"namespace": "", "fields": parse_field_selector("spec.nodeName!=n1")}),
        ("list", "pods", "", {"addresses_only": True, "fields": parse_field_selector("spec.serviceAccountName=bot")}),
        ("watch", "pods", "", {"addresses_only": True, "subresource": "status"}),
        ("get", "pods", "other", {"addresses_only": True}),
        ("list", "secrets", "", {"addresses_only": True}),
        ("get", "nodes", "n2", {"namespace": ""}),
        ("update", "nodes", "n2", {"namespace": "", "subresource": "status"}),
        ("delete", "nodes", "n1", {"namespace": ""}),
        ("get", "nodes", "n1", {"namespace": "", "subresource": "proxy"}),
        ("get", "clusterroles", "admin", {"namespace": "", "group": "rbac.authorization.k8s.io"}),
        ("list", "deployments", "", {"group": "apps"}),
    ],
)
def test_what_is_not_its_own_is_refused(verb: str, resource: str, name: str, more: dict[str, Any]) -> None:
    assert not allowed(verb, resource, name, **more)


@pytest.mark.parametrize(
    ("verb", "resource", "name", "more"),
    [
        ("get", "configmaps", "env-map", {}),
        ("get", "configmaps", "projected-map", {}),
        ("get", "serviceaccounts", "bot", {}),
        ("create", "serviceaccounts", "bot", {"subresource": "token"}),
        ("get", "pods", "mine", {}),
        ("delete", "pods", "mine", {}),
        ("patch", "pods", "mine", {"subresource": "status"}),
        ("create", "pods", "mine", {"subresource": "eviction"}),
        ("watch", "pods", "", {"namespace": "", "fields": parse_field_selector("spec.nodeName=n1")}),
        ("list", "pods", "", {"namespace": "", "addresses_only": True}),
        ("watch", "pods", "", {"namespace": "", "addresses_only": True, "fields": parse_field_selector("")}),
        ("create", "nodes", "", {"namespace": ""}),
        ("get", "nodes", "n1", {"namespace": ""}),
        ("patch", "nodes", "n1", {"namespace": "", "subresource": "status"}),
        ("create", "events", "", {}),
        ("watch", "services", "", {"namespace": ""}),
        ("create", "subjectaccessreviews", "", {"namespace": "", "group": "authorization.k8s.io"}),
    ],
)
def test_what_its_pods_need_is_allowed(verb: str, resource: str, name: str, more: dict[str, Any]) -> None:
    assert allowed(verb, resource, name, **more)


def test_a_lease_is_its_own_only() -> None:
    lease = {"group": "coordination.k8s.io", "namespace": "kube-node-lease"}
    assert allowed("update", "leases", "n1", **lease)
    assert allowed("create", "leases", "", **lease)
    assert not allowed("update", "leases", "n2", **lease)
    assert not allowed("get", "leases", "n1", **{**lease, "namespace": "kube-system"})
    assert not allowed("list", "leases", "", **lease)


def test_a_name_alone_makes_no_agent() -> None:
    impostor = User("system:node:n1", groups=("system:authenticated",))
    assert not AUTHORIZER.authorize(Attributes(impostor, "get", resource="nodes", name="n1")).allowed


def test_the_reason_says_that_nothing_links_node_and_object() -> None:
    decision = AUTHORIZER.authorize(Attributes(N1, "get", resource="secrets", namespace="ns", name="theirs"))
    assert decision.reason == "no relationship found between node 'n1' and this object"


def test_an_absent_account_means_the_default_one() -> None:
    assert ("serviceaccounts", "default") in set(references_of({"spec": {}}))


def _ingress_world(*labelled: str) -> NodeAuthorizer:
    """Two TLS Secrets and an opaque one in `ns`; an Ingress names one of the former and the latter."""
    spec = {"tls": [{"secretName": "shown"}, {"secretName": "opaque"}, {"secretName": "to-come"}, {}]}
    ingress = {"metadata": {"name": "i", "namespace": "ns"}, "spec": spec}
    records = [Record(Key("networking.k8s.io", "ingresses", "ns", "i"), 1, orjson.dumps(ingress), {}, {})]
    for name, kind in (("shown", "kubernetes.io/tls"), ("hidden", "kubernetes.io/tls"), ("opaque", "Opaque")):
        records.append(Record(Key("", "secrets", "ns", name), 1, b"{}", {}, {"type": kind}))
    for name in ("n1", "n2"):
        labels = {"wherry/ingress": "true"} if name in labelled else {}
        records.append(Record(Key("", "nodes", "", name), 1, b"{}", labels, {}))
    return NodeAuthorizer(cast(Store, Pods(*records)))


def _may(world: NodeAuthorizer, verb: str, resource: str, name: str = "") -> bool:
    group = "" if resource == "secrets" else "networking.k8s.io"
    wanted = Attributes(N1, verb, group=group, resource=resource, name=name, namespace="ns" if name else "")
    return world.authorize(wanted).allowed


def test_a_node_with_the_label_gets_the_certificates_that_ingresses_name_and_no_other_secret() -> None:
    world = _ingress_world("n1")
    assert all(_may(world, verb, "ingresses") for verb in ("list", "watch"))
    assert all(_may(world, verb, "ingressclasses") for verb in ("list", "watch"))
    assert _may(world, "get", "secrets", "shown")
    assert _may(world, "get", "secrets", "to-come"), "it is told that it does not exist"
    assert not any(_may(world, "get", "secrets", name) for name in ("hidden", "opaque"))
    assert not any(_may(world, verb, "secrets", "shown") for verb in ("list", "watch", "update", "delete"))
    assert not any(_may(world, verb, "ingresses", "i") for verb in ("update", "patch", "delete", "create"))


def test_a_node_without_the_label_reads_none_of_it() -> None:
    world = _ingress_world("n2")
    assert not any(_may(world, verb, "ingresses") for verb in ("get", "list", "watch"))
    assert not any(_may(world, verb, "ingressclasses") for verb in ("get", "list", "watch"))
    assert not _may(world, "get", "secrets", "shown")
