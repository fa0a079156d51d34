"""Join tokens: `wherry1.<sha256 of the CA>.<id>.<secret>`, which pin the CA and let a node ask for a certificate.

Called by server/join.py, server/authentication.py and the CLI. Pure. Invariant: stored as Kubernetes stores bootstrap
tokens (Secret kube-system/bootstrap-token-ID, type bootstrap.kubernetes.io/token), so kubeadm's documentation holds:
https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.objects import Object, format_time, parse_time

PREFIX = "wherry1"
NAMESPACE = "kube-system"
SECRET_TYPE = "bootstrap.kubernetes.io/token"
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
DEFAULT_GROUP = "system:bootstrappers"
_ALPHABET = string.ascii_lowercase + string.digits
_BOOTSTRAP = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_JOIN = re.compile(rf"{PREFIX}\.([0-9a-f]{{64}})\.([a-z0-9]{{6}}\.[a-z0-9]{{16}})")


@dataclass(frozen=True)
class BootstrapToken:
    """Kubernetes' half of a join token: `id.secret`, the bearer token itself."""

    token_id: str
    secret: str

    def __str__(self) -> str:
        return f"{self.token_id}.{self.secret}"


def new_bootstrap_token() -> BootstrapToken:
    return BootstrapToken(_random(6), _random(16))


def parse_bootstrap_token(text: str) -> BootstrapToken | None:
    match = _BOOTSTRAP.fullmatch(text)
    return BootstrapToken(match[1], match[2]) if match else None


def render_join_token(ca_sha256: str, token: BootstrapToken) -> str:
    return f"{PREFIX}.{ca_sha256}.{token}"


def parse_join_token(text: str) -> tuple[str, str]:
    """(sha256 of the CA in hex, bearer token). Raises ValueError that says what a join token looks like."""
    match = _JOIN.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a join token: it looks like wherry1.<64 hex digits>.<6 characters>.<16 characters>")
    return match[1], match[2]


def secret_name(token: BootstrapToken) -> str:
    return f"bootstrap-token-{token.token_id}"


def render_secret(token: BootstrapToken, expires: datetime, description: str = "") -> Object:
    """The Secret that makes a token valid until `expires`."""
    data = {
        "token-id": token.token_id,
        "token-secret": token.secret,
        "expiration": format_time(expires),
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": f"{DEFAULT_GROUP}:wherry:agents",
    }
    if description:
        data["description"] = description
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(token), "namespace": NAMESPACE},
        "type": SECRET_TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def groups_of(secret: Mapping[str, Any], token: BootstrapToken, now: datetime) -> tuple[str, ...] | None:
    """The groups a presented token has, or None when this Secret does not make it valid (wrong, expired, being deleted,
    not for authentication, or for groups that are none of bootstrap tokens)."""
    data = _decoded(secret)
    if secret.get("type") != SECRET_TYPE or data.get("usage-bootstrap-authentication") != "true":
        return None
    same = hmac.compare_digest(data.get("token-secret", "").encode(), token.secret.encode())
    if not same or data.get("token-id") != token.token_id or secret["metadata"].get("deletionTimestamp"):
        return None
    if expired(data.get("expiration", ""), now):
        return None
    extra = data.get("auth-extra-groups", "")
    groups = extra.split(",") if extra else []
    return (DEFAULT_GROUP, *groups) if all(map(_GROUP.fullmatch, groups)) else None


def expired(expiration: str, now: datetime) -> bool:
    """An absent expiration means never; an unreadable one means expired."""
    if not expiration:
        return False
    try:
        return parse_time(expiration) <= now
    except ValueError:
        return True


def _decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    decoded = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            decoded[key] = base64.b64decode(value, validate=True).decode()
        except (ValueError, TypeError):
            continue
    return decoded


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
