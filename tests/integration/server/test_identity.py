"""Who somebody is and what he may, in the details that clients and webhooks read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import pytest

from controller.admission.types import NODES_GROUP
from controller.pki.authority import Subject
from tests.integration.server.conftest import ISSUER, Answer, Caller, Cluster

AUTHN, AUTHZ = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


async def token(cluster: Cluster, **spec: Any) -> Answer:
    return await cluster.admin.post(f"{ACCOUNT}/token", {"spec": spec})


async def reviewed(cluster: Cluster, text: str, *audiences: str) -> Any:
    spec = {"token": text, "audiences": list(audiences)}
    return (await cluster.admin.post(f"{AUTHN}/tokenreviews", {"spec": spec})).json["status"]


async def bind(cluster: Cluster, user: str, role: str, *rules: dict[str, Any]) -> None:
    if rules:
        await cluster.admin.post(f"{RBAC}/clusterroles", {"metadata": {"name": role}, "rules": list(rules)})
    body = {
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": GROUP, "name": user}],
    }
    assert (await cluster.admin.post(f"{RBAC}/clusterrolebindings", body)).status == 201


async def test_a_token_is_good_for_those_audiences_that_it_names(cluster: Cluster) -> None:
    await cluster.namespace("default")
    text = (await token(cluster, audiences=["vault", "bank"])).json["status"]["token"]
    status = await reviewed(cluster, text, "shop", "bank")
    assert (status["authenticated"], status["audiences"]) == (True, ["bank"])
    assert "authenticated" not in await reviewed(cluster, text, "shop")
    assert "authenticated" not in await reviewed(cluster, text)
    admin = cluster.pki.admin_token
    assert (await reviewed(cluster, admin))["audiences"] == [ISSUER]
    assert "authenticated" not in await reviewed(cluster, admin, "vault"), "an API token opens nothing else"


async def test_a_token_can_be_verified_with_what_the_issuer_publishes(cluster: Cluster) -> None:
    await cluster.namespace("default")
    text = (await token(cluster, audiences=["vault"], expirationSeconds=700)).json["status"]["token"]
    bot = Caller(cluster.url, cluster.anonymous.session, (await token(cluster)).json["status"]["token"])
    document = (await bot.get("/.well-known/openid-configuration")).json
    keys = jwt.PyJWKSet.from_dict((await bot.get("/openid/v1/jwks")).json)
    key = keys[jwt.get_unverified_header(text)["kid"]]
    algorithms = document["id_token_signing_alg_values_supported"]
    claims = jwt.decode(text, key.key, algorithms=algorithms, audience="vault", issuer=document["issuer"])
    assert (claims["exp"] - claims["iat"], claims["kubernetes.io"]["namespace"]) == (700, "default")
    assert (await cluster.anonymous.get("/openid/v1/jwks")).status == 403


@pytest.mark.parametrize(
    ("spec", "status", "message"),
    [
        ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": (1 << 32) + 1}, 422, "may not specify a duration larger than 2^32 seconds"),
        (
            {"boundObjectRef": {"kind": "Deployment", "apiVersion": "apps/v1", "name": "x"}},
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
        ({"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "x"}}, 404, 'secrets "x" not found'),
        (
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}},
            400,
            'cannot bind token for serviceaccount "default" to pod running with different serviceaccount name.',
        ),
        (
            {"boundObjectRef": {"kind": "ServiceAccount", "apiVersion": "v1", "name": "default"}},
            400,
            "cannot bind token to object of type /v1, Kind=ServiceAccount",
        ),
    ],
)
async def test_a_token_that_cannot_be_is_refused(
    cluster: Cluster, spec: dict[str, Any], status: int, message: str
) -> None:
    await cluster.namespace("default")
    await cluster.admin.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "other"}})
    await cluster.pod("default", "p", serviceAccountName="other")
    refused = await token(cluster, **spec)
    assert refused.status == status and message in refused.message


async def test_a_token_of_a_secret_dies_with_it_and_its_uid_counts(cluster: Cluster) -> None:
    await cluster.namespace("default")
    secrets = "/api/v1/namespaces/default/secrets"
    await cluster.admin.post(secrets, {"metadata": {"name": "s"}})
    reference = {"kind": "Secret", "apiVersion": "v1", "name": "s"}
    stale = await token(cluster, boundObjectRef={**reference, "uid": "another"})
    assert stale.status == 409 and 'Secret "s": the UID in the bound object reference' in stale.message
    text = (await token(cluster, boundObjectRef=reference)).json["status"]["token"]
    assert (await reviewed(cluster, text))["authenticated"]
    await cluster.admin.ask("DELETE", f"{secrets}/s")
    assert "authenticated" not in await reviewed(cluster, text)


@pytest.mark.parametrize(
    ("headers", "status", "who"),
    [
        ({"Impersonate-Extra-Scopes": "x"}, 400, ""),
        ({"Impersonate-Group": "devs"}, 400, ""),
        ({"Impersonate-Uid": "7"}, 400, ""),
        ({"Impersonate-User": "eve"}, 403, 'cannot impersonate resource "users" in API group ""'),
        ({"Impersonate-User": "bob", "Impersonate-Group": "root"}, 403, 'cannot impersonate resource "groups"'),
        (
            {"Impersonate-User": "bob", "Impersonate-Uid": "8"},
            403,
            'resource "uids" in API group "authentication.k8s.io"',
        ),
        (
            {"Impersonate-User": "bob", "Impersonate-Extra-Team": "y"},
            403,
            'cannot impersonate resource "userextras/team"',
        ),
        ({"Impersonate-User": "system:serviceaccount:a:b"}, 403, 'resource "serviceaccounts" in API group "" in the'),
        (
            {
                "Impersonate-User": "bob",
                "Impersonate-Uid": "7",
                "Impersonate-Group": "devs",
                "Impersonate-Extra-Team": "x",
            },
            201,
            "",
        ),
    ],
)
async def test_each_part_of_another_identity_needs_its_right(
    cluster: Cluster, tmp_path: Path, headers: dict[str, str], status: int, who: str
) -> None:
    def may(group: str, resource: str, name: str) -> dict[str, Any]:
        return {"apiGroups": [group], "resources": [resource], "verbs": ["impersonate"], "resourceNames": [name]}

    authn = "authentication.k8s.io"
    rules = [may("", "users", "bob"), may("", "groups", "devs"), may(authn, "uids", "7")]
    await bind(cluster, "adam", "actor", *rules, may(authn, "userextras/team", "x"))
    async with cluster.certified(Subject("adam"), tmp_path) as adam:
        answer = await adam.ask("POST", f"{AUTHN}/selfsubjectreviews", {}, headers=headers)
    assert answer.status == status, answer.body
    if status == 201:
        info = answer.json["status"]["userInfo"]
        assert (info["uid"], info["groups"]) == ("7", ["devs", "system:authenticated"])
        assert info["extra"] == {"team": ["x"]}
    else:
        assert who in answer.message


async def test_reviews_say_why(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    await bind(cluster, "eve", "reader", {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "get"]})

    async def ask(verb: str, user: str = "eve", **more: Any) -> Any:
        wanted = {"verb": verb, "resource": "pods", "namespace": "default", **more}
        spec = {"user": user, "groups": [NODES_GROUP] if user != "eve" else [], "resourceAttributes": wanted}
        return (await cluster.admin.post(f"{AUTHZ}/subjectaccessreviews", {"spec": spec})).json["status"]

    source = 'ClusterRoleBinding "eve-reader" of ClusterRole "reader" to User "eve"'
    assert await ask("get") == {"allowed": True, "reason": f"RBAC: allowed by {source}"}
    assert await ask("delete") == {"allowed": False}
    await bind(cluster, "eve", "ghost")
    missing = f'RBAC: clusterrole.{GROUP} "ghost" not found'
    assert await ask("delete") == {"allowed": False, "reason": missing}
    async with cluster.certified(Subject("eve"), tmp_path) as eve:
        refused = await eve.get("/api/v1/namespaces/default/secrets")
        assert refused.message.endswith(
            f'cannot list resource "secrets" in API group "" in the namespace "default": {missing}'
        )
        rules = (await eve.post(f"{AUTHZ}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})).json["status"]
        assert {"verbs": ["list", "get"], "apiGroups": [""], "resources": ["pods"]} in rules["resourceRules"]
        assert (rules["incomplete"], rules["evaluationError"]) == (True, missing.removeprefix("RBAC: "))
    node = "system:node:n1"
    own = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]}
    assert (await ask("list", node))["allowed"] is False
    assert (await ask("list", node, fieldSelector=own))["allowed"] is True
    assert (await ask("list", node, fieldSelector={"rawSelector": "spec.nodeName=n2"}))["allowed"] is False


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("subjectaccessreviews", {"metadata": {"name": "x"}}, "metadata: Invalid value"),
        ("subjectaccessreviews", {"spec": {"resourceAttributes": {}}}, "spec.user: Invalid value"),
        (
            "subjectaccessreviews",
            {"spec": {"user": "eve", "resourceAttributes": {"fieldSelector": {}}}},
            "spec.resourceAttributes.fieldSelector.requirements: Required value",
        ),
        (
            "namespaces/default/localsubjectaccessreviews",
            {"spec": {"user": "eve", "resourceAttributes": {"namespace": "other"}}},
            'spec.resourceAttributes.namespace: Invalid value: "other": must match metadata.namespace',
        ),
        (
            "namespaces/default/localsubjectaccessreviews",
            {"spec": {"user": "eve", "nonResourceAttributes": {"path": "/x"}}},
            "disallowed on this kind of request",
        ),
    ],
)
async def test_a_review_that_makes_no_sense_is_refused(
    cluster: Cluster, path: str, body: dict[str, Any], field: str
) -> None:
    refused = await cluster.admin.post(f"{AUTHZ}/{path}", body)
    assert refused.status == 422 and field in refused.message, refused.message
