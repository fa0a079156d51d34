"""Keys and certificates that are changed while the cluster goes on serving, and what there is of them.

Called by the CLI (`wherry certs`). Works on DIR/pki alone: the controller sees within a second that something changed,
reads it all anew (files.py) and takes it into use. So a rotation is a change of files that is good in itself, whether
the controller runs or is started later. Invariant: what a key has signed or sealed can be read as long as it is needed.
https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#rotating-a-decryption-key
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from controller.pki.authority import BACKDATE, key_pem, load_certificate, load_certificates, load_key, new_key
from controller.pki.files import (
    ADMIN_TOKEN_SECONDS,
    ENCRYPTION_OLD,
    PkiError,
    former_cas,
    load_authority,
    write_secret,
)

TOKENS_LIVE = timedelta(days=366)
"""So long tokens of the former ServiceAccount key are believed."""
LEAVES = {
    "apiserver": "serves the API",
    "agent-client": "the controller, to agents",
    "admin": "the administrator, in admin.kubeconfig",
}
KEYS = ("sa-key", "encryption-key", "admin-token")
ROTATABLE = (*LEAVES, *KEYS)


@dataclass(frozen=True)
class Held:
    """One thing on disk. `expires` None: never; `made` None: not known."""

    name: str
    what: str
    expires: datetime | None
    made: datetime | None = None


def rotate(data_dir: Path, what: str) -> str:
    """Rotates one of ROTATABLE; what happens now, in a sentence. Raises PkiError, OSError."""
    directory = data_dir / "pki"
    if not (directory / "ca.crt").exists():
        raise PkiError(f"{directory} holds no CA: this is not the data directory of a controller")
    how: dict[str, Callable[[Path], str]] = {
        "sa-key": _rotate_service_account_key,
        "encryption-key": _rotate_encryption_key,
        "admin-token": lambda directory: _removed(directory.parent / "admin.token", "another administrator's token"),
    }
    if what in LEAVES:
        return _removed(directory / f"{what}.crt", f"a new certificate and key for {what}")
    return how[what](directory)


def _removed(path: Path, what: str) -> str:
    path.unlink(missing_ok=True)
    return f"The controller makes {what} at once, or when it is started."


def _rotate_service_account_key(directory: Path) -> str:
    """The public half stays until the last token of the former key has expired."""
    public = load_key((directory / "sa.key").read_bytes()).public_key()
    until = datetime.now(UTC) + TOKENS_LIVE
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_secret(directory / f"sa.pub.{int(until.timestamp())}", pem)
    write_secret(directory / "sa.key", key_pem(new_key()))
    return f"New tokens are signed with a new key; those of the former one are believed until {until:%Y-%m-%d}."


def _rotate_encryption_key(directory: Path) -> str:
    """The former key is written down first: at no moment is there a Secret that neither file opens."""
    current, old = directory / "encryption.key", directory / ENCRYPTION_OLD
    if old.exists():
        raise PkiError(f"Secrets are still being sealed anew with the present key ({old} is there): try again later")
    write_secret(old, current.read_bytes())
    write_secret(current, secrets.token_bytes(32))
    return "All Secrets are sealed anew with a new key; the former one goes when that is done."


def held(data_dir: Path) -> Iterator[Held]:
    """Everything that can expire or be rotated. Raises OSError, ValueError, PkiError."""
    directory = data_dir / "pki"
    yield from _held_cas(directory)
    for name, what in {**LEAVES, "agent": "this node's agent"}.items():
        path = directory / ("agent.pem" if name == "agent" else f"{name}.crt")
        if path.exists():
            certificate = load_certificate(path.read_bytes())
            yield Held(name, what, certificate.not_valid_after_utc, _made(path))
    for file, name, what in (
        ("sa.key", "sa-key", "signs ServiceAccount tokens"),
        ("encryption.key", "encryption-key", "seals Secrets in etcd"),
        (ENCRYPTION_OLD, "encryption-key, former", "until all Secrets are sealed anew"),
    ):
        if (path := directory / file).exists():
            yield Held(name, what, None, _made(path))
    for path in sorted(directory.glob("sa.pub.*")):
        if match := re.fullmatch(r"sa\.pub\.(\d+)", path.name):
            yield Held(
                "sa-key, former", "verifies older tokens", datetime.fromtimestamp(int(match[1]), UTC), _made(path)
            )
    token = data_dir / "admin.token"
    if token.exists():
        until = datetime.fromtimestamp(token.stat().st_mtime + ADMIN_TOKEN_SECONDS, UTC)
        yield Held("admin-token", "the administrator's bearer token", until, _made(token))


def _held_cas(directory: Path) -> Iterator[Held]:
    """The CA that signs and, while it is rotated, the other one that is believed."""
    path = directory / "ca.crt"
    if not path.exists():
        return
    signing = load_authority(directory).certificate
    formers = {one: until for until, file in former_cas(directory) for one in load_certificates(file.read_bytes())}
    for certificate in load_certificates(path.read_bytes()):
        expires, made = certificate.not_valid_after_utc, certificate.not_valid_before_utc + BACKDATE
        if certificate == signing:
            yield Held("ca", "signs all certificates", expires, made)
        elif (until := formers.get(certificate)) is not None:
            yield Held("ca, former", "believed until --finish", datetime.fromtimestamp(until, UTC), made)
        else:
            yield Held("ca, next", "believed, signs when all nodes know it", expires, made)


def _made(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def wait_for(path: Path, seconds: float) -> bool:
    """Whether a file is there, within the time."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
