"""CertificateSigningRequests over real HTTP: asked, approved, signed, and used to ask."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from controller.admission.certificates import CLIENT_SIGNER
from controller.admission.types import utc_now
from controller.reconcilers.actions import Executor
from controller.reconcilers.build import request_of
from controller.reconcilers.certificates import CertificateSigner
from controller.reconcilers.loop import run_loop
from controller.reconcilers.views import Views
from controller.registry.recorder import Recorder
from tests.integration.server.conftest import Answer, Caller, Cluster

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
MERGE = "application/merge-patch+json"


def request_for(name: str, *groups: str) -> tuple[bytes, bytes]:
    """(key, request) as openssl would make them: RSA."""
    key = rsa.generate_private_key(65537, 2048)
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return pem, csr.public_bytes(serialization.Encoding.PEM)


async def ask(cluster: Cluster, name: str, csr: bytes, *usages: str) -> Answer:
    spec = {"request": base64.b64encode(csr).decode(), "signerName": CLIENT_SIGNER, "usages": list(usages)}
    return await cluster.admin.post(CSRS, {"metadata": {"name": name}, "spec": {**spec, "username": "somebody-else"}})


async def approve(cluster: Cluster, name: str) -> Answer:
    patch = b'{"status":{"conditions":[{"type":"Approved","status":"True","reason":"x"}]}}'
    return await cluster.admin.ask("PATCH", f"{CSRS}/{name}/approval", patch, headers={"Content-Type": MERGE})


async def issued(cluster: Cluster, name: str) -> bytes:
    async with asyncio.timeout(5):
        while True:
            status = (await cluster.admin.get(f"{CSRS}/{name}")).json["status"]
            if "certificate" in status:
                return base64.b64decode(status["certificate"])
            await asyncio.sleep(0.01)


async def test_who_approves_or_signs_may_annotate(cluster: Cluster) -> None:
    await ask(cluster, "noted", request_for("somebody")[1], "client auth")
    for part in ("approval", "status"):
        condition = {"type": "Approved" if part == "approval" else "Seen", "status": "True", "reason": "x"}
        patch = {"metadata": {"annotations": {part: "yes"}}, "status": {"conditions": [condition]}}
        headers = {"Content-Type": MERGE}
        answer = await cluster.admin.ask("PATCH", f"{CSRS}/noted/{part}", patch, headers=headers)
        assert answer.status == 200 and answer.json["metadata"]["annotations"][part] == "yes", answer.body
    assert (await cluster.admin.get(f"{CSRS}/noted")).json["metadata"]["annotations"] == {
        "approval": "yes",
        "status": "yes",
    }


async def test_an_approved_request_becomes_a_certificate_that_works(cluster: Cluster, tmp_path: Path) -> None:
    registry = cluster.services.registry
    request = request_of("certificatesigningrequest-signing-controller", ())
    signer = CertificateSigner(Views(registry.store), cluster.pki.authority, utc_now)
    executor = Executor(registry, request, Recorder(registry, request, "test"), "test")
    task = asyncio.create_task(run_loop(signer, registry.store, executor))
    key, csr = request_for("eve", "devs")
    made = await ask(cluster, "eve", csr, "client auth")
    assert made.status == 201, made.body
    assert made.json["spec"]["username"] == "admin"
    await asyncio.sleep(0.05)
    assert "certificate" not in (await cluster.admin.get(f"{CSRS}/eve")).json.get("status", {})
    assert (await approve(cluster, "eve")).status == 200
    (tmp_path / "eve.crt").write_bytes(await issued(cluster, "eve"))
    (tmp_path / "eve.key").write_bytes(key)
    context = ssl.create_default_context(cafile=str(cluster.pki.ca_path))
    context.load_cert_chain(tmp_path / "eve.crt", tmp_path / "eve.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        who = await Caller(cluster.url, session).post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    info = who.json["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("eve", ["devs", "system:authenticated"])
    task.cancel()


async def test_nobody_asks_for_a_certificate_of_the_masters(cluster: Cluster) -> None:
    _, csr = request_for("eve", "system:masters")
    refused = await ask(cluster, "eve", csr, "client auth")
    assert refused.status == 403
    assert "system:masters group is not allowed" in refused.message


async def test_what_is_no_request_is_refused_with_its_field(cluster: Cluster) -> None:
    refused = await ask(cluster, "eve", b"junk", "client auth", "flying")
    assert refused.status == 422
    assert {cause["field"] for cause in refused.json["details"]["causes"]} == {"spec.request", "spec.usages[1]"}


async def test_who_may_not_approve_does_not(cluster: Cluster) -> None:
    _, csr = request_for("eve")
    await ask(cluster, "eve", csr, "client auth")
    role = {
        "metadata": {"name": "updater"},
        "rules": [
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["certificatesigningrequests/approval"],
                "verbs": ["patch", "update"],
            }
        ],
    }
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await cluster.admin.post(f"{rbac}/clusterroles", role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "updater"}
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}
    body = {"metadata": {"name": "updater"}, "roleRef": reference, "subjects": [subject]}
    await cluster.admin.post(f"{rbac}/clusterrolebindings", body)
    patch = b'{"status":{"conditions":[{"type":"Approved","status":"True"}]}}'
    headers = {"Content-Type": MERGE, "Impersonate-User": "bob"}
    refused = await cluster.admin.ask("PATCH", f"{CSRS}/eve/approval", patch, headers=headers)
    assert refused.status == 403
    assert "not permitted to approve requests with signerName" in refused.message
