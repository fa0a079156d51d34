"""Service-account tokens: ES256 JWTs with Kubernetes' private claims, and the JWKS that lets others verify them.

Called by server/token_request.py and server/authentication.py. Imports only pyjwt and `cryptography`.
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
from cryptography.hazmat.primitives.asymmetric import ec

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
    """Signs with one P-256 key and verifies with it and former ones; `key_id` names it in headers and JWKS."""

    def __init__(self, key_pem: bytes, issuer: str, older: Sequence[bytes] = ()) -> None:
        self.issuer = issuer
        self.use(key_pem, older)

    def use(self, key_pem: bytes, older: Sequence[bytes] = ()) -> None:
        """`older`: public keys (PEM) that are believed besides."""
        self._key = load_key(key_pem)
        public = [self._key.public_key(), *map(_load_public, older)]
        self._public = {_key_id(each): each for each in public}
        self.key_id = next(iter(self._public))

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
            named = jwt.get_unverified_header(token).get("kid")
            payload = jwt.decode(
                token,
                self._public.get(named or "") or self._public[self.key_id],
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
        return {"keys": [_jwk(name, public) for name, public in self._public.items()]}


def _jwk(key_id: str, public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = public.public_numbers()
    size = (public.curve.key_size + 7) // 8
    return {
        "use": "sig",
        "kty": "EC",
        "kid": key_id,
        "crv": "P-256",
        "alg": "ES256",
        "x": _b64(numbers.x.to_bytes(size, "big")),
        "y": _b64(numbers.y.to_bytes(size, "big")),
    }


def _key_id(public: ec.EllipticCurvePublicKey) -> str:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _b64(hashlib.sha256(der).digest())


def _load_public(pem: bytes) -> ec.EllipticCurvePublicKey:
    public = serialization.load_pem_public_key(pem)
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("the key is not an elliptic-curve key")
    return public


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
