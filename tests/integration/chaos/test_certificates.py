"""Certificates that ran out: who shows one is told so, who serves with one gets a new one, and nobody dies of it."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from controller.pki.authority import Authority, Pair, Subject, certificate_pem, load_certificate
from controller.pki.files import ADMIN, ENCRYPTION_OLD, PkiError, write_secret
from controller.pki.rotation import held, rotate
from tests.integration.chaos.agents import names
from tests.integration.chaos.plane import Plane, running
from tests.integration.chaos.test_stalls import CALM_SECONDS, check_unharmed, granted_again, settled
from tests.integration.chaos.wire import Broken, Connection, Unsent


def authority_of(plane: Plane) -> Authority:
    pki = plane.directory / "pki"
    return Authority.load((pki / "ca.crt").read_bytes(), (pki / "ca.key").read_bytes())


def ending_at(authority: Authority, pair: Pair, end: datetime) -> Pair:
    """The same certificate, signed anew with another end."""
    old = load_certificate(pair.certificate)
    builder = x509.CertificateBuilder(
        issuer_name=old.issuer,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=min(old.not_valid_before_utc, end - timedelta(days=2)),
        not_valid_after=end,
        extensions=list(old.extensions),
    )
    return Pair(certificate_pem(builder.sign(authority.key, hashes.SHA256())), pair.key)


def with_certificate(plane: Plane, pair: Pair, name: str) -> Connection:
    files = plane.directory / f"{name}.crt", plane.directory / f"{name}.key"
    write_secret(files[0], pair.certificate)
    write_secret(files[1], pair.key)
    return Connection(plane.port, plane.context(files))


async def test_an_expired_client_certificate_is_refused_in_the_handshake_and_a_fresh_one_serves(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane", ("--controllers", "none"))
    async with running(plane):
        authority = authority_of(plane)
        fresh = authority.issue(ADMIN)
        expired = ending_at(authority, fresh, datetime.now(UTC) - timedelta(days=1))
        refused = with_certificate(plane, expired, "expired")
        with pytest.raises((Broken, Unsent), match="certificate expired"):
            await refused.request("GET", "/version")
        stranger = with_certificate(plane, Authority.create().issue(ADMIN), "stranger")
        with pytest.raises((Broken, Unsent), match=r"unknown ca|decrypt error"):
            await stranger.request("GET", "/version")
        assert "certificate has expired" in plane.log, "the server's own log says it, too"
        served = with_certificate(plane, fresh, "fresh")
        assert (await served.request("GET", "/api/v1/nodes")).status == 200


async def test_a_certificate_that_runs_out_on_an_open_connection_is_told(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane", ("--controllers", "none"))
    async with running(plane):
        authority = authority_of(plane)
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        connection = with_certificate(plane, ending_at(authority, authority.issue(ADMIN), end), "short")
        assert (await connection.request("GET", "/api/v1/nodes")).status == 200
        await asyncio.sleep(end.timestamp() - time.time() + 0.1)
        answer = await connection.request("GET", "/api/v1/nodes")
        assert answer.status == 401
        assert answer.message == "Unauthorized: the client certificate of admin has expired; renew it"


async def test_an_expired_serving_certificate_is_renewed_at_the_start_and_no_node_is_given_up(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane")
    async with settled(plane) as fleet:
        before = names(fleet.pods)
        authority, path = authority_of(plane), plane.directory / "pki" / "apiserver.crt"
        pair = Pair(path.read_bytes(), path.with_suffix(".key").read_bytes())
        plane.kill()
        write_secret(path, ending_at(authority, pair, datetime.now(UTC) - timedelta(days=1)).certificate)
        plane.start()
        await plane.ready()
        served = ssl.get_server_certificate(("127.0.0.1", plane.port), ca_certs=str(plane.directory / "pki" / "ca.crt"))
        assert load_certificate(served.encode()).not_valid_after_utc > datetime.now(UTC) + timedelta(days=300)
        await granted_again(fleet)
        await asyncio.sleep(CALM_SECONDS)
        await check_unharmed(fleet, before)


async def test_a_ca_at_its_end_and_a_damaged_one_are_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane", ("--controllers", "none"))
    async with running(plane):
        pass
    pki = plane.directory / "pki"
    whole = (pki / "ca.crt").read_bytes()
    pair = Pair(whole, (pki / "ca.key").read_bytes())
    over = ending_at(Authority.load(whole, pair.key), pair, datetime.now(UTC) - timedelta(days=1))
    for content, sentence in ((over.certificate, "expired on"), (whole[:100], "is damaged")):
        write_secret(pki / "ca.crt", content)
        plane.start()
        assert await ended(plane) == 1
        last = plane.log.splitlines()[-1]
        assert last.startswith("error: cannot start: ") and sentence in last and "ca.crt" in last
    assert "Traceback" not in plane.log


async def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    first = Plane(tmp_path / "first", ("--controllers", "none"))
    async with running(first):
        second = Plane(tmp_path / "second", ("--controllers", "none"), port=first.port)
        second.start()
        assert await ended(second) == 1
        last = second.log.splitlines()[-1]
        assert last.startswith(
            f"error: cannot start: port {first.port}, which the API server (--port) needs, is taken by "
        )
        assert "Traceback" not in second.log


async def ended(plane: Plane) -> int:
    deadline = time.monotonic() + 30
    while (code := plane.exited()) is None:
        assert time.monotonic() < deadline, "it does not end"
        await asyncio.sleep(0.05)
    return code


def test_a_certificate_of_a_subject_ends_when_told() -> None:
    authority = Authority.create()
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    pair = ending_at(authority, authority.issue(Subject("x", hosts=("x",))), end)
    assert load_certificate(pair.certificate).not_valid_after_utc == end


async def seen(look: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await look():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.1)


async def test_keys_and_certificates_are_rotated_while_the_cluster_serves(tmp_path: Path) -> None:
    """By files alone: what was sealed and signed before is good afterwards, also for the next process."""
    plane = Plane(tmp_path / "plane", ("--controllers", "*,-scheduler"))
    pki = plane.directory / "pki"
    accounts, secret = "/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/secrets/s"
    async with running(plane):
        admin = plane.connection()
        body = {"metadata": {"name": "s"}, "stringData": {"k": "kept"}}
        assert (await admin.request("POST", secret.removesuffix("/s"), body)).status == 201
        await admin.request("POST", accounts, {"metadata": {"name": "robot"}})
        made = await admin.request("POST", f"{accounts}/robot/token", {"spec": {"expirationSeconds": 3600}})
        robot = Connection(plane.port, plane.context(), made.json()["status"]["token"], 30.0)
        assert (await robot.request("GET", "/api/v1/nodes")).status == 403, "known, but may nothing"
        served = ssl.get_server_certificate(("127.0.0.1", plane.port))
        sealing = (pki / "encryption.key").read_bytes()
        told = [rotate(plane.directory, what) for what in ("apiserver", "admin", "sa-key", "encryption-key")]
        assert "believed until" in told[2] and "sealed anew" in told[3]
        with pytest.raises(PkiError, match="still being sealed anew"):
            rotate(plane.directory, "encryption-key")

        async def serves_another() -> bool:
            return ssl.get_server_certificate(("127.0.0.1", plane.port)) != served

        async def sealed() -> bool:
            return "Secrets are sealed with the present key" in plane.log

        await seen(serves_another)
        await seen(sealed)
        assert (await admin.request("GET", secret)).status == 200
        assert (await robot.request("GET", "/api/v1/nodes")).status == 403, "the former key's tokens are believed"
        assert len((await admin.request("GET", "/openid/v1/jwks")).json()["keys"]) == 2
        fresh = await admin.request("POST", f"{accounts}/robot/token", {"spec": {"expirationSeconds": 3600}})
        newer = Connection(plane.port, plane.context(), fresh.json()["status"]["token"], 30.0)
        assert (await newer.request("GET", "/api/v1/nodes")).status == 403
        shown = {one.name for one in held(plane.directory)}
        assert {"ca", "apiserver", "sa-key", "sa-key, former", "encryption-key, former", "admin-token"} <= shown
    assert (pki / ENCRYPTION_OLD).read_bytes() == sealing != (pki / "encryption.key").read_bytes()
    (pki / ENCRYPTION_OLD).unlink()
    (next(pki.glob("sa.pub.*"))).unlink()
    async with running(plane):
        admin = plane.connection()
        answer = await admin.request("GET", secret)
        assert answer.status == 200, (answer.body, plane.log[-3000:])
        assert base64.b64decode(answer.json()["data"]["k"]) == b"kept", "nothing is sealed with the former key any more"
        gone = Connection(plane.port, plane.context(), made.json()["status"]["token"], 30.0)
        assert (await gone.request("GET", "/api/v1/nodes")).status == 401
