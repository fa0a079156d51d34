"""Every row of the tables in pods/ is a pod on a real node: how it ends, what it prints, what it sees.

All pods of all tables are made at once, on the stories' lab; a test then awaits what its row expects. A row has

    name, proves    what it is, and the fields of Pod.spec it proves (tests/proofs.py)
    labels, spec    laid over a pod that restarts never and stops at once; {node} is the name of a node
    container       laid over its first container, busybox; `script` is run by its shell
    logs            the first container's log, whole, or a /pattern/ found in it
    status, object  values by path; a /pattern/ is looked for
    ready, events, condition      the pod is Ready; reasons of its events; [type, status, reason]
    exec            [command, what it prints]
    attach          a line that a client types
    debug           an ephemeral container that is added while the pod runs; debug_logs is its log
    resize          resources that the first container is given while it runs
    deleted         what the first container prints when the pod is deleted
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.lab import Lab
from tests.cluster import Cluster, eventually
from tests.images import BUSYBOX
from tests.proofs import pod_rows

NAMESPACE = "pods-table"
SECONDS = 180.0
OBJECTS = Path(__file__).parent / "objects.yaml"
HOST_FILES = "/tmp/wherry-conformance-"
SHARED = Path(f"{HOST_FILES}propagation")
"""A mount of the node from which mounts propagate; / itself need not be one."""
Row = dict[str, Any]


class Played:
    """The namespace in which the pods of all rows are, looked at not more often than is of use."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._pods: dict[str, Any] = {}
        self._events: dict[str, set[str]] = {}
        self._looked = 0.0

    def pod(self, name: str) -> Any:
        self._look()
        return self._pods[name]

    def events(self, name: str) -> set[str]:
        self._look()
        return self._events.get(name, set())

    def _look(self) -> None:
        if time.monotonic() - self._looked < 0.3:
            return
        self._pods = {pod["metadata"]["name"]: pod for pod in self.cluster.get("pods")["items"]}
        self._events = {}
        for event in self.cluster.get("events")["items"]:
            self._events.setdefault(event["involvedObject"]["name"], set()).add(event["reason"])
        self._looked = time.monotonic()


def pod_of(row: Row, node: str) -> Row:
    container = {"name": "c", "image": BUSYBOX, **row.get("container", {})}
    if "script" in row:
        container["command"] = ["sh", "-c", row["script"]]
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, **row.get("spec", {})}
    spec["containers"] = [container, *spec.get("containers", [])[1:]]
    metadata = {"name": row["name"], "labels": row.get("labels", {})}
    return dict(_filled({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, node))


def _filled(value: Any, node: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, node) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, node) for item in value]
    return node if value == "{node}" else value


@pytest.fixture(scope="module")
def played(lab: Lab) -> Iterator[Played]:
    cluster = Cluster(lab, NAMESPACE)
    cluster.kubectl("create", "namespace", NAMESPACE)
    SHARED.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", SHARED, SHARED], check=True)
    subprocess.run(["mount", "--make-shared", SHARED], check=True)
    cluster.apply(*yaml.safe_load(OBJECTS.read_text()))
    eventually(lambda: cluster.get("serviceaccounts")["items"], SECONDS, "the namespace has an account")
    cluster.apply(*(pod_of(row, lab.state.nodes[0]) for _, row in pod_rows()))
    yield Played(cluster)
    cluster.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")  # some have long ones
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=80s")
    cluster.kubectl("delete", "priorityclass", "pods-table-high")
    while subprocess.run(["umount", SHARED], capture_output=True, check=False).returncode == 0:
        pass  # a run that was killed may have left its own
    for left in Path("/tmp").glob(f"{HOST_FILES.removeprefix('/tmp/')}*"):
        left.rmdir()


def value_at(obj: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(obj, list):
            obj = obj[int(step)] if int(step) < len(obj) else None
        else:
            obj = obj.get(step) if obj is not None else None
    return obj


def fits(wanted: Any, seen: Any) -> bool:
    if isinstance(wanted, str) and len(wanted) > 1 and wanted.startswith("/") and wanted.endswith("/"):
        return isinstance(seen, str) and re.search(wanted[1:-1], seen) is not None
    return bool(wanted == seen)


def is_ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def missing(row: Row, played: Played, node: str) -> str:
    """What the row still waits for, "" if nothing."""
    pod = played.pod(row["name"])
    status = pod["status"]
    for path, wanted in row.get("status", {}).items():
        if not fits(wanted, value_at(status, path)):
            return f"status.{path} is {value_at(status, path)!r}, not {wanted!r}"
    for path, wanted in row.get("object", {}).items():
        if not fits(_filled(wanted, node), value_at(pod, path)):
            return f"{path} is {value_at(pod, path)!r}, not {wanted!r}"
    if "condition" in row:
        seen = [[each["type"], each["status"], each.get("reason")] for each in status.get("conditions", [])]
        if row["condition"] not in seen:
            return f"conditions are {seen}"
    if row.get("ready") and not is_ready(pod):
        return f"not ready: {status}"
    if lacking := set(row.get("events", ())) - played.events(row["name"]):
        return f"no event {lacking}, only {played.events(row['name'])}"
    if "logs" in row:
        return _log_fault(row, played, status)
    return ""


def _log_fault(row: Row, played: Played, status: Any) -> str:
    if not any("terminated" in each["state"] or "running" in each["state"] for each in _statuses(status)):
        return f"not started: {status}"
    log = played.cluster.run(*played.cluster.kubectl_command("logs", row["name"], "-c", "c"), check=False).stdout
    return "" if fits(row["logs"], log) else f"the log is {log!r}, not {row['logs']!r}: {status}"


def _statuses(status: Any) -> list[Any]:
    return [each for each in status.get("containerStatuses", []) if each["name"] == "c"]


def _awaited(row: Row, played: Played, node: str) -> None:
    deadline = time.monotonic() + SECONDS
    while fault := missing(row, played, node):
        if time.monotonic() > deadline:
            pytest.fail(f"{row['name']}: {fault}")
        time.sleep(0.2)


def _attached(row: Row, played: Played) -> None:
    name = row["name"]
    eventually(lambda: played.pod(name)["status"].get("phase") == "Running", SECONDS, f"{name} runs")
    played.cluster.kubectl("attach", "-i", name, stdin=row["attach"])


def _resized(row: Row, played: Played) -> None:
    name = row["name"]
    eventually(lambda: is_ready(played.pod(name)), SECONDS, f"{name} is ready")
    patch = yaml.safe_dump({"spec": {"containers": [{"name": "c", "resources": row["resize"]}]}})
    played.cluster.kubectl("patch", "pod", name, "--subresource=resize", "-p", patch)


def _debugged(row: Row, played: Played) -> None:
    name, look = row["name"], row["debug"]["name"]
    eventually(lambda: played.pod(name)["status"].get("phase") == "Running", SECONDS, f"{name} runs")
    patch = json.dumps({"spec": {"ephemeralContainers": [row["debug"]]}})
    played.cluster.kubectl("patch", "pod", name, "--subresource=ephemeralcontainers", "-p", patch)

    def has_ended() -> bool:
        statuses = played.pod(name)["status"].get("ephemeralContainerStatuses") or [{"state": {}}]
        return "terminated" in statuses[0]["state"]

    eventually(has_ended, SECONDS, f"{look} in {name} ended")
    assert fits(row["debug_logs"], played.cluster.kubectl("logs", name, "-c", look))


def _deleted(row: Row, played: Played) -> None:
    name = row["name"]
    with played.cluster.started("logs", "-f", name) as following:
        played.cluster.kubectl("delete", "pod", name, "--timeout=60s")
        assert following.communicate(timeout=SECONDS)[0] == row["deleted"]


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{table}/{row['name']}") for table, row in pod_rows()])
def test_a_pod_ends_as_its_row_says(row: Row, played: Played, lab: Lab) -> None:
    if "attach" in row:
        _attached(row, played)
    if "resize" in row:
        _resized(row, played)
    if "debug" in row:
        _debugged(row, played)
    _awaited(row, played, lab.state.nodes[0])
    if "exec" in row:
        command, printed = row["exec"]
        assert played.cluster.kubectl("exec", row["name"], "-c", "c", "--", *command) == printed
    if "deleted" in row:
        _deleted(row, played)
