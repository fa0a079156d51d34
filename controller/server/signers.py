"""Who may approve and who may sign: an admission check the server gives to the registry.

Writing a CertificateSigningRequest's approval needs the verb `approve` on its signer, writing its certificate `sign`.
Rules: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization
"""

from __future__ import annotations

from controller.admission.attributes import Attributes as Write
from controller.admission.certificates import REQUESTS
from controller.admission.types import MASTERS_GROUP
from controller.server.authorization import Attributes, Chain

_VERBS = {"approval": "approve", "status": "sign"}
_TRUSTED = "system:serviceaccount:kube-system:certificatesigningrequest-signing-controller"


class SignerCheck:
    """Called by the admission chain for every write."""

    def __init__(self, authorizer: Chain) -> None:
        self._authorizer = authorizer

    def __call__(self, write: Write) -> None:
        """Raises Forbidden."""
        if write.kind.resource != REQUESTS or write.subresource not in _VERBS or write.obj is None:
            return
        user = write.request.user
        if MASTERS_GROUP in user.groups or user.name == _TRUSTED:
            return
        signer = ((write.old or {}).get("spec") or {}).get("signerName") or ""
        verb = _VERBS[write.subresource]
        domain = signer.partition("/")[0]
        for name in (signer, f"{domain}/*"):
            wanted = Attributes(user, verb, "certificates.k8s.io", "signers", name=name)
            if self._authorizer.authorize(wanted).allowed:
                return
        raise write.forbidden(f'user not permitted to {verb} requests with signerName "{signer}"')
