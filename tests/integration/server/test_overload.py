"""Overload and audit over real HTTP: a user in a tight loop keeps nobody waiting; the log tells who did what."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp

from api import kinds
from controller.reconcilers.build import request_of
from controller.server.audit import AuditLog, AuditSettings
from controller.server.audit_policy import parse_policy
from controller.store.types import Guard, Key
from tests.integration.server.conftest import Caller, Cluster

CLIENTS = 200
MAPS = "/api/v1/namespaces/default/configmaps"


async def bind(cluster: Cluster, user: str) -> None:
    body = {
        "metadata": {"name": f"all-{user}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    }
    made = await cluster.admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)
    assert made.status == 201, made.body


async def test_two_hundred_greedy_clients_do_not_starve_another_user(cluster: Cluster) -> None:
    await cluster.namespace("default")
    for user in ("greedy", "modest"):
        await bind(cluster, user)
    big = {"data": {"k": "v" * 500}}
    await asyncio.gather(
        *(cluster.admin.post(MAPS, {**big, "metadata": {"name": f"m{number}"}}) for number in range(300))
    )
    answers: dict[int, int] = {}

    async def greedy() -> None:
        while True:
            answer = await cluster.admin.get(MAPS, Impersonate_User="greedy", Accept_Encoding="identity")
            answers[answer.status] = answers.get(answer.status, 0) + 1

    loops = [asyncio.create_task(greedy()) for _ in range(CLIENTS)]
    await asyncio.sleep(1.0)
    waits = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=cluster.trust)) as session:
        other = Caller(cluster.url, session, cluster.pki.admin_token)
        for _ in range(10):
            started = time.perf_counter()
            answer = await other.get(f"{MAPS}/m1", Impersonate_User="modest")
            waits.append(time.perf_counter() - started)
            assert answer.status == 200
    for task in loops:
        task.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert max(waits) < 1.0, waits
    assert answers[200] > CLIENTS


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_changes_and_refusals_are_logged_and_reads_are_not(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    log = tmp_path / "audit" / "audit.log"
    cluster.server.audit = AuditLog(AuditSettings(log))
    await cluster.admin.post(MAPS, {"metadata": {"name": "a"}})
    await cluster.admin.get(f"{MAPS}/a")
    await cluster.admin.get(MAPS, Impersonate_User="eve")
    await cluster.anonymous.get(MAPS)
    made, eve, anonymous = events(log)
    assert (made["verb"], made["objectRef"]["resource"], made["responseStatus"]["code"]) == (
        "create",
        "configmaps",
        201,
    )
    assert made["user"]["groups"] == ["system:masters", "system:authenticated"]
    assert (eve["impersonatedUser"]["username"], eve["responseStatus"]["reason"]) == ("eve", "Forbidden")
    assert anonymous["user"]["username"] == "system:anonymous"
    assert log.stat().st_mode & 0o777 == 0o600


POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- level: RequestResponse
  resources: [{group: "", resources: [configmaps]}]
"""


async def test_each_stage_is_an_event_and_a_client_that_leaves_is_one_too(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    log = tmp_path / "audit.log"
    cluster.server.audit = AuditLog(AuditSettings(log, parse_policy(POLICY)))
    await cluster.admin.post(MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    received, complete = events(log)
    assert (received["stage"], complete["stage"]) == ("RequestReceived", "ResponseComplete")
    assert received["auditID"] == complete["auditID"] and "responseStatus" not in received
    assert complete["requestObject"]["data"] == complete["responseObject"]["data"] == {"k": "v"}
    assert "managedFields" not in complete["responseObject"]["metadata"]
    async with cluster.admin.stream(f"{MAPS}?watch=1"):
        pass
    await cluster.admin.post(MAPS, {"metadata": {"name": "b"}})
    async with asyncio.timeout(10):
        while len(stages := [each["stage"] for each in events(log) if each["verb"] == "watch"]) < 3:
            await cluster.admin.post(MAPS, {"metadata": {"generateName": "more-"}})
    assert stages == ["RequestReceived", "ResponseStarted", "ResponseComplete"]


def as_protobuf(name: str) -> bytes:
    """A ConfigMap as client-go sends it."""

    def field(number: int, value: bytes) -> bytes:
        return bytes((number << 3 | 2, len(value))) + value

    entry = field(1, b"k") + field(2, b"v")
    return (
        b"k8s\x00"
        + field(1, field(1, b"v1") + field(2, b"ConfigMap"))
        + field(2, field(1, field(1, name.encode())) + field(2, entry))
    )


async def test_bodies_are_logged_as_json_whatever_they_came_in(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    log = tmp_path / "audit.log"
    policy = POLICY.replace("[configmaps]", "[configmaps, secrets]") + "omitStages: [RequestReceived]\n"
    cluster.server.audit = AuditLog(AuditSettings(log, parse_policy(policy)))
    yaml, secrets = "application/yaml", MAPS.replace("configmaps", "secrets")
    apply = "application/apply-patch+yaml"
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {k: v}\n"
    secret = b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hidden}\n"
    answers = [
        await cluster.admin.ask(method, path, body, headers={"Content-Type": media, "Accept": accept})
        for method, path, body, media, accept in (
            ("POST", MAPS, as_protobuf("a"), "application/vnd.kubernetes.protobuf", "*/*"),
            ("POST", MAPS, text, yaml, yaml),
            ("PATCH", f"{MAPS}/b?fieldManager=m&force=1", text, apply, "*/*"),
            ("DELETE", f"{MAPS}/b", b"kind: DeleteOptions\ndryRun: [All]\n", yaml, "*/*"),
            ("POST", secrets, secret, yaml, yaml),
            ("PATCH", f"{secrets}/s?fieldManager=m&force=1", secret, apply, "*/*"),
        )
    ]
    assert [answer.status for answer in answers] == [201, 201, 200, 200, 201, 200], answers
    packed, made, applied, deleted, *hidden = events(log)
    for each, name in ((packed, "a"), (made, "b"), (applied, "b")):
        assert each["requestObject"]["data"] == each["responseObject"]["data"] == {"k": "v"}
        assert each["requestObject"]["kind"] == "ConfigMap" and each["objectRef"]["name"] == name
    assert deleted["requestObject"]["dryRun"] == ["All"]
    for each in hidden:
        assert each["requestObject"]["stringData"] == each["responseObject"]["data"] == {"k": "<redacted>"}


async def test_who_runs_commands_in_pods_is_logged_by_default(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    await cluster.pod("default", "p")
    log = tmp_path / "audit.log"
    cluster.server.audit = AuditLog(AuditSettings(log))
    await cluster.admin.get("/api/v1/namespaces/default/pods/p/exec?command=id")
    await cluster.admin.get("/api/v1/namespaces/default/pods/p")
    assert [(each["stage"], each["objectRef"]["subresource"]) for each in events(log)] == [
        ("ResponseStarted", "exec"),
        ("ResponseComplete", "exec"),
    ]


async def test_joins_the_node_proxy_and_reads_of_secrets_are_logged(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("shop")
    log = tmp_path / "audit.log"
    cluster.server.audit = AuditLog(AuditSettings(log))
    await cluster.anonymous.post("/wherry/v1/join", {"nodeName": "evil", "csr": "x"})
    await cluster.admin.post("/wherry/v1/join", {"nodeName": "n7", "csr": "x"})
    await cluster.admin.get("/api/v1/nodes/n7/proxy/pods")
    await cluster.admin.get("/api/v1/nodes/n7/proxy/metrics")
    await cluster.admin.get("/api/v1/namespaces/shop/secrets")
    await cluster.admin.get("/api/v1/namespaces/shop/secrets/x")
    await cluster.admin.get("/api/v1/namespaces/shop/configmaps")
    told = [
        (
            each["requestURI"],
            each["user"]["username"],
            each["responseStatus"]["code"],
            each["objectRef"].get("name", ""),
        )
        for each in events(log)
        if each["stage"] == "ResponseComplete"
    ]
    assert told == [
        ("/wherry/v1/join", "system:anonymous", 401, "evil"),
        ("/wherry/v1/join", "admin", 400, "n7"),
        ("/api/v1/nodes/n7/proxy/pods", "admin", 404, "n7"),
        ("/api/v1/namespaces/shop/secrets", "admin", 200, ""),
        ("/api/v1/namespaces/shop/secrets/x", "admin", 404, "x"),
    ]


async def test_what_a_controller_writes_is_logged_under_its_own_name(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("shop")
    log = tmp_path / "audit.log"
    audit = cluster.server.audit = AuditLog(AuditSettings(log))
    registry = cluster.services.registry
    registry.witness = audit.note_own
    maps = kinds.by_resource("", "configmaps")
    request = request_of("replicaset-controller", (Guard.exists(Key("", "namespaces", "", "shop")),))
    await registry.create(request, maps, "shop", {"metadata": {"generateName": "x-"}})
    await registry.create(request_of("nobody", ()), maps, "shop", {"metadata": {"name": "y"}})
    (event,) = events(log)
    assert event["user"]["username"] == "system:serviceaccount:kube-system:replicaset-controller"
    about = event["objectRef"]
    assert (event["verb"], about["resource"], about["namespace"]) == ("create", "configmaps", "shop")
    assert about["name"].startswith("x-") and event["requestURI"].startswith("/api/v1/namespaces/shop/configmaps/x-")
