"""How this node proves who it is: join with a token that pins the CA, keep the certificate, renew it in time.

Called by main. Files under DATA/pki: ca.crt and agent.pem (certificate and key together, 0600). Invariant: nothing is
believed of a server whose CA does not have the fingerprint in the token; the private key never leaves the machine.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import orjson
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api import errors
from api.client import Client
from api.tls import Credentials

JOIN_PATH = "/wherry/v1/join"
CA_FILE, PAIR_FILE = "ca.crt", "agent.pem"
RENEW_SHARE = 2 / 3
RENEW_CHECK_SECONDS = 600.0
RETRY_SECONDS = 2.0
_TOKEN = re.compile(r"wherry1\.([0-9a-f]{64})\.([a-z0-9]{6}\.[a-z0-9]{16})")
_log = structlog.get_logger()


class JoinRefused(Exception):
    """The node cannot join as asked; the message says what to do."""


@dataclass(frozen=True)
class Applicant:
    """Who joins, and where: the node's name and the addresses its certificate is to name."""

    server: str
    node_name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """The node's certificate, its key and the CA, all PEM."""

    ca: str
    cert: str
    key: str

    @property
    def credentials(self) -> Credentials:
        return Credentials(ca=self.ca, cert=self.cert, key=self.key)

    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.cert.encode())

    def is_for(self, node_name: str, now: datetime) -> bool:
        """Not expired, and of this node."""
        certificate = self.certificate()
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not names or names[0].value != f"system:node:{node_name}":
            return False
        return now < certificate.not_valid_after_utc

    def names(self, addresses: tuple[str, ...]) -> bool:
        """Whether clients that come to any of these addresses will believe it."""
        return set(addresses) <= _alternatives(self.certificate())

    def renew_at(self) -> datetime:
        certificate = self.certificate()
        lifetime: timedelta = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return certificate.not_valid_before_utc + lifetime * RENEW_SHARE


def _alternatives(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


async def obtain_identity(directory: Path, applicant: Applicant, token: str) -> Identity:
    """The kept identity if it is still good (renewed when the node has other addresses now), else a new one by joining.

    Raises JoinRefused; waits for a server that cannot be reached.
    """
    kept = load_identity(directory)
    if kept is not None and not kept.is_for(applicant.node_name, datetime.now(UTC)):
        kept = None
    if kept is not None and kept.names(applicant.addresses):
        return kept
    fingerprint, bearer = parse_token(token) if kept is None else ("", "")
    while True:
        try:
            if kept is None:
                return await _join(directory, applicant, fingerprint, bearer)
            async with Client(applicant.server, kept.credentials) as client:
                return await renew_identity(client, directory, applicant, kept)
        except errors.ApiError as error:
            if not error.retryable:
                raise JoinRefused(f"{applicant.server} refused to let this node join: {error.message}") from error
            _log.warning("cannot join yet", server=applicant.server, error=error.message)
            await asyncio.sleep(RETRY_SECONDS)


def parse_token(token: str) -> tuple[str, str]:
    """(fingerprint of the CA, bearer token) of a join token. Raises JoinRefused."""
    if not token:
        raise JoinRefused("this node has no valid certificate: start it with --token (wherry token create prints one)")
    match = _TOKEN.fullmatch(token.strip())
    if match is None:
        raise JoinRefused("--token is not a join token: it looks like wherry1.<64 hex digits>.<6 characters>.<16>")
    return match[1], match[2]


async def _join(directory: Path, applicant: Applicant, fingerprint: str, bearer: str) -> Identity:
    async with Client(applicant.server, Credentials(insecure=True)) as unsure:
        ca = (await unsure.request("GET", "/cacerts")).body.decode()
    pinned = next((pem for pem in _certificates(ca) if _fingerprint(pem) == fingerprint), None)
    if pinned is None:
        text = "its CA is not the one that the token names. Is this the right server, and the token one of its own?"
        raise JoinRefused(f"{applicant.server} is not trusted: {text}")
    async with Client(applicant.server, Credentials(ca=pinned, token=bearer)) as client:
        return await _ask(client, directory, applicant, pinned)


async def renew_identity(client: Client, directory: Path, applicant: Applicant, known: Identity) -> Identity:
    """A new certificate, asked for with the present one. Raises ApiError."""
    return await _ask(client, directory, applicant, known.ca)


async def _ask(client: Client, directory: Path, applicant: Applicant, ca: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    body = {
        "nodeName": applicant.node_name,
        "csr": _request(key, applicant.node_name),
        "addresses": list(applicant.addresses),
    }
    reply = (await client.request("POST", JOIN_PATH, body=orjson.dumps(body))).json()
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    identity = Identity(ca=ca, cert=reply["certificate"], key=plain.decode())
    save_identity(directory, identity)
    return identity


def _request(key: ec.EllipticCurvePrivateKey, node_name: str) -> str:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes")]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node_name}"))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _certificates(text: str) -> list[str]:
    return re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", text, re.DOTALL)


def _fingerprint(pem: str) -> str:
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    return sha256(der).hexdigest()


def load_identity(directory: Path) -> Identity | None:
    try:
        ca, pair = (directory / CA_FILE).read_text(), (directory / PAIR_FILE).read_text()
    except OSError:
        return None
    cert, _, key = pair.partition("-----BEGIN PRIVATE KEY-----")
    return Identity(ca, cert, "-----BEGIN PRIVATE KEY-----" + key)


def save_identity(directory: Path, identity: Identity) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pair = identity.cert.rstrip() + "\n" + identity.key
    for name, text in ((CA_FILE, identity.ca), (PAIR_FILE, pair)):
        fresh = directory / f"{name}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
        fresh.rename(directory / name)
