"""Reviews: questions about identity and rights, asked by POST and never stored.

Called by app.py through routes.py. Answers come from the same authenticator and authorizer that judge requests, so a
review never says what a request would not meet.
Rules: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/ and .../authentication-resources/
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from api.errors import BadRequest, FieldError, Unauthorized, invalid, invalid_object
from api.objects import Object, format_time
from controller.admission.types import User
from controller.registry.intake import take_in
from controller.server.authorization import Attributes
from controller.server.call import Call, Services
from controller.server.rbac import Rule
from controller.server.reply import Answer, reply_object
from controller.server.write import decoded, request_of

GROUP = "authorization.k8s.io"


async def _reviewed(call: Call) -> Object:
    """The body, checked against its schema."""
    request = request_of(call, "CreateOptions")
    obj = await decoded(call, call.kind, request)
    return take_in(request, call.kind, obj)


def _answer(call: Call, obj: Object, status: Object) -> Answer:
    obj.setdefault("metadata", {})
    obj.setdefault("spec", {})
    obj["status"] = status
    return reply_object(obj, status=201, form=call.form)


async def review_token(services: Services, call: Call) -> Answer:
    obj = await _reviewed(call)
    spec = obj.get("spec") or {}
    token = spec.get("token") or ""
    if not token:
        raise BadRequest("token is required for TokenReview in authentication")
    audiences = spec.get("audiences") or []
    try:
        user = services.authenticator.user_of_token(token, audiences)
    except Unauthorized:
        return _answer(call, obj, {"user": {}, "error": "invalid bearer token"})
    status: Object = {"authenticated": True, "user": user_info(user)}
    status["audiences"] = audiences or [services.signer.issuer]
    return _answer(call, obj, status)


def user_info(user: User) -> Object:
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


async def review_self(services: Services, call: Call) -> Answer:
    """Who am I."""
    del services
    obj = await _reviewed(call)
    obj["metadata"] = {"creationTimestamp": format_time(datetime.now(UTC))}
    obj.pop("spec", None)
    obj["status"] = {"userInfo": user_info(call.user)}
    return reply_object(obj, status=201, form=call.form)


async def review_own_access(services: Services, call: Call) -> Answer:
    obj = await _reviewed(call)
    spec = obj.get("spec") or {}
    _require_valid(_attribute_errors(spec))
    return _answer(call, obj, _decide(services, call.user, spec))


async def review_access(services: Services, call: Call) -> Answer:
    obj = await _reviewed(call)
    spec = obj.get("spec") or {}
    _require_valid(_attribute_errors(spec) + _subject_errors(spec))
    return _answer(call, obj, _decide(services, _subject(spec), spec))


async def review_local_access(services: Services, call: Call) -> Answer:
    obj = await _reviewed(call)
    spec = obj.get("spec") or {}
    errors = _attribute_errors(spec) + _subject_errors(spec)
    if spec.get("nonResourceAttributes"):
        errors.append(invalid("spec.nonResourceAttributes", None, "disallowed on this kind of request"))
    asked = (spec.get("resourceAttributes") or {}).get("namespace") or ""
    if spec.get("resourceAttributes") and asked != call.namespace:
        errors.append(
            invalid("spec.resourceAttributes.namespace", asked, f"must match metadata.namespace: {call.namespace}")
        )
    _require_valid(errors)
    return _answer(call, obj, _decide(services, _subject(spec), spec))


def _attribute_errors(spec: Mapping[str, Any]) -> list[FieldError]:
    wanted, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
    if wanted is None and path is None:
        return [invalid("spec.resourceAttributes", None, detail)]
    if wanted is not None and path is not None:
        return [
            invalid("spec.nonResourceAttributes", path, "cannot be specified in combination with resourceAttributes")
        ]
    return []


def _subject_errors(spec: Mapping[str, Any]) -> list[FieldError]:
    if spec.get("user") or spec.get("groups"):
        return []
    return [invalid("spec.user", "", "at least one of user or group must be specified")]


def _require_valid(errors: list[FieldError]) -> None:
    if errors:
        raise invalid_object(GROUP, "", "", errors)


def _subject(spec: Mapping[str, Any]) -> User:
    extra = {key: tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    return User(spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()), extra)


def attributes_of(user: User, spec: Mapping[str, Any]) -> Attributes:
    """What a review's spec asks about."""
    path = spec.get("nonResourceAttributes")
    if path is not None:
        return Attributes(user, path.get("verb") or "", path=path.get("path") or "/")
    wanted = spec.get("resourceAttributes") or {}
    resource = wanted.get("resource") or ""
    return Attributes(
        user,
        wanted.get("verb") or "",
        wanted.get("group") or "",
        resource,
        wanted.get("subresource") or "",
        wanted.get("namespace") or "",
        wanted.get("name") or "",
    )


def _decide(services: Services, user: User, spec: Mapping[str, Any]) -> Object:
    decision = services.authorizer.authorize(attributes_of(user, spec))
    status: Object = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return status


async def review_own_rules(services: Services, call: Call) -> Answer:
    """Everything I may do in a namespace."""
    obj = await _reviewed(call)
    namespace = (obj.get("spec") or {}).get("namespace") or ""
    if not namespace:
        raise BadRequest("no namespace on request")
    rules = services.rbac.rules_of(call.user, namespace)
    obj["spec"] = {}
    status = {
        "resourceRules": [_resource_rule(rule) for rule in rules if not rule.urls],
        "nonResourceRules": [
            {"verbs": sorted(rule.verbs), "nonResourceURLs": sorted(rule.urls)} for rule in rules if rule.urls
        ],
        "incomplete": bool(call.user.node),
    }
    return _answer(call, obj, status)


def _resource_rule(rule: Rule) -> Object:
    wire: Object = {
        "verbs": sorted(rule.verbs),
        "apiGroups": sorted(rule.groups),
        "resources": sorted(rule.resources),
    }
    if rule.names:
        wire["resourceNames"] = sorted(rule.names)
    return wire
