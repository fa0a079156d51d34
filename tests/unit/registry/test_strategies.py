"""What each kind adds to the generic write path."""

from __future__ import annotations

from typing import Any

import pytest

from api import kinds
from api.objects import Object
from controller.registry.strategies import prepare_update_of, strategy_of
from controller.registry.strategies.pods import grace_seconds, qos_class

PODS = kinds.by_resource("", "pods")
DEPLOYMENTS = kinds.by_resource("apps", "deployments")
NAMESPACES = kinds.by_resource("", "namespaces")


def an_object(**parts: Any) -> Object:
    return {"metadata": {"name": "x", "uid": "u"}, **parts}


def container(**resources: Any) -> Object:
    return {"name": "c", "resources": resources} if resources else {"name": "c"}


def test_a_new_pod_is_pending_with_its_qos_class_whatever_status_it_came_with() -> None:
    pod = an_object(spec={"containers": [container()]}, status={"phase": "Running", "podIP": "10.0.0.1"})
    strategy_of(PODS).prepare_create(pod)
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert pod["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([container()], "BestEffort"),
        ([container(requests={"cpu": "1"})], "Burstable"),
        ([container(requests={"cpu": "0"})], "BestEffort"),
        ([container(limits={"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        (
            [container(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1000m", "memory": "1024Mi"})],
            "Guaranteed",
        ),
        ([container(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "500m"})], "Burstable"),
        ([container(limits={"cpu": "1", "memory": "1Gi"}), container()], "Burstable"),
        ([container(limits={"cpu": "1"})], "Burstable"),
        ([container(requests={"example.com/gpu": "1"})], "BestEffort"),
    ],
)
def test_the_qos_class_follows_requests_and_limits(containers: list[Object], expected: str) -> None:
    assert qos_class({"containers": containers}) == expected


def test_label_keys_of_a_new_pod_are_merged_into_selectors_and_the_template_is_left_alone() -> None:
    term = {"topologyKey": "zone", "labelSelector": {}, "matchLabelKeys": ["a", "none"], "mismatchLabelKeys": ["b"]}
    template = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term}]}}
    pod: Object = {
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"affinity": template, "topologySpreadConstraints": [{"matchLabelKeys": ["a"]}], "containers": []},
    }
    strategy_of(PODS).prepare_create(pod)
    shown = pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]
    assert shown["podAffinityTerm"]["labelSelector"]["matchExpressions"] == [
        {"key": "a", "operator": "In", "values": ["1"]},
        {"key": "b", "operator": "NotIn", "values": ["2"]},
    ]
    assert term["labelSelector"] == {} and pod["spec"]["topologySpreadConstraints"] == [{"matchLabelKeys": ["a"]}]


def test_an_update_of_a_pod_keeps_its_status_and_counts_a_changed_spec() -> None:
    old = {"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"phase": "Running"}}
    new: Object = {"metadata": {"generation": 3}, "spec": {"a": 2}, "status": {"phase": "Failed"}}
    prepare_update_of(PODS, "")(new, old)
    assert new == {"metadata": {"generation": 4}, "spec": {"a": 2}, "status": {"phase": "Running"}}


def test_an_update_that_leaves_the_spec_alone_leaves_the_generation_alone() -> None:
    old = {"metadata": {"generation": 3}, "spec": {"a": 1}}
    new: Object = {"metadata": {"generation": 3, "labels": {"a": "b"}}, "spec": {"a": 1}, "status": {"phase": "Failed"}}
    prepare_update_of(PODS, "")(new, old)
    assert new == {"metadata": {"generation": 3, "labels": {"a": "b"}}, "spec": {"a": 1}}


def test_a_status_write_of_a_pod_changes_neither_spec_nor_owners_nor_qos_class() -> None:
    owners = [{"uid": "o"}]
    old = {"metadata": {"ownerReferences": owners}, "spec": {"a": 1}, "status": {"qosClass": "Burstable"}}
    new: Object = {"metadata": {}, "spec": {"a": 2}, "status": {"phase": "Running"}}
    prepare_update_of(PODS, "status")(new, old)
    status = {"phase": "Running", "qosClass": "Burstable"}
    assert new == {"metadata": {"ownerReferences": owners}, "spec": {"a": 1}, "status": status}


def test_ephemeral_containers_are_all_that_their_subresource_writes() -> None:
    old = {
        "metadata": {"labels": {"a": "b"}, "generation": 1},
        "spec": {"containers": [1]},
        "status": {"phase": "Running"},
    }
    debug = [{"name": "debugger"}]
    new: Object = {
        "metadata": {"labels": {}, "resourceVersion": "7"},
        "spec": {"containers": [2], "ephemeralContainers": debug},
        "status": {},
    }
    prepare_update_of(PODS, "ephemeralcontainers")(new, old)
    assert new["spec"] == {"containers": [1], "ephemeralContainers": debug}
    assert new["metadata"] == {"labels": {"a": "b"}, "generation": 2, "resourceVersion": "7"}
    assert new["status"] == {"phase": "Running"}


@pytest.mark.parametrize(
    ("spec", "phase", "asked", "expected"),
    [
        ({"nodeName": "n", "terminationGracePeriodSeconds": 30}, "Running", None, 30),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 30}, "Running", 5, 5),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 30}, "Running", 0, 0),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 30}, "Running", -4, 1),
        ({"terminationGracePeriodSeconds": 30}, "Pending", None, 0),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 30}, "Succeeded", None, 0),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 30}, "Failed", 20, 0),
    ],
)
def test_a_pod_gets_time_to_end_only_where_something_may_run(
    spec: Object, phase: str, asked: int | None, expected: int
) -> None:
    assert grace_seconds({"spec": spec, "status": {"phase": phase}}, asked) == expected


def test_a_fenced_pods_end_is_confirmed_by_its_node_unless_a_person_forces_it() -> None:
    pod = {"metadata": {"labels": {"wherry/fenced": "true"}}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}
    assert grace_seconds(pod, None) == 1
    assert grace_seconds(pod, 0) == 0


def test_a_deployment_counts_changed_annotations_as_a_new_generation() -> None:
    old = {"metadata": {"generation": 1}, "spec": {}, "status": {"replicas": 1}}
    new: Object = {"metadata": {"generation": 1, "annotations": {"why": "because"}}, "spec": {}}
    prepare_update_of(DEPLOYMENTS, "")(new, old)
    assert new["metadata"]["generation"] == 2
    assert new["status"] == {"replicas": 1}


def test_a_status_write_of_a_deployment_changes_neither_spec_nor_labels() -> None:
    old = {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}}
    new: Object = {"metadata": {"labels": {"a": "c"}}, "spec": {"replicas": 9}, "status": {"replicas": 1}}
    prepare_update_of(DEPLOYMENTS, "status")(new, old)
    assert new == {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}}


def test_scaling_is_an_update_of_the_spec() -> None:
    old = {"metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": {"replicas": 1}}
    new: Object = {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": {"replicas": 1}}
    prepare_update_of(DEPLOYMENTS, "scale")(new, old)
    assert new["metadata"]["generation"] == 2


def test_a_new_namespace_is_active_labelled_with_its_name_and_held_by_the_finalizer() -> None:
    namespace = an_object(status={"phase": "Terminating"})
    strategy_of(NAMESPACES).prepare_create(namespace)
    assert namespace["spec"] == {"finalizers": ["kubernetes"]}
    assert namespace["status"] == {"phase": "Active"}
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}


def test_finalize_writes_the_namespace_finalizers_and_nothing_else() -> None:
    old = {
        "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "T"},
    }
    new: Object = {"metadata": {"name": "x"}, "spec": {"finalizers": []}, "status": {"phase": "Active"}}
    prepare_update_of(NAMESPACES, "finalize")(new, old)
    assert new["spec"] == {}
    assert new["metadata"]["labels"] == {"a": "b"}
    assert new["status"] == {"phase": "T"}


def fresh(group: str, plural: str, **parts: Any) -> Object:
    """A new object of a kind, as its strategy leaves it."""
    obj = an_object(**parts)
    strategy_of(kinds.by_resource(group, plural)).prepare_create(obj)
    return obj


@pytest.mark.parametrize(
    ("group", "plural", "status", "generation"),
    [
        ("", "services", {"loadBalancer": {}}, None),
        ("", "resourcequotas", {}, None),
        ("", "replicationcontrollers", {"replicas": 0}, 1),
        ("", "persistentvolumeclaims", {"phase": "Pending"}, None),
        ("apps", "statefulsets", {"replicas": 0, "availableReplicas": 0}, 1),
        ("batch", "cronjobs", {}, 1),
        ("autoscaling", "horizontalpodautoscalers", {"desiredReplicas": 0, "currentMetrics": None}, None),
        ("networking.k8s.io", "ingresses", {"loadBalancer": {}}, 1),
    ],
)
def test_a_new_object_starts_with_its_kinds_status(
    group: str, plural: str, status: Object, generation: int | None
) -> None:
    obj = fresh(group, plural, spec={}, status={"replicas": 9, "phase": "Bound"})
    assert (obj["status"], obj["metadata"].get("generation")) == (status, generation)


@pytest.mark.parametrize("plural", ["priorityclasses", "endpointslices"])
def test_kinds_without_status_count_generations_too(plural: str) -> None:
    group = "scheduling.k8s.io" if plural == "priorityclasses" else "discovery.k8s.io"
    obj = fresh(group, plural)
    assert obj["metadata"]["generation"] == 1 and "status" not in obj


def test_a_job_selects_its_pods_by_its_own_uid() -> None:
    job = fresh("batch", "jobs", spec={"template": {"metadata": {"labels": {"mine": "1"}}}})
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/controller-uid"] == "u" and labels["job-name"] == "x" and labels["mine"] == "1"
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    assert job["metadata"]["labels"] == labels


def test_a_job_may_choose_its_pods_itself() -> None:
    job = fresh("batch", "jobs", spec={"manualSelector": True, "template": {}})
    assert job["spec"] == {"manualSelector": True, "template": {}}


def test_a_daemon_set_numbers_its_templates_whatever_it_is_told() -> None:
    sets = kinds.by_resource("apps", "daemonsets")
    old = fresh("apps", "daemonsets", spec={"template": {"a": 1}})
    note = "deprecated.daemonset.template.generation"
    assert old["metadata"]["annotations"] == {note: "1"}
    new = an_object(spec={"template": {"a": 2}})
    new["metadata"]["annotations"] = {note: "9"}
    prepare_update_of(sets, "")(new, old)
    assert (new["metadata"]["annotations"], new["metadata"]["generation"]) == ({note: "2"}, 2)


def test_a_slice_counts_its_content_and_its_labels() -> None:
    slices = kinds.by_resource("discovery.k8s.io", "endpointslices")
    old = fresh("discovery.k8s.io", "endpointslices", ports=[])
    for change, generation in (({"annotations": {"a": "b"}}, 1), ({"labels": {"a": "b"}}, 2)):
        new = an_object(ports=[])
        new["metadata"] |= change
        prepare_update_of(slices, "")(new, old)
        assert new["metadata"]["generation"] == generation


def test_topology_of_old_and_more_than_names_of_secrets_are_not_kept() -> None:
    found = an_object(endpoints=[{"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}])
    strategy_of(kinds.by_resource("discovery.k8s.io", "endpointslices")).prepare_create(found)
    assert found["endpoints"] == [{"addresses": ["10.0.0.1"]}]
    account = an_object(secrets=[{"name": "a", "kind": "Secret"}])
    strategy_of(kinds.by_resource("", "serviceaccounts")).prepare_create(account)
    assert account["secrets"] == [{"name": "a"}]
