"""The rotation of the CA as files: each step is whole or not done, and the former CA goes by itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from controller.pki.authority import Authority, is_issued_by, key_pem, load_certificate, load_certificates
from controller.pki.ca_rotation import Phase, begin, finish, state, switch
from controller.pki.files import CA_NEXT_KEY, PkiError, Serving, ensure_pki, former_cas, load_authority, write_secret
from controller.pki.rotation import held

SERVING = Serving(("127.0.0.1", "localhost"), 6443)
LEAVES = ("apiserver", "admin", "agent-client")


def signed_by_signing(directory: Path) -> bool:
    signing = load_authority(directory).certificate
    return all(is_issued_by(load_certificate((directory / f"{name}.crt").read_bytes()), signing) for name in LEAVES)


def names(data_dir: Path) -> list[str]:
    return [one.name for one in held(data_dir) if one.name.startswith("ca")]


def test_a_rotation_goes_from_one_ca_to_the_next_by_way_of_both(tmp_path: Path) -> None:
    old = ensure_pki(tmp_path, SERVING)
    directory = old.directory
    begin(directory)
    both = ensure_pki(tmp_path, SERVING)
    assert state(directory).phase is Phase.BOTH_BELIEVED and names(tmp_path) == ["ca", "ca, next"]
    assert both.authority.pem == old.authority.pem and both.bundle.startswith(old.authority.pem)
    assert len(both.ca_names) == 2 and both.digest != old.digest
    switch(directory)
    new = ensure_pki(tmp_path, SERVING)
    assert state(directory).phase is Phase.NEW_SIGNS and names(tmp_path) == ["ca", "ca, former"]
    assert signed_by_signing(directory) and new.authority.pem != old.authority.pem
    assert new.bundle == new.authority.pem + old.authority.pem
    assert new.digest != both.digest, "the order says who signs"
    finish(directory)
    last = ensure_pki(tmp_path, SERVING)
    assert state(directory).phase is Phase.STEADY and names(tmp_path) == ["ca"]
    assert last.bundle == new.authority.pem and signed_by_signing(directory)


def test_a_former_ca_is_dropped_when_its_certificates_have_expired(tmp_path: Path) -> None:
    directory = ensure_pki(tmp_path, SERVING).directory
    begin(directory)
    switch(directory)
    ((until, path),) = former_cas(directory)
    assert until > time.time() + 365 * 24 * 3600
    path.rename(directory / f"ca.former.{int(time.time()) - 1}")
    pki = ensure_pki(tmp_path, SERVING)
    assert pki.bundle == pki.authority.pem and state(directory).phase is Phase.STEADY


def test_a_rotation_that_is_cut_short_is_before_or_after_the_step(tmp_path: Path) -> None:
    directory = ensure_pki(tmp_path, SERVING).directory
    write_secret(directory / CA_NEXT_KEY, key_pem(Authority.create("never published").key))
    assert state(directory).phase is Phase.STEADY
    begin(directory)
    next_key = (directory / CA_NEXT_KEY).read_bytes()
    old, new = load_certificates((directory / "ca.crt").read_bytes())
    write_secret(directory / "ca.former.4102444800", load_authority(directory).pem)
    assert state(directory).phase is Phase.BOTH_BELIEVED
    os.replace(directory / CA_NEXT_KEY, directory / "ca.key")
    write_secret(directory / CA_NEXT_KEY, next_key)  # not yet taken away
    assert ensure_pki(tmp_path, SERVING).authority.certificate == new
    assert state(directory).phase is Phase.NEW_SIGNS and signed_by_signing(directory)
    finish(directory)
    assert load_certificates((directory / "ca.crt").read_bytes()) == [new] != [old]


def test_a_key_of_no_certificate_is_told(tmp_path: Path) -> None:
    directory = ensure_pki(tmp_path, SERVING).directory
    write_secret(directory / "ca.key", key_pem(Authority.create().key))
    with pytest.raises(PkiError, match=r"ca\.key belongs to no certificate in"):
        ensure_pki(tmp_path, SERVING)
