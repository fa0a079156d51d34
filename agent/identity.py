"""How this node proves who it is: join with a token that pins the CA, keep the certificate, renew it in time.

Called by main. Files under DATA/pki, 0600: agent-ca.crt (the CAs that are believed; a controller on the same directory
has its own ca.crt), agent.pem (certificate and key together), node-password (keeps the name) and former/NAME/ (the
certificate of a name that this machine had, until farewell.py is done with it). Invariant: nothing is believed of a
server whose CA does not have the fingerprint in the token; the key never leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import ssl
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import structlog

from api import errors
from api.client import Client
from api.tls import Credentials, load_pair
from api.trust import certificate_digest, certificates_in

JOIN_PATH = "/wherry/v1/join"
NODE_PREFIX = "system:node:"
CA_FILE, PAIR_FILE, PASSWORD_FILE, FORMER_DIRECTORY = "agent-ca.crt", "agent.pem", "node-password", "former"
FORMER_CA_FILE = "ca.crt"
"""Where former releases kept the CA."""
RENEW_SHARE = 2 / 3
RETRY_SECONDS = 2.0
KEY_SECONDS = 60.0
PROBE_SECONDS = 5.0
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name."""
_TOKEN = re.compile(r"wherry1\.([0-9a-f]{64})\.([a-z0-9]{6}\.[a-z0-9]{16})")
_log = structlog.get_logger()


class JoinRefused(Exception):
    """The node cannot join as asked; the message says what to do."""


class KeyFault(Exception):
    """The child that makes keys could not: no memory, no processes left."""


@dataclass(frozen=True)
class Applicant:
    """Who joins, and where: the node's name and the addresses its certificate is to name."""

    server: str
    node_name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """The node's certificate, its key and the CAs that are believed, all PEM; the CA that signs is the first."""

    ca: str
    cert: str
    key: str

    @property
    def credentials(self) -> Credentials:
        return Credentials(ca=self.ca, cert=self.cert, key=self.key)

    @cached_property
    def certificate(self) -> Mapping[str, Any]:
        """The certificate as ssl's `getpeercert` shows it; empty when nobody who trusts the CA would believe it."""
        try:
            return _as_seen_by_clients(self)
        except (ssl.SSLError, ValueError):
            return {}

    @property
    def node_name(self) -> str:
        """Whose certificate it is; "" when nobody would believe it."""
        subject = {name: value for part in self.certificate.get("subject", ()) for name, value in part}
        return str(subject.get("commonName", "")).removeprefix(NODE_PREFIX)

    @cached_property
    def is_of_signing_ca(self) -> bool:
        """False while the CA is rotated and this certificate is still of the former one."""
        signing = certificates_in(self.ca)[:1]
        return bool(signing and replace(self, ca=signing[0]).certificate)

    def is_for(self, node_name: str, now: datetime) -> bool:
        """Not expired, and of this node."""
        return bool(node_name) and self.node_name == node_name and now < self.not_after

    def names(self, addresses: tuple[str, ...]) -> bool:
        """Whether clients that come to any of these addresses will believe it."""
        shown = self.certificate.get("subjectAltName", ())
        return set(addresses) <= {str(ip_address(name)) if kind == "IP Address" else name for kind, name in shown}

    @property
    def not_after(self) -> datetime:
        return _moment(self.certificate["notAfter"])

    def renew_at(self) -> datetime:
        start = _moment(self.certificate["notBefore"])
        return start + (self.not_after - start) * RENEW_SHARE


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _as_seen_by_clients(identity: Identity) -> Mapping[str, Any]:
    """Asks Python's own ssl by a handshake in memory: a library that reads certificates costs 9 MB for good. Times are
    not judged, for the clock may be wrong. Raises ssl.SSLError, ValueError."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_pair(server, identity.cert, identity.key)
    client.load_verify_locations(cadata=identity.ca)
    client.check_hostname = False
    client.verify_flags = ssl.VerifyFlags(_NO_CHECK_TIME)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking, answering = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for side in (asking, answering, asking):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return asking.getpeercert() or {}


async def obtain_identity(directory: Path, applicant: Applicant, token: str) -> Identity:
    """The kept identity if it is still good (renewed when the node has other addresses now), else a new one by joining.

    Raises JoinRefused; waits for a server that cannot be reached.
    """
    kept = load_identity(directory)
    if kept is not None and kept.node_name not in ("", applicant.node_name):
        save_identity(directory / FORMER_DIRECTORY / kept.node_name, kept)
    forget_former(directory, applicant.node_name)
    if kept is not None and not kept.is_for(applicant.node_name, datetime.now(UTC)):
        kept = None
    if kept is not None and token and await _is_revoked(applicant, kept):
        _log.warning("this node's certificate holds no longer; joining anew", node=applicant.node_name)
        kept = None
    if kept is not None and kept.names(applicant.addresses):
        return kept
    fingerprint, bearer = parse_token(token) if kept is None else ("", "")
    while True:
        try:
            if kept is None:
                return await _join(directory, applicant, fingerprint, bearer)
            async with Client(applicant.server, kept.credentials) as client:
                return await renew_identity(client, directory, applicant)
        except errors.ApiError as error:
            if not error.retryable:
                raise JoinRefused(f"{applicant.server} refused to let this node join: {error.message}") from error
            _log.warning("cannot join yet", server=applicant.server, error=error.message)
            await asyncio.sleep(RETRY_SECONDS)


async def _is_revoked(applicant: Applicant, kept: Identity) -> bool:
    """Whether the API server believes the certificate no longer, or we not its. One that does not answer says nothing.

    The latter is so when the CA was rotated while this node was away.
    """
    try:
        async with Client(applicant.server, kept.credentials, timeout=PROBE_SECONDS) as client:
            await client.request("GET", f"/api/v1/nodes/{applicant.node_name}")
    except errors.Unauthorized:
        return True
    except errors.ApiError as error:
        return _is_of_another_ca(error)
    return False


def _is_of_another_ca(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        if isinstance(error, ssl.SSLError) and error.reason in ("TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_DECRYPT_ERROR"):
            return True
        error = error.__cause__ or error.__context__
    return False


def parse_token(token: str) -> tuple[str, str]:
    """(fingerprint of the CA, bearer token) of a join token. Raises JoinRefused."""
    if not token:
        raise JoinRefused(
            "this node has no valid certificate: start it with --token-file (wherry token create prints a token)"
        )
    match = _TOKEN.fullmatch(token.strip())
    if match is None:
        raise JoinRefused("that is no join token: a join token looks like wherry1.<64 hex digits>.<6 characters>.<16>")
    return match[1], match[2]


async def _join(directory: Path, applicant: Applicant, fingerprint: str, bearer: str) -> Identity:
    async with Client(applicant.server, Credentials(insecure=True)) as unsure:
        ca = (await unsure.request("GET", "/cacerts")).body.decode()
    signing, *former = certificates_in(ca) or [""]
    if any(certificate_digest(pem) == fingerprint for pem in former):
        raise JoinRefused("the token names a CA that signs no longer: make a fresh one with wherry token create")
    if not signing or certificate_digest(signing) != fingerprint:
        text = "its CA is not the one that the token names. Is this the right server, and the token one of its own?"
        raise JoinRefused(f"{applicant.server} is not trusted: {text}")
    async with Client(applicant.server, Credentials(ca=signing, token=bearer)) as client:
        return await _ask(client, directory, applicant)


async def renew_identity(client: Client, directory: Path, applicant: Applicant) -> Identity:
    """A new certificate, asked for with the present one. Raises ApiError."""
    return await _ask(client, directory, applicant)


async def try_renewal(renewal: Awaitable[Identity]) -> Identity | None:
    """The new identity; None, told in the log, when there is none now: the present one is good for weeks more."""
    try:
        return await renewal
    except (errors.ApiError, OSError, KeyFault) as error:
        _log.warning("certificate not renewed; it is tried again", error=str(error))
        return None


async def _ask(client: Client, directory: Path, applicant: Applicant) -> Identity:
    """The answer's CAs are believed as its certificate is: the one whom we ask has shown that it may say so."""
    made = await _made(applicant.node_name)
    body = {
        "nodeName": applicant.node_name,
        "password": node_password(directory),
        "csr": made["csr"],
        "addresses": list(applicant.addresses),
    }
    reply = (await client.request("POST", JOIN_PATH, body=orjson.dumps(body))).json()
    identity = Identity(ca=reply["ca"], cert=reply["certificate"], key=made["key"])
    save_identity(directory, identity)
    return identity


async def _made(node_name: str) -> Mapping[str, str]:
    """A fresh key and the request for its certificate, by a child (see agent.keys)."""
    command = (sys.executable, "-P", str(Path(__file__).with_name("keys.py")), node_name)
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(KEY_SECONDS):
            out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode:
        raise KeyFault("no key could be made for this node")
    made: Mapping[str, str] = orjson.loads(out)
    return made


def node_password(directory: Path) -> str:
    """What keeps this node's name for it: made once, shown whenever it joins."""
    file = directory / PASSWORD_FILE
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_secret(file, secrets.token_hex(32))
    return file.read_text().strip()


def load_identity(directory: Path) -> Identity | None:
    file = directory / CA_FILE
    try:
        ca = (file if file.exists() else directory / FORMER_CA_FILE).read_text()
        pair = (directory / PAIR_FILE).read_text()
    except OSError:
        return None
    cert, _, key = pair.partition("-----BEGIN PRIVATE KEY-----")
    return Identity(ca, cert, "-----BEGIN PRIVATE KEY-----" + key)


def save_identity(directory: Path, identity: Identity) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pair = identity.cert.rstrip() + "\n" + identity.key
    for name, text in ((CA_FILE, identity.ca), (PAIR_FILE, pair)):
        _write_secret(directory / name, text)


def formers(directory: Path) -> dict[str, Identity]:
    """The identities of names that this machine had before, as far as they are still good, by name."""
    found = (load_identity(place) for place in (directory / FORMER_DIRECTORY).glob("*"))
    now = datetime.now(UTC)
    return {one.node_name: one for one in found if one is not None and one.is_for(one.node_name, now)}


def forget_former(directory: Path, node_name: str) -> None:
    shutil.rmtree(directory / FORMER_DIRECTORY / node_name, ignore_errors=True)


def _write_secret(file: Path, text: str) -> None:
    """Whole or not at all, and for root only."""
    fresh = file.with_name(f"{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    fresh.rename(file)
