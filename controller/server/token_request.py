"""POST serviceaccounts/NAME/token: a short-lived token for a service account, bound to what it is used by.

Called by app.py through routes.py. Invariant: a token names the uid of its account and of the object it is bound to, as
they are now; a node gets tokens only bound to a pod of its own that runs under that account.
Rules: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from api.errors import FieldError, Forbidden, conflict, invalid, invalid_object, not_found, not_supported
from api.kinds import Kind
from api.objects import Object, format_time, name_of, uid_of
from controller.pki.tokens import Bound, Claims
from controller.registry.intake import take_in
from controller.server.authorization import forbidden_resource
from controller.server.call import Call, Services, existing
from controller.server.reply import Answer, reply_object
from controller.server.write import decoded, request_of
from controller.store.types import Key

GROUP = "authentication.k8s.io"
KIND = Kind(GROUP, "v1", "TokenRequest", "tokenrequests", verbs=())
DEFAULT_SECONDS = 3600
MIN_SECONDS = 600
MAX_SECONDS = 1 << 32
_BOUND_PLURALS = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


async def create_token(services: Services, call: Call) -> Answer:
    request = request_of(call, "CreateOptions")
    obj = take_in(request, KIND, await decoded(call, KIND, request))
    account = (await existing(services, call)).parse()
    spec: Object = obj.get("spec") or {}
    seconds = spec.get("expirationSeconds")
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    reference = spec.get("boundObjectRef")
    errors = _expiration_errors(seconds) + _reference_errors(reference)
    if errors:
        raise invalid_object(GROUP, "TokenRequest", "", errors)
    bound = await _bound(services, call, reference)
    now = int(time.time())
    audiences = list(spec.get("audiences") or []) or [services.signer.issuer]
    claims = Claims(
        namespace=call.namespace,
        service_account=Bound(name_of(account), uid_of(account)),
        audiences=tuple(audiences),
        issued=now,
        expires=now + seconds,
        bound=bound,
    )
    return reply_object(
        {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {
                "name": name_of(account),
                "namespace": call.namespace,
                "uid": uid_of(account),
                "creationTimestamp": format_time(datetime.fromtimestamp(now, UTC)),
            },
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference},
            "status": {
                "token": services.signer.sign(claims),
                "expirationTimestamp": format_time(datetime.fromtimestamp(claims.expires, UTC)),
            },
        },
        status=201,
        form=call.form,
    )


def _expiration_errors(seconds: int) -> list[FieldError]:
    field = "spec.expirationSeconds"
    if seconds < MIN_SECONDS:
        return [invalid(field, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > MAX_SECONDS:
        return [invalid(field, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


def _reference_errors(reference: Mapping[str, Any] | None) -> list[FieldError]:
    if reference is None or reference.get("kind") in _BOUND_PLURALS:
        return []
    return [not_supported("spec.boundObjectRef.kind", reference.get("kind") or "", _BOUND_PLURALS)]


async def _bound(services: Services, call: Call, reference: Mapping[str, Any] | None) -> dict[str, Bound]:
    """The claims of the object a token is bound to (for a pod also its node). Raises NotFound, Conflict, Forbidden."""
    if reference is None:
        if call.user.node:
            raise _refuse(call, "node requested token not bound to a pod")
        return {}
    kind, name = reference["kind"], reference.get("name") or ""
    namespace = "" if kind == "Node" else call.namespace
    plural = _BOUND_PLURALS[kind]
    record = await services.store.read(Key("", plural, namespace, name))
    if record is None:
        raise not_found("", plural, name)
    target = record.parse()
    wanted = reference.get("uid") or ""
    if wanted and wanted != uid_of(target):
        why = f"the UID in the bound object reference ({wanted}) does not match the UID in record ({uid_of(target)}). "
        raise conflict("", kind, name, why + "The object might have been deleted and then recreated")
    claims = {kind.lower(): Bound(name, uid_of(target))}
    if kind == "Pod":
        claims |= await _pod_claims(services, call, target)
    elif call.user.node:
        raise _refuse(call, "node requested token not bound to a pod")
    return claims


async def _pod_claims(services: Services, call: Call, pod: Mapping[str, Any]) -> dict[str, Bound]:
    spec = pod.get("spec") or {}
    account = spec.get("serviceAccountName") or "default"
    if account != call.target.name:
        raise invalid_object(
            GROUP,
            "TokenRequest",
            "",
            [invalid("spec.boundObjectRef.name", name_of(pod), f"the pod runs under service account {account}")],
        )
    node = spec.get("nodeName") or ""
    if call.user.node and node != call.user.node:
        raise _refuse(call, "node requested token bound to a pod scheduled on a different node")
    if not node:
        return {}
    record = await services.store.read(Key("", "nodes", "", node))
    return {"node": Bound(node, uid_of(record.parse()) if record else "")}


def _refuse(call: Call, why: str) -> Forbidden:
    return forbidden_resource("", "serviceaccounts", call.target.name, why)
