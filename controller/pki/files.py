"""Where the cluster's secrets lie on disk, made on first start and renewed when they run out.

    DIR/pki/ca.crt ca.key            the CA; see ca_rotation.py     DIR/pki/sa.key          signs service-account tokens
    DIR/pki/apiserver.crt .key       serves HTTPS                   DIR/pki/encryption.key  seals Secrets in etcd
    DIR/pki/agent-client.crt .key    the controller, to agents      DIR/admin.kubeconfig    the administrator's access
    DIR/pki/admin.crt .key           the administrator              DIR/admin.token         the same, a token of a day

Called by main, the store's private etcd and the CLI. Does file I/O, at start only. Invariant: every secret is 0600 and
written atomically; an existing CA or key is never replaced here (see rotation), only certificates that run out are.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from api.trust import AGENT_CLIENT_GROUP, AGENT_CLIENT_NAME, bundle_digest
from controller.pki.authority import (
    LEAF_DAYS,
    Authority,
    Pair,
    Subject,
    certificate_pem,
    is_issued_by,
    key_pem,
    load_certificate,
    load_certificates,
    load_key,
    names_subject,
    new_key,
)
from controller.pki.kubeconfig import render_kubeconfig

ADMIN = Subject("admin", ("system:masters",))
AGENT_CLIENT = Subject(AGENT_CLIENT_NAME, (AGENT_CLIENT_GROUP,))
ENCRYPTION_OLD = "encryption.key.old"
CA_NEXT_KEY, CA_FORMER = "ca-next.key", "ca.former."
FORMER_CA_SECONDS = (LEAF_DAYS + 1) * 24 * 3600.0
"""So long a CA that signs no longer is believed, if nobody ends it before: its certificates have expired."""
RENEW_BEFORE = timedelta(days=60)
ADMIN_TOKEN_SECONDS = 24 * 3600.0


class PkiError(Exception):
    """What lies in DIR/pki cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Pki:
    """Everything in memory. `directory` is DIR/pki, for those who need paths (TLS contexts)."""

    directory: Path
    authority: Authority
    bundle: bytes
    """The CAs that are believed, PEM; the first is `authority`'s. More than one while the CA is rotated."""
    service_account_key: bytes
    encryption_key: bytes
    admin_token: str
    older_tokens: tuple[bytes, ...] = ()
    """Public keys, PEM, of former ServiceAccount keys whose tokens may still live."""
    former_encryption_key: bytes | None = None
    """While Secrets are sealed anew."""

    @cached_property
    def digest(self) -> str:
        """Of the bundle, as the controller tells it to agents."""
        return bundle_digest(self.bundle.decode())

    @cached_property
    def ca_names(self) -> frozenset[str]:
        """The common names of those that are believed."""
        names = (one.subject.get_attributes_for_oid(NameOID.COMMON_NAME) for one in load_certificates(self.bundle))
        return frozenset(str(each.value) for name in names for each in name)

    @property
    def ca_path(self) -> Path:
        return self.directory / "ca.crt"

    def path(self, name: str) -> Path:
        return self.directory / name


@dataclass(frozen=True)
class Serving:
    """What the API server's certificate and the kubeconfig name."""

    hosts: tuple[str, ...]
    port: int

    @property
    def url(self) -> str:
        host = self.hosts[0]
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"


def ensure_pki(data_dir: Path, serving: Serving) -> Pki:
    """Loads DIR/pki, makes what is missing, renews certificates that expire within 60 days or name other hosts.

    Raises PkiError, and OSError where a file cannot be read or written.
    """
    directory = data_dir / "pki"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _ensure_authority(directory)
    _ensure_leaf(directory, "apiserver", authority, Subject("wherry-apiserver", hosts=serving.hosts, client=False))
    admin = _ensure_leaf(directory, "admin", authority, ADMIN)
    _ensure_leaf(directory, "agent-client", authority, AGENT_CLIENT)
    bundle = (directory / "ca.crt").read_bytes()
    kubeconfig = render_kubeconfig(serving.url, bundle, admin)
    write_secret(data_dir / "admin.kubeconfig", kubeconfig.encode())
    return Pki(
        directory=directory,
        authority=authority,
        bundle=bundle,
        service_account_key=_ensure_bytes(directory / "sa.key", lambda: key_pem(new_key())),
        encryption_key=_ensure_bytes(directory / "encryption.key", lambda: secrets.token_bytes(32)),
        admin_token=_fresh_token(data_dir / "admin.token"),
        older_tokens=tuple(_older_tokens(directory)),
        former_encryption_key=former.read_bytes() if (former := directory / ENCRYPTION_OLD).exists() else None,
    )


def state_of(data_dir: Path) -> tuple[tuple[str, int], ...]:
    """Changes whenever somebody changes, adds or takes away a file that `ensure_pki` reads."""
    paths = [*(data_dir / "pki").glob("[!.]*"), data_dir / "admin.token"]
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime_ns))
    return tuple(sorted(found))


def _older_tokens(directory: Path) -> Iterator[bytes]:
    """`sa.pub.UNTIL`, until then."""
    for path in sorted(directory.glob("sa.pub.*")):
        until = path.name.rpartition(".")[2]
        if until.isdigit() and int(until) < time.time():
            path.unlink(missing_ok=True)
        elif until.isdigit():
            yield path.read_bytes()


def served_names(pki: Pki) -> frozenset[str]:
    """The DNS names under which the API server is known."""
    certificate = load_certificate(pki.path("apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return frozenset(names.get_values_for_type(x509.DNSName))


def write_secret(path: Path, content: bytes) -> None:
    """Writes a file whole, readable by its owner only; unchanged content is not written again."""
    if path.exists() and path.read_bytes() == content:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _fresh_token(path: Path) -> str:
    """The administrator's bearer token, for what speaks no TLS of its own: another one each day."""
    with contextlib.suppress(FileNotFoundError):
        if time.time() - path.stat().st_mtime > ADMIN_TOKEN_SECONDS:
            path.unlink()
    return _ensure_bytes(path, lambda: secrets.token_urlsafe(32).encode()).decode()


def _ensure_bytes(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        write_secret(path, make())
    return path.read_bytes()


def _ensure_authority(directory: Path) -> Authority:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if not certificate.exists():
        authority = Authority.create()
        write_secret(key, key_pem(authority.key))
        write_secret(certificate, authority.pem)
    authority = load_authority(directory)
    _drop_former_cas(directory, authority)
    end = authority.certificate.not_valid_after_utc
    if end < datetime.now(UTC):
        raise PkiError(
            f"the cluster's CA {certificate} expired on {end:%Y-%m-%d}: set the clock right, or move "
            f"{directory} away to make a new CA (agents and kubeconfigs must then join anew)"
        )
    return authority


def load_authority(directory: Path) -> Authority:
    """The CA that signs: that of ca.crt to which ca.key belongs. It is put first there. Raises PkiError, OSError."""
    path, key_path = directory / "ca.crt", directory / "ca.key"
    try:
        key, bundle = load_key(key_path.read_bytes()), load_certificates(path.read_bytes())
        signing = next((one for one in bundle if one.public_key() == key.public_key()), None)
    except ValueError as error:
        raise PkiError(f"{path} or {key_path} is damaged ({error}): restore both from a backup") from error
    if signing is None:
        raise PkiError(f"{key_path} belongs to no certificate in {path}: restore both from a backup")
    if bundle[0] != signing:
        others = [one for one in bundle if one != signing]
        write_secret(path, b"".join(map(certificate_pem, [signing, *others])))
    return Authority(signing, key)


def former_cas(directory: Path) -> list[tuple[int, Path]]:
    """(until when, file) of CAs that are still believed and sign no longer: `ca.former.UNTIL`."""
    found = ((path.name.removeprefix(CA_FORMER), path) for path in sorted(directory.glob(f"{CA_FORMER}*")))
    return [(int(until), path) for until, path in found if until.isdigit()]


def _drop_former_cas(directory: Path, signing: Authority) -> None:
    """Those whose time is over; the one that signs stays, whatever a file says."""
    for until, path in former_cas(directory):
        if until < time.time():
            gone = load_certificates(path.read_bytes())
            bundle = load_certificates((directory / "ca.crt").read_bytes())
            kept = [one for one in bundle if one == signing.certificate or one not in gone]
            write_secret(directory / "ca.crt", b"".join(map(certificate_pem, kept)))
            path.unlink(missing_ok=True)


def _ensure_leaf(directory: Path, name: str, authority: Authority, subject: Subject) -> Pair:
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    if certificate.exists() and key.exists() and _still_good(certificate.read_bytes(), authority, subject):
        return Pair(certificate.read_bytes(), key.read_bytes())
    pair = authority.issue(subject)
    write_secret(key, pair.key)
    write_secret(certificate, pair.certificate)
    return pair


def _still_good(pem: bytes, authority: Authority, subject: Subject) -> bool:
    """A damaged certificate, and one of a CA that was replaced, is none."""
    try:
        certificate = load_certificate(pem)
    except ValueError:
        return False
    if not is_issued_by(certificate, authority.certificate):
        return False
    if certificate.not_valid_after_utc - datetime.now(UTC) < RENEW_BEFORE or not names_subject(certificate, subject):
        return False
    if not subject.hosts:
        return True
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    held = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    return held >= set(subject.hosts)
