"""Reviews: questions about identity and rights, asked by POST and never stored.

Called by app.py through routes.py. Answers come from the same authenticator and authorizer that judge requests, so a
review never says what a request would not meet.
Rules: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/ and .../authentication-resources/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from api.errors import BadRequest, FieldError, Unauthorized, forbidden, invalid, invalid_object, required
from api.objects import Object, format_time
from api.selectors import FieldSelector, FieldTerm, parse_field_selector
from controller.admission.types import User
from controller.registry.intake import settle_namespace, take_in
from controller.registry.types import Target
from controller.server.authorization import Attributes
from controller.server.call import Call, Services
from controller.server.reply import Answer, reply_object
from controller.server.write import decoded, request_of

GROUP = "authorization.k8s.io"
_RESOURCE_FIELDS = ("verbs", "apiGroups", "resources", "resourceNames")
_URL_FIELDS = ("verbs", "nonResourceURLs")


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
        user, meant_for = services.authenticator.review(token, audiences)
    except Unauthorized:
        return _answer(call, obj, {"user": {}, "error": "invalid bearer token"})
    return _answer(call, obj, {"authenticated": True, "user": user_info(user), "audiences": meant_for})


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
    _require_valid(_attribute_errors(spec) + _metadata_errors(obj))
    return _answer(call, obj, _decide(services, call.user, spec))


async def review_access(services: Services, call: Call) -> Answer:
    obj = await _reviewed(call)
    spec = obj.get("spec") or {}
    _require_valid(_attribute_errors(spec) + _subject_errors(spec) + _metadata_errors(obj))
    return _answer(call, obj, _decide(services, _subject(spec), spec))


async def review_local_access(services: Services, call: Call) -> Answer:
    obj = await _reviewed(call)
    spec = obj.get("spec") or {}
    settle_namespace(Target(call.kind, call.namespace), obj)
    errors = _attribute_errors(spec) + _subject_errors(spec) + _metadata_errors(obj, " except for namespace")
    wanted, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    asked = (wanted or {}).get("namespace") or ""
    if wanted is not None and asked != call.namespace:
        errors.append(invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace"))
    if path is not None:
        errors.append(invalid("spec.nonResourceAttributes", path, "disallowed on this kind of request"))
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
    selectors = ((name, (wanted or {}).get(name)) for name in ("fieldSelector", "labelSelector"))
    return [error for name, selector in selectors if selector is not None for error in _selector_errors(name, selector)]


def _selector_errors(name: str, selector: Mapping[str, Any]) -> Iterator[FieldError]:
    path = f"spec.resourceAttributes.{name}"
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    if raw and requirements:
        yield invalid(f"{path}.rawSelector", raw, "may not specified at the same time as requirements")
    elif not raw and not requirements:
        yield required(f"{path}.requirements", f"when {path} is specified, requirements or rawSelector is required")
    for index, requirement in enumerate(requirements):
        operator, values = requirement.get("operator") or "", requirement.get("values") or []
        where = f"{path}.requirements[{index}]"
        if not requirement.get("key"):
            yield required(f"{where}.key")
        if operator in ("In", "NotIn") and not values:
            yield required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")


def _metadata_errors(obj: Object, but: str = "") -> list[FieldError]:
    """A review has no name: it is answered and forgotten."""
    metadata = obj.get("metadata") or {}
    given = {name: value for name, value in metadata.items() if value and name != "managedFields"}
    if but:
        given.pop("namespace", None)
    return [invalid("metadata", metadata, f"must be empty{but}")] if given else []


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
        fields=_fields_of(wanted.get("fieldSelector") or {}),
    )


def _fields_of(selector: Mapping[str, Any]) -> FieldSelector | None:
    """What is asked about is narrowed by this; what cannot be understood narrows nothing."""
    if text := selector.get("rawSelector"):
        try:
            return parse_field_selector(text)
        except ValueError:
            return None
    terms = []
    for each in selector.get("requirements") or ():
        values = each.get("values") or []
        if each.get("operator") in ("In", "NotIn") and len(values) == 1:
            terms.append(FieldTerm(each.get("key") or "", values[0], each["operator"] == "NotIn"))
    return FieldSelector(tuple(terms)) if terms else None


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
    held = services.rbac.held_by(call.user, namespace)
    obj["spec"] = {}
    rules = [grant.wire for grant in held.grants]
    status: Object = {
        "resourceRules": [_only(rule, _RESOURCE_FIELDS) for rule in rules if rule.get("resources")],
        "nonResourceRules": [_only(rule, _URL_FIELDS) for rule in rules if rule.get("nonResourceURLs")],
        "incomplete": bool(call.user.node or held.missing),
    }
    faults = ["node authorizer does not support user rule resolution"] if call.user.node else []
    if faults := [*faults, *held.missing]:
        status["evaluationError"] = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    return _answer(call, obj, status)


def _only(rule: Mapping[str, Any], fields: tuple[str, ...]) -> Object:
    return {field: rule[field] for field in fields if rule.get(field)}
