"""What objects cost, which quotas cover them, and how a refusal reads."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from api import kinds
from api.objects import Object
from controller.admission.quota import count, demand_of, is_counted, missing_in, more_of, paid, refusal, usage_of
from controller.reconcilers.loop import NOTHING
from controller.reconcilers.quota import Observed, decide
from controller.store import Page, Query
from controller.store.store import EVERYTHING
from controller.store.types import Key, Record

PODS = kinds.by_resource("", "pods")
SECRETS = kinds.by_resource("", "secrets")
DEPLOYMENTS = kinds.by_resource("apps", "deployments")
SERVICES = kinds.by_resource("", "services")
CLAIMS = kinds.by_resource("", "persistentvolumeclaims")


def a_quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> Object:
    status = {} if used is None else {"hard": hard, "used": used}
    metadata = {"name": "q", "namespace": "shop", "uid": "u", "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"hard": hard, **spec}, "status": status}


def a_pod(*containers: Object, **spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}, "status": {}}


def asks(name: str = "c", limits: Object | None = None, **requests: str) -> Object:
    return {"name": name, "resources": {"requests": requests, "limits": limits or {}}}


def told(kind: kinds.Kind, obj: Object) -> dict[str, str]:
    return {name: str(amount.normalize()) for name, amount in usage_of(kind, obj).items()}


def test_a_pod_costs_the_sum_of_its_containers_or_its_largest_init_container() -> None:
    pod = a_pod(asks(cpu="100m"), asks(cpu="200m"), initContainers=[asks(cpu="250m", memory="64")])
    assert told(PODS, pod) == {
        "count/pods": "1",
        "pods": "1",
        "cpu": "0.3",
        "requests.cpu": "0.3",
        "memory": "64",
        "requests.memory": "64",
    }


def test_sidecars_run_beside_the_containers() -> None:
    pod = a_pod(asks(cpu="1"), initContainers=[{**asks(cpu="1"), "restartPolicy": "Always"}, asks(cpu="1500m")])
    assert told(PODS, pod)["cpu"] == "2.5"


def test_a_finished_pod_costs_nothing_but_its_place_in_the_store() -> None:
    assert told(PODS, {**a_pod(asks(cpu="1")), "status": {"phase": "Failed"}}) == {"count/pods": "1"}


def test_other_objects_are_counted_by_name_and_group() -> None:
    assert told(SECRETS, {}) == {"count/secrets": "1", "secrets": "1"}
    assert told(DEPLOYMENTS, {}) == {"count/deployments.apps": "1"}


def test_services_and_claims_cost_ports_and_storage_too() -> None:
    service = {"spec": {"type": "NodePort", "ports": [{}, {}]}}
    assert told(SERVICES, service) == {"count/services": "1", "services": "1", "services.nodeports": "2"}
    claim = {"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2"}}}}
    assert told(CLAIMS, claim) == {
        "count/persistentvolumeclaims": "1",
        "persistentvolumeclaims": "1",
        "requests.storage": "2",
        "fast.storageclass.storage.k8s.io/requests.storage": "2",
        "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
    }


def test_a_refusal_names_what_is_beyond_in_kubernetes_words() -> None:
    quota = a_quota({"pods": "1", "memory": "1Gi"})
    demand = demand_of(quota, PODS, a_pod(asks(memory="64Mi")))
    assert refusal(quota, demand, {"pods": "0", "memory": "960Mi"}) == ""
    assert refusal(quota, demand, {"pods": "1", "memory": "0"}) == (
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    )
    assert refusal(quota, demand, {"pods": "1", "memory": "1000Mi"}) == (
        "exceeded quota: q, requested: memory=64Mi,pods=1, used: memory=1000Mi,pods=1, limited: memory=1Gi,pods=1"
    )


def test_what_is_paid_is_written_as_the_bound_is() -> None:
    quota = a_quota({"pods": "5", "memory": "1Gi", "cpu": "2", "secrets": "9"})
    demand = demand_of(quota, PODS, a_pod(asks(memory="64Mi", cpu="500m")))
    used = paid(quota, {"pods": "1", "memory": "64Mi"}, demand)
    assert used == {"pods": "2", "memory": "128Mi", "cpu": "500m", "secrets": "0"}


def test_where_compute_is_bounded_every_container_must_say_what_it_takes() -> None:
    quota = a_quota({"requests.cpu": "1", "limits.memory": "1Gi", "pods": "3"})
    pod = a_pod(asks("a", cpu="1"), asks("b", {"memory": "1Mi"}))
    assert missing_in(quota, PODS, pod) == "limits.memory for: a; requests.cpu for: b"
    assert missing_in(a_quota({"pods": "3"}), PODS, pod) == ""


@pytest.mark.parametrize(
    ("spec", "pod", "covered"),
    [
        ({"scopes": ["BestEffort"]}, a_pod(asks()), True),
        ({"scopes": ["BestEffort"]}, a_pod(asks(cpu="1")), False),
        ({"scopes": ["NotBestEffort"]}, a_pod(asks(limits={"cpu": "1"})), True),
        ({"scopes": ["Terminating"]}, a_pod(asks(), activeDeadlineSeconds=5), True),
        ({"scopes": ["NotTerminating"]}, a_pod(asks(), activeDeadlineSeconds=5), False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, a_pod(asks()), False),
    ],
)
@pytest.mark.proves("ResourceQuota.spec.scopes")
def test_scopes_choose_the_pods_a_quota_covers(spec: Object, pod: Object, covered: bool) -> None:
    assert bool(demand_of(a_quota({"pods": "1"}, **spec), PODS, pod)) is covered


@pytest.mark.parametrize(
    ("operator", "values", "name", "covered"),
    [
        ("In", ["high"], "high", True),
        ("In", ["high"], "", False),
        ("NotIn", ["high"], "low", True),
        ("Exists", [], "low", True),
        ("DoesNotExist", [], "low", False),
    ],
)
@pytest.mark.proves(
    "ResourceQuota.spec.scopeSelector.matchExpressions.scopeName",
    "ResourceQuota.spec.scopeSelector.matchExpressions.operator",
    "ResourceQuota.spec.scopeSelector.matchExpressions.values",
)
def test_a_quota_may_cover_priority_classes(operator: str, values: list[str], name: str, covered: bool) -> None:
    rule = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    quota = a_quota({"pods": "1"}, scopeSelector={"matchExpressions": [rule]})
    assert bool(demand_of(quota, PODS, a_pod(asks(), priorityClassName=name))) is covered
    assert not demand_of({**quota, "spec": {**quota["spec"], "hard": {"secrets": "1"}}}, SECRETS, {})


def test_a_right_sum_is_let_be() -> None:
    assert decide(Observed(a_quota({"pods": "2"}, {"pods": "1"}), {"pods": "1"})) == NOTHING


def test_a_wrong_sum_is_taken_away_before_another_is_written() -> None:
    decision = decide(Observed(a_quota({"pods": "2"}, {"pods": "2"}), {"pods": "1"}))
    (write,) = decision.actions
    assert getattr(write, "replace", None) == {"status": {"hard": {"pods": "2"}}}
    assert getattr(write, "version", None) == "7" and decision.status is None


def test_a_missing_sum_is_written_over_the_version_it_was_counted_with() -> None:
    decision = decide(Observed(a_quota({"pods": "2"}), {"pods": "1"}, rest_seconds=0.5))
    assert decision.actions == () and decision.status is not None
    assert getattr(decision.status, "replace", None) == {"status": {"hard": {"pods": "2"}, "used": {"pods": "1"}}}
    assert getattr(decision.status, "version", None) == "7"


def test_a_quota_is_corrected_once_a_second_at_most() -> None:
    decision = decide(Observed(a_quota({"pods": "2"}, {"pods": "2"}), {"pods": "1"}, rest_seconds=0.5))
    assert decision.actions == () and decision.requeue_after_seconds == 0.5


class Held:
    """What there is, as the store lists it."""

    def __init__(self, *records: Record) -> None:
        self._records = records

    def list(self, resource: tuple[str, str], query: Query = EVERYTHING) -> Page:
        found = [each for each in self._records if each.key.resource == resource and query.matches(each)]
        return Page([each for each in found if each.key.namespace == query.namespace], 7, 0)


def held(kind: kinds.Kind, name: str, obj: Object, namespace: str = "shop", phase: str = "") -> Record:
    whole = {"metadata": {"name": name}, **obj}
    return Record(Key(*kind.resource, namespace, name), 7, orjson.dumps(whole), {}, {"status.phase": phase})


def test_what_there_is_is_counted_by_number_and_by_size() -> None:
    running, done = a_pod(asks(cpu="500m")), {**a_pod(asks(cpu="2")), "status": {"phase": "Succeeded"}}
    there = Held(
        held(PODS, "a", running),
        held(PODS, "b", running),
        held(PODS, "c", done, phase="Succeeded"),
        held(PODS, "d", {**done, "status": {"phase": "Failed"}}, phase="Failed"),
        held(PODS, "e", running, namespace="elsewhere"),
        held(SECRETS, "s", {}),
        held(DEPLOYMENTS, "d", {}),
        held(SERVICES, "s", {"spec": {"type": "NodePort", "ports": [{}, {}]}}),
        held(CLAIMS, "c", {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
    )
    numbers = {"pods": "9", "count/pods": "9", "secrets": "9", "count/secrets": "9", "count/deployments.apps": "9"}
    assert count(there, a_quota(numbers)) == {
        "pods": "2",
        "count/pods": "4",
        "secrets": "1",
        "count/secrets": "1",
        "count/deployments.apps": "1",
    }
    assert count(there, a_quota({"pods": "9", "count/pods": "9", "cpu": "9", "requests.storage": "9Gi"})) == {
        "pods": "2",
        "count/pods": "4",
        "cpu": "1",
        "requests.storage": "1Gi",
    }
    assert count(there, a_quota({"services.nodeports": "9", "services": "9"})) == {
        "services.nodeports": "2",
        "services": "1",
    }
    assert count(there, a_quota({"fast.storageclass.storage.k8s.io/requests.storage": "9Gi"})) == {
        "fast.storageclass.storage.k8s.io/requests.storage": "0"
    }
    assert count(there, a_quota({"pods": "9"}, scopes=["BestEffort"])) == {"pods": "0"}
    rule = {"scopeName": "PriorityClass", "operator": "Exists", "values": []}
    assert count(there, a_quota({"pods": "9"}, scopeSelector={"matchExpressions": [rule]})) == {"pods": "0"}


def test_a_refusal_shows_nothing_used_as_nothing_and_lists_containers() -> None:
    quota = a_quota({"pods": "0", "cpu": "1"})
    assert (
        refusal(quota, {"pods": Decimal(1)}, {})
        == "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"
    )
    assert missing_in(quota, PODS, a_pod(asks("b"), asks("a"))) == "cpu for: a,b"


def test_a_change_pays_for_what_it_adds() -> None:
    quota = a_quota({"pods": "9", "cpu": "9", "memory": "9"})
    old, new = a_pod(asks(cpu="1", memory="2")), a_pod(asks(cpu="3", memory="1"))
    assert more_of(quota, PODS, new, None) == {"pods": 1, "cpu": 3, "memory": 1}
    assert more_of(quota, PODS, new, old) == {"cpu": 2}
    finished = {**old, "status": {"phase": "Failed"}}
    assert more_of(quota, PODS, new, finished) == {"pods": 1, "cpu": 3, "memory": 1}


def test_a_sum_says_something_about_every_bounded_name_or_is_none() -> None:
    bounds = {"pods": "1", "cpu": "1"}
    assert is_counted(a_quota(bounds, {"pods": "0", "cpu": "0", "more": "1"}))
    assert not is_counted(a_quota(bounds, {"pods": "0"}))
    assert not is_counted(a_quota(bounds))
    assert is_counted({**a_quota({}), "status": None})


@pytest.mark.parametrize("kind", ["podAffinity", "podAntiAffinity"])
@pytest.mark.parametrize(
    ("term", "reaches"),
    [({"namespaces": ["x"]}, True), ({"namespaceSelector": {}}, True), ({"namespaces": []}, False), ({}, False)],
)
def test_a_quota_may_cover_affinities_that_look_into_other_namespaces(kind: str, term: Object, reaches: bool) -> None:
    quota = a_quota({"pods": "1"}, scopes=["CrossNamespacePodAffinity"])
    required = {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [{}, term]}}
    preferred = {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{}, {"podAffinityTerm": term}]}}
    for affinity in (required, preferred):
        assert bool(demand_of(quota, PODS, a_pod(asks(), affinity=affinity))) is reaches


@pytest.mark.parametrize(
    ("spec", "costs"),
    [
        ({}, {}),
        ({"type": "ClusterIP", "ports": [{}]}, {}),
        ({"type": "LoadBalancer", "ports": [{}, {}]}, {"services.loadbalancers": "1", "services.nodeports": "2"}),
        (
            {"type": "LoadBalancer", "ports": [{"nodePort": 1}, {}], "allocateLoadBalancerNodePorts": False},
            {"services.loadbalancers": "1", "services.nodeports": "1"},
        ),
        ({"type": "NodePort", "ports": [{}], "allocateLoadBalancerNodePorts": False}, {"services.nodeports": "1"}),
    ],
)
def test_a_service_costs_the_ports_it_takes_on_nodes(spec: Object, costs: dict[str, str]) -> None:
    assert told(SERVICES, {"spec": spec}) == {"count/services": "1", "services": "1", **costs}


def test_init_containers_must_say_what_they_take_and_other_objects_need_not() -> None:
    quota = a_quota({"cpu": "1", "memory": "1", "requests.storage": "1"})
    pod = a_pod(asks("b", cpu="1"), initContainers=[asks("a", memory="1")])
    assert missing_in(quota, PODS, pod) == "cpu for: a; memory for: b"
    assert missing_in(quota, SECRETS, {}) == ""
    assert missing_in(a_quota({"cpu": "1"}, scopes=["Terminating"]), PODS, a_pod(asks())) == ""
