"""The certificate authority: makes itself, issues server, client and node certificates, signs requests of nodes.

Called by files.py (the cluster's own certificates), server/join.py (node certificates) and the CLI's tests. Imports
only `cryptography`. Invariant: what is issued names its user in CN and its groups in O, as Kubernetes reads client
certificates, and never lives longer than the CA.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 365
_CHANCE_BITS = 112
_LATEST = 1 << 42
"""The year 2109 in milliseconds; serial numbers that are chance alone are larger, all but one in 100,000."""
BACKDATE = timedelta(days=1)
"""Certificates are valid before they are made: the clocks of a cluster differ, and one that is set back must not turn
away every agent that joined meanwhile."""

Certificate = x509.Certificate
PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
LEAST_RSA_BITS = 2048


@dataclass(frozen=True)
class Subject:
    """Whom a certificate speaks for, and where it may be used."""

    name: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """DNS names and IP addresses; any makes it a server certificate."""
    client: bool = True


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, as PEM."""

    certificate: bytes
    key: bytes


class CsrRefused(ValueError):
    """The certificate request is unreadable, badly signed, or asks for something else than it may have."""


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> PrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an elliptic-curve key")
    return key


def certificate_pem(certificate: Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_certificate(pem: bytes) -> Certificate:
    return x509.load_pem_x509_certificate(pem)


def load_certificates(pem: bytes) -> list[Certificate]:
    """All of a bundle, in its order. Raises ValueError."""
    return x509.load_pem_x509_certificates(pem)


def ca_digest(ca_pem: bytes) -> str:
    """What a join token pins: SHA-256 of the CA certificate's DER, in hex; of a bundle the first, which signs."""
    return hashlib.sha256(load_certificate(ca_pem).public_bytes(serialization.Encoding.DER)).hexdigest()


def new_serial(after: int = 0) -> int:
    """A serial number nobody can guess that says when it was given: the milliseconds since 1970, 112 of chance.

    `not_valid_before` cannot say it, for it is backdated.
    """
    return max(time.time_ns() // 1_000_000, after + 1) << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)


def issued_at(serial: int) -> int:
    """Milliseconds since 1970; 0 for a serial number of another making."""
    since = serial >> _CHANCE_BITS
    return since if since < _LATEST else 0


def names_subject(certificate: Certificate, subject: Subject) -> bool:
    """Whether a certificate speaks for this user with these groups."""
    names = certificate.subject
    user = [str(each.value) for each in names.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(each.value) for each in names.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return user == [subject.name] and tuple(groups) == subject.groups


def is_issued_by(certificate: Certificate, ca: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class Authority:
    """A CA's certificate and key."""

    def __init__(self, certificate: Certificate, key: PrivateKey) -> None:
        self.certificate = certificate
        self.key = key
        self.pem = certificate_pem(certificate)

    @staticmethod
    def create(name: str = "wherry-ca") -> Authority:
        key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return Authority(builder.sign(key, hashes.SHA256()), key)

    @staticmethod
    def load(certificate: bytes, key: bytes) -> Authority:
        return Authority(load_certificate(certificate), load_key(key))

    def issue(self, subject: Subject, *, days: int = LEAF_DAYS) -> Pair:
        """A fresh key and a certificate for it."""
        key = new_key()
        return Pair(certificate_pem(self._sign(key.public_key(), subject, days)), key_pem(key))

    def sign_request(self, csr_pem: bytes, subject: Subject, *, days: int = LEAF_DAYS, after: int = 0) -> bytes:
        """Signs the key of a request for `subject`; what the request itself asks for is not looked at.

        The time of issue in its serial number is later than `after` (milliseconds), whatever the clock says. Raises
        CsrRefused when it cannot be read or is not signed by its own key.
        """
        try:
            csr = x509.load_pem_x509_csr(csr_pem)
        except ValueError as error:
            raise CsrRefused("the certificate request is not a PEM CSR") from error
        if not csr.is_signature_valid:
            raise CsrRefused("the certificate request is not signed by its own key")
        public = csr.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise CsrRefused("the certificate request's key is not an elliptic-curve key")
        return certificate_pem(self._sign(public, subject, days, after))

    def sign_as_asked(self, csr: x509.CertificateSigningRequest, purpose: str, seconds: int) -> bytes:
        """Signs a request with the subject and alternative names it asks for; who calls has judged them.

        `purpose`: "client auth" or "server auth". Raises CsrRefused for a bad signature or a weak or unknown key.
        """
        public = csr.public_key()
        if not csr.is_signature_valid:
            raise CsrRefused("the certificate request is not signed by its own key")
        if isinstance(public, rsa.RSAPublicKey) and public.key_size < LEAST_RSA_BITS:
            raise CsrRefused(f"an RSA key must have at least {LEAST_RSA_BITS} bits, this one has {public.key_size}")
        if not isinstance(public, PublicKey):
            raise CsrRefused("the certificate request's key is neither elliptic-curve nor RSA nor Ed25519")
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if purpose == "server auth" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._leaf(public, csr.subject, until, [usage])
        for extension in csr.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(extension.value, critical=False)
        return certificate_pem(builder.sign(self.key, hashes.SHA256()))

    def _sign(self, public: ec.EllipticCurvePublicKey, subject: Subject, days: int, after: int = 0) -> Certificate:
        until = datetime.now(UTC) + timedelta(days=days)
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, subject.name))
        builder = self._leaf(public, x509.Name(names), until, _usages(subject), after)
        if subject.hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(_alternatives(subject.hosts)), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _leaf(
        self,
        public: PublicKey,
        subject: x509.Name,
        until: datetime,
        usages: list[x509.ObjectIdentifier],
        after: int = 0,
    ) -> x509.CertificateBuilder:
        """A certificate but for its alternative names; it never outlives the CA."""
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(new_serial(after))
            .not_valid_before(datetime.now(UTC) - BACKDATE)
            .not_valid_after(min(until, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )


def _usages(subject: Subject) -> list[x509.ObjectIdentifier]:
    usages = []
    if subject.hosts:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if subject.client:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    return usages


def _alternatives(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
