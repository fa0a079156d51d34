"""Who may do what: credentials, roles, nodes, impersonation, escalation, tokens, reviews."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from api.trust import AGENT_CLIENT_GROUP, AGENT_CLIENT_NAME
from controller.pki.authority import Authority, Subject, load_certificate
from controller.pki.join import BootstrapToken, render_secret
from controller.server.bootstrap import ensure_defaults
from tests.integration.server.conftest import Caller, Cluster
from tests.unit.pki.test_pki import csr

STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS_READER = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]


def agent(node: str) -> Subject:
    return Subject(f"system:node:{node}", ("system:nodes",), (node,))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/cacerts", 200),
        ("/api", 403),
        ("/apis", 403),
        ("/openapi/v3", 403),
        ("/metrics", 403),
        ("/api/v1/pods", 403),
        ("/api/v1/namespaces/default/secrets/x", 403),
        ("/nope", 403),
    ],
)
async def test_nobody_sees_only_that_the_server_lives(cluster: Cluster, path: str, status: int) -> None:
    assert (await cluster.anonymous.get(path)).status == status


@pytest.mark.parametrize("token", ["nope", "a.b.c", "abcdef.0123456789abcdef", "x" * 5000])
async def test_a_bad_token_is_401_and_not_anonymous(cluster: Cluster, token: str) -> None:
    answer = await Caller(cluster.url, cluster.anonymous.session, token).get("/version")
    assert (answer.status, answer.json["reason"]) == (401, "Unauthorized")


async def test_a_certificate_of_another_authority_does_not_connect(cluster: Cluster, tmp_path: Path) -> None:
    stranger = Authority.create("stranger").issue(Subject("admin", ("system:masters",)))
    (tmp_path / "s.crt").write_bytes(stranger.certificate)
    (tmp_path / "s.key").write_bytes(stranger.key)
    context = cluster.context(Subject("x"), tmp_path)
    context.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientError):
            await Caller(cluster.url, session).get("/api/v1/secrets")


async def test_a_client_certificate_is_its_name_and_groups(cluster: Cluster, tmp_path: Path) -> None:
    async with cluster.certified(Subject("eve", ("devs", "ops")), tmp_path) as eve:
        review = await eve.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        info = review.json["status"]["userInfo"]
        assert (info["username"], info["groups"]) == ("eve", ["devs", "ops", "system:authenticated"])
        refused = await eve.get("/api/v1/pods")
        assert refused.message == (
            'pods is forbidden: User "eve" cannot list resource "pods" in API group "" at the cluster scope'
        )


async def test_a_role_counts_from_its_binding_until_its_removal(cluster: Cluster, tmp_path: Path) -> None:
    admin = cluster.admin
    async with cluster.certified(Subject("eve"), tmp_path) as eve:
        assert (await eve.get("/api/v1/namespaces/default/pods")).status == 403
        roles = f"{RBAC}/namespaces/default"
        await admin.post(f"{roles}/roles", {"metadata": {"name": "r"}, "rules": PODS_READER})
        binding = {
            "metadata": {"name": "b"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        made = await admin.post(f"{roles}/rolebindings", binding)
        assert made.status == 201, made.body
        assert (await eve.get("/api/v1/namespaces/default/pods")).status == 200
        assert (await eve.get("/api/v1/namespaces/kube-system/pods")).status == 403
        assert (await eve.get("/api/v1/pods")).status == 403
        assert (await eve.get(f"{MAPS}")).status == 403
        await admin.ask("DELETE", f"{roles}/rolebindings/b")
        assert (await eve.get("/api/v1/namespaces/default/pods")).status == 403


async def _grant_role_writing(cluster: Cluster, user: str) -> None:
    """Lets `user` write roles and bindings everywhere, and read pods."""
    writes = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["*"],
        "verbs": ["create", "patch", "update", "get"],
    }
    role = {"metadata": {"name": "role-writer"}, "rules": [writes, *PODS_READER]}
    await cluster.admin.post(f"{RBAC}/clusterroles", role)
    binding = {
        "metadata": {"name": "role-writer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "role-writer"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    assert (await cluster.admin.post(f"{RBAC}/clusterrolebindings", binding)).status == 201


async def test_nobody_hands_out_rights_he_lacks(cluster: Cluster, tmp_path: Path) -> None:
    await _grant_role_writing(cluster, "eve")
    secrets = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    roles = f"{RBAC}/namespaces/default/roles"
    async with cluster.certified(Subject("eve"), tmp_path) as eve:
        assert (await eve.post(roles, {"metadata": {"name": "mine"}, "rules": PODS_READER})).status == 201
        refused = await eve.post(roles, {"metadata": {"name": "more"}, "rules": secrets})
        assert refused.status == 403 and "not currently held" in refused.message
        merge = {"Content-Type": "application/merge-patch+json"}
        patched = await eve.ask("PATCH", f"{roles}/mine", {"rules": secrets}, headers=merge)
        assert patched.status == 403
        bound = {
            "metadata": {"name": "up"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        assert (await eve.post(f"{RBAC}/clusterrolebindings", bound)).status == 403


async def test_an_aggregated_role_and_a_missing_one_are_no_way_around_it(cluster: Cluster, tmp_path: Path) -> None:
    await _grant_role_writing(cluster, "eve")
    merge = {"Content-Type": "application/merge-patch+json"}
    selector = {"matchLabels": {"rbac.example.com/part": "yes"}}
    gathered = {"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [selector]}}
    roles, bindings = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"
    wide = {"metadata": {"name": "w"}, "rules": [{"apiGroups": ["apps"], "resources": ["x", "y"], "verbs": ["a", "b"]}]}
    bound = {
        "metadata": {"name": "later"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "not-there-yet"},
    }
    async with cluster.certified(Subject("eve", ("devs",)), tmp_path) as eve:
        refused = await eve.post(roles, gathered)
        why = "must have cluster-admin privileges to use the aggregationRule"
        assert refused.message == f'clusterroles.rbac.authorization.k8s.io "all" is forbidden: {why}'
        assert (await cluster.admin.post(roles, gathered)).status == 201
        assert (await eve.ask("PATCH", f"{roles}/all", {"aggregationRule": None}, headers=merge)).status == 403
        tidied = {"metadata": {"finalizers": ["example.com/held"]}}
        assert (await eve.ask("PATCH", f"{roles}/all", tidied, headers=merge)).status == 200
        assert (await eve.post(bindings, bound)).status == 404
        told = (await eve.post(roles, wide)).message.splitlines()
        who = 'user "eve" (groups=["devs" "system:authenticated"])'
        assert f"{who} is attempting to grant RBAC permissions not currently held:" in told[0]
        assert told[1:] == [f'{{APIGroups:["apps"], Resources:["{name}"], Verbs:["a" "b"]}}' for name in ("x", "y")]


async def test_impersonation_needs_the_right_and_then_is_the_other(cluster: Cluster, tmp_path: Path) -> None:
    as_eve = {"Impersonate-User": "eve", "Impersonate-Group": "devs"}
    whoami = await cluster.admin.ask(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {},
        headers={**as_eve, "Impersonate-Extra-Scopes": "x"},
    )
    info = whoami.json["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("eve", ["devs", "system:authenticated"])
    assert info["extra"] == {"scopes": ["x"]}
    async with cluster.certified(Subject("adam"), tmp_path) as adam:
        refused = await adam.ask("GET", "/version", headers={"Impersonate-User": "system:admin"})
        assert refused.status == 403 and 'cannot impersonate resource "users"' in refused.message


async def test_a_stolen_agent_certificate_opens_no_other_nodes_secrets(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    for name in ("mine", "theirs"):
        await cluster.admin.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": name}})
    await cluster.pod("default", "p1", "n1", volumes=[{"name": "v", "secret": {"secretName": "mine"}}])
    await cluster.pod("default", "p2", "n2", volumes=[{"name": "v", "secret": {"secretName": "theirs"}}])
    expected = {
        "/api/v1/namespaces/default/secrets/mine": 200,
        "/api/v1/namespaces/default/secrets/theirs": 403,
        "/api/v1/namespaces/default/secrets": 403,
        "/api/v1/secrets": 403,
        "/api/v1/secrets?fieldSelector=metadata.name=theirs": 403,
        "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name=mine": 200,
        "/api/v1/pods?fieldSelector=spec.nodeName=n1": 200,
        "/api/v1/pods?fieldSelector=spec.nodeName=n2": 403,
        "/api/v1/pods": 403,
        "/api/v1/namespaces/default/pods/p1": 200,
        "/api/v1/namespaces/default/pods/p2": 403,
        "/api/v1/nodes/n2": 403,
        "/apis/apps/v1/deployments": 403,
    }
    async with cluster.certified(agent("n1"), tmp_path) as n1:
        assert {path: (await n1.get(path)).status for path in expected} == expected
        status = {"status": {"phase": "Running"}}
        merge = {"Content-Type": "application/merge-patch+json"}
        own = await n1.ask("PATCH", "/api/v1/namespaces/default/pods/p1/status", status, headers=merge)
        assert own.status == 200, own.body
        other = await n1.ask("PATCH", "/api/v1/namespaces/default/pods/p2/status", status, headers=merge)
        assert other.status == 403
        assert (await n1.post("/api/v1/nodes", {"metadata": {"name": "n2"}})).status == 403
        assert (await n1.post("/api/v1/nodes", {"metadata": {"name": "n1"}})).status == 201


async def _token(caller: Caller, account: str, spec: dict[str, Any]) -> Any:
    return await caller.post(f"/api/v1/namespaces/default/serviceaccounts/{account}/token", {"spec": spec})


async def test_a_token_dies_with_its_pod_and_its_account(cluster: Cluster) -> None:
    await cluster.namespace("default")
    pod = await cluster.pod("default", "p", "n1")
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]}
    made = await _token(cluster.admin, "default", {"boundObjectRef": reference})
    assert made.status == 201, made.body
    bot = Caller(cluster.url, cluster.anonymous.session, made.json["status"]["token"])
    info = (await bot.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})).json["status"]["userInfo"]
    assert info["username"] == "system:serviceaccount:default:default"
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert info["extra"]["authentication.kubernetes.io/node-name"] == ["n1"]
    await cluster.admin.ask("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0")
    review = {"spec": {"token": made.json["status"]["token"]}}
    judged = await cluster.admin.post("/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert judged.json["status"]["error"] == "invalid bearer token"


async def test_a_node_gets_tokens_of_its_own_pods_only(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.namespace("default")
    mine, theirs = await cluster.pod("default", "p1", "n1"), await cluster.pod("default", "p2", "n2")

    def bound(pod: dict[str, Any]) -> dict[str, Any]:
        meta = pod["metadata"]
        return {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}}

    async with cluster.certified(agent("n1"), tmp_path) as n1:
        assert (await _token(n1, "default", bound(mine))).status == 201
        assert (await _token(n1, "default", bound(theirs))).status == 403
        assert (await _token(n1, "default", {})).status == 403
        stale = bound(mine)
        stale["boundObjectRef"]["uid"] = "another"
        assert (await _token(n1, "default", stale)).status == 403
        other = {**bound(mine), "audiences": ["vault"]}
        assert 'audience "vault" not found in pod spec volume' in (await _token(n1, "default", other)).message


async def test_a_token_is_for_its_audience(cluster: Cluster) -> None:
    await cluster.namespace("default")
    made = await _token(cluster.admin, "default", {"audiences": ["vault"], "expirationSeconds": 600})
    token = made.json["status"]["token"]
    assert (await Caller(cluster.url, cluster.anonymous.session, token).get("/version")).status == 401
    review = {"spec": {"token": token, "audiences": ["vault", "other"]}}
    judged = (await cluster.admin.post("/apis/authentication.k8s.io/v1/tokenreviews", review)).json["status"]
    assert judged["authenticated"] and judged["user"]["username"] == "system:serviceaccount:default:default"
    keys = (await cluster.admin.get("/openid/v1/jwks")).json["keys"]
    header = token.split(".")[0]
    assert keys[0]["kid"].encode() in base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))


async def test_a_debug_container_is_held_to_the_level_of_its_namespace(cluster: Cluster) -> None:
    await cluster.namespace("strict")
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    assert (await cluster.admin.ask("PATCH", "/api/v1/namespaces/strict", labels, headers=STRATEGIC)).status == 200
    good = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": good}]}}
    assert (await cluster.admin.post("/api/v1/namespaces/strict/pods", pod)).status == 201
    path = "/api/v1/namespaces/strict/pods/p/ephemeralcontainers"
    for context, status in (({"privileged": True}, 403), ({}, 403), (good, 200)):
        added = {"name": "d", "image": "i", "securityContext": context}
        answer = await cluster.admin.ask("PATCH", path, {"spec": {"ephemeralContainers": [added]}}, headers=STRATEGIC)
        assert answer.status == status, answer.json


async def newcomer(cluster: Cluster) -> Caller:
    """Somebody with a join token."""
    token = BootstrapToken("abcdef", "0123456789abcdef")
    secret = render_secret(token, datetime.now(UTC) + timedelta(hours=1))
    assert (await cluster.admin.post("/api/v1/namespaces/kube-system/secrets", secret)).status == 201
    return Caller(cluster.url, cluster.anonymous.session, str(token))


def joining(name: str, **more: Any) -> dict[str, Any]:
    return {"nodeName": name, "csr": csr(name)[0].decode(), "password": f"the-password-of-{name}", **more}


def names_in(pem: str) -> set[str]:
    names = load_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


async def test_a_bootstrap_token_joins_and_nothing_else(cluster: Cluster) -> None:
    holder = await newcomer(cluster)
    assert (await holder.get("/api/v1/nodes")).status == 403
    request = joining("n1")
    joined = await holder.post("/wherry/v1/join", request)
    assert joined.status == 200 and joined.json["ca"] == cluster.pki.authority.pem.decode()
    assert (await cluster.anonymous.post("/wherry/v1/join", request)).status == 401
    bad: list[Any] = [
        {**request, "nodeName": "Bad_Name"},
        {**request, "csr": "junk"},
        {**request, "addresses": ["a b"]},
        {**request, "addresses": ["kubernetes.default.svc"]},
        {**request, "password": "short"},
        *(
            joining(name)
            for name in ("kubernetes.default.svc", "kubernetes", "x.svc.cluster.local", "a.node.wherry", "10.96.0.1")
        ),
        [],
    ]
    assert {(await holder.post("/wherry/v1/join", body)).status for body in bad} == {400}


async def test_a_certificate_names_the_node_and_only_addresses_it_came_from(cluster: Cluster) -> None:
    holder = await newcomer(cluster)
    asked = ["127.0.0.1", "10.96.0.1", "192.0.2.200", "8.8.8.8"]
    joined = await holder.post("/wherry/v1/join", joining("n1", addresses=asked))
    assert names_in(joined.json["certificate"]) == {"n1.node.wherry", "n1", "127.0.0.1"}


async def test_a_join_cannot_take_the_name_of_a_node_that_joined_before(cluster: Cluster, tmp_path: Path) -> None:
    holder = await newcomer(cluster)
    first, other = joining("n1"), joining("n1", password="guessed-by-somebody")
    assert (await holder.post("/wherry/v1/join", first)).status == 200
    assert (await holder.post("/wherry/v1/join", other)).status == 409, "not even before its Node is there"
    silent = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}, "status": silent})
    refused = await holder.post("/wherry/v1/join", other)
    assert (refused.status, "kubectl delete node n1" in refused.json["message"]) == (409, True)
    assert (await holder.post("/wherry/v1/join", first)).status == 200, "its own machine comes back with its password"
    async with cluster.certified(agent("n1"), tmp_path) as n1:
        assert (await n1.post("/wherry/v1/join", joining("n1"))).status == 200
    async with cluster.certified(agent("n2"), tmp_path) as n2:
        assert (await n2.post("/wherry/v1/join", joining("n1"))).status == 403
    await cluster.admin.ask("DELETE", "/api/v1/nodes/n1")
    assert (await holder.post("/wherry/v1/join", other)).status == 200, "an administrator gave the name free"


async def test_nobody_but_the_node_is_spoken_to_at_the_address_it_reports(cluster: Cluster, tmp_path: Path) -> None:
    """A node says that its agent is where the API server listens: nobody reads Secrets there in our name."""
    port = int(cluster.url.rpartition(":")[2])
    places = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": "evil"}, "status": places})
    answer = await cluster.admin.get("/api/v1/nodes/evil/proxy/api/v1/namespaces/kube-system/secrets")
    assert answer.status == 503
    assert "certificate" in answer.json["message"]
    own = Subject(AGENT_CLIENT_NAME, (AGENT_CLIENT_GROUP,))
    async with cluster.certified(own, tmp_path) as controller:
        assert (await controller.get("/api/v1/namespaces/kube-system/secrets")).status == 403
    for path in ("/wherry/v1/connect/10.0.0.1/22", "//wherry/v1/./connect/10.0.0.1/22"):
        assert (await cluster.admin.get(f"/api/v1/nodes/evil/proxy{path}")).status == 403


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"user": "eve"}, 422),
        ({"resourceAttributes": {"verb": "get", "resource": "pods"}}, 422),
        ({"user": "eve", "resourceAttributes": {}, "nonResourceAttributes": {"path": "/", "verb": "get"}}, 422),
        ({"user": "eve", "resourceAttributes": {"verb": "get", "resource": "pods"}}, 201),
    ],
)
async def test_an_access_review_asks_about_one_thing(cluster: Cluster, spec: dict[str, Any], status: int) -> None:
    answer = await cluster.admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
    assert answer.status == status, answer.body


async def test_a_review_says_what_a_request_would_meet(cluster: Cluster) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    asked: list[tuple[dict[str, Any], dict[str, str], bool]] = [
        ({"user": "root", "groups": ["system:masters"]}, {"verb": "delete", "resource": "nodes"}, True),
        ({"user": "eve"}, {"verb": "get", "resource": "secrets", "namespace": "default"}, False),
    ]
    for subject, wanted, allowed in asked:
        answer = await cluster.admin.post(path, {"spec": {**subject, "resourceAttributes": wanted}})
        assert answer.json["status"]["allowed"] is allowed


async def test_defaults_are_mended_at_a_restart_but_not_what_is_frozen(cluster: Cluster) -> None:
    merge = {"Content-Type": "application/merge-patch+json"}
    frozen = {"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []}
    part = f"{RBAC}/clusterroles/system:aggregate-to"
    await cluster.admin.ask("PATCH", f"{part}-view", {"rules": [], "metadata": {"labels": None}}, headers=merge)
    await cluster.admin.ask("PATCH", f"{part}-edit", frozen, headers=merge)
    discovery = (await cluster.admin.get(f"{RBAC}/clusterrolebindings/system:discovery")).json
    await cluster.admin.ask("DELETE", f"{RBAC}/clusterrolebindings/system:discovery")
    discovery["roleRef"]["name"] = "system:monitoring"
    discovery["metadata"].pop("resourceVersion")
    assert (await cluster.admin.post(f"{RBAC}/clusterrolebindings", discovery)).status == 201
    await ensure_defaults(cluster.services.registry)
    view = (await cluster.admin.get(f"{part}-view")).json
    edit = (await cluster.admin.get(f"{part}-edit")).json
    assert view["rules"] and not edit.get("rules")
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    mended = (await cluster.admin.get(f"{RBAC}/clusterrolebindings/system:discovery")).json
    assert mended["roleRef"]["name"] == "system:discovery"
    version = view["metadata"]["resourceVersion"]
    await ensure_defaults(cluster.services.registry)
    assert (await cluster.admin.get(f"{part}-view")).json["metadata"]["resourceVersion"] == version
