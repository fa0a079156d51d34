"""Seals values that must not lie readable on the disk of etcd: Secrets, by AES-256-GCM.

Used by values.py. The key's name is authenticated along, so that a sealed value cannot be moved to another key.
Layout: 12 random bytes, then ciphertext and tag. Pure but for the random bytes.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_SEALED = frozenset({("", "secrets")})


class Unsealable(Exception):
    """Sealed with another key, moved to another name, or damaged."""


class Cipher:
    """Seals with one key; unseals what former ones sealed, too."""

    def __init__(self, key: bytes, former: bytes | None = None) -> None:
        if {len(each) for each in (key, former or key)} != {32}:
            raise ValueError("the encryption key must have 32 bytes")
        self._aead = AESGCM(key)
        self._former = [AESGCM(former)] if former else []

    def use(self, key: bytes) -> None:
        """Seals with another key from now on."""
        self._former.insert(0, self._aead)
        self._aead = AESGCM(key)

    def seal(self, name: bytes, plain: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, name)

    def unseal(self, name: bytes, sealed: bytes) -> bytes:
        """Raises Unsealable."""
        for aead in (self._aead, *self._former):
            try:
                return aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name)
            except (InvalidTag, ValueError):
                continue
        raise Unsealable("the value was not sealed with this key for this name")


def is_sealed(resource: tuple[str, str]) -> bool:
    """Whether objects of this resource are sealed in etcd."""
    return resource in _SEALED
