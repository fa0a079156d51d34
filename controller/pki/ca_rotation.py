"""A new CA for a cluster that goes on serving: first believed, then signing, then the only one.

Called by the CLI (`wherry certs rotate ca`) and rotation.py. As all rotation, a change of files that the controller
takes into use by itself. The phases, as they lie in DIR/pki:

    BOTH_BELIEVED   ca.crt: old, new; ca.key: the old one's; ca-next.key         the old CA signs
    NEW_SIGNS       ca.crt: new, old; ca.key: the new one's; ca.former.UNTIL     the new CA signs
    STEADY          ca.crt: the CA                                               no rotation

Invariant: each step ends in one atomic change (ca.crt, ca.key, ca.crt), so that whoever reads in the middle, or after a
crash, finds the phase before or after it; the CA that signs is the one of ca.crt to which ca.key belongs (files.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from api.trust import bundle_digest
from controller.pki.authority import Authority, certificate_pem, key_pem, load_certificates, load_key
from controller.pki.files import (
    CA_FORMER,
    CA_NEXT_KEY,
    FORMER_CA_SECONDS,
    PkiError,
    former_cas,
    load_authority,
    write_secret,
)


class Phase(Enum):
    STEADY = "steady"
    BOTH_BELIEVED = "both believed"
    NEW_SIGNS = "new signs"


@dataclass(frozen=True)
class CaState:
    """`digest`: what a node that believes ca.crt as it is now says of itself."""

    phase: Phase
    digest: str
    former_until: datetime | None = None


def state(directory: Path) -> CaState:
    """Raises PkiError, OSError."""
    bundle = (directory / "ca.crt").read_bytes()
    digest = bundle_digest(bundle.decode())
    if _next(directory) is not None:
        return CaState(Phase.BOTH_BELIEVED, digest)
    if formers := former_cas(directory):
        return CaState(Phase.NEW_SIGNS, digest, datetime.fromtimestamp(max(until for until, _ in formers), UTC))
    return CaState(Phase.STEADY, digest)


def begin(directory: Path) -> None:
    """STEADY to BOTH_BELIEVED: a new CA beside the old one. Raises PkiError, OSError."""
    present = load_authority(directory)
    fresh = Authority.create(f"wherry-ca-{int(time.time())}")
    if fresh.certificate.subject == present.certificate.subject:
        raise PkiError("the present CA was made this very second: try again")
    write_secret(directory / CA_NEXT_KEY, key_pem(fresh.key))
    write_secret(directory / "ca.crt", (directory / "ca.crt").read_bytes().rstrip() + b"\n" + fresh.pem)


def switch(directory: Path) -> None:
    """BOTH_BELIEVED to NEW_SIGNS. Raises PkiError, OSError."""
    fresh = _next(directory)
    if fresh is None:
        raise PkiError(f"there is no new CA in {directory}")
    old = load_authority(directory)
    for _, path in former_cas(directory):
        path.unlink(missing_ok=True)
    until = min(time.time() + FORMER_CA_SECONDS, old.certificate.not_valid_after_utc.timestamp())
    write_secret(directory / f"{CA_FORMER}{int(until)}", old.pem)
    write_secret(directory / "ca.key", key_pem(fresh.key))
    load_authority(directory)  # puts the one that signs first
    (directory / CA_NEXT_KEY).unlink(missing_ok=True)


def finish(directory: Path) -> None:
    """NEW_SIGNS to STEADY: what the old CA signed is believed no longer. Raises PkiError, OSError."""
    signing = load_authority(directory)
    formers = former_cas(directory)
    gone = [one for _, path in formers for one in load_certificates(path.read_bytes())]
    kept = [one for one in load_certificates((directory / "ca.crt").read_bytes()) if one not in gone]
    if signing.certificate not in kept:
        raise PkiError(f"the CA that signs is one of those to be dropped: look at {directory}/{CA_FORMER}*")
    write_secret(directory / "ca.crt", b"".join(map(certificate_pem, kept)))
    for _, path in formers:
        path.unlink(missing_ok=True)


def _next(directory: Path) -> Authority | None:
    """The new CA while it does not sign yet."""
    path = directory / CA_NEXT_KEY
    if not path.exists():
        return None
    key, present = load_key(path.read_bytes()), load_authority(directory)
    for certificate in load_certificates((directory / "ca.crt").read_bytes()):
        if certificate.public_key() == key.public_key() and certificate != present.certificate:
            return Authority(certificate, key)
    return None
