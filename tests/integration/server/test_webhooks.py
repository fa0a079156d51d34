"""Admission webhooks and policies over real HTTP and TLS: called, believed, refused, ignored."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.server.conftest import Answer, Cluster
from tests.integration.server.https import https_context, served

CONFIGS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
Response = dict[str, Any]


@dataclass
class Webhook:
    """A webhook server of the test: `answer` makes the response of each review."""

    url: str = ""
    bundle: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], Response] = lambda request: {"allowed": True}

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.seen.append(review["request"])
        response = {"uid": review["request"]["uid"], **self.answer(review["request"])}
        return web.json_response({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})

    def configuration(self, kind: str, **more: Any) -> dict[str, Any]:
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        hook = {
            "name": "test.example.com",
            "clientConfig": {"url": self.url, "caBundle": self.bundle},
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
            **more,
        }
        return {"kind": kind, "metadata": {"name": "test"}, "webhooks": [hook]}


@pytest.fixture
async def hook(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Webhook]:
    await cluster.namespace("default")
    webhook = Webhook(bundle=base64.b64encode(cluster.pki.authority.pem).decode())
    async with served({"/review": webhook.handle}, https_context(cluster.pki, tmp_path, "127.0.0.1")) as port:
        webhook.url = f"https://127.0.0.1:{port}/review"
        yield webhook


async def configure(cluster: Cluster, configuration: dict[str, Any]) -> None:
    plural = configuration["kind"].lower() + "s"
    made = await cluster.admin.post(f"{CONFIGS}/{plural}", configuration)
    assert made.status == 201, made.body


async def make(cluster: Cluster, name: str, query: str = "", **fields: Any) -> Answer:
    return await cluster.admin.post(MAPS + query, {"metadata": {"name": name}, "data": {"a": "b"}, **fields})


def patching(*operations: dict[str, Any]) -> Response:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


async def test_a_mutating_webhook_changes_what_is_written(cluster: Cluster, hook: Webhook) -> None:
    hook.answer = lambda request: patching({"op": "add", "path": "/data/c", "value": "d"})
    await configure(cluster, hook.configuration("MutatingWebhookConfiguration"))
    assert (await make(cluster, "x")).json["data"] == {"a": "b", "c": "d"}
    (request,) = hook.seen
    assert (request["operation"], request["namespace"], request["name"]) == ("CREATE", "default", "x")
    assert request["userInfo"]["username"] == "admin"
    assert request["object"]["data"] == {"a": "b"}


async def test_a_validating_webhook_refuses_in_its_own_words(cluster: Cluster, hook: Webhook) -> None:
    hook.answer = lambda request: {
        "allowed": False,
        "status": {"code": 403, "reason": "Forbidden", "message": "no maps on Mondays"},
        "warnings": ["try Tuesday"],
    }
    await configure(cluster, hook.configuration("ValidatingWebhookConfiguration"))
    refused = await make(cluster, "x")
    assert (refused.status, refused.json["reason"]) == (403, "Forbidden")
    assert refused.message == 'admission webhook "test.example.com" denied the request: no maps on Mondays'
    assert refused.headers["Warning"] == '299 - "try Tuesday"'
    assert (await cluster.admin.get(f"{MAPS}/x")).status == 404


async def test_a_webhook_that_cannot_be_reached_refuses_or_is_ignored(cluster: Cluster, hook: Webhook) -> None:
    dead = {"url": "https://127.0.0.1:9/review", "caBundle": hook.bundle}
    configuration = hook.configuration("ValidatingWebhookConfiguration", clientConfig=dead)
    await configure(cluster, configuration)
    refused = await make(cluster, "x")
    assert refused.status == 500
    assert (
        'failed calling webhook "test.example.com": failed to call webhook: Post "https://127.0.0.1:9'
        in refused.message
    )
    path = f"{CONFIGS}/validatingwebhookconfigurations/test"
    stored = (await cluster.admin.get(path)).json
    stored["webhooks"][0]["failurePolicy"] = "Ignore"
    assert (await cluster.admin.ask("PUT", path, stored)).status == 200
    assert (await make(cluster, "x")).status == 201


async def test_selectors_and_conditions_narrow_a_webhook(cluster: Cluster, hook: Webhook) -> None:
    hook.answer = lambda request: {"allowed": False}
    await configure(
        cluster,
        hook.configuration(
            "ValidatingWebhookConfiguration",
            objectSelector={"matchLabels": {"judge": "me"}},
            matchConditions=[{"name": "big", "expression": "size(object.data) > 1"}],
        ),
    )
    assert (await make(cluster, "a")).status == 201
    assert (await make(cluster, "b", metadata={"name": "b", "labels": {"judge": "me"}})).status == 201
    refused = await make(cluster, "c", data={"a": "1", "b": "2"}, metadata={"name": "c", "labels": {"judge": "me"}})
    assert refused.message == 'admission webhook "test.example.com" denied the request without explanation'


async def test_a_dry_run_calls_only_webhooks_without_side_effects(cluster: Cluster, hook: Webhook) -> None:
    await configure(cluster, hook.configuration("ValidatingWebhookConfiguration"))
    assert (await make(cluster, "x", "?dryRun=All")).status == 201
    assert hook.seen[0]["dryRun"] is True


async def test_what_a_webhook_breaks_is_refused(cluster: Cluster, hook: Webhook) -> None:
    hook.answer = lambda request: patching({"op": "add", "path": "/data/bad~1key", "value": "x"})
    await configure(cluster, hook.configuration("MutatingWebhookConfiguration"))
    refused = await make(cluster, "x")
    assert (refused.status, refused.json["reason"]) == (422, "Invalid")


def policy(**spec: Any) -> dict[str, Any]:
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    return {
        "metadata": {"name": "small"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "variables": [{"name": "entries", "expression": "size(object.data)"}],
            "validations": [
                {"expression": "variables.entries <= 1", "messageExpression": "'has ' + string(variables.entries)"}
            ],
            **spec,
        },
    }


async def bind(cluster: Cluster, *actions: str, **spec: Any) -> None:
    body = {
        "metadata": {"name": "small-here"},
        "spec": {"policyName": "small", "validationActions": list(actions), **spec},
    }
    made = await cluster.admin.post(f"{CONFIGS}/validatingadmissionpolicybindings", body)
    assert made.status == 201, made.body


async def test_a_bound_policy_denies_and_says_why(cluster: Cluster) -> None:
    await cluster.namespace("default")
    made = await cluster.admin.post(f"{CONFIGS}/validatingadmissionpolicies", policy())
    assert made.status == 201, made.body
    assert (await make(cluster, "free", data={"a": "1", "b": "2"})).status == 201
    await bind(cluster, "Deny")
    assert (await make(cluster, "ok")).status == 201
    refused = await make(cluster, "x", data={"a": "1", "b": "2"})
    assert (refused.status, refused.json["reason"]) == (422, "Invalid")
    assert refused.message == (
        "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'small' with binding 'small-here' "
        "denied request: has 2"
    )


async def test_a_binding_may_warn_only_and_take_parameters(cluster: Cluster) -> None:
    await cluster.namespace("default")
    await make(cluster, "limits", data={"most": "2"})
    parameters = {"apiVersion": "v1", "kind": "ConfigMap"}
    validations = [{"expression": "variables.entries <= int(params.data.most)", "message": "too many"}]
    await cluster.admin.post(
        f"{CONFIGS}/validatingadmissionpolicies", policy(paramKind=parameters, validations=validations)
    )
    await bind(cluster, "Warn", paramRef={"name": "limits", "parameterNotFoundAction": "Deny"})
    assert "Warning" not in (await make(cluster, "two", data={"a": "1", "b": "2"})).headers
    warned = await make(cluster, "three", data={"a": "1", "b": "2", "c": "3"})
    assert warned.status == 201
    assert "with binding 'small-here': too many" in warned.headers["Warning"]


async def test_an_expression_that_does_not_compile_is_refused_where_it_stands(cluster: Cluster) -> None:
    broken = policy(validations=[{"expression": "object.data >"}])
    refused = await cluster.admin.post(f"{CONFIGS}/validatingadmissionpolicies", broken)
    assert refused.status == 422
    assert refused.json["details"]["causes"][0]["field"] == "spec.validations[0].expression"


PART_OF_DEFAULT = "/api/v1/namespaces/default"
PARTS: list[tuple[str, str, Any, tuple[str, str, str, str]]] = [
    (
        "POST",
        f"{PART_OF_DEFAULT}/serviceaccounts/default/token",
        {"spec": {"audiences": ["a"]}},
        ("CREATE", "TokenRequest", "serviceaccounts", "token"),
    ),
    (
        "POST",
        f"{PART_OF_DEFAULT}/pods/p/binding",
        {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}},
        ("CREATE", "Binding", "pods", "binding"),
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/replicasets/r/scale",
        {"spec": {"replicas": 3}},
        ("UPDATE", "Scale", "replicasets", "scale"),
    ),
    (
        "GET",
        f"{PART_OF_DEFAULT}/pods/p/exec?command=a&command=b&stdin=1",
        None,
        ("CONNECT", "PodExecOptions", "pods", "exec"),
    ),
    ("GET", f"{PART_OF_DEFAULT}/pods/p/attach?container=c", None, ("CONNECT", "PodAttachOptions", "pods", "attach")),
    (
        "POST",
        f"{PART_OF_DEFAULT}/pods/p/portforward?ports=80",
        None,
        ("CONNECT", "PodPortForwardOptions", "pods", "portforward"),
    ),
    ("GET", f"{PART_OF_DEFAULT}/pods/p/proxy/x/y", None, ("CONNECT", "PodProxyOptions", "pods", "proxy")),
    ("GET", "/api/v1/nodes/n1/proxy/metrics", None, ("CONNECT", "NodeProxyOptions", "nodes", "proxy")),
    (
        "POST",
        f"{PART_OF_DEFAULT}/pods/p/eviction",
        {"metadata": {"name": "p"}},
        ("CREATE", "Eviction", "pods", "eviction"),
    ),
]
SHOWN: dict[str, dict[str, Any]] = {
    "token": {"spec": {"audiences": ["a"], "expirationSeconds": 3600, "boundObjectRef": None}},
    "binding": {"target": {"kind": "Node", "name": "n1"}},
    "scale": {"spec": {"replicas": 3}},
    "exec": {"apiVersion": "v1", "command": ["a", "b"], "stdin": True},
    "attach": {"container": "c"},
    "portforward": {"ports": [80]},
}


async def scene_of_parts(cluster: Cluster) -> None:
    await cluster.pod("default", "p")
    await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    await cluster.admin.post(f"{PART_OF_DEFAULT}/serviceaccounts", {"metadata": {"name": "default"}})
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = await cluster.admin.post(
        "/apis/apps/v1/namespaces/default/replicasets", {"metadata": {"name": "r"}, "spec": spec}
    )
    assert made.status == 201, made.body


async def test_subresources_are_shown_as_the_kinds_they_are_asked_in(cluster: Cluster, hook: Webhook) -> None:
    await scene_of_parts(cluster)
    rule = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*", "pods"]}
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        await configure(cluster, hook.configuration(kind, rules=[rule]))
    namespace = (await cluster.admin.get("/api/v1/namespaces/default")).json
    finalized = ("UPDATE", "Namespace", "namespaces", "finalize")
    for method, path, body, expected in (*PARTS, ("PUT", "/api/v1/namespaces/default/finalize", namespace, finalized)):
        hook.seen.clear()
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        answer = await cluster.admin.ask(method, path, body, headers=headers)
        subresource = expected[3]
        assert answer.status < 500 or expected[0] == "CONNECT", answer.body
        seen = [each for each in hook.seen if each.get("subResource") == subresource]
        assert len(seen) == 2, (path, answer.body[90:])
        for each in seen:
            shown = each["operation"], each["kind"]["kind"], each["resource"]["resource"], each["subResource"]
            assert shown == expected and each["requestKind"] == each["kind"], path
            assert (each["oldObject"] is None) is (expected[0] != "UPDATE")
        assert seen[-1]["object"] == seen[-1]["object"] | SHOWN.get(subresource, {})
        if subresource == "eviction":
            assert {each["operation"] for each in hook.seen} & {"DELETE"} == set(), (
                "its deletion is not asked about again"
            )


async def test_what_webhooks_make_of_subresources_holds(cluster: Cluster, hook: Webhook) -> None:
    await scene_of_parts(cluster)
    rule = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
    await configure(cluster, hook.configuration("MutatingWebhookConfiguration", rules=[rule]))
    paths = {"scale": ("/spec/replicas", 5), "token": ("/spec/audiences/-1", "z"), "binding": ("/target/name", "n1")}

    def changed(request: dict[str, Any]) -> Response:
        path, value = paths[request["subResource"]]
        patch = base64.b64encode(json.dumps([{"op": "replace", "path": path, "value": value}]).encode()).decode()
        return {"allowed": True, "patchType": "JSONPatch", "patch": patch}

    hook.answer = changed
    by_part = {expected[3]: (method, path, body) for method, path, body, expected in PARTS}
    method, path, body = by_part["scale"]
    scaled = await cluster.admin.ask(method, path, body, headers={"Content-Type": "application/merge-patch+json"})
    assert scaled.json["spec"] == {"replicas": 5}
    token = await cluster.admin.ask(*by_part["token"])
    assert token.json["spec"]["audiences"] == ["z"], token.body
    method, path, body = by_part["binding"]
    bound = await cluster.admin.ask(method, path, {**body, "target": {"name": "elsewhere"}})
    assert bound.status == 201, bound.body
    assert (await cluster.admin.get(f"{PART_OF_DEFAULT}/pods/p")).json["spec"]["nodeName"] == "n1"


async def test_policies_judge_token_requests_and_connections(cluster: Cluster) -> None:
    await cluster.namespace("default")
    await scene_of_parts(cluster)
    rules = [
        {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["serviceaccounts/token"]},
        {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]},
    ]
    expression = "request.operation == 'CONNECT' ? object.command[0] != 'sh' : object.spec.expirationSeconds <= 3600"
    policy = {
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": expression, "message": "no"}],
    }
    binding = {"policyName": "p", "validationActions": ["Deny"]}
    for plural, spec in (("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)):
        made = await cluster.admin.post(f"{CONFIGS}/{plural}", {"metadata": {"name": "p"}, "spec": spec})
        assert made.status == 201, made.body
    token = f"{PART_OF_DEFAULT}/serviceaccounts/default/token"
    assert (await cluster.admin.post(token, {"spec": {"expirationSeconds": 3600}})).status == 201
    long = await cluster.admin.post(token, {"spec": {"expirationSeconds": 7200}})
    assert (long.status, long.message.endswith("denied request: no")) == (422, True), long.body
    refused = await cluster.admin.get(f"{PART_OF_DEFAULT}/pods/p/exec?command=sh")
    assert (refused.status, refused.message.endswith("denied request: no")) == (422, True), refused.body
    assert (await cluster.admin.get(f"{PART_OF_DEFAULT}/pods/p/exec?command=id")).status != 422


async def test_a_webhook_cannot_break_managed_fields(cluster: Cluster, hook: Webhook) -> None:
    rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    await configure(cluster, hook.configuration("MutatingWebhookConfiguration", rules=[rule]))
    broken = [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": "x"}}]
    patch = [{"op": "add", "path": "/metadata/managedFields", "value": broken}]
    packed = base64.b64encode(json.dumps(patch).encode()).decode()
    hook.answer = lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": packed}
    made = await make(cluster, "m")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"c": "d"}}
    headers = {"Content-Type": "application/apply-patch+yaml"}
    applied = await cluster.admin.ask("PATCH", f"{MAPS}/m?fieldManager=a", config, headers=headers)
    put = await cluster.admin.ask("PUT", f"{MAPS}/m", {**config, "data": {"e": "f"}})
    for answer in (made, applied, put):
        assert answer.status < 300, answer.body
        assert ".metadata.managedFields was in an invalid state after admission" in answer.headers["Warning"]
        assert all(each["fieldsV1"] != {"f:data": "x"} for each in answer.json["metadata"]["managedFields"])
