"""The errors of the Kubernetes API and their HTTP form, `Status`.

    ApiError
    ├── BadRequest 400         ├── NotFound 404            ├── Gone 410 (reason Expired)
    ├── Unauthorized 401       ├── MethodNotAllowed 405    ├── TooLarge 413
    ├── Forbidden 403          ├── NotAcceptable 406       ├── UnsupportedMediaType 415
    ├── AlreadyExists 409      ├── Conflict 409            ├── Invalid 422 (carries FieldErrors)
    ├── TooManyRequests 429    ├── InternalError 500       ├── ServiceUnavailable 503
    ├── Unexplained 500        (no reason)
    ├── InsufficientStorage 507
    └── Timeout 504

The server turns every ApiError into a Status reply (`status_of`), clients turn a Status back (`error_from_status`).
Ask by behaviour, not by class where it matters: `error.retryable`. Wording follows
k8s.io/apimachinery/pkg/api/errors and .../util/validation/field, because clients print it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from api.objects import Object


@dataclass(frozen=True)
class Cause:
    """One entry of `Status.details.causes`."""

    reason: str
    message: str
    field: str = ""

    def wire(self) -> Object:
        entry: Object = {"reason": self.reason, "message": self.message}
        if self.field:
            entry["field"] = self.field
        return entry


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field: `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.

    Build with the constructors below (`required`, `invalid`, ...), which know reason and wording.
    """

    field: str
    reason: str
    body: str

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"

    def cause(self) -> Cause:
        return Cause(self.reason, self.body, self.field)


def _shown(value: Any) -> str:
    """A value as Kubernetes prints it in field errors: strings quoted, the rest as JSON, labels sorted, structs not."""
    labels = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if labels and not all(name[:1].isupper() for name in value):  # a struct's Go names
        value = dict(sorted(value.items()))
    return orjson.dumps(value).decode()


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> FieldError:
    body = f"Invalid value: {_shown(value)}: {detail}" if detail else f"Invalid value: {_shown(value)}"
    return FieldError(field, "FieldValueInvalid", body)


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    """A set is listed sorted, a sequence in its own order: Kubernetes does both."""
    choices = sorted(supported) if isinstance(supported, (set, frozenset)) else supported
    listed = ", ".join(f'"{choice}"' for choice in choices)
    body = f"Unsupported value: {_shown(value)}: supported values: {listed}"
    return FieldError(field, "FieldValueNotSupported", body)


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def forbidden(field: str, detail: str) -> FieldError:
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, value: Any, limit: int) -> FieldError:
    del value  # Kubernetes leaves an overlong value out of its own message
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    items = "item" if limit == 1 else "items"
    return FieldError(field, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} {items}")


def internal(field: str, detail: str) -> FieldError:
    return FieldError(field, "InternalError", f"Internal error: {detail}")


def not_found_value(field: str, value: Any) -> FieldError:
    return FieldError(field, "FieldValueNotFound", f"Not found: {_shown(value)}")


class ApiError(Exception):
    """A refusal the client sees. `message` is one sentence; `details` is `Status.details`."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: Object = dict(details or {})
        self.bare = details is not None
        """Kubernetes shows an empty `details` for errors it made up without an object."""
        self.metadata: Object = {}
        """ListMeta of the Status: an expired list carries the token that goes on inconsistently."""


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    """Somebody else wrote first: read again, decide again."""

    code, reason = 409, "Conflict"


class Gone(ApiError):
    """The asked-for version is no longer kept: list again."""

    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason, retryable = 429, "TooManyRequests", True


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class Unexplained(ApiError):
    """A plain Go error in Kubernetes: 500 without a reason. Only where clients see exactly that there."""

    code, reason = 500, ""


class ServiceUnavailable(ApiError):
    code, reason, retryable = 503, "ServiceUnavailable", True


class Timeout(ApiError):
    """The outcome is unknown or the server ran out of time; the request may have taken effect."""

    code, reason, retryable = 504, "Timeout", True


class InsufficientStorage(ApiError):
    """Nothing was written, and trying again helps only once somebody has made room: clients are not told to wait."""

    code, reason, retryable = 507, "InsufficientStorage", True


_FAMILY: tuple[type[ApiError], ...] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    TooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
    InsufficientStorage,
)
_BY_REASON = {family.reason: family for family in _FAMILY} | {"Gone": Gone}
_BY_CODE = {family.code: family for family in reversed(_FAMILY)} | {409: Conflict}


def qualified(group: str, plural: str) -> str:
    """`deployments.apps`, or just `pods` in the core group: how messages name a resource."""
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> NotFound:
    message = f'{qualified(group, plural)} "{name}" not found'
    return NotFound(message, _details(name, group, plural))


def already_exists(group: str, plural: str, name: str) -> AlreadyExists:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return AlreadyExists(message, _details(name, group, plural))


def conflict(group: str, plural: str, name: str, why: str = "") -> Conflict:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return Conflict(message, _details(name, group, plural))


def invalid_object(group: str, kind: str, name: str, errors: Iterable[FieldError]) -> Invalid:
    """422 for an object whose fields break rules; one cause a field error."""
    found = list(errors)
    texts = list(dict.fromkeys(str(error) for error in found))  # the message says each once, the causes do not
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _details(name, group, kind)
    details["causes"] = [error.cause().wire() for error in found]
    return Invalid(f'{qualified(group, kind)} "{name}" is invalid: {listed}', details)


def _details(name: str, group: str, kind: str) -> Object:
    details: Object = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    return details


def status_of(error: ApiError) -> Object:
    """The `Status` object of an error; its `code` is also the HTTP status."""
    status: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": error.metadata,
        "status": "Failure",
        "message": error.message,
    }
    if error.reason:
        status["reason"] = error.reason
    if error.details or error.bare:
        status["details"] = error.details
    status["code"] = error.code
    return status


def error_from_status(status: Mapping[str, Any]) -> ApiError:
    """The error a `Status` reply stands for: by reason, else by code, else InternalError."""
    code = status.get("code") or 500
    family = _BY_REASON.get(status.get("reason") or "") or _BY_CODE.get(code) or InternalError
    return family(status.get("message") or f"the server answered {code}", status.get("details"))
