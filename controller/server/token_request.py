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

from api.errors import BadRequest, FieldError, Forbidden, conflict, invalid, invalid_object, not_found
from api.kinds import Kind
from api.objects import Object, format_time, name_of, uid_of
from controller.pki.tokens import Bound, Claims
from controller.registry.ground import part_of
from controller.registry.intake import settle_namespace, take_in
from controller.registry.types import Target
from controller.server.authorization import Attributes, forbidden_resource
from controller.server.call import Call, Services, existing
from controller.server.reply import Answer, reply_object
from controller.server.write import decoded, request_of
from controller.store.types import Key

GROUP = "authentication.k8s.io"
KIND = Kind(GROUP, "v1", "TokenRequest", "tokenrequests", verbs=())
DEFAULT_SECONDS = 3600
MIN_SECONDS = 600
MAX_SECONDS = 1 << 32
_OTHER_UID = (
    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted "
    "and then recreated"
)
_BOUND_PLURALS = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


async def create_token(services: Services, call: Call) -> Answer:
    request = request_of(call, "CreateOptions")
    obj = take_in(request, KIND, await decoded(call, KIND, request))
    settle_namespace(Target(call.kind, call.namespace), obj)
    account = (await existing(services, call)).parse()
    if call.user.node:
        await _restrict_node(services, call, obj.get("spec") or {})
    target = Target(call.kind, call.namespace, call.target.name, "token")
    attributes = part_of(request, target, KIND, obj, whole=account)
    await services.registry.admit(attributes)
    spec = _completed(services, obj, name_of(account))
    seconds, audiences, reference = spec["expirationSeconds"], spec["audiences"], spec.get("boundObjectRef")
    await services.registry.approve(attributes)
    bound = await _bound(services, call, reference)
    now = int(time.time())
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


def _completed(services: Services, obj: Object, account: str) -> Object:
    """The spec of a request, with everything that may be left out. Raises Invalid."""
    metadata = obj.setdefault("metadata", {})
    if metadata.setdefault("name", account) != account:
        error = invalid("metadata.name", metadata["name"], "must match the service account name if specified")
        raise invalid_object(GROUP, "TokenRequest", account, [error])
    spec: Object = obj.setdefault("spec", {})
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = DEFAULT_SECONDS
    spec["audiences"] = spec.get("audiences") or [services.signer.issuer]
    obj.pop("status", None)
    errors = _expiration_errors(spec["expirationSeconds"])
    if errors:
        raise invalid_object(GROUP, "TokenRequest", "", errors)
    return spec


def _expiration_errors(seconds: int) -> list[FieldError]:
    field = "spec.expirationSeconds"
    if seconds < MIN_SECONDS:
        return [invalid(field, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > MAX_SECONDS:
        return [invalid(field, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


async def _bound(services: Services, call: Call, reference: Mapping[str, Any] | None) -> dict[str, Bound]:
    """The claims of the object a token is bound to (for a pod also its node). Raises NotFound, Conflict, Forbidden."""
    if reference is None:
        return {}
    kind, name, version = (reference.get(field) or "" for field in ("kind", "name", "apiVersion"))
    if version != "v1" or kind not in _BOUND_PLURALS:
        group, _, shown = version.rpartition("/")
        raise BadRequest(f"cannot bind token to object of type {group}/{shown}, Kind={kind}")
    namespace = "" if kind == "Node" else call.namespace
    plural = _BOUND_PLURALS[kind]
    record = await services.store.read(Key("", plural, namespace, name))
    if record is None:
        raise not_found("", plural, name)
    target = record.parse()
    wanted = reference.get("uid") or ""
    if wanted and wanted != uid_of(target):
        raise conflict("", kind, name, _OTHER_UID.format(wanted))
    claims = {kind.lower(): Bound(name, uid_of(target))}
    if kind == "Pod":
        claims |= await _pod_claims(services, call, target)
    return claims


async def _pod_claims(services: Services, call: Call, pod: Mapping[str, Any]) -> dict[str, Bound]:
    spec = pod.get("spec") or {}
    if (spec.get("serviceAccountName") or "default") != call.target.name:
        what = f'cannot bind token for serviceaccount "{call.target.name}" to pod running with different serviceaccount'
        raise BadRequest(f"{what} name.")
    node = spec.get("nodeName") or ""
    if not node:
        return {}
    record = await services.store.read(Key("", "nodes", "", node))
    return {"node": Bound(node, uid_of(record.parse()) if record else "")}


async def _restrict_node(services: Services, call: Call, spec: Mapping[str, Any]) -> None:
    """A node's token is bound to a pod of its own, and for an audience the pod asks for (or RBAC allows). Raises
    Forbidden, NotFound. Rules from the admission plugin NodeRestriction."""
    reference = spec.get("boundObjectRef") or {}
    name, uid = reference.get("name") or "", reference.get("uid") or ""
    if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not name:
        raise _refuse(call, "node requested token not bound to a pod")
    if not uid:
        raise _refuse(call, "node requested token with a pod binding without a uid")
    record = await services.store.read(Key("", "pods", call.namespace, name))
    if record is None:
        raise not_found("", "pods", name)
    pod = record.parse()
    if uid_of(pod) != uid:
        raise _refuse(call, _OTHER_UID.format(uid))
    if pod["spec"].get("nodeName") != call.user.node:
        raise _refuse(call, "node requested token bound to a pod scheduled on a different node")
    audiences = spec.get("audiences") or []
    if len(audiences) > 1:
        raise _refuse(call, "node may only request 0 or 1 audiences")
    audience = audiences[0] if audiences else ""
    verb = "request-serviceaccounts-token-audience"
    asked = Attributes(call.user, verb, "", audience, namespace=call.namespace, name=call.target.name)
    if audience not in _audiences_of(pod) and not services.authorizer.authorize(asked).allowed:
        raise _refuse(call, f'audience "{audience}" not found in pod spec volume')


def _audiences_of(pod: Mapping[str, Any]) -> set[str]:
    """The audiences of a pod's projected tokens; "" is the API server."""
    sources = (
        source
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    )
    tokens = (source["serviceAccountToken"] for source in sources if source.get("serviceAccountToken"))
    return {token.get("audience") or "" for token in tokens}


def _refuse(call: Call, why: str) -> Forbidden:
    return forbidden_resource("", "serviceaccounts", call.target.name, why)
