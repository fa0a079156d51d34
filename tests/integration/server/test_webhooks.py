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
