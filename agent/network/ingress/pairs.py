"""Certificates and keys as PEM: read from Secrets, and one made for names that no Secret has one for.

Imported by the part on nodes with an Ingress alone: the library behind it is 9 MB of an agent's memory. Pure but for
the key that is made; nothing of a Secret is logged.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtensionOID, NameOID

from agent.network.ingress.certificates import BadSecret, Certificate
from api.ingress import TLS_SECRET_TYPE
from api.objects import Object

_DEFAULT_NAME = "wherry ingress: no certificate for this name"
_DEFAULT_LIFE = timedelta(days=3650)
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def parse_secret(secret: Object) -> Certificate:
    """Raises BadSecret."""
    if secret.get("type") != TLS_SECRET_TYPE:
        raise BadSecret(f"its type is {secret.get('type') or 'Opaque'}, not {TLS_SECRET_TYPE}")
    chain, key = _field(secret, "tls.crt"), _field(secret, "tls.key")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
        private = serialization.load_pem_private_key(key, None)
        owned, certified = (_public(each.public_key()) for each in (private, certificates[0]))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadSecret(f"it holds no certificate with a key in PEM: {error}") from error
    if owned != certified:
        raise BadSecret("tls.key is not the key of tls.crt")
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates) + plain
    return Certificate(pem, _names(certificates[0]))


def _field(secret: Object, name: str) -> bytes:
    try:
        return base64.b64decode((secret.get("data") or {})[name], validate=True)
    except (KeyError, binascii.Error, TypeError):
        raise BadSecret(f"it has no {name}") from None


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(found, x509.SubjectAlternativeName)
        names = found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(name.lower() for name in names if _HOST.fullmatch(name.lower()))


def self_signed() -> bytes:
    """The certificate for names that no Secret has one for, as PEM with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _DEFAULT_NAME)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + _DEFAULT_LIFE)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate + plain
