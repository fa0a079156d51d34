"""The names by which controller and agents know each other's certificates. Pure; both sides read them from here.

An agent's certificate names, besides the node's name and addresses, `NAME.node.wherry`, which the join handler gives to
that node only: the controller asks TLS for that name, so that whatever address a Node reports, nobody but that node
answers. The controller shows itself by an identity of its own, which agents obey and the API server gives no rights.
While the cluster's CA is rotated several are believed: the bundle, in which the one that signs comes first.
"""

from __future__ import annotations

import re
import ssl
from hashlib import sha256

NODE_DOMAIN = "node.wherry"
AGENT_CLIENT_NAME = "kube-apiserver-kubelet-client"
AGENT_CLIENT_GROUP = "wherry:agent-clients"
"""Only the CA's keeper issues certificates with it: requests through the API are refused it."""
TRUSTS = "wherry/trusted-cas"
"""Annotation of a Node: the digest of the bundle that its agent believes, once its certificate is of its first CA."""


def node_host(node: str) -> str:
    """What a node's server certificate has to name."""
    return f"{node}.{NODE_DOMAIN}"


def certificates_in(text: str) -> list[str]:
    """The certificates of a PEM text, each as PEM, in their order."""
    return re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", text, re.DOTALL)


def certificate_digest(pem: str) -> str:
    """SHA-256 of the certificate's DER, in hex: what a join token pins."""
    return sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()


def bundle_digest(text: str) -> str:
    """Names a bundle of CAs, whatever its white space: which are believed, and which one signs (the first)."""
    return sha256("".join(map(certificate_digest, certificates_in(text))).encode()).hexdigest()[:32]
