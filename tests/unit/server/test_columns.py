"""What kubectl get prints: a row for every kind, a word for every pod."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.columns import cells, columns_of
from api.kinds import KINDS, by_gvk, by_resource
from api.pod_summary import summarize_pod
from api.printing import human_duration, since

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING = {"state": {"running": {}}, "ready": True}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_100, "3h5m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 86_400, "8d"),
        (700 * 86_400, "700d"),
        (800 * 86_400, "2y70d"),
        (9 * 365 * 86_400, "9y"),
    ],
)
def test_durations_have_two_or_three_figures(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_an_age_without_time_is_unknown() -> None:
    assert since(None, NOW) == since("junk", NOW) == "<unknown>"
    assert since((NOW - timedelta(seconds=7)).isoformat(), NOW) == "7s"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "get" in kind.verbs], ids=lambda kind: kind.kind)
def test_even_an_empty_object_has_a_cell_for_every_column(kind: Any) -> None:
    assert len(cells(kind, {}, NOW)) == len(columns_of(kind))


def pod(containers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": f"c{index}"} for index in range(len(containers) or 1)]}
    status = {"phase": "Running", "containerStatuses": containers, **more.pop("status", {})}
    return {"metadata": more.pop("metadata", {}), "spec": {**spec, **more}, "status": status}


@pytest.mark.parametrize(
    ("obj", "ready", "reason", "restarts"),
    [
        (pod([RUNNING]), "1/1", "Running", 0),
        (pod([], status={"phase": "Pending"}), "0/1", "Pending", 0),
        (
            pod([{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}]),
            "0/1",
            "CrashLoopBackOff",
            3,
        ),
        (pod([{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]), "0/1", "Completed", 0),
        (pod([{"state": {"terminated": {"exitCode": 3}}}]), "0/1", "ExitCode:3", 0),
        (pod([{"state": {"terminated": {"signal": 9}}}]), "0/1", "Signal:9", 0),
        (pod([RUNNING], metadata={"deletionTimestamp": "x"}), "1/1", "Terminating", 0),
        (
            pod([], metadata={"deletionTimestamp": "x"}, status={"phase": "Failed", "reason": "Evicted"}),
            "0/1",
            "Evicted",
            0,
        ),
        (pod([RUNNING], metadata={"deletionTimestamp": "x"}, status={"reason": "NodeLost"}), "1/1", "Unknown", 0),
        (
            pod([], status={"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/1",
            "SchedulingGated",
            0,
        ),
        (
            pod(
                [{"state": {"waiting": {"reason": "PodInitializing"}}}],
                initContainers=[{"name": "i"}, {"name": "j"}],
                status={"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]},
            ),
            "0/1",
            "Init:0/2",
            0,
        ),
        (
            pod(
                [],
                initContainers=[{"name": "i"}],
                status={
                    "phase": "Pending",
                    "initContainerStatuses": [
                        {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
                    ],
                },
            ),
            "0/1",
            "Init:Error",
            2,
        ),
        (
            pod(
                [RUNNING],
                initContainers=[{"name": "s", "restartPolicy": "Always"}],
                status={
                    "initContainerStatuses": [
                        {"name": "s", "started": True, "ready": True, "restartCount": 1, "state": {"running": {}}}
                    ]
                },
            ),
            "2/2",
            "Running",
            1,
        ),
        (pod([RUNNING, {"state": {"terminated": {"reason": "Completed"}}}]), "1/2", "NotReady", 0),
    ],
)
def test_a_pod_is_told_in_a_word(obj: dict[str, Any], ready: str, reason: str, restarts: int) -> None:
    summary = summarize_pod(obj)
    assert (f"{summary.ready}/{summary.total}", summary.reason, summary.restarts) == (ready, reason, restarts)


def test_the_last_restart_is_told_with_the_count() -> None:
    last = {"terminated": {"finishedAt": (NOW - timedelta(minutes=3)).isoformat()}}
    row = cells(by_resource("", "pods"), pod([{**RUNNING, "restartCount": 2, "lastState": last}]), NOW)
    assert row[3] == "2 (3m ago)"


@pytest.mark.parametrize(
    ("conditions", "unschedulable", "status"),
    [
        ([], False, "Unknown"),
        ([{"type": "Ready", "status": "True"}], False, "Ready"),
        ([{"type": "Ready", "status": "Unknown"}], False, "NotReady"),
        ([{"type": "Ready", "status": "True"}], True, "Ready,SchedulingDisabled"),
    ],
)
def test_a_node_says_whether_it_takes_pods(conditions: list[dict[str, str]], unschedulable: bool, status: str) -> None:
    node = {"spec": {"unschedulable": unschedulable}, "status": {"conditions": conditions}}
    assert cells(by_resource("", "nodes"), node, NOW)[1] == status


def test_both_views_of_an_event_print_the_same() -> None:
    core = {
        "metadata": {"name": "e"},
        "type": "Normal",
        "reason": "Pulled",
        "message": "done ",
        "count": 3,
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": (NOW - timedelta(minutes=5)).isoformat(),
        "lastTimestamp": NOW.isoformat(),
    }
    renamed = {
        "message": "note",
        "count": "deprecatedCount",
        "involvedObject": "regarding",
        "source": "deprecatedSource",
    }
    renamed |= {"firstTimestamp": "deprecatedFirstTimestamp", "lastTimestamp": "deprecatedLastTimestamp"}
    view = {renamed.get(field, field): value for field, value in core.items()}
    kind = by_gvk("events.k8s.io", "v1", "Event")
    assert kind is not None
    row = cells(by_resource("", "events"), core, NOW)
    assert row == ["0s", "Normal", "Pulled", "pod/p", "spec.containers{c}", "kubelet, n1", "done", "5m", 3, "e"]
    assert cells(kind, view, NOW) == row


def test_a_role_binding_lists_its_subjects_by_kind() -> None:
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [
            {"kind": "User", "name": "u"},
            {"kind": "User", "name": "v"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "ns"},
        ],
    }
    kind = by_resource("rbac.authorization.k8s.io", "rolebindings")
    assert cells(kind, binding, NOW) == ["b", "Role/r", "<unknown>", "u, v", "", "ns/s"]


def row(group: str, plural: str, **parts: Any) -> list[Any]:
    """The cells of an object made just now, without its name and age."""
    obj = {"metadata": {"name": "x", "creationTimestamp": NOW.isoformat(), **parts.pop("metadata", {})}, **parts}
    return [cell for cell in cells(by_resource(group, plural), obj, NOW)[1:] if cell != "0s"]


def test_services_show_ports_and_where_they_are_reached() -> None:
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    balanced = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "h"}]}}
    spec = {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": ports}
    assert row("", "services", spec=spec) == [
        "LoadBalancer",
        "10.0.0.1",
        "<pending>",
        "80:30080/TCP,53/UDP",
        "<none>",
    ]
    assert row("", "services", spec=spec, status=balanced)[2] == "192.0.2.1,h"
    assert row("", "services", spec={"type": "ExternalName", "externalName": "e"})[1:3] == ["<none>", "e"]


def test_slices_and_endpoints_show_the_first_three() -> None:
    addresses = [{"ip": f"10.0.0.{number}"} for number in range(5)]
    endpoints = {"addresses": addresses, "ports": [{"port": 80}]}
    assert row("", "endpoints", subsets=[endpoints]) == ["10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."]
    assert row("discovery.k8s.io", "endpointslices", addressType="IPv4") == ["IPv4", "<unset>", "<unset>"]


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"completions": 3, "parallelism": 1}, {"succeeded": 1}, ["Running", "1/3", ""]),
        ({"parallelism": 4}, {}, ["Running", "0/1 of 4", ""]),
        (
            {"completions": 1},
            {
                "succeeded": 1,
                "conditions": [{"type": "Complete", "status": "True"}],
                "startTime": (NOW - timedelta(seconds=90)).isoformat(),
                "completionTime": (NOW - timedelta(seconds=60)).isoformat(),
            },
            ["Complete", "1/1", "30s"],
        ),
    ],
)
def test_a_job_tells_how_far_it_is(spec: dict[str, Any], status: dict[str, Any], expected: list[str]) -> None:
    assert row("batch", "jobs", spec=spec, status=status)[:3] == expected


def test_both_versions_of_an_autoscaler_print_the_same() -> None:
    used = {"currentReplicas": 2, "currentCPUUtilizationPercentage": 7}
    one = {"maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 80}
    one["scaleTargetRef"] = target = {"kind": "Deployment", "name": "d"}  # type: ignore[assignment]
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}
    current = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}
    two = {"maxReplicas": 3, "minReplicas": 1, "metrics": [metric], "scaleTargetRef": target}
    expected = ["Deployment/d", "cpu: 7%/80%", "1", 3, 2]
    version_one = by_gvk("autoscaling", "v1", "HorizontalPodAutoscaler")
    assert version_one is not None
    assert cells(version_one, {"spec": one, "status": used}, NOW)[1:6] == expected
    status = {"currentReplicas": 2, "currentMetrics": [current]}
    assert row("autoscaling", "horizontalpodautoscalers", spec=two, status=status) == expected


def test_a_quota_shows_what_is_used_of_each_bound() -> None:
    status = {"hard": {"pods": "2", "limits.cpu": "1", "cpu": "3"}, "used": {"pods": "1", "cpu": "500m"}}
    assert row("", "resourcequotas", status=status) == ["cpu: 500m/3, pods: 1/2", "limits.cpu: 0/1"]


def test_volumes_and_claims_show_what_they_are_bound_to() -> None:
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": "shop", "name": "c"},
        "volumeMode": "Filesystem",
    }
    bound = ["1Gi", "RWO,RWX", "Retain", "Bound", "shop/c", "", "<unset>", "", "Filesystem"]
    assert row("", "persistentvolumes", spec=spec, status={"phase": "Bound"}) == bound
    claim = row("", "persistentvolumeclaims", spec={}, status={"phase": "Pending", "capacity": {"storage": "1Gi"}})
    assert claim == ["Pending", "", "", "", "", "<unset>", "<unset>"]


def test_a_revision_names_whose_it_is() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "controller": True}
    assert row("apps", "controllerrevisions", metadata={"ownerReferences": [owner]}, revision=3) == [
        "statefulset.apps/s",
        3,
    ]


@pytest.mark.parametrize(
    ("resource", "obj", "row"),
    [
        (
            "networking.k8s.io/ingresses",
            {"spec": {"rules": [{"host": h} for h in "abcd"]}},
            ["<none>", "a,b,c + 1 more..."],
        ),
        ("networking.k8s.io/ingresses", {"spec": {"rules": [{"host": h} for h in "abc"]}}, ["<none>", "a,b,c"]),
        ("/persistentvolumes", {"spec": {}}, ["0"]),
        (
            "discovery.k8s.io/endpointslices",
            {"ports": [{"port": 1}, {"name": "web"}, {}], "endpoints": []},
            ["", "1,web,*", "<unset>"],
        ),
        (
            "/endpoints",
            {"subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 1}]}]},
            ["[fd00::1]:1"],
        ),
        (
            "admissionregistration.k8s.io/validatingadmissionpolicybindings",
            {"spec": {"policyName": "p", "paramRef": {"name": "x"}}},
            ["p", "*/x"],
        ),
    ],
)
def test_odd_cells(resource: str, obj: dict[str, Any], row: list[Any]) -> None:
    group, _, plural = resource.partition("/")
    assert cells(by_resource(group, plural), obj, NOW)[1 : 1 + len(row)] == row
