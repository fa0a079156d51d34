"""Identities without a server: whom headers mean, and what a certificate says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from multidict import CIMultiDict, CIMultiDictProxy

from controller.admission.types import MASTERS_GROUP, User
from controller.server.authentication import user_of_peer
from controller.server.authorization import Chain
from controller.server.impersonation import impersonated

ROOT = User("root", groups=(MASTERS_GROUP,))
EVERYBODY, NOBODY = "system:authenticated", "system:unauthenticated"
BOT = ("system:serviceaccounts", "system:serviceaccounts:a")


@pytest.mark.parametrize(
    ("name", "groups", "expected"),
    [
        ("eve", (), (EVERYBODY,)),
        ("eve", ("devs",), ("devs", EVERYBODY)),
        ("eve", (EVERYBODY,), (EVERYBODY,)),
        ("eve", (NOBODY,), (NOBODY,)),
        ("system:anonymous", (), (NOBODY,)),
        ("system:anonymous", ("devs",), ("devs", NOBODY)),
        ("system:serviceaccount:a:b", (), (*BOT, EVERYBODY)),
        ("system:serviceaccount:a:b", ("devs",), ("devs", EVERYBODY)),
    ],
)
def test_everybody_has_the_groups_that_nobody_names(
    name: str, groups: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    headers = CIMultiDict([("Impersonate-User", name), *(("Impersonate-Group", group) for group in groups)])
    assert impersonated(Chain(), ROOT, CIMultiDictProxy(headers)).groups == expected


class Transport:
    """A connection whose peer showed this certificate."""

    def __init__(self, der: bytes) -> None:
        self.der = der

    def getpeercert(self, binary: bool) -> bytes:
        assert binary
        return self.der

    def get_extra_info(self, name: str) -> object:
        if name == "ssl_object":
            return self
        subject = ((("organizationName", "devs"),), (("commonName", "eve"),))
        return {"subject": subject, "notAfter": "Jan  1 00:00:00 2099 GMT"}


def test_a_certificate_may_name_the_uid_too() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    uid = x509.NameAttribute(x509.ObjectIdentifier("1.3.6.1.4.1.57683.2"), "the-uid")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "eve"), uid])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    user, _ = user_of_peer(Transport(der))
    assert (user.name, user.uid, user.groups) == ("eve", "the-uid", ("devs", EVERYBODY))
