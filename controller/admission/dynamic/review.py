"""AdmissionReview: what a webhook is sent, and what its answer means.

Called by `hooks`. Pure. Wording follows k8s.io/apiserver/pkg/admission/plugin/webhook. Format:
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from api.errors import ApiError, InternalError
from api.kinds import Kind
from api.objects import Object
from controller.admission.attributes import Attributes, Operation
from controller.admission.types import User

VERSIONS = ("v1", "v1beta1")
_OPTIONS = {
    Operation.CREATE: "CreateOptions",
    Operation.UPDATE: "UpdateOptions",
    Operation.DELETE: "DeleteOptions",
}


class Malformed(ValueError):
    """The answer is no valid AdmissionReview; the message says why."""


def request_of(attributes: Attributes) -> Object:
    """The `request` of a review, and the variable of that name in CEL."""
    kind, request = attributes.kind, attributes.request
    gvk, gvr = _names_of(kind, attributes.form)
    asked_gvk, asked_gvr = _names_of(attributes.requested or kind, attributes.form)
    shown: Object = {
        "uid": str(uuid.uuid4()),
        "kind": gvk,
        "resource": gvr,
        "requestKind": asked_gvk,
        "requestResource": asked_gvr,
        "name": attributes.name,
        "operation": attributes.operation.value,
        "userInfo": user_info(request.user),
        "object": attributes.obj,
        "oldObject": attributes.old,
        "dryRun": request.dry_run,
        "options": _options(attributes),
    }
    if attributes.namespace:
        shown["namespace"] = attributes.namespace
    elif kind.resource == ("", "namespaces"):
        shown["namespace"] = attributes.name
    if attributes.subresource:
        shown["subResource"] = shown["requestSubResource"] = attributes.subresource
    return shown


def _names_of(kind: Kind, form: Kind | None) -> tuple[Object, Object]:
    shown = form or kind
    gvk = {"group": shown.group, "version": shown.version, "kind": shown.kind}
    return gvk, {"group": kind.group, "version": kind.version, "resource": kind.plural}


def user_info(user: User) -> Object:
    shown: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        shown["uid"] = user.uid
    if user.extra:
        shown["extra"] = {key: list(values) for key, values in user.extra.items()}
    return shown


def _options(attributes: Attributes) -> Object | None:
    kind = _OPTIONS.get(attributes.operation)
    if kind is None:
        return None
    options: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if attributes.request.dry_run:
        options["dryRun"] = ["All"]
    if attributes.request.field_manager and kind != "DeleteOptions":
        options["fieldManager"] = attributes.request.field_manager
    return options


def review_of(attributes: Attributes, version: str) -> Object:
    api = f"admission.k8s.io/{version}"
    return {"kind": "AdmissionReview", "apiVersion": api, "request": request_of(attributes)}


def response_of(review: Mapping[str, Any], answer: Any) -> Mapping[str, Any]:
    """The `response` of an answer. Raises Malformed."""
    if not isinstance(answer, dict) or not isinstance(answer.get("response"), dict):
        raise Malformed("webhook response is not an AdmissionReview with a response")
    wanted = review["apiVersion"]
    if answer.get("apiVersion") != wanted or answer.get("kind") != "AdmissionReview":
        found = f"{answer.get('apiVersion')}, Kind={answer.get('kind')}"
        raise Malformed(f"expected webhook response of {wanted}, Kind=AdmissionReview, got {found}")
    response: Mapping[str, Any] = answer["response"]
    uid = review["request"]["uid"]
    if response.get("uid") != uid:
        raise Malformed(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    return response


def patch_of(response: Mapping[str, Any]) -> list[Any]:
    """The JSON patch of a mutating webhook's answer, [] for none. Raises Malformed."""
    text = response.get("patch")
    if not text:
        return []
    if response.get("patchType") != "JSONPatch":
        raise Malformed(f'unsupported patch type "{response.get("patchType") or ""}"')
    try:
        patch = orjson.loads(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error, TypeError) as error:
        raise Malformed(f"the patch is no JSON: {error}") from error
    if not isinstance(patch, list):
        raise Malformed("the patch is no list of operations")
    return patch


def denial(name: str, response: Mapping[str, Any]) -> ApiError:
    """The refusal of a webhook, with its own code and words."""
    given = response.get("status")
    status: Object = dict(given) if isinstance(given, dict) else {}
    said = status.get("message") or status.get("reason")
    refused = f'admission webhook "{name}" denied the request'
    status["message"] = f"{refused}: {said}" if said else f"{refused} without explanation"
    code = status.get("code")
    status["code"] = code if isinstance(code, int) and code >= 400 else 400
    return Denied(status)


class Denied(ApiError):
    """Answered exactly as the webhook wants it: any code, any reason."""

    def __init__(self, status: Object) -> None:
        super().__init__(str(status["message"]), status.get("details"))
        self.code = int(status["code"])  # type: ignore[misc]
        self.reason = str(status.get("reason") or "")  # type: ignore[misc]


def call_failed(name: str, why: str) -> InternalError:
    return InternalError(f'Internal error occurred: failed calling webhook "{name}": {why}', _webhook_cause(why))


def _webhook_cause(why: str) -> Object:
    return {"causes": [{"message": why}]}
