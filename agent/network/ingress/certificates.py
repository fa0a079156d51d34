"""Certificates: Secrets of type kubernetes.io/tls as PEM files, and who gets which by SNI.

Called by the part. `parse_secret` and `assign` are pure; nothing of a Secret is logged. Invariant: what is handed on
has a certificate that parses and the key that belongs to it, so HAProxy never refuses to start because of one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtensionOID, NameOID

from agent.network.ingress.model import Ingress
from agent.network.ingress.routes import Finding
from agent.network.model import Key
from api.ingress import TLS_SECRET_TYPE
from api.objects import Object

_DEFAULT_NAME = "wherry ingress: no certificate for this name"
_DEFAULT_LIFE = timedelta(days=3650)
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


class BadSecret(Exception):
    """No certificate can be made of it; the message says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`pem`: certificate chain and key. `names`: DNS names it is for."""

    pem: bytes
    names: tuple[str, ...]


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


def assign(
    ingresses: Iterable[Ingress], secrets: Mapping[Key, Certificate | str]
) -> tuple[dict[Key, list[str]], list[Finding]]:
    """The names each Secret's certificate is shown for, and what is wrong: a text instead of a certificate says why.

    A name that two Ingresses have a certificate for: the older Ingress's is shown.
    """
    names_of: dict[Key, list[str]] = {}
    owners: dict[str, Key] = {}
    findings = []
    for ingress in sorted(ingresses, key=lambda each: each.age):
        for tls in (tls for tls in ingress.tls if tls.secret):
            key = (ingress.key[0], tls.secret)
            found = secrets.get(key, "")
            if not isinstance(found, Certificate):
                if found:
                    findings.append(Finding(ingress, "BadSecret", f"Secret {'/'.join(key)} is not used: {found}"))
                continue
            for host in tls.hosts or found.names:
                if owners.setdefault(host, key) != key:
                    text = f"{host} has the certificate of Secret {'/'.join(owners[host])} already"
                    findings.append(Finding(ingress, "Conflict", text))
                elif host not in names_of.setdefault(key, []):
                    names_of[key].append(host)
    return names_of, findings


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
