"""Certificates, tokens and files of the cluster's own trust."""

from __future__ import annotations

import base64
import os
import ssl
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from controller.pki.authority import (
    Authority,
    CsrRefused,
    Subject,
    certificate_pem,
    issued_at,
    key_pem,
    load_certificate,
    new_key,
    new_serial,
)
from controller.pki.files import PkiError, Serving, ensure_pki
from controller.pki.join import (
    BootstrapToken,
    groups_of,
    new_bootstrap_token,
    parse_bootstrap_token,
    parse_join_token,
    render_join_token,
    render_secret,
)
from controller.pki.tokens import Bound, Claims, TokenRefused, TokenSigner

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVING = Serving(("127.0.0.1", "localhost"), 6443)
NODE = Subject("system:node:n1", ("system:nodes",), ("10.0.0.1", "n1"))


def csr(name: str) -> tuple[bytes, x509.CertificateSigningRequest]:
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM), request


def test_a_signed_request_speaks_for_whom_we_say_and_not_for_whom_it_asks() -> None:
    pem, _ = csr("system:masters-please")
    certificate = load_certificate(Authority.create().sign_request(pem, NODE))
    names = [attribute.value for attribute in certificate.subject]
    assert names == ["system:nodes", "system:node:n1"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["n1"]


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_junk_is_no_request(junk: bytes) -> None:
    with pytest.raises(CsrRefused):
        Authority.create().sign_request(junk, NODE)


def test_nothing_outlives_the_authority() -> None:
    authority = Authority.create()
    certificate = load_certificate(authority.issue(NODE, days=100_000).certificate)
    assert certificate.not_valid_after_utc <= authority.certificate.not_valid_after_utc


def test_files_are_private_and_stay_what_they_are(tmp_path: Path) -> None:
    first = ensure_pki(tmp_path, SERVING)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    second = ensure_pki(tmp_path, SERVING)
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    assert (first.admin_token, first.encryption_key) == (second.admin_token, second.encryption_key)
    for path in [*(tmp_path / "pki").iterdir(), tmp_path / "admin.kubeconfig", tmp_path / "admin.token"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_the_administrators_token_is_another_one_each_day(tmp_path: Path) -> None:
    first = ensure_pki(tmp_path, SERVING)
    os.utime(tmp_path / "admin.token", times=(time.time() - 25 * 3600,) * 2)
    assert ensure_pki(tmp_path, SERVING).admin_token != first.admin_token


def test_a_serial_number_says_when_it_was_given_and_is_later_than_asked() -> None:
    now = time.time() * 1000
    assert abs(issued_at(new_serial()) - now) < 60_000
    assert issued_at(new_serial(int(now) + 10**6)) == int(now) + 10**6 + 1
    assert issued_at(x509.random_serial_number() | 1 << 158) == 0
    assert issued_at(load_certificate(Authority.create().issue(NODE).certificate).serial_number) > now - 60_000


def test_a_serving_certificate_is_made_anew_for_a_new_name(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SERVING)
    ca, leaf = (tmp_path / "pki" / name for name in ("ca.crt", "apiserver.crt"))
    before = ca.read_bytes(), leaf.read_bytes()
    ensure_pki(tmp_path, Serving(("192.0.2.7", "localhost"), 6443))
    assert ca.read_bytes() == before[0]
    assert leaf.read_bytes() != before[1]


def test_a_certificate_about_to_expire_is_renewed(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, SERVING)
    old = pki.authority.issue(Subject("admin", ("system:masters",)), days=30)
    (tmp_path / "pki" / "admin.crt").write_bytes(old.certificate)
    (tmp_path / "pki" / "admin.key").write_bytes(old.key)
    ensure_pki(tmp_path, SERVING)
    renewed = load_certificate((tmp_path / "pki" / "admin.crt").read_bytes())
    assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=300)


def test_the_kubeconfig_is_complete_in_itself(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, Serving(("fd00::1",), 6443))
    config = yaml.safe_load((tmp_path / "admin.kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://[fd00::1]:6443"
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    ssl.create_default_context(cadata=certificate_pem(pki.authority.certificate).decode())


CLAIMS = Claims(
    "ns", Bound("bot", "uid-1"), ("api",), int(time.time()), int(time.time()) + 3600, {"pod": Bound("p", "uid-2")}
)


def test_a_token_says_what_was_signed() -> None:
    signer = TokenSigner(key_pem(new_key()), "https://issuer")
    claims = signer.verify(signer.sign(CLAIMS), ["other", "api"])
    assert claims.service_account == Bound("bot", "uid-1")
    assert claims.bound == {"pod": Bound("p", "uid-2")}
    assert claims.namespace == "ns" and claims.token_id


def test_a_token_from_the_future_is_good_because_our_own_clock_was_set_back() -> None:
    signer, later = TokenSigner(key_pem(new_key()), "https://issuer"), int(time.time()) + 3600
    token = signer.sign(Claims("ns", Bound("bot", "uid-1"), ("api",), later, later + 60))
    assert signer.verify(token, ["api"]).issued == later


def test_certificates_are_good_on_a_clock_that_is_an_hour_behind() -> None:
    authority = Authority.create()
    leaf = load_certificate(authority.issue(Subject("node", hosts=("node",))).certificate)
    verifier = PolicyBuilder().store(Store([authority.certificate])).time(datetime.now(UTC) - timedelta(hours=1))
    assert verifier.build_client_verifier().verify(leaf, []).chain
    assert verifier.build_server_verifier(x509.DNSName("node")).verify(leaf, [])


def test_a_damaged_or_foreign_certificate_is_made_anew_and_a_ca_at_its_end_says_so(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SERVING)
    directory = tmp_path / "pki"
    (directory / "apiserver.crt").write_bytes(b"cut off by a full disk")
    stranger = Authority.create().issue(Subject("admin", ("system:masters",)))
    (directory / "admin.crt").write_bytes(stranger.certificate)
    pki = ensure_pki(tmp_path, SERVING)
    for name in ("apiserver", "admin"):
        certificate = load_certificate((directory / f"{name}.crt").read_bytes())
        certificate.verify_directly_issued_by(pki.authority.certificate)
    (directory / "ca.crt").write_bytes(b"junk")
    with pytest.raises(PkiError, match=r"ca\.crt.* is damaged"):
        ensure_pki(tmp_path, SERVING)


@pytest.mark.parametrize("flaw", ["audience", "issuer", "key", "expired", "altered", "unsigned"])
def test_a_flawed_token_is_refused(flaw: str) -> None:
    key = key_pem(new_key())
    signer = TokenSigner(key, "https://issuer")
    claims = CLAIMS
    if flaw == "expired":
        claims = Claims("ns", Bound("bot", "u"), ("api",), 1, 2)
    token = signer.sign(claims)
    if flaw == "altered":
        head, body, tail = token.split(".")
        token = f"{head}.{body[:-2]}AA.{tail}"
    if flaw == "unsigned":
        token = token.rpartition(".")[0] + "."
    verifier = TokenSigner(key_pem(new_key()) if flaw == "key" else key, "x" if flaw == "issuer" else "https://issuer")
    with pytest.raises(TokenRefused):
        verifier.verify(token, ["nobody"] if flaw == "audience" else ["api"])


def test_a_join_token_pins_the_authority() -> None:
    token = new_bootstrap_token()
    digest = "ab" * 32
    assert parse_join_token(render_join_token(digest, token) + "\n") == (digest, str(token))
    assert parse_bootstrap_token(str(token)) == token


@pytest.mark.parametrize(
    "text", ["", "wherry1.x.y.z", "abcdef.0123456789abcdef", "wherry2." + "ab" * 32 + ".abcdef.0123456789abcdef"]
)
def test_what_is_no_join_token_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="not a join token"):
        parse_join_token(text)


@pytest.mark.parametrize(
    ("presented", "age", "groups"),
    [
        ("0123456789abcdef", timedelta(0), ("system:bootstrappers", "system:bootstrappers:wherry:agents")),
        ("0123456789abcdeX", timedelta(0), None),
        ("0123456789abcdef", timedelta(hours=2), None),
    ],
)
def test_a_bootstrap_token_is_good_until_it_expires(
    presented: str, age: timedelta, groups: tuple[str, ...] | None
) -> None:
    secret = render_secret(BootstrapToken("abcdef", "0123456789abcdef"), NOW + timedelta(hours=1))
    assert groups_of(secret, BootstrapToken("abcdef", presented), NOW + age) == groups


@pytest.mark.parametrize("extra", ["system:masters", "system:bootstrappers:a,devs", "system:bootstrappers:", "é"])
def test_a_bootstrap_token_for_other_groups_is_none(extra: str) -> None:
    token = BootstrapToken("abcdef", "0123456789abcdef")
    secret = render_secret(token, NOW + timedelta(hours=1))
    secret["data"]["auth-extra-groups"] = base64.b64encode(extra.encode()).decode()
    assert groups_of(secret, token, NOW) is None
    secret["data"]["token-secret"] = base64.b64encode("é".encode()).decode()
    assert groups_of(secret, token, NOW) is None
