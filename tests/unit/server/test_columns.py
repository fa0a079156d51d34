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
