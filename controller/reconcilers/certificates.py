"""Certificates for approved CertificateSigningRequests, and the end of old requests.

Run by the loop, one key a request. `decide` is pure; `observe` has the certificate made when one is due. Signers are
those of Kubernetes' own CA: kube-apiserver-client, kube-apiserver-client-kubelet and kubelet-serving; what breaks a
signer's rules is marked Failed. https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from api.kinds import by_resource
from api.objects import Object, condition_of, format_time, name_of, parse_time, uid_of
from controller.admission.certificates import CLIENT_SIGNER, REQUESTS, groups_of, parse_request
from controller.admission.types import NODE_PREFIX, NODES_GROUP
from controller.pki.authority import Authority, CsrRefused
from controller.reconcilers.actions import Delete, Write
from controller.reconcilers.loop import Decision, Failure, Source, Watch, own_key
from controller.reconcilers.views import Views
from controller.store.types import Key

KUBELET_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
SIGNERS = frozenset({CLIENT_SIGNER, KUBELET_SIGNER, SERVING_SIGNER})
DEFAULT_SECONDS = 365 * 24 * 3600
SETTLED_HOURS, PENDING_HOURS = 1, 24
"""How long a request lives once it is settled, and when nobody decides."""
_PLAIN = {"digital signature", "key encipherment"}
KIND = by_resource(*REQUESTS)


@dataclass(frozen=True)
class Observed:
    """A request; `certificate` (PEM) or `refusal` when it is approved and unsigned."""

    obj: Object
    certificate: bytes
    refusal: str
    now: datetime


def decide(observed: Observed) -> Decision:
    obj = observed.obj
    status = obj.get("status") or {}
    if observed.certificate:
        signed = {"certificate": base64.b64encode(observed.certificate).decode()}
        return Decision((Write(KIND, "", name_of(obj), uid_of(obj), merge={"status": signed}, subresource="status"),))
    if observed.refusal:
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": observed.refusal,
            "lastUpdateTime": format_time(observed.now),
            "lastTransitionTime": format_time(observed.now),
        }
        conditions = [*(status.get("conditions") or ()), failed]
        merge = {"status": {"conditions": conditions}}
        return Decision((Write(KIND, "", name_of(obj), uid_of(obj), merge=merge, subresource="status"),))
    ends = _end_of(obj)
    if observed.now >= ends:
        return Decision((Delete(KIND, "", name_of(obj), uid_of(obj)),))
    return Decision((), requeue_after_seconds=(ends - observed.now).total_seconds())


def _end_of(obj: Object) -> datetime:
    conditions = (obj.get("status") or {}).get("conditions") or []
    if not conditions:
        return parse_time(obj["metadata"]["creationTimestamp"]) + timedelta(hours=PENDING_HOURS)
    last = max(parse_time(each["lastUpdateTime"]) for each in conditions if each.get("lastUpdateTime"))
    return last + timedelta(hours=SETTLED_HOURS)


def rule_broken(obj: Object, csr: x509.CertificateSigningRequest) -> str:
    """Which rule of its signer a request breaks; "" for none."""
    spec = obj["spec"]
    usages, signer = set(spec.get("usages") or ()), spec["signerName"]
    purpose = "server auth" if signer == SERVING_SIGNER else "client auth"
    if purpose not in usages or usages - _PLAIN - {purpose}:
        return f"usages did not match {sorted([*_PLAIN, purpose])}"
    if signer == CLIENT_SIGNER:
        return ""
    name = _common_name(csr)
    if groups_of(csr) != (NODES_GROUP,):
        return f"organization in CSR {list(groups_of(csr))} must be {NODES_GROUP}"
    if not name.startswith(NODE_PREFIX):
        return f"common name in CSR {name!r} must start with {NODE_PREFIX}"
    if signer == SERVING_SIGNER and name != spec.get("username"):
        return "common name in CSR must be the node that asks"
    if signer == SERVING_SIGNER and not _hosts(csr):
        return "DNS or IP subject alternative names are required"
    return "subject alternative names are not allowed" if signer == KUBELET_SIGNER and _hosts(csr) else ""


def _common_name(csr: x509.CertificateSigningRequest) -> str:
    found = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _hosts(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


class CertificateSigner:
    name = "certificatesigningrequest-signing-controller"
    concurrency = 2

    def __init__(self, views: Views, authority: Authority | None, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._authority = authority
        self._clock = clock

    def sources(self) -> Sequence[Source]:
        return (Watch(REQUESTS, own_key),)

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        obj = self._views.get(Key(*REQUESTS, *key))
        if obj is None:
            return None
        certificate, refusal = self._signed(obj)
        return Observed(obj, certificate, refusal, self._clock())

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _signed(self, obj: Object) -> tuple[bytes, str]:
        status, spec = obj.get("status") or {}, obj["spec"]
        due = condition_of(status, "Approved") and not condition_of(status, "Failed") and not status.get("certificate")
        if not due or self._authority is None or spec["signerName"] not in SIGNERS:
            return b"", ""
        csr = parse_request(spec["request"])
        broken = rule_broken(obj, csr) if csr is not None else "the request cannot be parsed"
        if broken or csr is None:
            return b"", broken
        seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
        purpose = "server auth" if spec["signerName"] == SERVING_SIGNER else "client auth"
        try:
            return self._authority.sign_as_asked(csr, purpose, seconds), ""
        except CsrRefused as error:
            return b"", str(error)
