"""Every default Kubernetes sets, kind by kind; expectations are what a real API server shows for such an object."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from api.kinds import Kind
from api.objects import Object
from api.schema import check, default
from api.schema.default_rules import pull_policy


def defaulted(group: str, kind: str, version: str = "v1", **parts: Any) -> Object:
    row = Kind(group, version, kind, kind.lower() + "s")
    obj: Object = copy.deepcopy({"metadata": {"name": "x"}, **parts})
    checked = check(row, obj)
    assert (checked.unknown, checked.type_errors) == ([], [])
    default(row, checked.obj)
    once = copy.deepcopy(checked.obj)
    default(row, checked.obj)
    assert checked.obj == once, "defaults are idempotent"
    assert check(row, once).obj == once, "a defaulted object passes the check as it is"
    return once


TEMPLATE: Object = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}
CONTAINER = {
    "name": "c",
    "image": "busybox:1",
    "imagePullPolicy": "IfNotPresent",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
POD_SPEC = {
    "containers": [CONTAINER],
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}
POD_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}
SELECTOR = {"matchLabels": {"a": "b"}}


def test_a_pod() -> None:
    pod = defaulted("", "Pod", spec=TEMPLATE["spec"])
    assert pod["spec"] == {**POD_SPEC, "enableServiceLinks": True}
    assert pod["status"] == {}


def test_a_template_gets_no_service_links() -> None:
    assert "enableServiceLinks" not in defaulted("", "PodTemplate", template=TEMPLATE)["template"]["spec"]


def test_a_deployment() -> None:
    deployment = defaulted("apps", "Deployment", spec={"selector": SELECTOR, "template": TEMPLATE})
    assert deployment["spec"] == {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "selector": SELECTOR,
        "template": POD_TEMPLATE,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    }
    assert deployment["status"] == {}


def test_a_deployment_that_recreates_has_no_rolling_update_and_zero_replicas_stay_zero() -> None:
    spec = {"selector": SELECTOR, "template": TEMPLATE, "strategy": {"type": "Recreate"}, "replicas": 0}
    deployment = defaulted("apps", "Deployment", spec=spec)
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 0


def test_the_other_workloads() -> None:
    spec = {"selector": SELECTOR, "template": TEMPLATE}
    replica_set = defaulted("apps", "ReplicaSet", spec=spec)
    assert replica_set["spec"] == {"replicas": 1, "selector": SELECTOR, "template": POD_TEMPLATE}
    assert replica_set["status"] == {"replicas": 0}
    daemon_set = defaulted("apps", "DaemonSet", spec=spec)
    assert daemon_set["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }
    claim = {"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {}}}
    stateful_set = defaulted("apps", "StatefulSet", spec={**spec, "serviceName": "s", "volumeClaimTemplates": [claim]})
    assert stateful_set["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert stateful_set["spec"]["podManagementPolicy"] == "OrderedReady"
    assert stateful_set["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    assert stateful_set["spec"]["volumeClaimTemplates"][0] == {
        **claim,
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "spec": {**claim["spec"], "volumeMode": "Filesystem"},  # type: ignore[dict-item]
        "status": {"phase": "Pending"},
    }


def test_a_replication_controller_takes_labels_and_selector_from_its_template() -> None:
    controller = defaulted("", "ReplicationController", spec={"template": TEMPLATE})
    assert controller["metadata"]["labels"] == {"a": "b"}
    assert controller["spec"]["selector"] == {"a": "b"}
    assert controller["spec"]["replicas"] == 1


def test_jobs() -> None:
    template = {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
    job = defaulted("batch", "Job", spec={"template": template})["spec"]
    assert {name: value for name, value in job.items() if name != "template"} == {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "completions": 1,
        "manualSelector": False,
        "parallelism": 1,
        "podReplacementPolicy": "TerminatingOrFailed",
        "suspend": False,
    }
    queue = defaulted("batch", "Job", spec={"template": template, "parallelism": 2, "backoffLimitPerIndex": 1})["spec"]
    assert "completions" not in queue
    assert queue["backoffLimit"] == 2147483647
    cron = defaulted(
        "batch", "CronJob", spec={"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}
    )
    assert cron["spec"]["concurrencyPolicy"] == "Allow"
    assert (cron["spec"]["successfulJobsHistoryLimit"], cron["spec"]["failedJobsHistoryLimit"]) == (3, 1)
    inner = cron["spec"]["jobTemplate"]["spec"]
    assert "backoffLimit" not in inner
    assert inner["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("reg:5000/busybox", "Always"),
        ("reg:5000/a/busybox:1", "IfNotPresent"),
        ("busybox@sha256:" + "a" * 64, "IfNotPresent"),
        ("", "Always"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_inside_containers() -> None:
    probe = {"httpGet": {"port": 80}}
    container = {
        "name": "c",
        "image": "b:1",
        "ports": [{"containerPort": 80}],
        "livenessProbe": probe,
        "startupProbe": {"grpc": {"port": 5}, "periodSeconds": 3},
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "lifecycle": {"preStop": {"httpGet": {"port": "web"}}},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
    }
    found = defaulted("", "Pod", spec={"containers": [container], "hostNetwork": True})["spec"]["containers"][0]
    times = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert found["livenessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **times}
    assert found["startupProbe"] == {"grpc": {"port": 5, "service": ""}, **times, "periodSeconds": 3}
    assert found["env"][0]["valueFrom"]["fieldRef"] == {"apiVersion": "v1", "fieldPath": "metadata.name"}
    assert found["lifecycle"]["preStop"]["httpGet"] == {"port": "web", "path": "/", "scheme": "HTTP"}
    assert found["resources"]["requests"] == {"cpu": "100m", "memory": "1Gi"}
    assert found["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


def test_volumes() -> None:
    token = {"serviceAccountToken": {"path": "t"}}
    volumes = [
        {"name": "a"},
        {"name": "b", "secret": {"secretName": "s"}},
        {"name": "c", "configMap": {"name": "m", "defaultMode": 0}},
        {"name": "d", "projected": {"sources": [token]}},
        {"name": "e", "hostPath": {"path": "/x"}},
        {"name": "f", "image": {"reference": "i"}},
    ]
    found = defaulted("", "Pod", spec={**TEMPLATE["spec"], "volumes": volumes})["spec"]["volumes"]
    assert found == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
        {"name": "c", "configMap": {"name": "m", "defaultMode": 0}},
        {
            "name": "d",
            "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
            },
        },
        {"name": "e", "hostPath": {"path": "/x", "type": ""}},
        {"name": "f", "image": {"reference": "i", "pullPolicy": "Always"}},
    ]


def test_pods_only_service_account_and_negative_grace() -> None:
    spec = {**TEMPLATE["spec"], "serviceAccountName": "sa", "terminationGracePeriodSeconds": -1}
    found = defaulted("", "Pod", spec=spec)["spec"]
    assert found["serviceAccount"] == "sa"
    assert found["terminationGracePeriodSeconds"] == 1


def test_services() -> None:
    plain = defaulted("", "Service", spec={"ports": [{"port": 80}]})
    assert plain["spec"] == {
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }
    assert plain["status"] == {"loadBalancer": {}}
    balanced = defaulted("", "Service", spec={"type": "LoadBalancer", "sessionAffinity": "ClientIP"})["spec"]
    assert balanced["externalTrafficPolicy"] == "Cluster"
    assert balanced["allocateLoadBalancerNodePorts"] is True
    assert balanced["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    switched = {"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}
    assert "sessionAffinityConfig" not in defaulted("", "Service", spec=switched)["spec"]
    external = defaulted("", "Service", spec={"type": "ExternalName", "externalName": "a.b"})["spec"]
    assert "internalTrafficPolicy" not in external


def test_storage() -> None:
    volume = defaulted("", "PersistentVolume", spec={"hostPath": {"path": "/x"}})
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["volumeMode"] == "Filesystem"
    assert volume["status"] == {"phase": "Pending"}
    claim = defaulted("", "PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"]})
    assert claim["spec"]["volumeMode"] == "Filesystem"
    assert claim["status"] == {"phase": "Pending"}
    storage_class = defaulted("storage.k8s.io", "StorageClass", provisioner="p")
    assert (storage_class["reclaimPolicy"], storage_class["volumeBindingMode"]) == ("Delete", "Immediate")


def test_cluster_objects() -> None:
    assert defaulted("", "Namespace")["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    assert defaulted("", "Namespace")["status"] == {"phase": "Active"}
    node = defaulted("", "Node", status={"capacity": {"cpu": "2"}})
    assert node["status"]["allocatable"] == {"cpu": "2"}
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert defaulted("", "Secret")["type"] == "Opaque"
    assert defaulted("scheduling.k8s.io", "PriorityClass", value=1)["preemptionPolicy"] == "PreemptLowerPriority"


def test_limit_ranges_fill_default_and_request_from_each_other() -> None:
    item = {"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Mi"}, "default": {"memory": "2Mi"}}
    found = defaulted("", "LimitRange", spec={"limits": [item]})["spec"]["limits"][0]
    assert found["default"] == {"cpu": "1", "memory": "2Mi"}
    assert found["defaultRequest"] == {"cpu": "1", "memory": "2Mi"}


def test_rbac() -> None:
    group = "rbac.authorization.k8s.io"
    subjects = [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]
    binding = defaulted(group, "RoleBinding", subjects=subjects, roleRef={"kind": "Role", "name": "r"})
    assert binding["roleRef"]["apiGroup"] == group
    assert [subject.get("apiGroup") for subject in binding["subjects"]] == [group, None]
    assert defaulted(group, "Role")["rules"] is None


def test_autoscaling_networking_and_discovery() -> None:
    target = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
    scaler = defaulted(
        "autoscaling", "HorizontalPodAutoscaler", "v2", spec={"scaleTargetRef": target, "maxReplicas": 3}
    )
    assert scaler["spec"]["minReplicas"] == 1
    assert scaler["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    behaved = defaulted(
        "autoscaling",
        "HorizontalPodAutoscaler",
        "v2",
        spec={"scaleTargetRef": target, "maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}},
    )["spec"]["behavior"]
    assert behaved["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert len(behaved["scaleUp"]["policies"]) == 2
    assert behaved["scaleDown"]["selectPolicy"] == "Disabled"
    policy = defaulted(
        "networking.k8s.io", "NetworkPolicy", spec={"podSelector": {}, "egress": [{"ports": [{"port": 1}]}]}
    )
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["egress"][0]["ports"][0]["protocol"] == "TCP"
    endpoints = defaulted("discovery.k8s.io", "EndpointSlice", addressType="IPv4", endpoints=[], ports=[{"port": 80}])
    assert endpoints["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]


def test_extensions() -> None:
    names = {"plural": "xs", "kind": "X"}
    version = {"name": "v1", "served": True, "storage": True}
    spec = {"group": "ex.io", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = defaulted("apiextensions.k8s.io", "CustomResourceDefinition", spec=spec)
    assert definition["spec"]["names"] == {**names, "singular": "x", "listKind": "XList"}
    assert definition["spec"]["conversion"] == {"strategy": "None"}
    assert definition["status"]["storedVersions"] == ["v1"]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": "a.b.c",
        "rules": [rule],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    found = defaulted("admissionregistration.k8s.io", "MutatingWebhookConfiguration", webhooks=[webhook])["webhooks"][0]
    assert found["clientConfig"]["service"]["port"] == 443
    assert found["rules"][0]["scope"] == "*"
    assert (found["failurePolicy"], found["matchPolicy"], found["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
    assert (found["namespaceSelector"], found["reinvocationPolicy"]) == ({}, "Never")


def test_requests_for_tokens() -> None:
    found = defaulted("authentication.k8s.io", "TokenRequest", spec={"audiences": ["a"]})
    assert found["spec"] == {"audiences": ["a"], "expirationSeconds": 3600, "boundObjectRef": None}


def test_string_data_of_a_secret_is_merged_over_data_and_not_kept() -> None:
    secret = defaulted("", "Secret", data={"a": "b2xk", "b": "Yg=="}, stringData={"a": "new"})
    assert secret["data"] == {"a": "bmV3", "b": "Yg=="} and "stringData" not in secret


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"podCIDR": "10.1.0.0/24"}, {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}),
        ({"podCIDRs": ["10.1.0.0/24"]}, {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}),
        (
            {"podCIDR": "10.2.0.0/24", "podCIDRs": ["10.1.0.0/24"]},
            {"podCIDR": "10.2.0.0/24", "podCIDRs": ["10.2.0.0/24"]},
        ),
    ],
)
def test_the_old_field_of_a_nodes_range_counts(given: Object, shown: Object) -> None:
    assert defaulted("", "Node", spec=given)["spec"] == shown
