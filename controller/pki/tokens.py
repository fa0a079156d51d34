"""Service-account tokens: ES256 JWTs with Kubernetes' private claims, and the JWKS that lets others verify them.

Called by server/tokens.py (TokenRequest) and server/authentication.py. Imports only pyjwt and `cryptography`.
Invariant: signature, issuer and expiry are checked here; whether the bound objects still exist, by the caller.
Claims: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ (bound tokens).
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from controller.pki.authority import load_key

CLOCK_SKEW_SECONDS = 5


class TokenRefused(Exception):
    """Not a token of ours, expired, or for another audience."""


@dataclass(frozen=True)
class Bound:
    """An object a token dies with: its kind's claim name (`pod`, `node`, `secret`), name and uid."""

    name: str
    uid: str


@dataclass(frozen=True)
class Claims:
    """What a token says. Times are seconds since the epoch."""

    namespace: str
    service_account: Bound
    audiences: tuple[str, ...]
    issued: int
    expires: int
    bound: Mapping[str, Bound] = field(default_factory=dict)
    token_id: str = ""


class TokenSigner:
    """Signs and verifies with one P-256 key; `key_id` names it in headers and JWKS."""

    def __init__(self, key_pem: bytes, issuer: str) -> None:
        self._key = load_key(key_pem)
        self._public = self._key.public_key()
        self.issuer = issuer
        der = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.key_id = _b64(hashlib.sha256(der).digest())

    def sign(self, claims: Claims) -> str:
        private: dict[str, Any] = {
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.service_account.name, "uid": claims.service_account.uid},
        }
        for claim, target in claims.bound.items():
            private[claim] = {"name": target.name, "uid": target.uid}
        payload = {
            "aud": list(claims.audiences),
            "exp": claims.expires,
            "iat": claims.issued,
            "nbf": claims.issued,
            "iss": self.issuer,
            "jti": claims.token_id or str(uuid.uuid4()),
            "kubernetes.io": private,
            "sub": f"system:serviceaccount:{claims.namespace}:{claims.service_account.name}",
        }
        return jwt.encode(payload, self._key, algorithm="ES256", headers={"kid": self.key_id})

    def verify(self, token: str, audiences: Sequence[str]) -> Claims:
        """The claims of a valid token meant for one of `audiences`. Raises TokenRefused.

        Expired tokens, tokens of another key or issuer and anything that is no JWT are refused alike. A token from the
        future is taken: only we could sign it, so our own clock was set back.
        """
        try:
            payload = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                issuer=self.issuer,
                audience=list(audiences),
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iat", "aud", "iss", "sub"], "verify_nbf": False, "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            raise TokenRefused(str(error)) from error
        return _claims(payload)

    def jwks(self) -> dict[str, Any]:
        numbers = self._public.public_numbers()
        size = (self._public.curve.key_size + 7) // 8
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "EC",
                    "kid": self.key_id,
                    "crv": "P-256",
                    "alg": "ES256",
                    "x": _b64(numbers.x.to_bytes(size, "big")),
                    "y": _b64(numbers.y.to_bytes(size, "big")),
                }
            ]
        }


def looks_like_jwt(token: str) -> bool:
    return token.count(".") == 2


def _claims(payload: Mapping[str, Any]) -> Claims:
    private = payload.get("kubernetes.io")
    if not isinstance(private, Mapping) or not isinstance(private.get("serviceaccount"), Mapping):
        raise TokenRefused("the token has no service account")
    audiences = payload["aud"]
    return Claims(
        namespace=str(private.get("namespace", "")),
        service_account=_bound(private["serviceaccount"]),
        audiences=(audiences,) if isinstance(audiences, str) else tuple(audiences),
        issued=int(payload["iat"]),
        expires=int(payload["exp"]),
        bound={claim: _bound(private[claim]) for claim in ("pod", "node", "secret") if claim in private},
        token_id=str(payload.get("jti", "")),
    )


def _bound(claim: Mapping[str, Any]) -> Bound:
    return Bound(str(claim.get("name", "")), str(claim.get("uid", "")))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
