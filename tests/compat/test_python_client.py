"""The official Python client, unmodified, on identities and rights: its models want every required field."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.cluster import Cluster, eventually
from tests.integration.server.test_certificates import request_for

GROUP = "rbac.authorization.k8s.io"


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Any]:
    with config.new_client_from_config(str(cluster.lab.kubeconfig)) as made:
        yield made


def speaking(api: Any, token: str = "", **headers: str) -> Any:
    """A client of the same server with another identity."""
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert = api.configuration.host, api.configuration.ssl_ca_cert
    if token:
        settings.api_key["authorization"] = f"Bearer {token}"
    else:
        settings.cert_file, settings.key_file = api.configuration.cert_file, api.configuration.key_file
    made = client.ApiClient(settings)
    for name, value in headers.items():
        made.set_default_header(name.replace("_", "-"), value)
    return made


def whoami(api: Any) -> Any:
    return client.AuthenticationV1Api(api).create_self_subject_review(client.V1SelfSubjectReview()).status.user_info


def token_for(api: Any, namespace: str, account: str, **spec: Any) -> str:
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(**{"audiences": [], **spec}))
    made = client.CoreV1Api(api).create_namespaced_service_account_token(account, namespace, request)
    return str(made.status.token)


def test_service_accounts_ask_for_tokens_and_speak_with_them(cluster: Cluster, api: Any) -> None:
    namespace = cluster.namespace
    robot = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="robot"))
    client.CoreV1Api(api).create_namespaced_service_account(namespace, robot)
    bot = speaking(api, token_for(api, namespace, "robot", expiration_seconds=600))
    info = whoami(bot)
    assert info.username == f"system:serviceaccount:{namespace}:robot" and "system:authenticated" in info.groups
    with pytest.raises(ApiException) as refused:
        client.CoreV1Api(bot).list_namespaced_pod(namespace)
    assert refused.value.status == 403
    rule = client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["list"])
    rbac = client.RbacAuthorizationV1Api(api)
    rbac.create_namespaced_role(namespace, client.V1Role(metadata=client.V1ObjectMeta(name="reader"), rules=[rule]))
    subject = client.RbacV1Subject(kind="ServiceAccount", name="robot", namespace=namespace)
    reference = client.V1RoleRef(api_group=GROUP, kind="Role", name="reader")
    metadata = client.V1ObjectMeta(name="reader")
    binding = client.V1RoleBinding(metadata=metadata, role_ref=reference, subjects=[subject])
    rbac.create_namespaced_role_binding(namespace, binding)
    assert client.CoreV1Api(bot).list_namespaced_pod(namespace).items == []
    audience = token_for(api, namespace, "robot", audiences=["vault"])
    spec = client.V1TokenReviewSpec(token=audience, audiences=["vault", "other"])
    review = client.AuthenticationV1Api(api).create_token_review(client.V1TokenReview(spec=spec))
    assert (review.status.authenticated, review.status.audiences) == (True, ["vault"])
    with pytest.raises(ApiException) as unknown:
        whoami(speaking(api, audience))
    assert unknown.value.status == 401


def test_a_secret_asks_for_a_token_and_goes_with_its_account(cluster: Cluster, api: Any) -> None:
    core, namespace = client.CoreV1Api(api), cluster.namespace
    core.create_namespaced_service_account(namespace, client.V1ServiceAccount(metadata={"name": "old"}))
    metadata = client.V1ObjectMeta(name="key", annotations={"kubernetes.io/service-account.name": "old"})
    core.create_namespaced_secret(
        namespace, client.V1Secret(metadata=metadata, type="kubernetes.io/service-account-token")
    )
    data = eventually(lambda: core.read_namespaced_secret("key", namespace).data, 10, "a token")
    token = base64.b64decode(data["token"]).decode()
    assert whoami(speaking(api, token)).username == f"system:serviceaccount:{namespace}:old"
    assert base64.b64decode(data["namespace"]).decode() == namespace and "ca.crt" in data
    core.delete_namespaced_service_account("old", namespace)
    eventually(lambda: "NotFound" in cluster.refused("get", "secret", "key"), 10, "its end")
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token))
    assert not client.AuthenticationV1Api(api).create_token_review(review).status.authenticated


def test_reviews_say_what_somebody_may(cluster: Cluster, api: Any) -> None:
    authz, namespace = client.AuthorizationV1Api(api), cluster.namespace
    wanted = client.V1ResourceAttributes(verb="list", resource="pods", namespace=namespace)
    own = authz.create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=wanted))
    )
    assert own.status.allowed is True
    spec = client.V1SubjectAccessReviewSpec(user="eve", resource_attributes=wanted)
    assert authz.create_subject_access_review(client.V1SubjectAccessReview(spec=spec)).status.allowed is False
    local = client.V1LocalSubjectAccessReview(metadata=client.V1ObjectMeta(namespace=namespace), spec=spec)
    assert authz.create_namespaced_local_subject_access_review(namespace, local).status.allowed is False
    rules = authz.create_self_subject_rules_review(
        client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace=namespace))
    )
    assert rules.status.incomplete is False and any(rule.verbs == ["*"] for rule in rules.status.resource_rules)
    eve = speaking(api, Impersonate_User="eve", Impersonate_Group="devs", Impersonate_Uid="7")
    info = whoami(eve)
    assert (info.username, info.uid, info.groups) == ("eve", "7", ["devs", "system:authenticated"])


def test_a_certificate_is_asked_for_approved_and_used(cluster: Cluster, api: Any) -> None:
    certificates = client.CertificatesV1Api(api)
    key, csr = request_for("mallory", "devs")
    spec = client.V1CertificateSigningRequestSpec(
        request=base64.b64encode(csr).decode(),
        signer_name="kubernetes.io/kube-apiserver-client",
        usages=["client auth"],
    )
    metadata = client.V1ObjectMeta(name=f"mallory-{cluster.namespace}")
    made = certificates.create_certificate_signing_request(
        client.V1CertificateSigningRequest(metadata=metadata, spec=spec)
    )
    condition = client.V1CertificateSigningRequestCondition(
        type="Approved", status="True", reason="Test", message="yes"
    )
    made.status.conditions = [condition]
    certificates.replace_certificate_signing_request_approval(metadata.name, made)
    read = certificates.read_certificate_signing_request
    issued = eventually(lambda: read(metadata.name).status.certificate, 10, "a certificate")
    certificates.delete_certificate_signing_request(metadata.name)
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory, "crt"), Path(directory, "key")
        for path, content in zip(files, (base64.b64decode(issued), key), strict=True):
            path.write_bytes(content)
        ssl.create_default_context().load_cert_chain(*files)
        mallory = speaking(api)
        mallory.configuration.cert_file, mallory.configuration.key_file = map(str, files)
        mallory.rest_client = client.rest.RESTClientObject(mallory.configuration)
        info = whoami(mallory)
    assert (info.username, info.groups) == ("mallory", ["devs", "system:authenticated"])
