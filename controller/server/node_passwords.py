"""Who joined first under a name keeps it: node passwords, as k3s has them.

Called by join.py. An agent makes a password when it first joins and shows it at each later join; its hash lies in the
Secret kube-system/NAME.node-password.wherry. Invariant: with a join token alone nobody takes over the name of a node,
alive or dead, and with it the Secrets of its pods; an administrator who deletes the Node frees its name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

from api import kinds
from api.errors import BadRequest, Conflict
from api.objects import Object, parse_time
from controller.admission.types import Request, User
from controller.server.call import Services
from controller.store.types import Key

NAMESPACE, SECRET_TYPE = "kube-system", "wherry/node-password"
SHORTEST, LONGEST = 16, 256
REGISTERING = timedelta(minutes=10)
"""How long who has joined may take to register its Node; until then its name is kept for it."""
SECRETS = kinds.by_resource("", "secrets")
_SYSTEM = User("system:apiserver", groups=("system:masters",))


def secret_name(node: str) -> str:
    return f"{node}.node-password.wherry"


async def claim_name(services: Services, node: str, password: Any) -> None:
    """Lets the holder of a name's password have it, and whoever is first. Raises BadRequest, Conflict."""
    if not isinstance(password, str) or not SHORTEST <= len(password) <= LONGEST:
        raise BadRequest(f"password: must be a string of {SHORTEST} to {LONGEST} characters that this node keeps")
    record = await services.store.read(Key("", "nodes", "", node))
    kept = await services.store.read(Key("", "secrets", NAMESPACE, secret_name(node)))
    secret = kept.parse() if kept is not None else None
    if secret is not None and _opens(secret, password):
        return
    if record is not None or (secret is not None and _is_fresh(secret, services.authenticator.revocations.after(node))):
        raise Conflict(
            f'node "{node}" belongs to a machine that joined before, and this one does not have its password '
            f"(DATA/pki/node-password): join under another name, or delete the node first (kubectl delete node {node})",
            {"name": node, "kind": "nodes"},
        )
    request = Request(_SYSTEM, field_manager="wherry-join", trusted=True)
    if secret is not None:
        await services.registry.delete(request, SECRETS, NAMESPACE, secret_name(node))
    await services.registry.create(request, SECRETS, NAMESPACE, _secret(node, password))


def _secret(node: str, password: str) -> Object:
    data = base64.b64encode(_digest(node, password).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(node), "namespace": NAMESPACE},
        "type": SECRET_TYPE,
        "data": {"sha256": data},
    }


def _opens(secret: Object, password: str) -> bool:
    known = base64.b64decode((secret.get("data") or {}).get("sha256") or "")
    node = secret["metadata"]["name"].removesuffix(secret_name(""))
    return hmac.compare_digest(known, _digest(node, password).encode())


def _digest(node: str, password: str) -> str:
    """Passwords are long and random, so that a plain hash is none to be guessed."""
    return hashlib.sha256(f"{node}:{password}".encode()).hexdigest()


def _is_fresh(secret: Object, deleted_ms: int) -> bool:
    """Whether who set it may be about to register its Node: it was set a moment ago, and after the name was deleted."""
    made = parse_time(secret["metadata"]["creationTimestamp"])
    return datetime.now(UTC) - made < REGISTERING and made.timestamp() * 1000 > deleted_ms
