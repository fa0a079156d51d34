"""Makes a private key and the request for its certificate: `python keys.py NODE` prints {"key": PEM, "csr": PEM}.

Run as a child by agent.identity, once at joining and at each renewal. The library for this would stay in an agent's
memory for ever, 9 MB of its 80; so this module imports nothing of ours, and nobody imports it.
"""

from __future__ import annotations

import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

GROUP = "system:nodes"


def make(node_name: str) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, GROUP)]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node_name}"))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"key": plain.decode(), "csr": request.public_bytes(serialization.Encoding.PEM).decode()}


if __name__ == "__main__":
    json.dump(make(sys.argv[1]), sys.stdout)
