"""CertificateSigningRequests: who asks is written down, and nobody asks for a certificate of the masters.

Called by the chain when a request is created. The identity in the spec is the asker's own, whatever the body says.
Rules from k8s.io/kubernetes/pkg/registry/certificates and the admission plugin CertificateSubjectRestriction.
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.x509.oid import NameOID

from api.objects import Object
from api.trust import AGENT_CLIENT_GROUP
from controller.admission.attributes import Attributes
from controller.admission.types import MASTERS_GROUP

REQUESTS = ("certificates.k8s.io", "certificatesigningrequests")
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


def admit_signing_request(attributes: Attributes) -> None:
    """Names the asker. Raises Forbidden for a client certificate in a group that may do all."""
    obj = attributes.obj
    assert obj is not None
    spec: Object = obj.setdefault("spec", {})
    user = attributes.request.user
    spec["username"] = user.name
    spec["groups"] = list(user.groups)
    for name, value in (("uid", user.uid), ("extra", {key: list(values) for key, values in user.extra.items()})):
        if value:
            spec[name] = value
        else:
            spec.pop(name, None)
    csr = parse_request(spec.get("request") or "")
    if csr is not None and spec.get("signerName") == CLIENT_SIGNER:
        for group in (MASTERS_GROUP, AGENT_CLIENT_GROUP):
            if group in groups_of(csr):
                raise attributes.forbidden(f"use of {CLIENT_SIGNER} signer with {group} group is not allowed")


def parse_request(text: str) -> x509.CertificateSigningRequest | None:
    """The request in base64 of PEM; None when it is none."""
    try:
        return x509.load_pem_x509_csr(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        return None


def groups_of(csr: x509.CertificateSigningRequest) -> tuple[str, ...]:
    return tuple(str(each.value) for each in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
